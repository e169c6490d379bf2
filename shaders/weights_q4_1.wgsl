// Q4_1: d·q + m, q of four bits.

const RECORD: u32 = 10u;

fn quants(word: u32) -> vec4<f32> {
    return vec4<f32>(nibbles(word));
}

// Block `quad` of four outputs in `row` of four inputs, as a matrix that takes four inputs to what they add to four outputs.
fn weight_block(row: u32, quad: u32, out_quads: u32) -> mat4x4<f32> {
    let at = record(row, quad, out_quads);
    let d = halves(weight[at]);
    let m = halves(weight[at + 1u]);
    let q = weight[at + 2u + row % 8u];
    return mat4x4<f32>(
        d * quants(q.x) + m,
        d * quants(q.x >> 16u) + m,
        d * quants(q.y) + m,
        d * quants(q.y >> 16u) + m,
    );
}
