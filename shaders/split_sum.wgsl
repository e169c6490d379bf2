// The sums of tiled.wgsl over the splits of the depth, plus bias plus residual.
//
// Bindings: 0 parameters, 1 sums [splits, rows, channels], 3 bias [channels], 4 residual [rows / rows_per_residual, channels],
// 5 y [rows, channels]. Launch: one invocation for each quad of channels of a row.
// CPU twin: src/twin/convolution.rs.

const WORKGROUP: u32 = 64u;

struct Parameters {
    invocations: u32,
    rows: u32,
    channels: u32,
    splits: u32,
    has_bias: u32,
    // Consecutive rows that share a row of the residual; 0 if there is none.
    rows_per_residual: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn split_sum(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.y * groups.x * WORKGROUP + id.x;
    if index >= p.invocations {
        return;
    }
    let quads = (p.channels + 3u) / 4u;
    let quad = index % quads;
    let row = index / quads;
    var value = vec4<f32>();
    for (var split = 0u; split < p.splits; split++) {
        value += first_quad(start_of(split * p.rows + row, p.channels), quad, p.channels);
    }
    if p.has_bias != 0u {
        value += bias[quad];
    }
    if p.rows_per_residual != 0u {
        value += second_quad(start_of(row / p.rows_per_residual, p.channels), quad, p.channels);
    }
    store_quad(start_of(row, p.channels), quad, p.channels, value);
}
