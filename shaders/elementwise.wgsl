// y[i] = a[i] + b[i], a[i] − b[i] or a[i] · b[i] over a box walked with strides; a stride of zero broadcasts.
//
// Bindings: 0 parameters (strides.wgsl), 1 a, 2 b, 3 y. Launch: one invocation for each element of the box.
// CPU twin: src/twin/elementwise.rs.

const WORKGROUP: u32 = 64u;
const SUBTRACT: u32 = 1u;
const MULTIPLY: u32 = 2u;

@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn binary(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.y * groups.x * WORKGROUP + id.x;
    if index >= p.invocations {
        return;
    }
    let i = position(index);
    let left = a[p.a_start + offset(i, p.a_strides)];
    let right = b[p.b_start + offset(i, p.b_strides)];
    var value = left + right;
    if p.operation == SUBTRACT {
        value = left - right;
    } else if p.operation == MULTIPLY {
        value = left * right;
    }
    y[p.y_start + offset(i, p.y_strides)] = value;
}
