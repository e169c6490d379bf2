// What weights_q*.wgsl share: matrices of ggml's blocks of 32 inputs × 1 output, which repack.wgsl has turned into records
// [in / 32, out / 4] of 32 inputs × 4 outputs. A record has the four scales as f16, then the four minima if the format has them,
// then fifth bits if it has them (a bit for each output of an input, 16 of each 4 inputs), then the quants: for each input
// four bytes or nibbles, one for each output.
// A fragment after this one says what a quant stands for, and how many pairs of words a record takes.

@group(0) @binding(2) var<storage, read> weight: array<vec2<u32>>;

// Four f16.
fn halves(words: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}

// The lowest four nibbles.
fn nibbles(word: u32) -> vec4<u32> {
    return (vec4<u32>(word) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u);
}

// The lowest four bits, as the fifth of a quant each.
fn fifth_bits(word: u32) -> vec4<u32> {
    return (vec4<u32>(word << 4u) >> vec4<u32>(0u, 1u, 2u, 3u)) & vec4<u32>(16u);
}

// Where the record of block `quad` of four outputs in `row` of four inputs begins.
fn record(row: u32, quad: u32, out_quads: u32) -> u32 {
    return (row / 8u * out_quads + quad) * RECORD;
}
