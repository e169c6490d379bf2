// Looks for infinities and NaNs, and notes which node they are in: the status word becomes the largest code of any such node.
//
// Bindings: 0 parameters, 1 x as bits, 2 status [1].
// Launch: one invocation for 64 elements, interleaved.
// The bits are looked at, because a compiler may take it that arithmetic never meets a NaN.
// CPU twin: f32::is_finite.

const WORKGROUP: u32 = 64u;
const EXPONENT: u32 = 0x7f800000u;

struct Parameters {
    invocations: u32,
    elements: u32,
    code: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> status: array<atomic<u32>>;

@compute @workgroup_size(WORKGROUP)
fn non_finite(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.y * groups.x * WORKGROUP + id.x;
    if index >= p.invocations {
        return;
    }
    var found = false;
    for (var i = index; i < p.elements; i += p.invocations) {
        found = found || (x[i] & EXPONENT) == EXPONENT;
    }
    if found {
        atomicMax(&status[0], p.code);
    }
}
