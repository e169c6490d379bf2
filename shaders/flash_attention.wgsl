// softmax(q kᵀ / √head_size) v for each head, without its scores ever being in memory (Milakov & Gimelshein 2018, arXiv 1805.02867;
// Dao et al. 2022, arXiv 2205.14135).
//
// Bindings: 0 parameters, 1 q, 4 k, 8 v, 5 y [batch, query_tokens, heads * head_size]. q, k and v may be columns of wider tensors.
// Launch: one workgroup for each tile of 64 queries × (COLUMNS * 32) channels of a head, tiles of the same head side by side.
// A tile walks over blocks of 32 keys. Of each it computes the scores, 4 × 4 to an invocation, from chunks of 16 channels of q and k;
// then the weights relative to the largest score so far, to which what was summed before is rescaled; then adds weights × values, 4
// queries × COLUMNS quads of channels to an invocation. For heads of more than 160 channels each tile makes all scores again.
// All memory of a workgroup is the 16 KiB that every device has, all arithmetic f32.
// CPU twin: src/twin/attention.rs.

const WORKGROUP: u32 = 128u;
const QUERIES: u32 = 64u;
const KEYS: u32 = 32u;
// Quads of a chunk of q and k.
const CHUNK: u32 = 4u;
// A row of k and of weights, one longer than what is in it, so that a column's rows lie in different banks.
const KEY_ROW: u32 = CHUNK + 1u;
const WEIGHT_ROW: u32 = QUERIES / 4u + 1u;
// First quad of k behind q in `stage`.
const OF_KEYS: u32 = CHUNK * QUERIES;
const STAGE: u32 = 480u;
const LOWEST: f32 = -3.0e38;

// Quads of channels of the result that each invocation has: 1 to 5.
override COLUMNS: u32;

struct Parameters {
    invocations: u32,
    query_tokens: u32,
    key_tokens: u32,
    heads: u32,
    head_size: u32,
    // Channels of the tensors that q, k and v are columns of, and the first of their own.
    q_channels: u32,
    k_channels: u32,
    v_channels: u32,
    q_first: u32,
    k_first: u32,
    v_first: u32,
    scale: f32,
    causal: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;

// In turn: a chunk of q, four queries of a channel together, with a chunk of k; the largest scores; rows of v.
var<workgroup> stage: array<vec4<f32>, STAGE>;
// Weights of four queries together, by key.
var<workgroup> weights: array<vec4<f32>, KEYS * WEIGHT_ROW>;

@compute @workgroup_size(WORKGROUP)
fn flash_attention(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = group.y * groups.x + group.x;
    if index * WORKGROUP >= p.invocations {
        return;
    }
    let head_quads = (p.head_size + 3u) / 4u;
    let slices = (head_quads + COLUMNS * 8u - 1u) / (COLUMNS * 8u);
    let blocks = (p.query_tokens + QUERIES - 1u) / QUERIES;
    let first_query = index % blocks * QUERIES;
    let first_quad_of_slice = index / blocks % slices * COLUMNS * 8u;
    let quads = min(COLUMNS * 8u, head_quads - first_quad_of_slice);
    let head = index / (blocks * slices) % p.heads;
    let batch = index / (blocks * slices * p.heads);
    let q_head = start_of(1u, p.q_first + head * p.head_size);
    let k_head = start_of(1u, p.k_first + head * p.head_size);
    let v_head = start_of(1u, p.v_first + head * p.head_size);
    let last_key = p.key_tokens - 1u;

    // Four queries, and every eighth key and quad.
    let rows = lane / 8u;
    let column = lane % 8u;
    let query = first_query + rows * 4u;
    let of_each = vec4<u32>(query) + vec4<u32>(1u, 2u, 3u, 4u);
    let seen_by_each = select(vec4<u32>(p.key_tokens), of_each, p.causal != 0u);
    // A causal attention has as many keys as queries.
    let seen = select(p.key_tokens, min(first_query + QUERIES, p.key_tokens), p.causal != 0u);

    var highest = vec4<f32>(LOWEST);
    var sums = vec4<f32>();
    var not_finite = vec4<bool>();
    var o0 = mat4x4<f32>();
    var o1 = mat4x4<f32>();
    var o2 = mat4x4<f32>();
    var o3 = mat4x4<f32>();
    var o4 = mat4x4<f32>();
    for (var first_key = 0u; first_key < seen; first_key += KEYS) {
        var s0 = vec4<f32>();
        var s1 = vec4<f32>();
        var s2 = vec4<f32>();
        var s3 = vec4<f32>();
        for (var chunk = 0u; chunk < head_quads; chunk += CHUNK) {
            workgroupBarrier();
            let quad = lane % CHUNK;
            if chunk + quad < head_quads {
                let row = lane / CHUNK;
                if row < QUERIES / 4u {
                    let begin = batch * p.query_tokens;
                    let at = first_query + row * 4u;
                    let last = p.query_tokens - 1u;
                    let q = transpose(mat4x4<f32>(
                        first_quad(start_of(begin + min(at, last), p.q_channels) + q_head, chunk + quad, p.head_size),
                        first_quad(start_of(begin + min(at + 1u, last), p.q_channels) + q_head, chunk + quad, p.head_size),
                        first_quad(start_of(begin + min(at + 2u, last), p.q_channels) + q_head, chunk + quad, p.head_size),
                        first_quad(start_of(begin + min(at + 3u, last), p.q_channels) + q_head, chunk + quad, p.head_size),
                    ));
                    let to = quad * QUERIES + row;
                    stage[to] = q[0] * p.scale;
                    stage[to + QUERIES / 4u] = q[1] * p.scale;
                    stage[to + QUERIES / 2u] = q[2] * p.scale;
                    stage[to + QUERIES / 4u * 3u] = q[3] * p.scale;
                }
                let key = batch * p.key_tokens + min(first_key + row, last_key);
                let k = second_quad(start_of(key, p.k_channels) + k_head, chunk + quad, p.head_size);
                stage[OF_KEYS + row * KEY_ROW + quad] = k;
            }
            workgroupBarrier();
            for (var quad = 0u; quad < min(CHUNK, head_quads - chunk); quad++) {
                let q0 = stage[quad * QUERIES + rows];
                let q1 = stage[quad * QUERIES + QUERIES / 4u + rows];
                let q2 = stage[quad * QUERIES + QUERIES / 2u + rows];
                let q3 = stage[quad * QUERIES + QUERIES / 4u * 3u + rows];
                let k0 = stage[OF_KEYS + column * KEY_ROW + quad];
                let k1 = stage[OF_KEYS + (column + 8u) * KEY_ROW + quad];
                let k2 = stage[OF_KEYS + (column + 16u) * KEY_ROW + quad];
                let k3 = stage[OF_KEYS + (column + 24u) * KEY_ROW + quad];
                s0 = s0 + q0 * k0.x + q1 * k0.y + q2 * k0.z + q3 * k0.w;
                s1 = s1 + q0 * k1.x + q1 * k1.y + q2 * k1.z + q3 * k1.w;
                s2 = s2 + q0 * k2.x + q1 * k2.y + q2 * k2.z + q3 * k2.w;
                s3 = s3 + q0 * k3.x + q1 * k3.y + q2 * k3.z + q3 * k3.w;
            }
        }

        let key = vec4<u32>(first_key + column);
        let visible_0 = key < seen_by_each;
        let visible_1 = key + 8u < seen_by_each;
        let visible_2 = key + 16u < seen_by_each;
        let visible_3 = key + 24u < seen_by_each;
        not_finite = not_finite | (visible_0 & is_not_finite(s0)) | (visible_1 & is_not_finite(s1));
        not_finite = not_finite | (visible_2 & is_not_finite(s2)) | (visible_3 & is_not_finite(s3));
        let lowest = vec4<f32>(LOWEST);
        let of_two = max(select(lowest, s0, visible_0), select(lowest, s1, visible_1));
        let of_others = max(select(lowest, s2, visible_2), select(lowest, s3, visible_3));
        workgroupBarrier();
        stage[rows * 8u + column] = max(of_two, of_others);
        workgroupBarrier();
        var top = highest;
        for (var other = 0u; other < 8u; other++) {
            top = max(top, stage[rows * 8u + other]);
        }
        let share = exponential(highest - top);
        highest = top;
        let w0 = select(vec4<f32>(), exponential(s0 - top), visible_0);
        let w1 = select(vec4<f32>(), exponential(s1 - top), visible_1);
        let w2 = select(vec4<f32>(), exponential(s2 - top), visible_2);
        let w3 = select(vec4<f32>(), exponential(s3 - top), visible_3);
        sums = sums * share + ((w0 + w1) + (w2 + w3));
        weights[column * WEIGHT_ROW + rows] = w0;
        weights[(column + 8u) * WEIGHT_ROW + rows] = w1;
        weights[(column + 16u) * WEIGHT_ROW + rows] = w2;
        weights[(column + 24u) * WEIGHT_ROW + rows] = w3;
        o0 = scaled(o0, share);
        o1 = scaled(o1, share);
        o2 = scaled(o2, share);
        o3 = scaled(o3, share);
        o4 = scaled(o4, share);

        let keys_at_once = min(KEYS, STAGE / quads);
        for (var start = 0u; start < KEYS; start += keys_at_once) {
            let count = min(keys_at_once, KEYS - start);
            workgroupBarrier();
            for (var i = lane; i < count * quads; i += WORKGROUP) {
                let key = batch * p.key_tokens + min(first_key + start + i / quads, last_key);
                let row = start_of(key, p.v_channels) + v_head;
                stage[i] = third_quad(row, first_quad_of_slice + i % quads, p.head_size);
            }
            workgroupBarrier();
            for (var key = 0u; key < count; key++) {
                let weight = weights[(start + key) * WEIGHT_ROW + rows];
                let row = key * quads;
                o0 = added(o0, stage[row + min(column, quads - 1u)], weight);
                if COLUMNS > 1u {
                    o1 = added(o1, stage[row + min(column + 8u, quads - 1u)], weight);
                }
                if COLUMNS > 2u {
                    o2 = added(o2, stage[row + min(column + 16u, quads - 1u)], weight);
                }
                if COLUMNS > 3u {
                    o3 = added(o3, stage[row + min(column + 24u, quads - 1u)], weight);
                }
                if COLUMNS > 4u {
                    o4 = added(o4, stage[row + min(column + 32u, quads - 1u)], weight);
                }
            }
        }
    }

    workgroupBarrier();
    // Made from a parameter, because a constant NaN is an error in WGSL.
    let nan = bitcast<f32>(0x7fc00000u | (p.heads >> 31u));
    stage[rows * 8u + column] = select(sums, vec4<f32>(nan), not_finite);
    workgroupBarrier();
    var total = vec4<f32>();
    for (var other = 0u; other < 8u; other++) {
        total += stage[rows * 8u + other];
    }
    let share = 1.0 / total;
    let tile = Tile(batch, head, query, first_quad_of_slice + quads);
    finish(tile, first_quad_of_slice + column, scaled(o0, share));
    if COLUMNS > 1u {
        finish(tile, first_quad_of_slice + column + 8u, scaled(o1, share));
    }
    if COLUMNS > 2u {
        finish(tile, first_quad_of_slice + column + 16u, scaled(o2, share));
    }
    if COLUMNS > 3u {
        finish(tile, first_quad_of_slice + column + 24u, scaled(o3, share));
    }
    if COLUMNS > 4u {
        finish(tile, first_quad_of_slice + column + 32u, scaled(o4, share));
    }
}

// max and exp may turn a NaN into a plausible share: it is looked for by its bits, and handed on.
fn is_not_finite(value: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(value) & vec4<u32>(0x7f800000u)) == vec4<u32>(0x7f800000u);
}

fn exponential(value: vec4<f32>) -> vec4<f32> {
    return exp(max(value, vec4<f32>(-87.0)));
}

// A quad of channels of four queries, each times its own number.
fn scaled(quads: mat4x4<f32>, by: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(quads[0] * by.x, quads[1] * by.y, quads[2] * by.z, quads[3] * by.w);
}

// The same plus `value` times each query's weight.
fn added(quads: mat4x4<f32>, value: vec4<f32>, weight: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(
        quads[0] + value * weight.x,
        quads[1] + value * weight.y,
        quads[2] + value * weight.z,
        quads[3] + value * weight.w,
    );
}

struct Tile {
    batch: u32,
    head: u32,
    query: u32,
    // The first quad that is another tile's.
    end: u32,
}

fn finish(tile: Tile, quad: u32, values: mat4x4<f32>) {
    if quad < tile.end {
        finish_row(tile, 0u, quad, values[0]);
        finish_row(tile, 1u, quad, values[1]);
        finish_row(tile, 2u, quad, values[2]);
        finish_row(tile, 3u, quad, values[3]);
    }
}

fn finish_row(tile: Tile, row: u32, quad: u32, value: vec4<f32>) {
    if tile.query + row < p.query_tokens {
        let start = start_of(tile.batch * p.query_tokens + tile.query + row, p.heads * p.head_size);
        store_quad(start + start_of(tile.head, p.head_size), quad, p.head_size, value);
    }
}
