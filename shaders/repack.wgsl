// Rows of ggml's blocks, each of 32 inputs of one output, to the records of weights_quantised.wgsl, each of 32 inputs of four
// outputs. A part of the rows at a time: whole records, the last of which may lack rows.
//
// Bindings: 0 parameters, 1 source [rows, in / 32] blocks, 2 records [in / 32, out / 4].
// Launch: one invocation for each record of these rows.
// CPU twin: src/weights/blocks.rs.

const WORKGROUP: u32 = 64u;

struct Parameters {
    invocations: u32,
    rows: u32,
    blocks: u32,
    block_bytes: u32,
    // The record's row of outputs that the rows begin with, and how many the matrix has.
    first_quad: u32,
    out_quads: u32,
    // f16 in front of a block: the scale, and perhaps the minimum.
    shared_halves: u32,
    // Whether fifth bits follow.
    has_fifth: u32,
    // Bits of a quant: 4 or 8.
    bits: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> source: array<u32>;
@group(0) @binding(2) var<storage, read_write> records: array<u32>;

// The byte at `at` in the block of `row`; zero where there is no such row.
fn byte(row: u32, block: u32, at: u32) -> u32 {
    if row >= p.rows {
        return 0u;
    }
    let index = (row * p.blocks + block) * p.block_bytes + at;
    return extractBits(source[index / 4u], index % 4u * 8u, 8u);
}

@compute @workgroup_size(WORKGROUP)
fn repack(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.y * groups.x * WORKGROUP + id.x;
    if index >= p.invocations {
        return;
    }
    let quads = (p.rows + 3u) / 4u;
    let row = index % quads * 4u;
    let block = index / quads;
    var to = (block * p.out_quads + p.first_quad + index % quads) * (2u * p.shared_halves + 4u * (p.has_fifth + p.bits));

    for (var i = 0u; i < p.shared_halves * 2u; i++) {
        let at = i / 2u * 2u;
        var word = 0u;
        for (var n = 0u; n < 2u; n++) {
            let output = row + i % 2u * 2u + n;
            word |= (byte(output, block, at) | (byte(output, block, at + 1u) << 8u)) << (n * 16u);
        }
        records[to] = word;
        to++;
    }
    var quants = p.shared_halves * 2u;
    if p.has_fifth != 0u {
        for (var i = 0u; i < 4u; i++) {
            var word = 0u;
            for (var n = 0u; n < 4u; n++) {
                let eight = byte(row + n, block, quants + i);
                for (var k = 0u; k < 8u; k++) {
                    word |= extractBits(eight, k, 1u) << (k * 4u + n);
                }
            }
            records[to] = word;
            to++;
        }
        quants += 4u;
    }
    let per_word = 8u / p.bits;
    for (var input = 0u; input < 32u; input += per_word) {
        var word = 0u;
        for (var i = 0u; i < 4u * per_word; i++) {
            let k = input + i / 4u;
            var quant = byte(row + i % 4u, block, quants + k % (4u * p.bits));
            if p.bits == 4u {
                quant = extractBits(quant, k / 16u * 4u, 4u);
            }
            word |= quant << (i * p.bits);
        }
        records[to] = word;
        to++;
    }
}
