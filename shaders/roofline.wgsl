// What a device can do at most: multiply-adds without memory traffic, and a copy.
//
// `matrices` takes products with a matrix as the kernels write them, `add_products` explicit multiply-adds, as many; which is
// faster depends on the compiler. Eight sums at a time, so that none waits for its own last one.
// Bindings: 0 parameters, 1 a buffer to read, 2 one to write. Launch: any number of invocations; of `copy_vectors`, a quarter of the
// vectors that are copied.
// A fragment in front says what `number` is.

const WORKGROUP: u32 = 64u;

struct Parameters {
    invocations: u32,
    // How many times each sum takes 4 products for each of its lanes; `copy_vectors` pays no heed to it.
    rounds: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> source: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> destination: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn matrices(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.y * groups.x * WORKGROUP + id.x;
    if index >= p.invocations {
        return;
    }
    // From memory, so that no compiler knows them; small, so that sums stay finite.
    let v = source[0];
    let m = mat4x4<f32>(v.xyzw, v.yzwx, v.zwxy, v.wxyz);
    var a = source[1];
    var b = source[2];
    var c = source[3];
    var d = source[4];
    var e = source[5];
    var f = source[6];
    var g = source[7];
    var h = source[8];
    for (var round = 0u; round < p.rounds; round++) {
        a += m * b;
        b += m * c;
        c += m * d;
        d += m * e;
        e += m * f;
        f += m * g;
        g += m * h;
        h += m * a;
    }
    destination[index] = a + b + c + d + e + f + g + h;
}

// What the entry points of roofline_f32.wgsl and roofline_f16.wgsl do.
fn add_products(index: u32) {
    if index >= p.invocations {
        return;
    }
    let x = vec4<number>(source[0]);
    let y = vec4<number>(source[1]);
    var a = vec4<number>(source[1]);
    var b = vec4<number>(source[2]);
    var c = vec4<number>(source[3]);
    var d = vec4<number>(source[4]);
    var e = vec4<number>(source[5]);
    var f = vec4<number>(source[6]);
    var g = vec4<number>(source[7]);
    var h = vec4<number>(source[8]);
    for (var round = 0u; round < p.rounds; round++) {
        a = fma(a, x, y);
        b = fma(b, x, y);
        c = fma(c, x, y);
        d = fma(d, x, y);
        e = fma(e, x, y);
        f = fma(f, x, y);
        g = fma(g, x, y);
        h = fma(h, x, y);
        a = fma(a, x, y);
        b = fma(b, x, y);
        c = fma(c, x, y);
        d = fma(d, x, y);
        e = fma(e, x, y);
        f = fma(f, x, y);
        g = fma(g, x, y);
        h = fma(h, x, y);
        a = fma(a, x, y);
        b = fma(b, x, y);
        c = fma(c, x, y);
        d = fma(d, x, y);
        e = fma(e, x, y);
        f = fma(f, x, y);
        g = fma(g, x, y);
        h = fma(h, x, y);
        a = fma(a, x, y);
        b = fma(b, x, y);
        c = fma(c, x, y);
        d = fma(d, x, y);
        e = fma(e, x, y);
        f = fma(f, x, y);
        g = fma(g, x, y);
        h = fma(h, x, y);
    }
    destination[index] = vec4<f32>(a + b + c + d + e + f + g + h);
}

@compute @workgroup_size(WORKGROUP)
fn copy_vectors(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.y * groups.x * WORKGROUP + id.x;
    if index >= p.invocations {
        return;
    }
    // Neighbours in a workgroup move neighbouring vectors.
    destination[index] = source[index];
    destination[index + p.invocations] = source[index + p.invocations];
    destination[index + 2u * p.invocations] = source[index + 2u * p.invocations];
    destination[index + 3u * p.invocations] = source[index + 3u * p.invocations];
}
