//! Scaled dot-product attention with an online softmax: scores of a block of keys at a time, never all of them.
//!
//! Scores are made transposed, keys times queries, so that a vector holds one key's scores of several queries: the softmax over keys
//! then needs no sum across a vector, and the scores lie as the product with the values wants them.

use bytemuck::{Pod, Zeroable};

use crate::grid::{MAX_PARTS, WORTH_A_PART, cut};
use crate::math::exp;
use crate::simd::Simd;
use crate::tile::{MAX_ROWS, Sums, load_up_to, multiply, panel, store_up_to, zeros};
use crate::{COLUMNS, Compute};

/// softmax(q kᵀ / √head_size) v for each head; head h owns the numbers from `h * head_size` of a token.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Attention {
    /// `[batch, query_tokens]` tokens.
    pub q: usize,
    /// `[batch, key_tokens]` tokens.
    pub k: usize,
    /// `[batch, key_tokens]` tokens.
    pub v: usize,
    /// `[batch, query_tokens, heads * head_size]`.
    pub out: usize,
    /// [`Attention::scratch_len`] numbers.
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

/// Keys of a block.
const KEYS: usize = 128;

/// Multiply-adds that nobody who waits for a part should have to wait for, and the most parts that are made for that.
const LONG_PART: usize = 1 << 30;
const LONG_PARTS: usize = 256;

/// Queries that a block of keys serves while it stays in the caches.
const QUERIES: usize = 128;

impl Attention {
    /// Pieces of a head's queries, and parts.
    #[inline(always)]
    fn plan(&self) -> [usize; 2] {
        // Some 2³² where addresses have 32 bits, too.
        let sides = [self.batch, self.heads, self.query_tokens, self.key_tokens];
        let work = sides.iter().fold(2usize, |work, &side| work.saturating_mul(side));
        let worth = |multiply_adds: usize| work / (multiply_adds / self.head_size.clamp(1, multiply_adds));
        let wanted = worth(WORTH_A_PART).clamp(1, MAX_PARTS).max(worth(LONG_PART).min(LONG_PARTS));
        let heads = (self.batch * self.heads).max(1);
        let pieces = wanted.div_ceil(heads).min(self.query_tokens.div_ceil(COLUMNS).max(1));
        [pieces, wanted.min(pieces * heads)]
    }

    pub(crate) fn count_parts(&self) -> usize {
        self.plan()[1]
    }

    /// Scratch memory of a query: its numbers, its sums of values, and three more.
    #[inline(always)]
    fn scratch_of_query(&self) -> usize {
        2 * self.head_size.next_multiple_of(COLUMNS) + 3
    }

    /// Scratch memory of each part: a block of scores, and what its queries need.
    #[inline(always)]
    fn scratch_of_part(&self) -> usize {
        COLUMNS * KEYS + QUERIES * self.scratch_of_query().next_multiple_of(COLUMNS)
    }

    /// Numbers of scratch memory that it needs.
    pub fn scratch_len(&self) -> usize {
        self.plan()[1] * self.scratch_of_part()
    }
}

impl Compute for Attention {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        let [pieces, parts] = self.plan();
        let [first, end] = cut(part, parts, self.batch * self.heads * pieces, 1);
        for piece in first..end {
            let (head, sequence) = (piece / pieces % self.heads, piece / pieces / self.heads);
            let [mut query, last] = cut(piece % pieces, pieces, self.query_tokens, COLUMNS);
            while query < last {
                let end = (query + QUERIES).min(last);
                self.attend::<S>(part, sequence, head, [query, end]);
                query = end;
            }
        }
    }
}

impl Attention {
    /// Computes up to [`QUERIES`] queries of a head.
    #[inline(always)]
    unsafe fn attend<S: Simd>(&self, part: usize, sequence: usize, head: usize, queries: [usize; 2]) {
        let panels = (queries[1] - queries[0]).div_ceil(panel::<S>());
        for index in 0..panels {
            Block::new::<S>(self, part, sequence, head, queries, index).start::<S>(self);
        }
        let seen = if self.causal == 1 { self.key_tokens.min(queries[1]) } else { self.key_tokens };
        let mut key = 0;
        while key < seen {
            let keys = KEYS.min(seen - key);
            for index in 0..panels {
                let block = Block::new::<S>(self, part, sequence, head, queries, index);
                // The last query of a causal panel sees no key behind it, and neither does any other.
                let keys =
                    if self.causal == 1 { keys.min((block.first + block.count).saturating_sub(key)) } else { keys };
                if keys > 0 {
                    block.attend::<S>(self, key, keys);
                }
            }
            key += keys;
        }
        for index in 0..panels {
            Block::new::<S>(self, part, sequence, head, queries, index).finish::<S>(self);
        }
    }
}

/// A panel of queries of one head.
#[derive(Clone, Copy)]
struct Block {
    /// The first query's token, and how many there are.
    first: usize,
    count: usize,
    /// The head's numbers of the first query, the first key, the first value and the first result.
    q: *const f32,
    k: *const f32,
    v: *const f32,
    out: *mut f32,
    /// qᵀ / √head_size: `[head_size, panel]`.
    queries: *mut f32,
    /// `[KEYS, panel]`.
    scores: *mut f32,
    /// `[panel, head_size]`.
    values: *mut f32,
    /// Largest score of each query so far, what its sums shrink by, and the sum of weights: `[panel]` each.
    largest: *mut f32,
    factors: *mut f32,
    weights: *mut f32,
}

impl Block {
    /// Panel `index` of some queries.
    #[inline(always)]
    unsafe fn new<S: Simd>(
        of: &Attention,
        part: usize,
        sequence: usize,
        head: usize,
        [start, end]: [usize; 2],
        index: usize,
    ) -> Self {
        let first = start + index * panel::<S>();
        let count = panel::<S>().min(end - first);
        let column = head * of.head_size;
        let scores = (of.scratch as *mut f32).add(part * of.scratch_of_part());
        let queries = scores.add(COLUMNS * KEYS + index * panel::<S>() * of.scratch_of_query());
        let values = queries.add(panel::<S>() * of.head_size.next_multiple_of(COLUMNS));
        let largest = values.add(panel::<S>() * of.head_size.next_multiple_of(COLUMNS));
        let token = sequence * of.query_tokens + first;
        Self {
            first,
            count,
            q: (of.q as *const f32).add(token * of.q_stride + column),
            k: (of.k as *const f32).add(sequence * of.key_tokens * of.k_stride + column),
            v: (of.v as *const f32).add(sequence * of.key_tokens * of.v_stride + column),
            out: (of.out as *mut f32).add(token * of.heads * of.head_size + column),
            queries,
            scores,
            values,
            largest,
            factors: largest.add(panel::<S>()),
            weights: largest.add(2 * panel::<S>()),
        }
    }

    /// Packs the queries; no key has been seen.
    #[inline(always)]
    unsafe fn start<S: Simd>(self, of: &Attention) {
        let scale = 1.0 / (of.head_size as f32).sqrt();
        for query in 0..panel::<S>() {
            for channel in 0..of.head_size {
                let value = if query < self.count { *self.q.add(query * of.q_stride + channel) } else { 0.0 };
                *self.queries.add(channel * panel::<S>() + query) = value * scale;
            }
            for channel in 0..of.head_size {
                *self.values.add(query * of.head_size + channel) = 0.0;
            }
            *self.largest.add(query) = f32::NEG_INFINITY;
            *self.weights.add(query) = 0.0;
        }
    }

    /// Sees `keys` keys from `key` on.
    #[inline(always)]
    unsafe fn attend<S: Simd>(self, of: &Attention, key: usize, keys: usize) {
        self.score::<S>(of, key, keys);
        if of.causal == 1 {
            self.hide::<S>(key, keys);
        }
        self.weigh::<S>(keys);
        self.add_values::<S>(of, key, keys);
    }

    /// Writes the result.
    #[inline(always)]
    unsafe fn finish<S: Simd>(self, of: &Attention) {
        for query in 0..self.count {
            let sum = S::splat(*self.weights.add(query));
            let mut channel = 0;
            while channel < of.head_size {
                let left = of.head_size - channel;
                let value = load_up_to::<S>(self.values.add(query * of.head_size + channel), left);
                let out = self.out.add(query * of.heads * of.head_size + channel);
                store_up_to::<S>(out, S::div(value, sum), left);
                channel += S::LANES;
            }
        }
    }

    /// The scores of `keys` keys from `key` on.
    #[inline(always)]
    unsafe fn score<S: Simd>(self, of: &Attention, key: usize, keys: usize) {
        let mut first = 0;
        while first < keys {
            let mut rows = [self.k; MAX_ROWS];
            for (index, address) in rows[..S::ROWS].iter_mut().enumerate() {
                *address = self.k.add((key + (first + index).min(keys - 1)) * of.k_stride);
            }
            let mut sums = zeros::<S>();
            multiply::<S, true>(&mut sums, rows, self.queries, panel::<S>(), of.head_size);
            for index in 0..S::ROWS {
                if first + index < keys {
                    let out = self.scores.add((first + index) * panel::<S>());
                    S::store(out, sums[index][0]);
                    S::store(out.add(S::LANES), sums[index][1]);
                }
            }
            first += S::ROWS;
        }
    }

    /// Takes the scores of keys behind a query.
    #[inline(always)]
    unsafe fn hide<S: Simd>(self, key: usize, keys: usize) {
        for index in 0..keys {
            for query in 0..panel::<S>() {
                // Queries that are not there see what the last one sees.
                if key + index > self.first + query.min(self.count - 1) {
                    *self.scores.add(index * panel::<S>() + query) = f32::NEG_INFINITY;
                }
            }
        }
    }

    /// Scores to weights, relative to the largest score so far.
    #[inline(always)]
    unsafe fn weigh<S: Simd>(self, keys: usize) {
        for vector in 0..2 {
            let scores = self.scores.add(vector * S::LANES);
            let before = S::load(self.largest.add(vector * S::LANES));
            let mut largest = before;
            for index in 0..keys {
                largest = S::max(largest, S::load(scores.add(index * panel::<S>())));
            }
            let mut sum = S::splat(0.0);
            for index in 0..keys {
                let at = scores.add(index * panel::<S>());
                let weight = exp::<S>(S::sub(S::load(at), largest));
                S::store(at, weight);
                sum = S::add(sum, weight);
            }
            let factor = exp::<S>(S::sub(before, largest));
            let weights = self.weights.add(vector * S::LANES);
            S::store(weights, S::mul_add(S::load(weights), factor, sum));
            S::store(self.factors.add(vector * S::LANES), factor);
            S::store(self.largest.add(vector * S::LANES), largest);
        }
    }

    /// Adds the weighted values of `keys` keys from `key` on to what the sums have shrunk to.
    #[inline(always)]
    unsafe fn add_values<S: Simd>(self, of: &Attention, key: usize, keys: usize) {
        let mut query = 0;
        while query < self.count {
            let mut channel = 0;
            while channel < of.head_size {
                let left = of.head_size - channel;
                let v = self.v.add(key * of.v_stride + channel);
                if left >= panel::<S>() {
                    self.add_tile::<S, true, true>(of, v, query, channel, keys);
                    channel += panel::<S>();
                } else if left >= S::LANES {
                    self.add_tile::<S, false, true>(of, v, query, channel, keys);
                    channel += S::LANES;
                } else {
                    self.add_tile::<S, false, false>(of, v, query, channel, keys);
                    channel += S::LANES;
                }
            }
            query += S::ROWS;
        }
    }

    /// [`Simd::ROWS`] queries, and the channels of two vectors, of one, or of what is left of one.
    #[inline(always)]
    unsafe fn add_tile<S: Simd, const WIDE: bool, const WHOLE: bool>(
        self,
        of: &Attention,
        mut v: *const f32,
        query: usize,
        channel: usize,
        keys: usize,
    ) {
        let left = of.head_size - channel;
        let mut sums: Sums<S::Vector> = zeros::<S>();
        for row in 0..S::ROWS {
            let at = self.values.add((query + row).min(panel::<S>() - 1) * of.head_size + channel);
            let factor = S::splat(*self.factors.add((query + row).min(panel::<S>() - 1)));
            sums[row][0] = S::mul(load_part::<S, WHOLE>(at, left), factor);
            if WIDE {
                sums[row][1] = S::mul(S::load(at.add(S::LANES)), factor);
            }
        }
        let mut weights = self.scores.add(query).cast_const();
        for _ in 0..keys {
            let first = load_part::<S, WHOLE>(v, left);
            let second = if WIDE { S::load(v.add(S::LANES)) } else { first };
            for row in 0..S::ROWS {
                // The last tile may reach beyond the panel; what it reads there is not kept.
                let weight = S::splat(*weights.add(row));
                sums[row][0] = S::mul_add(weight, first, sums[row][0]);
                if WIDE {
                    sums[row][1] = S::mul_add(weight, second, sums[row][1]);
                }
            }
            v = v.add(of.v_stride);
            weights = weights.add(panel::<S>());
        }
        for row in 0..S::ROWS {
            if query + row < self.count {
                let at = self.values.add((query + row) * of.head_size + channel);
                store_up_to::<S>(at, sums[row][0], if WHOLE { S::LANES } else { left });
                if WIDE {
                    S::store(at.add(S::LANES), sums[row][1]);
                }
            }
        }
    }
}

/// A vector, or the first `count` numbers of one.
#[inline(always)]
unsafe fn load_part<S: Simd, const WHOLE: bool>(from: *const f32, count: usize) -> S::Vector {
    if WHOLE { S::load(from) } else { S::load_first(from, count) }
}
