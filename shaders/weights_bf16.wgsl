// Weight matrices stored as bf16, the upper half of an f32: blocks of 4 inputs × 4 outputs, the four outputs of one input together.
// Twins in interface: the other weights_*.wgsl.

struct PackedBlock {
    inputs_01: vec4<u32>,
    inputs_23: vec4<u32>,
}

@group(0) @binding(2) var<storage, read> weight: array<PackedBlock>;

fn unpack_bf16(words: vec2<u32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(words.x << 16u, words.x & 0xffff0000u, words.y << 16u, words.y & 0xffff0000u));
}

// Block `quad` of four outputs in `row` of four inputs, as a matrix that takes four inputs to what they add to four outputs.
fn weight_block(row: u32, quad: u32, out_quads: u32) -> mat4x4<f32> {
    let packed = weight[row * out_quads + quad];
    return mat4x4<f32>(
        unpack_bf16(packed.inputs_01.xy),
        unpack_bf16(packed.inputs_01.zw),
        unpack_bf16(packed.inputs_23.xy),
        unpack_bf16(packed.inputs_23.zw),
    );
}
