// 2-D convolution plus bias plus residual: any kernel, stride and padding.
//
// Bindings: 0 parameters, 1 x [batch, in_height, in_width, in_channels], 2 weight [kernel_height, kernel_width, in_channels / 4,
// out_channels / 4] blocks, 3 bias [out_channels], 4 residual, 5 y [batch, out_height, out_width, out_channels].
// Launch: one invocation for each tile of 4×4 pixels × 8 output channels, tiles of the same pixels side by side.
// The tile lives in registers with the loops over it written out (see linear.wgsl); borders are tested once for each tap, not
// for each channel.
// CPU twin: src/twin/convolution.rs.

@compute @workgroup_size(WORKGROUP)
fn conv2d(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
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
    let step = i32(p.stride);

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
    for (var ky = 0u; ky < p.kernel_height; ky++) {
        let line = i32(y * p.stride + ky) - i32(p.pad_top);
        let l0 = line_start(batch, line + 0 * step);
        let in_l0 = inside(line + 0 * step, p.in_height);
        let l1 = line_start(batch, line + 1 * step);
        let in_l1 = inside(line + 1 * step, p.in_height);
        let l2 = line_start(batch, line + 2 * step);
        let in_l2 = inside(line + 2 * step, p.in_height);
        let l3 = line_start(batch, line + 3 * step);
        let in_l3 = inside(line + 3 * step, p.in_height);
        for (var kx = 0u; kx < p.kernel_width; kx++) {
            let column = i32(x * p.stride + kx) - i32(p.pad_left);
            let c0 = column_start(column + 0 * step);
            let in_c0 = inside(column + 0 * step, p.in_width);
            let c1 = column_start(column + 1 * step);
            let in_c1 = inside(column + 1 * step, p.in_width);
            let c2 = column_start(column + 2 * step);
            let in_c2 = inside(column + 2 * step, p.in_width);
            let c3 = column_start(column + 3 * step);
            let in_c3 = inside(column + 3 * step, p.in_width);
            let blocks = (ky * p.kernel_width + kx) * in_quads;
            for (var i = 0u; i < in_quads; i++) {
                let a = weight_block(blocks + i, quad, out_quads);
                let b = weight_block(blocks + i, next_quad, out_quads);
                let v00 = load(l0 + c0, i, in_l0 && in_c0);
                a00 += a * v00;
                b00 += b * v00;
                let v01 = load(l0 + c1, i, in_l0 && in_c1);
                a01 += a * v01;
                b01 += b * v01;
                let v02 = load(l0 + c2, i, in_l0 && in_c2);
                a02 += a * v02;
                b02 += b * v02;
                let v03 = load(l0 + c3, i, in_l0 && in_c3);
                a03 += a * v03;
                b03 += b * v03;
                let v10 = load(l1 + c0, i, in_l1 && in_c0);
                a10 += a * v10;
                b10 += b * v10;
                let v11 = load(l1 + c1, i, in_l1 && in_c1);
                a11 += a * v11;
                b11 += b * v11;
                let v12 = load(l1 + c2, i, in_l1 && in_c2);
                a12 += a * v12;
                b12 += b * v12;
                let v13 = load(l1 + c3, i, in_l1 && in_c3);
                a13 += a * v13;
                b13 += b * v13;
                let v20 = load(l2 + c0, i, in_l2 && in_c0);
                a20 += a * v20;
                b20 += b * v20;
                let v21 = load(l2 + c1, i, in_l2 && in_c1);
                a21 += a * v21;
                b21 += b * v21;
                let v22 = load(l2 + c2, i, in_l2 && in_c2);
                a22 += a * v22;
                b22 += b * v22;
                let v23 = load(l2 + c3, i, in_l2 && in_c3);
                a23 += a * v23;
                b23 += b * v23;
                let v30 = load(l3 + c0, i, in_l3 && in_c0);
                a30 += a * v30;
                b30 += b * v30;
                let v31 = load(l3 + c1, i, in_l3 && in_c1);
                a31 += a * v31;
                b31 += b * v31;
                let v32 = load(l3 + c2, i, in_l3 && in_c2);
                a32 += a * v32;
                b32 += b * v32;
                let v33 = load(l3 + c3, i, in_l3 && in_c3);
                a33 += a * v33;
                b33 += b * v33;
            }
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
