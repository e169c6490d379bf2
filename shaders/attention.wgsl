// softmax(q kᵀ / √head_size) v for each head, a block of query rows at a time, so that scores never exist for a whole batch.
// A block is `heads` consecutive (batch, head) pairs × `queries` consecutive queries; a row of scores is padded to quads of keys.
//
// scores:  1 q, 4 k, 7 scores. One invocation for each tile of 4 queries × 4 keys.
// softmax: 7 scores, in place; what is masked or padding becomes zero. One invocation for each row.
// mix_values: 1 v, 6 scores, 5 y. One invocation for each tile of 4 queries × 8 channels.
// q and y are [batch, query_tokens, channels], k and v [batch, key_tokens, channels].
// CPU twin: src/twin/attention.rs.

const WORKGROUP: u32 = 16u;

struct Parameters {
    invocations: u32,
    query_tokens: u32,
    key_tokens: u32,
    channels: u32,
    heads: u32,
    // First (batch, head) pair, first query and number of queries of the block.
    pair: u32,
    query: u32,
    queries: u32,
    scale: f32,
    causal: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(6) var<storage, read> weights: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> score: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn scores(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.y * groups.x * WORKGROUP + id.x;
    if index >= p.invocations {
        return;
    }
    let head_size = p.channels / p.heads;
    let key_quads = (p.key_tokens + 3u) / 4u;
    let tiles = (p.queries + 3u) / 4u;
    let key_quad = index % key_quads;
    let query = index / key_quads % tiles * 4u;
    let pair = index / (key_quads * tiles);
    let batch = (p.pair + pair) / p.heads;
    let head = start_of((p.pair + pair) % p.heads, head_size);

    let last_query = p.queries - 1u;
    let first_query = batch * p.query_tokens + p.query;
    let q0 = start_of(first_query + query, p.channels) + head;
    let q1 = start_of(first_query + min(query + 1u, last_query), p.channels) + head;
    let q2 = start_of(first_query + min(query + 2u, last_query), p.channels) + head;
    let q3 = start_of(first_query + min(query + 3u, last_query), p.channels) + head;
    let last_key = p.key_tokens - 1u;
    let key = key_quad * 4u;
    let k0 = start_of(batch * p.key_tokens + key, p.channels) + head;
    let k1 = start_of(batch * p.key_tokens + min(key + 1u, last_key), p.channels) + head;
    let k2 = start_of(batch * p.key_tokens + min(key + 2u, last_key), p.channels) + head;
    let k3 = start_of(batch * p.key_tokens + min(key + 3u, last_key), p.channels) + head;

    var s0 = vec4<f32>();
    var s1 = vec4<f32>();
    var s2 = vec4<f32>();
    var s3 = vec4<f32>();
    for (var quad = 0u; quad * 4u < head_size; quad++) {
        let keys = mat4x4<f32>(
            second_quad(k0, quad, head_size),
            second_quad(k1, quad, head_size),
            second_quad(k2, quad, head_size),
            second_quad(k3, quad, head_size),
        );
        s0 += first_quad(q0, quad, head_size) * keys;
        s1 += first_quad(q1, quad, head_size) * keys;
        s2 += first_quad(q2, quad, head_size) * keys;
        s3 += first_quad(q3, quad, head_size) * keys;
    }
    let row = pair * p.queries + query;
    score[row * key_quads + key_quad] = s0 * p.scale;
    if query + 1u < p.queries {
        score[(row + 1u) * key_quads + key_quad] = s1 * p.scale;
    }
    if query + 2u < p.queries {
        score[(row + 2u) * key_quads + key_quad] = s2 * p.scale;
    }
    if query + 3u < p.queries {
        score[(row + 3u) * key_quads + key_quad] = s3 * p.scale;
    }
}

@compute @workgroup_size(WORKGROUP)
fn softmax(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let row = id.y * groups.x * WORKGROUP + id.x;
    if row >= p.invocations {
        return;
    }
    let key_quads = (p.key_tokens + 3u) / 4u;
    let start = row * key_quads;
    // Keys this query sees: all, or those up to itself.
    let seen = select(p.key_tokens, p.query + row % p.queries + 1u, p.causal != 0u);
    let lane = vec4<u32>(0u, 1u, 2u, 3u);

    var highest = vec4<f32>(score[start].x);
    for (var quad = 0u; quad * 4u < seen; quad++) {
        let visible = vec4<u32>(quad * 4u) + lane < vec4<u32>(seen);
        highest = select(highest, max(highest, score[start + quad]), visible);
    }
    let top = max(max(highest.x, highest.y), max(highest.z, highest.w));
    var sums = vec4<f32>();
    // max and exp below may turn a NaN into a plausible share: it is looked for by its bits, and handed on.
    var not_finite = vec4<bool>();
    for (var quad = 0u; quad < key_quads; quad++) {
        let visible = vec4<u32>(quad * 4u) + lane < vec4<u32>(seen);
        let exponent = bitcast<vec4<u32>>(score[start + quad]) & vec4<u32>(0x7f800000u);
        not_finite = not_finite | (visible & (exponent == vec4<u32>(0x7f800000u)));
        let value = select(vec4<f32>(), exp(max(score[start + quad] - top, vec4<f32>(-87.0))), visible);
        score[start + quad] = value;
        sums += value;
    }
    // Made from a parameter, because a constant NaN is an error in WGSL.
    let nan = bitcast<f32>(0x7fc00000u | (p.heads >> 31u));
    let share = select(1.0 / (sums.x + sums.y + sums.z + sums.w), nan, any(not_finite));
    for (var quad = 0u; quad < key_quads; quad++) {
        score[start + quad] *= share;
    }
}

@compute @workgroup_size(WORKGROUP)
fn mix_values(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.y * groups.x * WORKGROUP + id.x;
    if index >= p.invocations {
        return;
    }
    let head_size = p.channels / p.heads;
    let key_quads = (p.key_tokens + 3u) / 4u;
    let head_quads = (head_size + 3u) / 4u;
    let columns = (head_quads + 1u) / 2u;
    let tiles = (p.queries + 3u) / 4u;
    let quad = index % columns * 2u;
    let next_quad = min(quad + 1u, head_quads - 1u);
    let query = index / columns % tiles * 4u;
    let pair = index / (columns * tiles);
    let batch = (p.pair + pair) / p.heads;
    let head = start_of((p.pair + pair) % p.heads, head_size);

    let last_query = p.queries - 1u;
    let w0 = (pair * p.queries + query) * key_quads;
    let w1 = (pair * p.queries + min(query + 1u, last_query)) * key_quads;
    let w2 = (pair * p.queries + min(query + 2u, last_query)) * key_quads;
    let w3 = (pair * p.queries + min(query + 3u, last_query)) * key_quads;
    let last_key = p.key_tokens - 1u;

    var a0 = vec4<f32>();
    var a1 = vec4<f32>();
    var a2 = vec4<f32>();
    var a3 = vec4<f32>();
    var b0 = vec4<f32>();
    var b1 = vec4<f32>();
    var b2 = vec4<f32>();
    var b3 = vec4<f32>();
    for (var key_quad = 0u; key_quad < key_quads; key_quad++) {
        let key = key_quad * 4u;
        let v0 = start_of(batch * p.key_tokens + key, p.channels) + head;
        let v1 = start_of(batch * p.key_tokens + min(key + 1u, last_key), p.channels) + head;
        let v2 = start_of(batch * p.key_tokens + min(key + 2u, last_key), p.channels) + head;
        let v3 = start_of(batch * p.key_tokens + min(key + 3u, last_key), p.channels) + head;
        let a = mat4x4<f32>(
            first_quad(v0, quad, head_size),
            first_quad(v1, quad, head_size),
            first_quad(v2, quad, head_size),
            first_quad(v3, quad, head_size),
        );
        let b = mat4x4<f32>(
            first_quad(v0, next_quad, head_size),
            first_quad(v1, next_quad, head_size),
            first_quad(v2, next_quad, head_size),
            first_quad(v3, next_quad, head_size),
        );
        let weights_0 = weights[w0 + key_quad];
        let weights_1 = weights[w1 + key_quad];
        let weights_2 = weights[w2 + key_quad];
        let weights_3 = weights[w3 + key_quad];
        a0 += a * weights_0;
        b0 += b * weights_0;
        a1 += a * weights_1;
        b1 += b * weights_1;
        a2 += a * weights_2;
        b2 += b * weights_2;
        a3 += a * weights_3;
        b3 += b * weights_3;
    }
    let row = batch * p.query_tokens + p.query + query;
    finish(row, query, head, quad, a0);
    finish(row, query, head, quad + 1u, b0);
    finish(row + 1u, query + 1u, head, quad, a1);
    finish(row + 1u, query + 1u, head, quad + 1u, b1);
    finish(row + 2u, query + 2u, head, quad, a2);
    finish(row + 2u, query + 2u, head, quad + 1u, b2);
    finish(row + 3u, query + 3u, head, quad, a3);
    finish(row + 3u, query + 3u, head, quad + 1u, b3);
}

fn finish(row: u32, query: u32, head: u32, quad: u32, value: vec4<f32>) {
    let head_size = p.channels / p.heads;
    if query < p.queries && quad * 4u < head_size {
        store_quad(start_of(row, p.channels) + head, quad, head_size, value);
    }
}
