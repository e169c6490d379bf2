// Resampling of pictures [batch, height, width, channels].
//
// Bindings: 0 parameters, 1 x, 5 y. Launch: one invocation for each quad of channels of a pixel of y.
// nearest:  source index = floor(i · in / out).
// bilinear: source position = max((i + ½) · in / out − ½, 0), as torch without aligned corners and antialiasing.
// pool:     maximum or mean of the pixels under a kernel, those in the padding left out.
// CPU twin: src/twin/resample.rs.

const WORKGROUP: u32 = 64u;

struct Parameters {
    invocations: u32,
    in_height: u32,
    in_width: u32,
    out_height: u32,
    out_width: u32,
    channels: u32,
    // in / out, of bilinear.
    scale_y: f32,
    scale_x: f32,
    // The rest is pool's.
    kernel_height: u32,
    kernel_width: u32,
    stride: u32,
    pad_top: u32,
    pad_left: u32,
    average: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;

fn load(batch: u32, y: u32, x: u32, quad: u32) -> vec4<f32> {
    return first_quad(start_of((batch * p.in_height + y) * p.in_width + x, p.channels), quad, p.channels);
}

@compute @workgroup_size(WORKGROUP)
fn nearest(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.y * groups.x * WORKGROUP + id.x;
    if index >= p.invocations {
        return;
    }
    let quads = (p.channels + 3u) / 4u;
    let pixel = index / quads;
    let x = pixel % p.out_width;
    let y = pixel / p.out_width % p.out_height;
    let batch = pixel / (p.out_width * p.out_height);
    let value = load(batch, y * p.in_height / p.out_height, x * p.in_width / p.out_width, index % quads);
    store_quad(start_of(pixel, p.channels), index % quads, p.channels, value);
}

@compute @workgroup_size(WORKGROUP)
fn bilinear(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.y * groups.x * WORKGROUP + id.x;
    if index >= p.invocations {
        return;
    }
    let quads = (p.channels + 3u) / 4u;
    let quad = index % quads;
    let pixel = index / quads;
    let batch = pixel / (p.out_width * p.out_height);
    let y = max((f32(pixel / p.out_width % p.out_height) + 0.5) * p.scale_y - 0.5, 0.0);
    let x = max((f32(pixel % p.out_width) + 0.5) * p.scale_x - 0.5, 0.0);
    let top = min(u32(y), p.in_height - 1u);
    let left = min(u32(x), p.in_width - 1u);
    let bottom = min(top + 1u, p.in_height - 1u);
    let right = min(left + 1u, p.in_width - 1u);
    let across = x - f32(left);
    let above = mix(load(batch, top, left, quad), load(batch, top, right, quad), across);
    let below = mix(load(batch, bottom, left, quad), load(batch, bottom, right, quad), across);
    store_quad(start_of(pixel, p.channels), quad, p.channels, mix(above, below, y - f32(top)));
}

@compute @workgroup_size(WORKGROUP)
fn pool(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.y * groups.x * WORKGROUP + id.x;
    if index >= p.invocations {
        return;
    }
    let quads = (p.channels + 3u) / 4u;
    let quad = index % quads;
    let pixel = index / quads;
    let batch = pixel / (p.out_width * p.out_height);
    // Where the kernel begins, counted from the first row and column of the padding.
    let y = pixel / p.out_width % p.out_height * p.stride;
    let x = pixel % p.out_width * p.stride;
    let top = max(y, p.pad_top) - p.pad_top;
    let left = max(x, p.pad_left) - p.pad_left;
    let bottom = min(y + p.kernel_height - p.pad_top, p.in_height);
    let right = min(x + p.kernel_width - p.pad_left, p.in_width);
    var sum = vec4<f32>();
    var largest = load(batch, top, left, quad);
    for (var line = top; line < bottom; line++) {
        for (var column = left; column < right; column++) {
            let value = load(batch, line, column, quad);
            sum += value;
            largest = max(largest, value);
        }
    }
    let mean = sum / f32((bottom - top) * (right - left));
    store_quad(start_of(pixel, p.channels), quad, p.channels, select(largest, mean, p.average != 0u));
}
