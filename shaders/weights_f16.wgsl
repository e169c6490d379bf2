// Weight matrices stored as f16: blocks of 4 inputs × 4 outputs, the four outputs of one input together.
// Twins in interface: the other weights_*.wgsl.

struct PackedBlock {
    inputs_01: vec4<u32>,
    inputs_23: vec4<u32>,
}

@group(0) @binding(2) var<storage, read> weight: array<PackedBlock>;

// Block `quad` of four outputs in `row` of four inputs, as a matrix that takes four inputs to what they add to four outputs.
fn weight_block(row: u32, quad: u32, out_quads: u32) -> mat4x4<f32> {
    let packed = weight[row * out_quads + quad];
    return mat4x4<f32>(
        vec4<f32>(unpack2x16float(packed.inputs_01.x), unpack2x16float(packed.inputs_01.y)),
        vec4<f32>(unpack2x16float(packed.inputs_01.z), unpack2x16float(packed.inputs_01.w)),
        vec4<f32>(unpack2x16float(packed.inputs_23.x), unpack2x16float(packed.inputs_23.y)),
        vec4<f32>(unpack2x16float(packed.inputs_23.z), unpack2x16float(packed.inputs_23.w)),
    );
}
