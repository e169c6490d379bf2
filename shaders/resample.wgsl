// Resampling of pictures [batch, height, width, channels].
//
// Bindings: 0 parameters, 1 x, 5 y. Launch: one invocation for each quad of channels of a pixel of y.
// nearest:   source index = floor(i · in / out).
// avg_pool2: mean of 2×2 pixels; an odd last row or column is dropped.
// CPU twin: src/twin/resample.rs.

const WORKGROUP: u32 = 64u;

struct Parameters {
    invocations: u32,
    in_height: u32,
    in_width: u32,
    out_height: u32,
    out_width: u32,
    channels: u32,
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
fn avg_pool2(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.y * groups.x * WORKGROUP + id.x;
    if index >= p.invocations {
        return;
    }
    let quads = (p.channels + 3u) / 4u;
    let quad = index % quads;
    let pixel = index / quads;
    let x = pixel % p.out_width * 2u;
    let y = pixel / p.out_width % p.out_height * 2u;
    let batch = pixel / (p.out_width * p.out_height);
    let above = load(batch, y, x, quad) + load(batch, y, x + 1u, quad);
    let below = load(batch, y + 1u, x, quad) + load(batch, y + 1u, x + 1u, quad);
    store_quad(start_of(pixel, p.channels), quad, p.channels, 0.25 * (above + below));
}
