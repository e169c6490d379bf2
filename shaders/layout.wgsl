// y[i] = a[i] over a box walked with strides: slices, concatenations, permutations.
//
// Bindings: 0 parameters (strides.wgsl), 1 a, 3 y. Launch: one invocation for each element of the box.
// CPU twin: src/twin/layout.rs.

const WORKGROUP: u32 = 64u;

@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn copy(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.y * groups.x * WORKGROUP + id.x;
    if index < p.invocations {
        let i = position(index);
        y[p.y_start + offset(i, p.y_strides)] = a[p.a_start + offset(i, p.a_strides)];
    }
}
