// Q5_1: d·q + m, q of five bits.

const RECORD: u32 = 12u;

fn quants(word: u32, fifth: u32) -> vec4<f32> {
    return vec4<f32>(nibbles(word) | fifth_bits(fifth));
}

// Block `quad` of four outputs in `row` of four inputs, as a matrix that takes four inputs to what they add to four outputs.
fn weight_block(row: u32, quad: u32, out_quads: u32) -> mat4x4<f32> {
    let at = record(row, quad, out_quads);
    let d = halves(weight[at]);
    let m = halves(weight[at + 1u]);
    let fifths = weight[at + 2u + row / 4u % 2u];
    let h = select(fifths.x, fifths.y, row / 2u % 2u == 1u) >> (row % 2u * 16u);
    let q = weight[at + 4u + row % 8u];
    return mat4x4<f32>(
        d * quants(q.x, h) + m,
        d * quants(q.x >> 16u, h >> 4u) + m,
        d * quants(q.y, h >> 8u) + m,
        d * quants(q.y >> 16u, h >> 12u) + m,
    );
}
