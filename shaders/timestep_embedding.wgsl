// Sinusoidal embedding of timesteps (diffusers' get_timestep_embedding): angle = scale · t · frequency, sin and cos halves.
//
// Bindings: 0 parameters, 1 timesteps [batch], 2 frequencies [dim / 2], 3 y [batch, dim].
// Launch: one invocation for each element of y.
// The frequencies exp(−ln(max_period) i / (dim/2 − shift)) are constants of the network and come from the CPU.
// CPU twin: src/twin/timestep_embedding.rs.

const WORKGROUP: u32 = 64u;

struct Parameters {
    invocations: u32,
    dim: u32,
    cos_first: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> timesteps: array<f32>;
@group(0) @binding(2) var<storage, read> frequencies: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// WGSL promises sin and cos between −π and π only, and angles go to 1000 rad: subtract whole turns, with 2π in three parts so
// that the products with up to 2¹² turns are exact.
fn reduce(angle: f32) -> f32 {
    let turns = round(angle * 0.15915494309189535);
    return ((angle - turns * 6.28125) - turns * 0.0019350051879882812) - turns * 3.0199161e-7;
}

@compute @workgroup_size(WORKGROUP)
fn timestep_embedding(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.y * groups.x * WORKGROUP + id.x;
    if index >= p.invocations {
        return;
    }
    let half = p.dim / 2u;
    let column = index % p.dim;
    // An odd dimension ends with a zero.
    if column >= 2u * half {
        y[index] = 0.0;
        return;
    }
    let angle = reduce(p.scale * (timesteps[index / p.dim] * frequencies[column % half]));
    y[index] = select(sin(angle), cos(angle), (column < half) == (p.cos_first != 0u));
}
