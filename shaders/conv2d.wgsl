// 2-D convolution plus bias plus residual: any kernel, stride and padding.
//
// Bindings: 0 parameters, 1 x [batch, in_height, in_width, in_channels], 2 weight [kernel_height, kernel_width, in_channels / 4,
// out_channels / 4] blocks, 3 bias [out_channels], 4 residual, 5 y [batch, out_height, out_width, out_channels].
// Launch: one invocation for each tile of 4×4 pixels × 8 output channels, tiles of the same pixels side by side.
// The tile lives in registers with the loops over it written out (see linear.wgsl); borders are tested once for each tap, not
// for each channel.
// CPU twin: src/cpu/convolution.rs.

const WORKGROUP: u32 = 16u;

struct Parameters {
    invocations: u32,
    in_height: u32,
    in_width: u32,
    in_channels: u32,
    out_height: u32,
    out_width: u32,
    out_channels: u32,
    kernel_height: u32,
    kernel_width: u32,
    stride: u32,
    pad_top: u32,
    pad_left: u32,
    has_bias: u32,
    // 0: none, 1: of the result's shape, 2: one pixel for each picture.
    residual: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;

fn finish(batch: u32, y: u32, x: u32, quad: u32, sum: vec4<f32>) {
    if y >= p.out_height || x >= p.out_width || quad * 4u >= p.out_channels {
        return;
    }
    let pixel = (batch * p.out_height + y) * p.out_width + x;
    var value = sum;
    if p.has_bias != 0u {
        value += bias[quad];
    }
    if p.residual != 0u {
        let row = select(batch, pixel, p.residual == 1u);
        value += second_quad(start_of(row, p.out_channels), quad, p.out_channels);
    }
    store_quad(start_of(pixel, p.out_channels), quad, p.out_channels, value);
}

// The offset of a tap's pixel or -1 outside of the picture.
fn tap(line: i32, column: i32, batch: u32) -> i32 {
    if line < 0 || line >= i32(p.in_height) || column < 0 || column >= i32(p.in_width) {
        return -1;
    }
    return i32((batch * p.in_height + u32(line)) * p.in_width + u32(column));
}

fn load(pixel: i32, quad: u32) -> vec4<f32> {
    let value = first_quad(start_of(u32(max(pixel, 0)), p.in_channels), quad, p.in_channels);
    return select(vec4<f32>(), value, pixel >= 0);
}

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

    var a00 = vec4<f32>();
    var b00 = vec4<f32>();
    var a01 = vec4<f32>();
    var b01 = vec4<f32>();
    var a02 = vec4<f32>();
    var b02 = vec4<f32>();
    var a03 = vec4<f32>();
    var b03 = vec4<f32>();
    var a10 = vec4<f32>();
    var b10 = vec4<f32>();
    var a11 = vec4<f32>();
    var b11 = vec4<f32>();
    var a12 = vec4<f32>();
    var b12 = vec4<f32>();
    var a13 = vec4<f32>();
    var b13 = vec4<f32>();
    var a20 = vec4<f32>();
    var b20 = vec4<f32>();
    var a21 = vec4<f32>();
    var b21 = vec4<f32>();
    var a22 = vec4<f32>();
    var b22 = vec4<f32>();
    var a23 = vec4<f32>();
    var b23 = vec4<f32>();
    var a30 = vec4<f32>();
    var b30 = vec4<f32>();
    var a31 = vec4<f32>();
    var b31 = vec4<f32>();
    var a32 = vec4<f32>();
    var b32 = vec4<f32>();
    var a33 = vec4<f32>();
    var b33 = vec4<f32>();

    for (var ky = 0u; ky < p.kernel_height; ky++) {
        for (var kx = 0u; kx < p.kernel_width; kx++) {
            let line = i32(y * p.stride + ky) - i32(p.pad_top);
            let column = i32(x * p.stride + kx) - i32(p.pad_left);
            let step = i32(p.stride);
            let p00 = tap(line + 0 * step, column + 0 * step, batch);
            let p01 = tap(line + 0 * step, column + 1 * step, batch);
            let p02 = tap(line + 0 * step, column + 2 * step, batch);
            let p03 = tap(line + 0 * step, column + 3 * step, batch);
            let p10 = tap(line + 1 * step, column + 0 * step, batch);
            let p11 = tap(line + 1 * step, column + 1 * step, batch);
            let p12 = tap(line + 1 * step, column + 2 * step, batch);
            let p13 = tap(line + 1 * step, column + 3 * step, batch);
            let p20 = tap(line + 2 * step, column + 0 * step, batch);
            let p21 = tap(line + 2 * step, column + 1 * step, batch);
            let p22 = tap(line + 2 * step, column + 2 * step, batch);
            let p23 = tap(line + 2 * step, column + 3 * step, batch);
            let p30 = tap(line + 3 * step, column + 0 * step, batch);
            let p31 = tap(line + 3 * step, column + 1 * step, batch);
            let p32 = tap(line + 3 * step, column + 2 * step, batch);
            let p33 = tap(line + 3 * step, column + 3 * step, batch);
            let blocks = (ky * p.kernel_width + kx) * in_quads;
            for (var i = 0u; i < in_quads; i++) {
                let a = weight_block((blocks + i) * out_quads + quad);
                let b = weight_block((blocks + i) * out_quads + next_quad);
                let v00 = load(p00, i);
                a00 += a * v00;
                b00 += b * v00;
                let v01 = load(p01, i);
                a01 += a * v01;
                b01 += b * v01;
                let v02 = load(p02, i);
                a02 += a * v02;
                b02 += b * v02;
                let v03 = load(p03, i);
                a03 += a * v03;
                b03 += b * v03;
                let v10 = load(p10, i);
                a10 += a * v10;
                b10 += b * v10;
                let v11 = load(p11, i);
                a11 += a * v11;
                b11 += b * v11;
                let v12 = load(p12, i);
                a12 += a * v12;
                b12 += b * v12;
                let v13 = load(p13, i);
                a13 += a * v13;
                b13 += b * v13;
                let v20 = load(p20, i);
                a20 += a * v20;
                b20 += b * v20;
                let v21 = load(p21, i);
                a21 += a * v21;
                b21 += b * v21;
                let v22 = load(p22, i);
                a22 += a * v22;
                b22 += b * v22;
                let v23 = load(p23, i);
                a23 += a * v23;
                b23 += b * v23;
                let v30 = load(p30, i);
                a30 += a * v30;
                b30 += b * v30;
                let v31 = load(p31, i);
                a31 += a * v31;
                b31 += b * v31;
                let v32 = load(p32, i);
                a32 += a * v32;
                b32 += b * v32;
                let v33 = load(p33, i);
                a33 += a * v33;
                b33 += b * v33;
            }
        }
    }
    finish(batch, y + 0u, x + 0u, quad, a00);
    finish(batch, y + 0u, x + 0u, quad + 1u, b00);
    finish(batch, y + 0u, x + 1u, quad, a01);
    finish(batch, y + 0u, x + 1u, quad + 1u, b01);
    finish(batch, y + 0u, x + 2u, quad, a02);
    finish(batch, y + 0u, x + 2u, quad + 1u, b02);
    finish(batch, y + 0u, x + 3u, quad, a03);
    finish(batch, y + 0u, x + 3u, quad + 1u, b03);
    finish(batch, y + 1u, x + 0u, quad, a10);
    finish(batch, y + 1u, x + 0u, quad + 1u, b10);
    finish(batch, y + 1u, x + 1u, quad, a11);
    finish(batch, y + 1u, x + 1u, quad + 1u, b11);
    finish(batch, y + 1u, x + 2u, quad, a12);
    finish(batch, y + 1u, x + 2u, quad + 1u, b12);
    finish(batch, y + 1u, x + 3u, quad, a13);
    finish(batch, y + 1u, x + 3u, quad + 1u, b13);
    finish(batch, y + 2u, x + 0u, quad, a20);
    finish(batch, y + 2u, x + 0u, quad + 1u, b20);
    finish(batch, y + 2u, x + 1u, quad, a21);
    finish(batch, y + 2u, x + 1u, quad + 1u, b21);
    finish(batch, y + 2u, x + 2u, quad, a22);
    finish(batch, y + 2u, x + 2u, quad + 1u, b22);
    finish(batch, y + 2u, x + 3u, quad, a23);
    finish(batch, y + 2u, x + 3u, quad + 1u, b23);
    finish(batch, y + 3u, x + 0u, quad, a30);
    finish(batch, y + 3u, x + 0u, quad + 1u, b30);
    finish(batch, y + 3u, x + 1u, quad, a31);
    finish(batch, y + 3u, x + 1u, quad + 1u, b31);
    finish(batch, y + 3u, x + 2u, quad, a32);
    finish(batch, y + 3u, x + 2u, quad + 1u, b32);
    finish(batch, y + 3u, x + 3u, quad, a33);
    finish(batch, y + 3u, x + 3u, quad + 1u, b33);
}
