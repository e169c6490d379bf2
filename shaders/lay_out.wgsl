// Rows of a weight matrix [out, in, taps], as checkpoints have them, to blocks of 4 inputs × 4 outputs [taps, in / 4, out / 4], of
// elements of 16 or 32 bits. A part of the rows at a time: whole blocks, the last of which may lack rows.
//
// Bindings: 0 parameters, 1 source [rows, in, taps], 2 blocks. Launch: one invocation for each block of these rows.
// CPU twin: src/cpu/weights.rs.

const WORKGROUP: u32 = 64u;

struct Parameters {
    invocations: u32,
    rows: u32,
    inputs: u32,
    taps: u32,
    // The block of outputs that the rows begin with, and how many the matrix has.
    first_quad: u32,
    out_quads: u32,
    // Whether an element is half a word.
    is_half: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> source: array<u32>;
@group(0) @binding(2) var<storage, read_write> blocks: array<u32>;

fn element(row: u32, input: u32, tap: u32) -> u32 {
    if row >= p.rows || input >= p.inputs {
        return 0u;
    }
    let index = (row * p.inputs + input) * p.taps + tap;
    if p.is_half == 0u {
        return source[index];
    }
    return extractBits(source[index / 2u], index % 2u * 16u, 16u);
}

@compute @workgroup_size(WORKGROUP)
fn lay_out(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.y * groups.x * WORKGROUP + id.x;
    if index >= p.invocations {
        return;
    }
    let quads = (p.rows + 3u) / 4u;
    let in_quads = (p.inputs + 3u) / 4u;
    let quad = index % quads;
    let row = index / quads;
    let input = row % in_quads * 4u;
    let tap = row / in_quads;
    let block = row * p.out_quads + p.first_quad + quad;
    if p.is_half == 0u {
        for (var i = 0u; i < 16u; i++) {
            blocks[block * 16u + i] = element(quad * 4u + i % 4u, input + i / 4u, tap);
        }
    } else {
        for (var i = 0u; i < 8u; i++) {
            let output = quad * 4u + i % 2u * 2u;
            let low = element(output, input + i / 2u, tap);
            blocks[block * 8u + i] = low | (element(output + 1u, input + i / 2u, tap) << 16u);
        }
    }
}
