// Multiply-adds of f16 for roofline.wgsl. Twin in interface: roofline_f32.wgsl.

enable f16;
alias number = f16;

@compute @workgroup_size(WORKGROUP)
fn half_multiply_adds(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    add_products(id.y * groups.x * WORKGROUP + id.x);
}
