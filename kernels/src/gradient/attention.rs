//! Gradients of scaled dot-product attention.
//!
//! With P for the softmax of a query's scores, o for its result and D for the sum of P · dP over its keys,
//! dP = do vᵀ, dS = P · (dP − D), dq = dS k / √head_size, dk = dSᵀ q / √head_size and dv = Pᵀ do: five products, two of which make
//! P and dP anew. They are kept for all keys of some queries, never for all queries.
//!
//! As in the forward direction both lie transposed, keys times queries, in panels of queries: a query's statistics need no sum
//! across a vector. A number of dk or dv is one sum over queries in ascending order, whatever the number of queries at a time.

use bytemuck::{Pod, Zeroable};

use crate::grid::{MAX_PARTS, WORTH_A_PART, cut};
use crate::math::exp;
use crate::simd::Simd;
use crate::tile::{MAX_ROWS, load_up_to, multiply, panel, store_up_to, zeros};
use crate::{COLUMNS, Compute};

/// Gradients of o = softmax(q kᵀ / √head_size) v for each head, for the gradient of what follows with respect to o; head h owns the
/// numbers from `h * head_size` of a token.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct AttentionGradient {
    /// `[batch, query_tokens]` tokens.
    pub q: usize,
    /// `[batch, key_tokens]` tokens.
    pub k: usize,
    /// `[batch, key_tokens]` tokens.
    pub v: usize,
    /// `[batch, query_tokens, heads * head_size]`: the gradient with respect to o.
    pub upstream: usize,
    /// `[batch * query_tokens + 2 * batch * key_tokens, heads * head_size]`: the gradients with respect to q, then k, then v.
    pub out: usize,
    /// [`AttentionGradient::scratch_len`] numbers.
    pub scratch: usize,
    /// Numbers from one token of q to the next, at least `heads * head_size`.
    pub q_stride: usize,
    /// Numbers from one token of k to the next.
    pub k_stride: usize,
    /// Numbers from one token of v to the next.
    pub v_stride: usize,
    /// Sequences.
    pub batch: usize,
    /// Heads.
    pub heads: usize,
    /// Numbers of a head.
    pub head_size: usize,
    /// Queries of each sequence.
    pub query_tokens: usize,
    /// Keys of each sequence.
    pub key_tokens: usize,
    /// 1 if a token sees itself and those before it only, else 0.
    pub causal: usize,
}

/// Keys of a block, which stay in the first-level cache with the scores of a panel, and whose terms are summed up by themselves.
const KEYS: usize = 128;

/// The most queries at a time, and the weights of theirs that the second-level cache has room for.
const QUERIES: usize = 128;
const WEIGHTS: usize = 1 << 15;

/// Multiply-adds that nobody who waits for a part should have to wait for, and the most parts that are made for that.
const LONG_PART: usize = 1 << 30;
const LONG_PARTS: usize = 256;

impl AttentionGradient {
    pub(crate) fn count_parts(&self) -> usize {
        // Some 2³² where addresses have 32 bits, too.
        let sides = [self.batch, self.heads, self.query_tokens, self.key_tokens];
        let work = sides.iter().fold(5usize, |work, &side| work.saturating_mul(side));
        let worth = |multiply_adds: usize| work / (multiply_adds / self.head_size.clamp(1, multiply_adds));
        let wanted = worth(WORTH_A_PART).clamp(1, MAX_PARTS).max(worth(LONG_PART).min(LONG_PARTS));
        wanted.min((self.batch * self.heads).max(1))
    }

    /// Queries at a time.
    #[inline(always)]
    fn queries(&self) -> usize {
        (WEIGHTS / self.key_tokens.max(1)).clamp(1, QUERIES).min(self.query_tokens).next_multiple_of(COLUMNS)
    }

    /// Room for the numbers of a token, in whole panels of any width.
    #[inline(always)]
    fn width(&self) -> usize {
        self.head_size.next_multiple_of(COLUMNS)
    }

    /// Scratch memory of each part; see [`Head::new`].
    #[inline(always)]
    fn scratch_of_part(&self) -> usize {
        let of_queries = 2 * self.queries() * (self.width() + self.key_tokens);
        self.key_tokens * self.width() + 3 * COLUMNS * self.width() + of_queries + COLUMNS
    }

    /// Numbers of scratch memory that it needs.
    pub fn scratch_len(&self) -> usize {
        self.count_parts() * self.scratch_of_part()
    }

    /// Keys that the queries before `end` see.
    #[inline(always)]
    fn seen(&self, end: usize) -> usize {
        if self.causal == 1 { self.key_tokens.min(end) } else { self.key_tokens }
    }
}

impl Compute for AttentionGradient {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        let [first, end] = cut(part, self.count_parts(), self.batch * self.heads, 1);
        for index in first..end {
            let head = Head::new(self, part, index / self.heads, index % self.heads);
            head.start::<S>(self);
            let mut query = 0;
            while query < self.query_tokens {
                let count = self.queries().min(self.query_tokens - query);
                head.add_queries::<S>(self, query, count);
                query += count;
            }
        }
    }
}

/// A head of one sequence: its numbers of the first token of each kind, and the part's scratch memory. Panels are [`panel`] wide.
#[derive(Clone, Copy)]
struct Head {
    q: *const f32,
    k: *const f32,
    v: *const f32,
    upstream: *const f32,
    of_q: *mut f32,
    of_k: *mut f32,
    of_v: *mut f32,
    /// Numbers from one token to the next, of the gradients.
    stride: usize,
    /// 1 / √head_size.
    scale: f32,
    /// Panels `[key_tokens, panel]` of k.
    keys: *mut f32,
    /// Panels `[count, panel]` of q / √head_size and of `upstream`, for those queries that are being computed.
    queries: *mut f32,
    gradients: *mut f32,
    /// Panels `[key_tokens, panel]` of P and dS, a panel for some of those queries; before, of scores and of dP.
    weights: *mut f32,
    slopes: *mut f32,
    /// One panel `[head_size, panel]` of (q / √head_size)ᵀ and of `upstream`ᵀ.
    query_panel: *mut f32,
    gradient_panel: *mut f32,
    /// `[panel, width]`: dq · √head_size of one panel of queries.
    sums: *mut f32,
}

impl Head {
    #[inline(always)]
    unsafe fn new(of: &AttentionGradient, part: usize, sequence: usize, head: usize) -> Self {
        let (column, stride) = (head * of.head_size, of.heads * of.head_size);
        let (query, key) = (sequence * of.query_tokens, sequence * of.key_tokens);
        let out = (of.out as *mut f32).add(column);
        let [of_k, of_v] = [0, of.batch * of.key_tokens].map(|tokens| of.batch * of.query_tokens + tokens + key);
        let keys = (of.scratch as *mut f32).add(part * of.scratch_of_part());
        let queries = keys.add(of.key_tokens * of.width());
        let gradients = queries.add(of.queries() * of.width());
        let query_panel = gradients.add(of.queries() * of.width());
        let gradient_panel = query_panel.add(COLUMNS * of.width());
        let sums = gradient_panel.add(COLUMNS * of.width());
        let weights = sums.add(COLUMNS * of.width());
        Self {
            q: (of.q as *const f32).add(query * of.q_stride + column),
            k: (of.k as *const f32).add(key * of.k_stride + column),
            v: (of.v as *const f32).add(key * of.v_stride + column),
            upstream: (of.upstream as *const f32).add(query * stride + column),
            of_q: out.add(query * stride),
            of_k: out.add(of_k * stride),
            of_v: out.add(of_v * stride),
            stride,
            scale: 1.0 / (of.head_size as f32).sqrt(),
            keys,
            queries,
            gradients,
            weights,
            // The last tile of a panel of either may read beyond it, but not beyond the scratch memory.
            slopes: weights.add(of.queries() * of.key_tokens),
            query_panel,
            gradient_panel,
            sums,
        }
    }

    /// Packs the keys; no query has added to the gradients of keys and values.
    #[inline(always)]
    unsafe fn start<S: Simd>(self, of: &AttentionGradient) {
        pack_rows::<S>(self.k, of.k_stride, of.key_tokens, of.head_size, 1.0, self.keys);
        for key in 0..of.key_tokens {
            for out in [self.of_k, self.of_v] {
                for channel in 0..of.head_size {
                    *out.add(key * self.stride + channel) = 0.0;
                }
            }
        }
    }

    /// Computes the gradients of `count` queries from `first` on, and adds to those of keys and values.
    #[inline(always)]
    unsafe fn add_queries<S: Simd>(self, of: &AttentionGradient, first: usize, count: usize) {
        let q = self.q.add(first * of.q_stride);
        pack_rows::<S>(q, of.q_stride, count, of.head_size, self.scale, self.queries);
        pack_rows::<S>(self.upstream.add(first * self.stride), self.stride, count, of.head_size, 1.0, self.gradients);

        let seen = of.seen(first + count);
        let mut query = 0;
        while query < count {
            let block = Block {
                first: first + query,
                count: panel::<S>().min(count - query),
                weights: self.weights.add(query * of.key_tokens),
                slopes: self.slopes.add(query * of.key_tokens),
            };
            block.compute::<S>(of, self);
            // Keys that others of these queries see, but not those of the panel.
            for index in of.seen(block.first + block.count) * panel::<S>()..seen * panel::<S>() {
                *block.weights.add(index) = 0.0;
                *block.slopes.add(index) = 0.0;
            }
            query += block.count;
        }

        self.add_products::<S>(of, self.weights, self.gradients, count, seen, self.of_v);
        self.add_products::<S>(of, self.slopes, self.queries, count, seen, self.of_k);
    }

    /// Adds factorsᵀ · matrix to the first `seen` rows of `out`: `factors` are panels as P and dS, `matrix` panels of `count` rows.
    #[inline(always)]
    unsafe fn add_products<S: Simd>(
        self,
        of: &AttentionGradient,
        factors: *const f32,
        matrix: *const f32,
        count: usize,
        seen: usize,
        out: *mut f32,
    ) {
        let mut channel = 0;
        while channel < of.head_size {
            let matrix = matrix.add(channel * count);
            let mut key = 0;
            while key < seen {
                let factors = factors.add(key * panel::<S>());
                let out = out.add(key * self.stride + channel);
                if of.head_size - channel > S::LANES {
                    self.add_tile::<S, true>(of, factors, matrix, count, seen - key, out, of.head_size - channel);
                } else {
                    self.add_tile::<S, false>(of, factors, matrix, count, seen - key, out, of.head_size - channel);
                }
                key += S::ROWS;
            }
            channel += panel::<S>();
        }
    }

    /// Up to [`Simd::ROWS`] keys, of which there are `keys` left, and the channels of two vectors or of one, of which there are `left`.
    #[allow(clippy::too_many_arguments)]
    #[inline(always)]
    unsafe fn add_tile<S: Simd, const WIDE: bool>(
        self,
        of: &AttentionGradient,
        mut factors: *const f32,
        mut matrix: *const f32,
        count: usize,
        keys: usize,
        out: *mut f32,
        left: usize,
    ) {
        let mut sums = zeros::<S>();
        for row in 0..S::ROWS {
            let at = out.add(row.min(keys - 1) * self.stride);
            sums[row][0] = load_up_to::<S>(at, left);
            if WIDE {
                sums[row][1] = load_up_to::<S>(at.add(S::LANES), left - S::LANES);
            }
        }
        let mut query = 0;
        while query < count {
            let mut rows = [factors; MAX_ROWS];
            for (index, row) in rows[..S::ROWS].iter_mut().enumerate() {
                *row = factors.add(index.min(keys - 1) * panel::<S>());
            }
            let queries = panel::<S>().min(count - query);
            multiply::<S, WIDE>(&mut sums, rows, matrix, panel::<S>(), queries);
            factors = factors.add(of.key_tokens * panel::<S>());
            matrix = matrix.add(queries * panel::<S>());
            query += queries;
        }
        for row in 0..S::ROWS {
            if row < keys {
                let at = out.add(row * self.stride);
                store_up_to::<S>(at, sums[row][0], left);
                if WIDE {
                    store_up_to::<S>(at.add(S::LANES), sums[row][1], left - S::LANES);
                }
            }
        }
    }
}

/// A panel of queries.
#[derive(Clone, Copy)]
struct Block {
    /// The first query's token, and how many there are.
    first: usize,
    count: usize,
    /// `[key_tokens, panel]`: scores, then P.
    weights: *mut f32,
    /// `[key_tokens, panel]`: dP, then dS.
    slopes: *mut f32,
}

impl Block {
    /// Makes P and dS, and the gradients of the queries.
    #[inline(always)]
    unsafe fn compute<S: Simd>(self, of: &AttentionGradient, head: Head) {
        let seen = of.seen(self.first + self.count);
        let q = head.q.add(self.first * of.q_stride);
        pack_columns::<S>(q, of.q_stride, self.count, of.head_size, head.scale, head.query_panel);
        let upstream = head.upstream.add(self.first * head.stride);
        pack_columns::<S>(upstream, head.stride, self.count, of.head_size, 1.0, head.gradient_panel);
        for index in 0..panel::<S>() * of.width() {
            *head.sums.add(index) = 0.0;
        }

        let mut largest = [S::splat(f32::NEG_INFINITY); 2];
        let mut key = 0;
        while key < seen {
            let keys = KEYS.min(seen - key);
            let scores = self.weights.add(key * panel::<S>());
            products::<S>(head.k.add(key * of.k_stride), of.k_stride, keys, head.query_panel, of.head_size, scores);
            if of.causal == 1 && key + keys > self.first {
                self.hide::<S>(key, keys);
            }
            for index in 0..keys {
                for vector in 0..2 {
                    let score = S::load(scores.add(index * panel::<S>() + vector * S::LANES));
                    largest[vector] = S::max(largest[vector], score);
                }
            }
            key += keys;
        }

        // Sums of e^(score − largest), and of these times dP.
        let (mut sums, mut means) = ([S::splat(0.0); 2], [S::splat(0.0); 2]);
        let mut key = 0;
        while key < seen {
            let keys = KEYS.min(seen - key);
            let slopes = self.slopes.add(key * panel::<S>());
            products::<S>(head.v.add(key * of.v_stride), of.v_stride, keys, head.gradient_panel, of.head_size, slopes);
            let (mut sums_of_block, mut means_of_block) = ([S::splat(0.0); 2], [S::splat(0.0); 2]);
            for index in key..key + keys {
                for vector in 0..2 {
                    let at = index * panel::<S>() + vector * S::LANES;
                    let weight = exp::<S>(S::sub(S::load(self.weights.add(at)), largest[vector]));
                    S::store(self.weights.add(at), weight);
                    sums_of_block[vector] = S::add(sums_of_block[vector], weight);
                    let slope = S::load(self.slopes.add(at));
                    means_of_block[vector] = S::mul_add(weight, slope, means_of_block[vector]);
                }
            }
            for vector in 0..2 {
                sums[vector] = S::add(sums[vector], sums_of_block[vector]);
                means[vector] = S::add(means[vector], means_of_block[vector]);
            }
            key += keys;
        }
        let one = S::splat(1.0);
        let inverses = [S::div(one, sums[0]), S::div(one, sums[1])];
        let means = [S::mul(means[0], inverses[0]), S::mul(means[1], inverses[1])];

        let mut key = 0;
        while key < seen {
            let keys = KEYS.min(seen - key);
            for index in key..key + keys {
                for vector in 0..2 {
                    let at = index * panel::<S>() + vector * S::LANES;
                    let weight = S::mul(S::load(self.weights.add(at)), inverses[vector]);
                    S::store(self.weights.add(at), weight);
                    let slope = S::sub(S::load(self.slopes.add(at)), means[vector]);
                    S::store(self.slopes.add(at), S::mul(weight, slope));
                }
            }
            self.add_keys::<S>(of, head, key, keys);
            key += keys;
        }

        let scale = S::splat(head.scale);
        for query in 0..self.count {
            let out = head.of_q.add((self.first + query) * head.stride);
            let mut channel = 0;
            while channel < of.head_size {
                let sum = S::load(head.sums.add(query * of.width() + channel));
                store_up_to::<S>(out.add(channel), S::mul(sum, scale), of.head_size - channel);
                channel += S::LANES;
            }
        }
    }

    /// Takes the scores of keys behind a query.
    #[inline(always)]
    unsafe fn hide<S: Simd>(self, key: usize, keys: usize) {
        for index in key..key + keys {
            for query in 0..panel::<S>() {
                // Queries that are not there see what the last one sees.
                if index > self.first + query.min(self.count - 1) {
                    *self.weights.add(index * panel::<S>() + query) = f32::NEG_INFINITY;
                }
            }
        }
    }

    /// Adds dS · k of `keys` keys from `key` on to the sums.
    #[inline(always)]
    unsafe fn add_keys<S: Simd>(self, of: &AttentionGradient, head: Head, key: usize, keys: usize) {
        let slopes = self.slopes.add(key * panel::<S>());
        let mut channel = 0;
        while channel < of.head_size {
            let matrix = head.keys.add(channel * of.key_tokens + key * panel::<S>());
            let mut query = 0;
            while query < self.count {
                let sums = head.sums.add(query * of.width() + channel);
                if of.head_size - channel > S::LANES {
                    self.add_tile::<S, true>(slopes.add(query), matrix, keys, query, sums, of.width());
                } else {
                    self.add_tile::<S, false>(slopes.add(query), matrix, keys, query, sums, of.width());
                }
                query += S::ROWS;
            }
            channel += panel::<S>();
        }
    }

    /// [`Simd::ROWS`] queries from `query` on, and the channels of two vectors or of one.
    #[inline(always)]
    unsafe fn add_tile<S: Simd, const WIDE: bool>(
        self,
        mut slopes: *const f32,
        mut matrix: *const f32,
        keys: usize,
        query: usize,
        out: *mut f32,
        width: usize,
    ) {
        let last = panel::<S>() - 1 - query;
        let mut sums = zeros::<S>();
        for row in 0..S::ROWS {
            sums[row][0] = S::load(out.add(row.min(last) * width));
            if WIDE {
                sums[row][1] = S::load(out.add(row.min(last) * width + S::LANES));
            }
        }
        for _ in 0..keys {
            let first = S::load(matrix);
            let second = if WIDE { S::load(matrix.add(S::LANES)) } else { first };
            for row in 0..S::ROWS {
                // The last tile may reach beyond the panel; what it reads there is not kept.
                let slope = S::splat(*slopes.add(row));
                sums[row][0] = S::mul_add(slope, first, sums[row][0]);
                if WIDE {
                    sums[row][1] = S::mul_add(slope, second, sums[row][1]);
                }
            }
            slopes = slopes.add(panel::<S>());
            matrix = matrix.add(panel::<S>());
        }
        for row in 0..S::ROWS {
            if row <= last {
                S::store(out.add(row * width), sums[row][0]);
                if WIDE {
                    S::store(out.add(row * width + S::LANES), sums[row][1]);
                }
            }
        }
    }
}

/// Writes the products of `count` rows, `stride` apart, with the panel `[depth, panel]`: `[count, panel]`.
#[inline(always)]
unsafe fn products<S: Simd>(
    rows: *const f32,
    stride: usize,
    count: usize,
    matrix: *const f32,
    depth: usize,
    out: *mut f32,
) {
    let mut first = 0;
    while first < count {
        let mut addresses = [rows; MAX_ROWS];
        for (index, address) in addresses[..S::ROWS].iter_mut().enumerate() {
            *address = rows.add((first + index).min(count - 1) * stride);
        }
        let mut sums = zeros::<S>();
        multiply::<S, true>(&mut sums, addresses, matrix, panel::<S>(), depth);
        for index in 0..S::ROWS {
            if first + index < count {
                let out = out.add((first + index) * panel::<S>());
                S::store(out, sums[index][0]);
                S::store(out.add(S::LANES), sums[index][1]);
            }
        }
        first += S::ROWS;
    }
}

/// Writes `rows` rows of `columns` numbers, `stride` apart, times `factor`, in panels `[rows, panel]` with zeros behind the last column.
#[inline(always)]
unsafe fn pack_rows<S: Simd>(
    from: *const f32,
    stride: usize,
    rows: usize,
    columns: usize,
    factor: f32,
    mut out: *mut f32,
) {
    let factor = S::splat(factor);
    let mut column = 0;
    while column < columns {
        for row in 0..rows {
            let from = from.add(row * stride);
            for vector in 0..2 {
                let at = column + vector * S::LANES;
                let value = load_up_to::<S>(from.wrapping_add(at), columns.saturating_sub(at));
                S::store(out, S::mul(value, factor));
                out = out.add(S::LANES);
            }
        }
        column += panel::<S>();
    }
}

/// Writes `rows` rows of `columns` numbers, `stride` apart, times `factor`, as columns of a panel `[columns, panel]` with zeros behind
/// the last.
#[inline(always)]
unsafe fn pack_columns<S: Simd>(
    from: *const f32,
    stride: usize,
    rows: usize,
    columns: usize,
    factor: f32,
    out: *mut f32,
) {
    for row in 0..panel::<S>() {
        for column in 0..columns {
            let value = if row < rows { *from.add(row * stride + column) } else { 0.0 };
            *out.add(column * panel::<S>() + row) = value * factor;
        }
    }
}
