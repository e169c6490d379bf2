// Access to channels-last tensors, four channels at a time; here: any channel count. Channels past the last read as zero
// and are not written.
// Twin in interface: aligned.wgsl.

@group(0) @binding(1) var<storage, read> first: array<f32>;
@group(0) @binding(4) var<storage, read> second: array<f32>;
@group(0) @binding(8) var<storage, read> third: array<f32>;
@group(0) @binding(5) var<storage, read_write> result: array<f32>;

// Where row `row` of `channels` channels begins, for use below; the starts of a row and of a head within it add up.
fn start_of(row: u32, channels: u32) -> u32 {
    return row * channels;
}

fn lanes(quad: u32, channels: u32) -> vec4<bool> {
    return vec4<u32>(quad * 4u) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(channels);
}

fn first_quad(start: u32, quad: u32, channels: u32) -> vec4<f32> {
    let i = start + quad * 4u;
    return select(vec4<f32>(), vec4<f32>(first[i], first[i + 1u], first[i + 2u], first[i + 3u]), lanes(quad, channels));
}

fn second_quad(start: u32, quad: u32, channels: u32) -> vec4<f32> {
    let i = start + quad * 4u;
    let value = vec4<f32>(second[i], second[i + 1u], second[i + 2u], second[i + 3u]);
    return select(vec4<f32>(), value, lanes(quad, channels));
}

fn third_quad(start: u32, quad: u32, channels: u32) -> vec4<f32> {
    let i = start + quad * 4u;
    return select(vec4<f32>(), vec4<f32>(third[i], third[i + 1u], third[i + 2u], third[i + 3u]), lanes(quad, channels));
}

fn store_quad(start: u32, quad: u32, channels: u32, value: vec4<f32>) {
    let last = min(channels - quad * 4u, 4u);
    for (var lane = 0u; lane < last; lane++) {
        result[start + quad * 4u + lane] = value[lane];
    }
}
