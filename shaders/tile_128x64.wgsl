// Tiles of 128 rows × 64 channels: 8 × 16 invocations of 8 rows × 8 channels each.

const THREADS_Y: u32 = 16u;

@compute @workgroup_size(128)
fn tile_128x64(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = id.y * groups.x + id.x;
    if group * 128u < p.invocations {
        compute_tile(group, lane);
    }
}
