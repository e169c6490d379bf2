// Q8_0: d·q, q a signed byte.

const RECORD: u32 = 17u;

fn signed_bytes(word: u32) -> vec4<f32> {
    return vec4<f32>((vec4<i32>(i32(word)) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u));
}

// Block `quad` of four outputs in `row` of four inputs, as a matrix that takes four inputs to what they add to four outputs.
fn weight_block(row: u32, quad: u32, out_quads: u32) -> mat4x4<f32> {
    let at = record(row, quad, out_quads);
    let d = halves(weight[at]);
    let q01 = weight[at + 1u + row % 8u * 2u];
    let q23 = weight[at + 2u + row % 8u * 2u];
    return mat4x4<f32>(
        d * signed_bytes(q01.x),
        d * signed_bytes(q01.y),
        d * signed_bytes(q23.x),
        d * signed_bytes(q23.y),
    );
}
