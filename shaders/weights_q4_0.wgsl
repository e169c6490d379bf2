// Q4_0: d·(q − 8), q of four bits.

const RECORD: u32 = 9u;

fn quants(word: u32) -> vec4<f32> {
    return vec4<f32>(nibbles(word)) - 8.0;
}

// Block `quad` of four outputs in `row` of four inputs, as a matrix that takes four inputs to what they add to four outputs.
fn weight_block(row: u32, quad: u32, out_quads: u32) -> mat4x4<f32> {
    let at = record(row, quad, out_quads);
    let d = halves(weight[at]);
    let q = weight[at + 1u + row % 8u];
    return mat4x4<f32>(d * quants(q.x), d * quants(q.x >> 16u), d * quants(q.y), d * quants(q.y >> 16u));
}
