// Pictures [batch, channels, height, width] in −1..1 as RGBA8 pixels, red in the lowest byte.
//
// Bindings: 0 parameters, 1 x, 2 y [batch, height, width]. Launch: one invocation for each pixel.
// 255 · clamp(x/2 + 1/2, 0, 1), halves to even, alpha 255; one channel is grey.
// CPU twin: src/twin/elementwise.rs.

const WORKGROUP: u32 = 64u;

struct Parameters {
    invocations: u32,
    channels: u32,
    // height · width.
    pixels: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;

fn level(value: f32) -> u32 {
    return u32(round(255.0 * clamp(value * 0.5 + 0.5, 0.0, 1.0)));
}

@compute @workgroup_size(WORKGROUP)
fn pack_rgba8(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.y * groups.x * WORKGROUP + id.x;
    if index >= p.invocations {
        return;
    }
    let red = index / p.pixels * p.channels * p.pixels + index % p.pixels;
    // The distance from channel to channel; none in a grey picture.
    let step = select(0u, p.pixels, p.channels == 3u);
    y[index] = level(x[red]) | (level(x[red + step]) << 8u) | (level(x[red + 2u * step]) << 16u) | 0xff000000u;
}
