// 3×3 convolution of stride 1 plus bias plus residual, any padding: the kernel in which a UNet spends most of its time.
//
// Bindings: 0 parameters, 1 x [batch, in_height, in_width, in_channels], 2 weight [3, 3, in_channels / 4, out_channels / 4] blocks,
// 3 bias [out_channels], 4 residual, 5 y [batch, out_height, out_width, out_channels].
// Launch: one invocation for each tile of 4×4 pixels × 8 output channels, tiles of the same pixels side by side.
// As conv2d.wgsl, but the three taps of a kernel row are written out, so that each pixel is loaded once for all of them.
// CPU twin: src/twin/convolution.rs.

@compute @workgroup_size(WORKGROUP)
fn conv3x3(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.y * groups.x * WORKGROUP + id.x;
    if index >= p.invocations {
        return;
    }
    let in_quads = (p.in_channels + 3u) / 4u;
    let out_quads = (p.out_channels + 3u) / 4u;
    let tiles = (out_quads + 1u) / 2u;
    let columns = (p.out_width + 3u) / 4u;
    let lines = (p.out_height + 3u) / 4u;
    let quad = index % tiles * 2u;
    let next_quad = min(quad + 1u, out_quads - 1u);
    let x = index / tiles % columns * 4u;
    let y = index / (tiles * columns) % lines * 4u;
    let batch = index / (tiles * columns * lines);
    let column = i32(x) - i32(p.pad_left);
    let c0 = column_start(column + 0);
    let in_c0 = inside(column + 0, p.in_width);
    let c1 = column_start(column + 1);
    let in_c1 = inside(column + 1, p.in_width);
    let c2 = column_start(column + 2);
    let in_c2 = inside(column + 2, p.in_width);
    let c3 = column_start(column + 3);
    let in_c3 = inside(column + 3, p.in_width);
    let c4 = column_start(column + 4);
    let in_c4 = inside(column + 4, p.in_width);
    let c5 = column_start(column + 5);
    let in_c5 = inside(column + 5, p.in_width);

    var bias_a = vec4<f32>();
    var bias_b = vec4<f32>();
    if p.has_bias != 0u {
        bias_a = bias[quad];
        bias_b = bias[next_quad];
    }
    var a00 = bias_a;
    var b00 = bias_b;
    var a01 = bias_a;
    var b01 = bias_b;
    var a02 = bias_a;
    var b02 = bias_b;
    var a03 = bias_a;
    var b03 = bias_b;
    var a10 = bias_a;
    var b10 = bias_b;
    var a11 = bias_a;
    var b11 = bias_b;
    var a12 = bias_a;
    var b12 = bias_b;
    var a13 = bias_a;
    var b13 = bias_b;
    var a20 = bias_a;
    var b20 = bias_b;
    var a21 = bias_a;
    var b21 = bias_b;
    var a22 = bias_a;
    var b22 = bias_b;
    var a23 = bias_a;
    var b23 = bias_b;
    var a30 = bias_a;
    var b30 = bias_b;
    var a31 = bias_a;
    var b31 = bias_b;
    var a32 = bias_a;
    var b32 = bias_b;
    var a33 = bias_a;
    var b33 = bias_b;
    for (var ky = 0u; ky < 3u; ky++) {
        let line = i32(y + ky) - i32(p.pad_top);
        let l0 = line_start(batch, line + 0);
        let in_l0 = inside(line + 0, p.in_height);
        let l1 = line_start(batch, line + 1);
        let in_l1 = inside(line + 1, p.in_height);
        let l2 = line_start(batch, line + 2);
        let in_l2 = inside(line + 2, p.in_height);
        let l3 = line_start(batch, line + 3);
        let in_l3 = inside(line + 3, p.in_height);
        for (var i = 0u; i < in_quads; i++) {
            let v00 = load(l0 + c0, i, in_l0 && in_c0);
            let v01 = load(l0 + c1, i, in_l0 && in_c1);
            let v02 = load(l0 + c2, i, in_l0 && in_c2);
            let v03 = load(l0 + c3, i, in_l0 && in_c3);
            let v04 = load(l0 + c4, i, in_l0 && in_c4);
            let v05 = load(l0 + c5, i, in_l0 && in_c5);
            let v10 = load(l1 + c0, i, in_l1 && in_c0);
            let v11 = load(l1 + c1, i, in_l1 && in_c1);
            let v12 = load(l1 + c2, i, in_l1 && in_c2);
            let v13 = load(l1 + c3, i, in_l1 && in_c3);
            let v14 = load(l1 + c4, i, in_l1 && in_c4);
            let v15 = load(l1 + c5, i, in_l1 && in_c5);
            let v20 = load(l2 + c0, i, in_l2 && in_c0);
            let v21 = load(l2 + c1, i, in_l2 && in_c1);
            let v22 = load(l2 + c2, i, in_l2 && in_c2);
            let v23 = load(l2 + c3, i, in_l2 && in_c3);
            let v24 = load(l2 + c4, i, in_l2 && in_c4);
            let v25 = load(l2 + c5, i, in_l2 && in_c5);
            let v30 = load(l3 + c0, i, in_l3 && in_c0);
            let v31 = load(l3 + c1, i, in_l3 && in_c1);
            let v32 = load(l3 + c2, i, in_l3 && in_c2);
            let v33 = load(l3 + c3, i, in_l3 && in_c3);
            let v34 = load(l3 + c4, i, in_l3 && in_c4);
            let v35 = load(l3 + c5, i, in_l3 && in_c5);

            let w0a = weight_block((ky * 3u + 0u) * in_quads + i, quad, out_quads);
            let w0b = weight_block((ky * 3u + 0u) * in_quads + i, next_quad, out_quads);
            a00 += w0a * v00;
            b00 += w0b * v00;
            a01 += w0a * v01;
            b01 += w0b * v01;
            a02 += w0a * v02;
            b02 += w0b * v02;
            a03 += w0a * v03;
            b03 += w0b * v03;
            a10 += w0a * v10;
            b10 += w0b * v10;
            a11 += w0a * v11;
            b11 += w0b * v11;
            a12 += w0a * v12;
            b12 += w0b * v12;
            a13 += w0a * v13;
            b13 += w0b * v13;
            a20 += w0a * v20;
            b20 += w0b * v20;
            a21 += w0a * v21;
            b21 += w0b * v21;
            a22 += w0a * v22;
            b22 += w0b * v22;
            a23 += w0a * v23;
            b23 += w0b * v23;
            a30 += w0a * v30;
            b30 += w0b * v30;
            a31 += w0a * v31;
            b31 += w0b * v31;
            a32 += w0a * v32;
            b32 += w0b * v32;
            a33 += w0a * v33;
            b33 += w0b * v33;

            let w1a = weight_block((ky * 3u + 1u) * in_quads + i, quad, out_quads);
            let w1b = weight_block((ky * 3u + 1u) * in_quads + i, next_quad, out_quads);
            a00 += w1a * v01;
            b00 += w1b * v01;
            a01 += w1a * v02;
            b01 += w1b * v02;
            a02 += w1a * v03;
            b02 += w1b * v03;
            a03 += w1a * v04;
            b03 += w1b * v04;
            a10 += w1a * v11;
            b10 += w1b * v11;
            a11 += w1a * v12;
            b11 += w1b * v12;
            a12 += w1a * v13;
            b12 += w1b * v13;
            a13 += w1a * v14;
            b13 += w1b * v14;
            a20 += w1a * v21;
            b20 += w1b * v21;
            a21 += w1a * v22;
            b21 += w1b * v22;
            a22 += w1a * v23;
            b22 += w1b * v23;
            a23 += w1a * v24;
            b23 += w1b * v24;
            a30 += w1a * v31;
            b30 += w1b * v31;
            a31 += w1a * v32;
            b31 += w1b * v32;
            a32 += w1a * v33;
            b32 += w1b * v33;
            a33 += w1a * v34;
            b33 += w1b * v34;

            let w2a = weight_block((ky * 3u + 2u) * in_quads + i, quad, out_quads);
            let w2b = weight_block((ky * 3u + 2u) * in_quads + i, next_quad, out_quads);
            a00 += w2a * v02;
            b00 += w2b * v02;
            a01 += w2a * v03;
            b01 += w2b * v03;
            a02 += w2a * v04;
            b02 += w2b * v04;
            a03 += w2a * v05;
            b03 += w2b * v05;
            a10 += w2a * v12;
            b10 += w2b * v12;
            a11 += w2a * v13;
            b11 += w2b * v13;
            a12 += w2a * v14;
            b12 += w2b * v14;
            a13 += w2a * v15;
            b13 += w2b * v15;
            a20 += w2a * v22;
            b20 += w2b * v22;
            a21 += w2a * v23;
            b21 += w2b * v23;
            a22 += w2a * v24;
            b22 += w2b * v24;
            a23 += w2a * v25;
            b23 += w2b * v25;
            a30 += w2a * v32;
            b30 += w2b * v32;
            a31 += w2a * v33;
            b31 += w2b * v33;
            a32 += w2a * v34;
            b32 += w2b * v34;
            a33 += w2a * v35;
            b33 += w2b * v35;
        }
    }

    // A loop that is not written out, as in linear.wgsl.
    var sums = array<vec4<f32>, 32>(
        a00, b00,
        a01, b01,
        a02, b02,
        a03, b03,
        a10, b10,
        a11, b11,
        a12, b12,
        a13, b13,
        a20, b20,
        a21, b21,
        a22, b22,
        a23, b23,
        a30, b30,
        a31, b31,
        a32, b32,
        a33, b33,
    );
    for (var i = 0u; i < 32u; i++) {
        let line = y + i / 8u;
        let column = x + i / 2u % 4u;
        let to = quad + i % 2u;
        if line < p.out_height && column < p.out_width && to < out_quads {
            let pixel = (batch * p.out_height + line) * p.out_width + column;
            var value = sums[i];
            if p.residual != 0u {
                let row = select(batch, pixel, p.residual == 1u);
                value += second_quad(start_of(row, p.out_channels), to, p.out_channels);
            }
            store_quad(start_of(pixel, p.out_channels), to, p.out_channels, value);
        }
    }
}
