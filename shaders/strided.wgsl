// Element-wise kernels whose operands are walked with strides, over a box of four axes (fewer are padded with 1).
//
// copy:   y[i] = a[i]: slices, concatenations, permutations. 1 a, 3 y.
// binary: y[i] = a[i] + b[i], a[i] − b[i] or a[i] · b[i]; a stride of zero broadcasts. 1 a, 2 b, 3 y.
// Launch: one invocation for each element of the box.
// CPU twins: cpu::concat, cpu::slice, cpu::permute, cpu::binary.

const WORKGROUP: u32 = 64u;

struct Parameters {
    invocations: u32,
    // 0 add, 1 subtract, 2 multiply.
    operation: u32,
    a_start: u32,
    y_start: u32,
    shape: vec4<u32>,
    a_strides: vec4<u32>,
    b_strides: vec4<u32>,
    y_strides: vec4<u32>,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

fn position(index: u32) -> vec4<u32> {
    let z = index / p.shape.w;
    let y = z / p.shape.z;
    return vec4<u32>(y / p.shape.y, y % p.shape.y, z % p.shape.z, index % p.shape.w);
}

// dot() of integers, spelt out: not every WGSL compiler has it.
fn offset(position: vec4<u32>, strides: vec4<u32>) -> u32 {
    let products = position * strides;
    return products.x + products.y + products.z + products.w;
}

@compute @workgroup_size(WORKGROUP)
fn copy(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.y * groups.x * WORKGROUP + id.x;
    if index < p.invocations {
        let i = position(index);
        y[p.y_start + offset(i, p.y_strides)] = a[p.a_start + offset(i, p.a_strides)];
    }
}

@compute @workgroup_size(WORKGROUP)
fn binary(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.y * groups.x * WORKGROUP + id.x;
    if index < p.invocations {
        let i = position(index);
        let left = a[p.a_start + offset(i, p.a_strides)];
        let right = b[offset(i, p.b_strides)];
        var value = left + right;
        if p.operation == 1u {
            value = left - right;
        } else if p.operation == 2u {
            value = left * right;
        }
        y[p.y_start + offset(i, p.y_strides)] = value;
    }
}
