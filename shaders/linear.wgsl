// y = x Wᵀ + bias + residual over rows of channels: linear layers and 1×1 convolutions.
//
// Bindings: 0 parameters, 1 x [rows, in_channels], 2 weight [in_channels / 4, out_channels / 4] blocks, 3 bias [out_channels],
// 4 residual [rows / rows_per_residual, out_channels], 5 y [rows, out_channels].
// Launch: one invocation for each tile of 16 rows × 8 output channels, tiles of the same rows side by side.
// The tile lives in registers, without workgroup memory and with the loops over it written out: on software adapters loads are
// the cost, and no compiler unrolls.
// CPU twin: src/twin/convolution.rs.

const WORKGROUP: u32 = 16u;

struct Parameters {
    invocations: u32,
    rows: u32,
    in_channels: u32,
    out_channels: u32,
    has_bias: u32,
    // Consecutive rows that share a row of the residual; 0 if there is none.
    rows_per_residual: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn linear(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.y * groups.x * WORKGROUP + id.x;
    if index >= p.invocations {
        return;
    }
    let in_quads = (p.in_channels + 3u) / 4u;
    let out_quads = (p.out_channels + 3u) / 4u;
    let tiles = (out_quads + 1u) / 2u;
    let quad = index % tiles * 2u;
    let next_quad = min(quad + 1u, out_quads - 1u);
    let row = index / tiles * 16u;
    let last = p.rows - 1u;

    let x0 = start_of(min(row + 0u, last), p.in_channels);
    let x1 = start_of(min(row + 1u, last), p.in_channels);
    let x2 = start_of(min(row + 2u, last), p.in_channels);
    let x3 = start_of(min(row + 3u, last), p.in_channels);
    let x4 = start_of(min(row + 4u, last), p.in_channels);
    let x5 = start_of(min(row + 5u, last), p.in_channels);
    let x6 = start_of(min(row + 6u, last), p.in_channels);
    let x7 = start_of(min(row + 7u, last), p.in_channels);
    let x8 = start_of(min(row + 8u, last), p.in_channels);
    let x9 = start_of(min(row + 9u, last), p.in_channels);
    let x10 = start_of(min(row + 10u, last), p.in_channels);
    let x11 = start_of(min(row + 11u, last), p.in_channels);
    let x12 = start_of(min(row + 12u, last), p.in_channels);
    let x13 = start_of(min(row + 13u, last), p.in_channels);
    let x14 = start_of(min(row + 14u, last), p.in_channels);
    let x15 = start_of(min(row + 15u, last), p.in_channels);

    var bias_a = vec4<f32>();
    var bias_b = vec4<f32>();
    if p.has_bias != 0u {
        bias_a = bias[quad];
        bias_b = bias[next_quad];
    }
    var a0 = bias_a;
    var b0 = bias_b;
    var a1 = bias_a;
    var b1 = bias_b;
    var a2 = bias_a;
    var b2 = bias_b;
    var a3 = bias_a;
    var b3 = bias_b;
    var a4 = bias_a;
    var b4 = bias_b;
    var a5 = bias_a;
    var b5 = bias_b;
    var a6 = bias_a;
    var b6 = bias_b;
    var a7 = bias_a;
    var b7 = bias_b;
    var a8 = bias_a;
    var b8 = bias_b;
    var a9 = bias_a;
    var b9 = bias_b;
    var a10 = bias_a;
    var b10 = bias_b;
    var a11 = bias_a;
    var b11 = bias_b;
    var a12 = bias_a;
    var b12 = bias_b;
    var a13 = bias_a;
    var b13 = bias_b;
    var a14 = bias_a;
    var b14 = bias_b;
    var a15 = bias_a;
    var b15 = bias_b;
    for (var i = 0u; i < in_quads; i++) {
        let a = weight_block(i, quad, out_quads);
        let b = weight_block(i, next_quad, out_quads);
        let v0 = first_quad(x0, i, p.in_channels);
        a0 += a * v0;
        b0 += b * v0;
        let v1 = first_quad(x1, i, p.in_channels);
        a1 += a * v1;
        b1 += b * v1;
        let v2 = first_quad(x2, i, p.in_channels);
        a2 += a * v2;
        b2 += b * v2;
        let v3 = first_quad(x3, i, p.in_channels);
        a3 += a * v3;
        b3 += b * v3;
        let v4 = first_quad(x4, i, p.in_channels);
        a4 += a * v4;
        b4 += b * v4;
        let v5 = first_quad(x5, i, p.in_channels);
        a5 += a * v5;
        b5 += b * v5;
        let v6 = first_quad(x6, i, p.in_channels);
        a6 += a * v6;
        b6 += b * v6;
        let v7 = first_quad(x7, i, p.in_channels);
        a7 += a * v7;
        b7 += b * v7;
        let v8 = first_quad(x8, i, p.in_channels);
        a8 += a * v8;
        b8 += b * v8;
        let v9 = first_quad(x9, i, p.in_channels);
        a9 += a * v9;
        b9 += b * v9;
        let v10 = first_quad(x10, i, p.in_channels);
        a10 += a * v10;
        b10 += b * v10;
        let v11 = first_quad(x11, i, p.in_channels);
        a11 += a * v11;
        b11 += b * v11;
        let v12 = first_quad(x12, i, p.in_channels);
        a12 += a * v12;
        b12 += b * v12;
        let v13 = first_quad(x13, i, p.in_channels);
        a13 += a * v13;
        b13 += b * v13;
        let v14 = first_quad(x14, i, p.in_channels);
        a14 += a * v14;
        b14 += b * v14;
        let v15 = first_quad(x15, i, p.in_channels);
        a15 += a * v15;
        b15 += b * v15;
    }

    // An array, and a loop over it that is not written out: half of a compiler's time would go into 32 copies of the epilogue.
    var sums = array<vec4<f32>, 32>(
        a0, b0,
        a1, b1,
        a2, b2,
        a3, b3,
        a4, b4,
        a5, b5,
        a6, b6,
        a7, b7,
        a8, b8,
        a9, b9,
        a10, b10,
        a11, b11,
        a12, b12,
        a13, b13,
        a14, b14,
        a15, b15,
    );
    for (var i = 0u; i < 32u; i++) {
        let at = row + i / 2u;
        let to = quad + i % 2u;
        if at < p.rows && to < out_quads {
            var value = sums[i];
            if p.rows_per_residual != 0u {
                value += second_quad(start_of(at / p.rows_per_residual, p.out_channels), to, p.out_channels);
            }
            store_quad(start_of(at, p.out_channels), to, p.out_channels, value);
        }
    }
}
