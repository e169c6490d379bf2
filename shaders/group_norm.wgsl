// Group normalisation of [batch, pixels, channels] with affine parameters, then an activation, in three passes. All sums are of
// differences to a value of the picture itself, so that mean 100 with a spread of 0.01 survives in f32.
//
// moments:          of each channel over a slice of pixels: its first pixel, the mean relative to that, and the sum of squared
//                   deviations from the mean. 1 x, 7 partials [batch, slices, 3, quads]. One invocation for a slice of a quad.
// combine:          merges them (Chan et al.) for each group, relative to the group's first channel in the first pixel, and writes
//                   for each of its channels: that origin, the mean relative to it, weight / standard deviation.
//                   2 weight, 6 partials, 7 norm [batch, 3, quads]. One invocation for each group.
// normalize_pixels: y = activation((x - origin - mean) * scale + bias). 1 x, 3 bias, 6 norm, 5 y. One invocation for 4 pixels of a
//                   quad.
// CPU twin: src/twin/norm.rs.

const WORKGROUP: u32 = 32u;

struct Parameters {
    invocations: u32,
    batch: u32,
    pixels: u32,
    channels: u32,
    groups: u32,
    slices: u32,
    pixels_per_slice: u32,
    eps: f32,
    // Slices of the picture before those of this dispatch.
    first_slice: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> partials: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> statistics: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> norm: array<f32>;

fn quads() -> u32 {
    return (p.channels + 3u) / 4u;
}

@compute @workgroup_size(WORKGROUP)
fn moments(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.y * groups.x * WORKGROUP + id.x;
    if index >= p.invocations {
        return;
    }
    let quad = index % quads();
    let slice = index / quads() % p.slices;
    let batch = index / (quads() * p.slices);
    let begin = slice * p.pixels_per_slice;
    let end = min(begin + p.pixels_per_slice, p.pixels);
    let origin = first_quad(start_of(batch * p.pixels + begin, p.channels), quad, p.channels);
    var sum = vec4<f32>();
    var squares = vec4<f32>();
    for (var pixel = begin; pixel < end; pixel++) {
        let d = first_quad(start_of(batch * p.pixels + pixel, p.channels), quad, p.channels) - origin;
        sum += d;
        squares += d * d;
    }
    let mean = sum / f32(end - begin);
    let partial = (batch * p.slices + p.first_slice + slice) * 3u * quads() + quad;
    statistics[partial] = origin;
    statistics[partial + quads()] = mean;
    statistics[partial + 2u * quads()] = max(squares - sum * mean, vec4<f32>());
}

@compute @workgroup_size(WORKGROUP)
fn combine(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.y * groups.x * WORKGROUP + id.x;
    if index >= p.invocations {
        return;
    }
    let group = index % p.groups;
    let batch = index / p.groups;
    let length = p.channels / p.groups;
    let origin = partials[batch * p.slices * 3u * quads() + group * length / 4u][group * length % 4u];
    var count = 0.0;
    var mean = 0.0;
    var squares = 0.0;
    for (var slice = 0u; slice < p.slices; slice++) {
        let added = f32(min(p.pixels_per_slice, p.pixels - slice * p.pixels_per_slice));
        let partial = (batch * p.slices + slice) * 3u * quads();
        for (var channel = group * length; channel < (group + 1u) * length; channel++) {
            let offset = partials[partial + channel / 4u][channel % 4u] - origin;
            let delta = offset + partials[partial + quads() + channel / 4u][channel % 4u] - mean;
            let share = added / (count + added);
            mean += delta * share;
            squares += partials[partial + 2u * quads() + channel / 4u][channel % 4u] + delta * delta * count * share;
            count += added;
        }
    }
    let scale = 1.0 / sqrt(squares / count + p.eps);
    for (var channel = group * length; channel < (group + 1u) * length; channel++) {
        // Written as numbers, not as lanes: a quad may belong to several groups, that is, to several invocations.
        norm[(batch * 3u) * 4u * quads() + channel] = origin;
        norm[(batch * 3u + 1u) * 4u * quads() + channel] = mean;
        norm[(batch * 3u + 2u) * 4u * quads() + channel] = scale * weight[channel];
    }
}

@compute @workgroup_size(WORKGROUP)
fn normalize_pixels(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.y * groups.x * WORKGROUP + id.x;
    if index >= p.invocations {
        return;
    }
    let blocks = (p.pixels + 3u) / 4u;
    let quad = index % quads();
    let begin = index / quads() % blocks * 4u;
    let batch = index / (quads() * blocks);
    let origin = partials[batch * 3u * quads() + quad];
    let mean = partials[(batch * 3u + 1u) * quads() + quad];
    let scale = partials[(batch * 3u + 2u) * quads() + quad];
    let shift = bias[quad];
    for (var pixel = begin; pixel < min(begin + 4u, p.pixels); pixel++) {
        let start = start_of(batch * p.pixels + pixel, p.channels);
        let value = (first_quad(start, quad, p.channels) - origin - mean) * scale + shift;
        store_quad(start, quad, p.channels, activate(value));
    }
}
