//! Gradients of attention against their formulas in f64.
#![cfg(feature = "training")]
#![cfg(not(target_arch = "wasm32"))]

mod common;

use common::{Buffer, Random, agree, agree_in_any_order, each_machine};
use undiffuse_kernels::Job;
use undiffuse_kernels::gradient::attention::AttentionGradient;

/// An attention but for addresses; `apart` is what lies between two tokens beside their own numbers.
#[derive(Clone, Copy, Debug)]
struct Case {
    batch: usize,
    heads: usize,
    head_size: usize,
    query_tokens: usize,
    key_tokens: usize,
    causal: bool,
    apart: usize,
    spread: f32,
}

const SMALL: Case =
    Case { batch: 1, heads: 1, head_size: 8, query_tokens: 3, key_tokens: 5, causal: false, apart: 0, spread: 1.0 };

/// Some vectors of a head in f64.
type Tokens = Vec<Vec<f64>>;

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(sum: &mut [f64], factor: f64, values: &[f64]) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += factor * value);
}

/// The gradients of q, k and v of one head.
fn gradients([q, k, v, upstream]: [&Tokens; 4], causal: bool) -> [Tokens; 3] {
    let scale = 1.0 / (q[0].len() as f64).sqrt();
    let [mut of_q, mut of_k, mut of_v] = [q, k, v].map(|tokens| vec![vec![0.0; tokens[0].len()]; tokens.len()]);
    for query in 0..q.len() {
        let seen = if causal { k.len().min(query + 1) } else { k.len() };
        let scores: Vec<f64> = k[..seen].iter().map(|k| scale * dot(&q[query], k)).collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
        let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp() / sum).collect();
        let slopes: Vec<f64> = v[..seen].iter().map(|v| dot(&upstream[query], v)).collect();
        let mean = dot(&weights, &slopes);
        for key in 0..seen {
            let slope = scale * weights[key] * (slopes[key] - mean);
            add(&mut of_q[query], slope, &k[key]);
            add(&mut of_k[key], slope, &q[query]);
            add(&mut of_v[key], weights[key], &upstream[query]);
        }
    }
    [of_q, of_k, of_v]
}

impl Case {
    fn check(self) {
        let Case { batch, heads, head_size, query_tokens, key_tokens, causal, apart, spread } = self;
        let channels = heads * head_size;
        let stride = channels + apart;
        let mut random = Random::new(query_tokens * 31 + key_tokens * 7 + channels);
        let mut tokens = |count: usize, stride: usize, spread: f32| {
            Buffer::from_fn(batch * count * stride, |_| spread * random.next())
        };
        let (q, k, v) =
            (tokens(query_tokens, stride, spread), tokens(key_tokens, stride, 1.0), tokens(key_tokens, stride, 1.0));
        let upstream = tokens(query_tokens, channels, 1.0);

        let mut expected = [query_tokens, key_tokens, key_tokens].map(|count| vec![0.0; batch * count * channels]);
        for (sequence, head) in (0..batch).flat_map(|sequence| (0..heads).map(move |head| (sequence, head))) {
            let own = |buffer: &Buffer, count: usize, stride: usize| -> Tokens {
                let token = |token: usize| (sequence * count + token) * stride + head * head_size;
                let numbers = |first: usize| (first..first + head_size).map(|index| buffer.at(index)).collect();
                (0..count).map(|index| numbers(token(index))).collect()
            };
            let q = own(&q, query_tokens, stride);
            let (k, v) = (own(&k, key_tokens, stride), own(&v, key_tokens, stride));
            let upstream = own(&upstream, query_tokens, channels);
            for (expected, tokens) in expected.iter_mut().zip(gradients([&q, &k, &v, &upstream], causal)) {
                for (index, token) in tokens.iter().enumerate() {
                    let first = (sequence * tokens.len() + index) * channels + head * head_size;
                    expected[first..first + head_size].copy_from_slice(token);
                }
            }
        }

        each_machine(|machine| {
            let out = Buffer::new(expected.iter().map(Vec::len).sum());
            let mut gradient = AttentionGradient {
                q: q.address(),
                k: k.address(),
                v: v.address(),
                upstream: upstream.address(),
                out: out.address(),
                scratch: 0,
                q_stride: stride,
                k_stride: stride,
                v_stride: stride,
                batch,
                heads,
                head_size,
                query_tokens,
                key_tokens,
                causal: usize::from(causal),
            };
            let scratch = Buffer::new(gradient.scratch_len());
            gradient.scratch = scratch.address();
            machine.run(Job::new(gradient));
            assert!(scratch.margin_is_whole(), "{self:?} on {machine:?}: written outside of the scratch memory");
            let mut first = 0;
            for (name, expected) in ["q", "k", "v"].iter().zip(&expected) {
                let actual = Buffer::from_fn(expected.len(), |index| out.values()[first + index]);
                let tolerance = f64::from(4e-6 * spread.max(1.0));
                agree(&actual, expected, tolerance, &format!("{name} of {self:?} on {machine:?}"));
                first += expected.len();
            }
            out
        });
    }
}

#[test]
fn gradients_of_attention_agree_with_their_formula_in_f64() {
    // Sizes of heads that are no whole vectors; keys of one block, of two, and one more; queries of several panels, and of several
    // times as many as are computed at once; several parts.
    SMALL.check();
    Case { batch: 2, heads: 4, head_size: 24, query_tokens: 64, key_tokens: 64, ..SMALL }.check();
    Case { heads: 3, head_size: 7, query_tokens: 19, key_tokens: 129, ..SMALL }.check();
    Case { heads: 2, head_size: 40, query_tokens: 70, key_tokens: 256, ..SMALL }.check();
    Case { head_size: 160, query_tokens: 300, key_tokens: 77, ..SMALL }.check();
    Case { batch: 2, heads: 2, head_size: 33, query_tokens: 40, key_tokens: 31, ..SMALL }.check();
    Case { head_size: 32, query_tokens: 290, key_tokens: 1030, ..SMALL }.check();
    for head_size in 1..=48 {
        Case { heads: 2, head_size, query_tokens: 37, key_tokens: 11, ..SMALL }.check();
    }
}

#[test]
fn a_query_of_one_key_has_no_gradient() {
    // What is not zero goes to the value.
    Case { query_tokens: 1, key_tokens: 1, head_size: 1, ..SMALL }.check();
    Case { query_tokens: 20, key_tokens: 1, ..SMALL }.check();
    Case { query_tokens: 1, key_tokens: 1, causal: true, ..SMALL }.check();
}

#[test]
fn tokens_may_lie_apart_as_in_a_joined_product() {
    Case { batch: 2, heads: 2, head_size: 24, query_tokens: 20, key_tokens: 20, apart: 96, ..SMALL }.check();
}

#[test]
fn a_causal_key_has_gradients_from_its_own_query_and_those_behind_it() {
    Case { causal: true, batch: 2, heads: 2, head_size: 32, query_tokens: 77, key_tokens: 77, ..SMALL }.check();
    // Queries of more than one block of keys, some of which see a part of the last.
    Case { causal: true, query_tokens: 300, key_tokens: 300, ..SMALL }.check();
    Case { causal: true, query_tokens: 150, key_tokens: 290, ..SMALL }.check();
    Case { causal: true, query_tokens: 290, key_tokens: 150, ..SMALL }.check();
}

#[test]
fn scores_of_hundreds_overflow_nothing() {
    Case { query_tokens: 20, key_tokens: 200, spread: 300.0, ..SMALL }.check();
}

#[test]
fn the_order_of_parts_does_not_matter() {
    let (batch, heads, head_size, query_tokens, key_tokens) = (3, 4, 24, 100, 77);
    let stride = heads * head_size;
    let mut random = Random::new(stride);
    let [q, upstream] = [(); 2].map(|()| random.buffer(batch * query_tokens * stride));
    let [k, v] = [(); 2].map(|()| random.buffer(batch * key_tokens * stride));
    let out = Buffer::new(batch * (query_tokens + 2 * key_tokens) * stride);
    let mut gradient = AttentionGradient {
        q: q.address(),
        k: k.address(),
        v: v.address(),
        upstream: upstream.address(),
        out: out.address(),
        scratch: 0,
        q_stride: stride,
        k_stride: stride,
        v_stride: stride,
        batch,
        heads,
        head_size,
        query_tokens,
        key_tokens,
        causal: 0,
    };
    let scratch = Buffer::new(gradient.scratch_len());
    gradient.scratch = scratch.address();
    let job = Job::new(gradient);
    assert!(job.parts() > 2, "{job:?}");
    agree_in_any_order(&[job], &out);
}
