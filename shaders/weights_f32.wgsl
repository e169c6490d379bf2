// Weight matrices stored as f32: blocks of 4 inputs × 4 outputs, the four outputs of one input together.
// Twins in interface: the other weights_*.wgsl.

@group(0) @binding(2) var<storage, read> weight: array<mat4x4<f32>>;

// Block `quad` of four outputs in `row` of four inputs, as a matrix that takes four inputs to what they add to four outputs.
fn weight_block(row: u32, quad: u32, out_quads: u32) -> mat4x4<f32> {
    return weight[row * out_quads + quad];
}
