// Weight matrices stored as f32: blocks of 4 inputs × 4 outputs, the four outputs of one input together.
// Twin in interface: weights_f16.wgsl.

@group(0) @binding(2) var<storage, read> weight: array<mat4x4<f32>>;

// A block as a matrix that takes four inputs to what they add to four outputs.
fn weight_block(index: u32) -> mat4x4<f32> {
    return weight[index];
}
