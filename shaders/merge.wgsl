// y = W + Σ up·down: a weight matrix with low-rank additions, as f16 or f32 blocks.
//
// Bindings: 0 parameters, 1 down [rank, taps · in / 4] vectors of four inputs, 2 weight blocks, 3 up [rank, out / 4] vectors of four
// outputs, their scales multiplied in, 5 y [taps, in / 4, out / 4] blocks of 4 × 4. Launch: one invocation for each block.
// CPU twin: src/cpu/weights.rs.

const WORKGROUP: u32 = 64u;

struct Parameters {
    invocations: u32,
    rank: u32,
    // taps · in / 4
    rows: u32,
    out_quads: u32,
    // Whether y is f16.
    is_half: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> down: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> up: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<u32>>;

// The bits of `values` as f16, rounded to the nearest, of two the even one. pack2x16float may round as the device likes.
fn to_half(values: vec4<f32>) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(values);
    let sign = (bits >> vec4<u32>(16u)) & vec4<u32>(0x8000u);
    let magnitude = bits & vec4<u32>(0x7fffffffu);
    // From 2^-14 on: the exponent moves from bias 127 to 15, and what carries over is right even where it reaches infinity.
    let odd = (magnitude >> vec4<u32>(13u)) & vec4<u32>(1u);
    let normal = (magnitude - 0x38000000u + 0xfffu + odd) >> vec4<u32>(13u);
    // Below, in steps of 2^-24, which is what an f32 of at least half has at its end.
    let subnormal = bitcast<vec4<u32>>(bitcast<vec4<f32>>(magnitude) + 0.5) - 0x3f000000u;
    let finite = select(min(normal, vec4<u32>(0x7c00u)), subnormal, magnitude < vec4<u32>(0x38800000u));
    return sign | select(finite, vec4<u32>(0x7e00u), magnitude > vec4<u32>(0x7f800000u));
}

fn pack(a: vec4<f32>, b: vec4<f32>) -> vec4<u32> {
    let low = to_half(a);
    let high = to_half(b);
    return vec4<u32>(low.x | (low.y << 16u), low.z | (low.w << 16u), high.x | (high.y << 16u), high.z | (high.w << 16u));
}

@compute @workgroup_size(WORKGROUP)
fn merge(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.y * groups.x * WORKGROUP + id.x;
    if index >= p.invocations {
        return;
    }
    let quad = index % p.out_quads;
    let row = index / p.out_quads;
    var sum = mat4x4<f32>();
    for (var r = 0u; r < p.rank; r++) {
        let outputs = up[r * p.out_quads + quad];
        let inputs = down[r * p.rows + row];
        sum += mat4x4<f32>(outputs * inputs.x, outputs * inputs.y, outputs * inputs.z, outputs * inputs.w);
    }
    sum += weight_block(row, quad, p.out_quads);
    if p.is_half == 0u {
        y[index * 4u] = bitcast<vec4<u32>>(sum[0]);
        y[index * 4u + 1u] = bitcast<vec4<u32>>(sum[1]);
        y[index * 4u + 2u] = bitcast<vec4<u32>>(sum[2]);
        y[index * 4u + 3u] = bitcast<vec4<u32>>(sum[3]);
    } else {
        y[index * 2u] = pack(sum[0], sum[1]);
        y[index * 2u + 1u] = pack(sum[2], sum[3]);
    }
}
