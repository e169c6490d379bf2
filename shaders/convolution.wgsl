// What conv2d.wgsl and conv3x3.wgsl share: their parameters and how they reach a pixel of the input.

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
    // 1: x has half the height and width that are said of it, and each pixel counts four times; 0: it has all of them.
    upsample: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;

// Where a pixel of the input begins: lines and columns add up. A coordinate outside of the picture is moved to its edge, and what
// is loaded there zeroed.
fn line_start(batch: u32, line: i32) -> u32 {
    let stored = u32(clamp(line, 0, i32(p.in_height) - 1)) >> p.upsample;
    return start_of((batch * (p.in_height >> p.upsample) + stored) * (p.in_width >> p.upsample), p.in_channels);
}

fn column_start(column: i32) -> u32 {
    return start_of(u32(clamp(column, 0, i32(p.in_width) - 1)) >> p.upsample, p.in_channels);
}

fn inside(coordinate: i32, length: u32) -> bool {
    return coordinate >= 0 && coordinate < i32(length);
}

fn load(pixel: u32, quad: u32, valid: bool) -> vec4<f32> {
    return select(vec4<f32>(), first_quad(pixel, quad, p.in_channels), valid);
}

