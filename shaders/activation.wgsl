// Element-wise functions of one tensor: activations, GEGLU, scale and shift.
//
// Bindings: 0 parameters, 1 x, 2 y.
// activation: y = activation(x); affine: y = scale x + shift. One invocation for four elements; buffers end on a multiple of four,
//             what lies past a tensor's end is never read by another kernel.
// geglu:      y = a · gelu(b), a and b the halves of the last axis of x. One invocation for each element of y.
// CPU twins: src/twin/activation.rs, and affine in src/twin/elementwise.rs.

const WORKGROUP: u32 = 64u;

struct Parameters {
    invocations: u32,
    scale: f32,
    shift: f32,
    // Length of the last axis of y.
    channels: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> x_elements: array<f32>;
@group(0) @binding(2) var<storage, read_write> y_elements: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn activation(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.y * groups.x * WORKGROUP + id.x;
    if index < p.invocations {
        y[index] = activate(x[index]);
    }
}

@compute @workgroup_size(WORKGROUP)
fn affine(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.y * groups.x * WORKGROUP + id.x;
    if index < p.invocations {
        y[index] = p.scale * x[index] + p.shift;
    }
}

@compute @workgroup_size(WORKGROUP)
fn geglu(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.y * groups.x * WORKGROUP + id.x;
    if index < p.invocations {
        let value = index / p.channels * 2u * p.channels + index % p.channels;
        y_elements[index] = x_elements[value] * gelu(vec4<f32>(x_elements[value + p.channels])).x;
    }
}
