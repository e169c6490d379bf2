// Access to channels-last tensors, four channels at a time; here: every channel count is a multiple of four.
// `first`, `second` and `third` are what a kernel reads row by row, `result` is what it writes. A quad is four consecutive channels.
// Twin in interface: unaligned.wgsl.

@group(0) @binding(1) var<storage, read> first: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> second: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read> third: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> result: array<vec4<f32>>;

// Where row `row` of `channels` channels begins, for use below; the starts of a row and of a head within it add up.
fn start_of(row: u32, channels: u32) -> u32 {
    return row * (channels / 4u);
}

fn first_quad(start: u32, quad: u32, channels: u32) -> vec4<f32> {
    return first[start + quad];
}

fn second_quad(start: u32, quad: u32, channels: u32) -> vec4<f32> {
    return second[start + quad];
}

fn third_quad(start: u32, quad: u32, channels: u32) -> vec4<f32> {
    return third[start + quad];
}

fn store_quad(start: u32, quad: u32, channels: u32, value: vec4<f32>) {
    result[start + quad] = value;
}
