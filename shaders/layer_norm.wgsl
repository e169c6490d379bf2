// Layer normalisation over the last axis with affine parameters.
//
// Bindings: 0 parameters, 1 x [rows, channels], 2 weight [channels], 3 bias [channels], 5 y [rows, channels].
// Launch: one invocation for each row.
// CPU twin: src/twin/norm.rs.

const WORKGROUP: u32 = 16u;

struct Parameters {
    invocations: u32,
    channels: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn layer_norm(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let row = id.y * groups.x * WORKGROUP + id.x;
    if row >= p.invocations {
        return;
    }
    let start = start_of(row, p.channels);
    let quads = (p.channels + 3u) / 4u;
    let one = vec4<f32>(1.0);
    var sum = vec4<f32>();
    for (var quad = 0u; quad < quads; quad++) {
        sum += first_quad(start, quad, p.channels);
    }
    let mean = dot(sum, one) / f32(p.channels);
    var squares = vec4<f32>();
    for (var quad = 0u; quad < quads; quad++) {
        let present = vec4<u32>(quad * 4u) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(p.channels);
        let d = select(vec4<f32>(), first_quad(start, quad, p.channels) - mean, present);
        squares += d * d;
    }
    let scale = 1.0 / sqrt(dot(squares, one) / f32(p.channels) + p.eps);
    for (var quad = 0u; quad < quads; quad++) {
        let value = (first_quad(start, quad, p.channels) - mean) * scale * weight[quad] + bias[quad];
        store_quad(start, quad, p.channels, value);
    }
}
