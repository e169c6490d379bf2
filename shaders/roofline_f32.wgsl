// Multiply-adds of f32 for roofline.wgsl. Twin in interface: roofline_f16.wgsl.

alias number = f32;

@compute @workgroup_size(WORKGROUP)
fn multiply_adds(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    add_products(id.y * groups.x * WORKGROUP + id.x);
}
