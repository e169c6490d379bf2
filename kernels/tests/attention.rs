//! Attention against its formula in f64.
#![cfg(not(target_arch = "wasm32"))]

mod common;

use common::{Buffer, Random, agree, each_machine};
use undiffuse_kernels::Job;
use undiffuse_kernels::attention::Attention;

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

impl Case {
    fn check(self) {
        let Case { batch, heads, head_size, query_tokens, key_tokens, causal, apart, spread } = self;
        let channels = heads * head_size;
        let stride = channels + apart;
        let mut random = Random::new(query_tokens * 31 + key_tokens * 7 + channels);
        let mut tokens =
            |count: usize, spread: f32| Buffer::from_fn(batch * count * stride, |_| spread * random.next());
        let (q, k, v) = (tokens(query_tokens, spread), tokens(key_tokens, 1.0), tokens(key_tokens, 1.0));
        let mut expected = Vec::new();
        for token in 0..batch * query_tokens {
            let (sequence, query) = (token / query_tokens, token % query_tokens);
            for head in 0..heads {
                let at = |buffer: &Buffer, token: usize, c: usize| buffer.at(token * stride + head * head_size + c);
                let score = |key: usize| {
                    let products = (0..head_size).map(|c| at(&q, token, c) * at(&k, sequence * key_tokens + key, c));
                    products.sum::<f64>() / (head_size as f64).sqrt()
                };
                let seen = if causal { key_tokens.min(query + 1) } else { key_tokens };
                let scores: Vec<f64> = (0..seen).map(score).collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for c in 0..head_size {
                    let value = |(key, weight): (usize, &f64)| weight * at(&v, sequence * key_tokens + key, c);
                    expected.push(weights.iter().enumerate().map(value).sum::<f64>() / sum);
                }
            }
        }
        each_machine(|machine| {
            let out = Buffer::new(expected.len());
            let mut attention = Attention {
                q: q.address(),
                k: k.address(),
                v: v.address(),
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
            let scratch = Buffer::new(attention.scratch_len());
            attention.scratch = scratch.address();
            machine.run(Job::new(attention));
            assert!(scratch.margin_is_whole(), "{self:?} on {machine:?}: written outside of the scratch memory");
            agree(&out, &expected, f64::from(2e-6 * spread.max(1.0)), &format!("{self:?} on {machine:?}"));
            out
        });
    }
}

#[test]
fn attention_agrees_with_its_formula_in_f64() {
    // One number; sizes of heads that are no whole vectors; keys of one block, of two, and one more; several parts and pieces.
    SMALL.check();
    Case { head_size: 1, query_tokens: 1, key_tokens: 1, ..SMALL }.check();
    Case { batch: 2, heads: 4, head_size: 24, query_tokens: 64, key_tokens: 64, ..SMALL }.check();
    Case { heads: 3, head_size: 7, query_tokens: 19, key_tokens: 129, ..SMALL }.check();
    Case { heads: 2, head_size: 40, query_tokens: 70, key_tokens: 256, ..SMALL }.check();
    Case { head_size: 160, query_tokens: 300, key_tokens: 77, ..SMALL }.check();
    Case { batch: 2, heads: 2, head_size: 33, query_tokens: 40, key_tokens: 31, ..SMALL }.check();
}

#[test]
fn tokens_may_lie_apart_as_in_a_joined_product() {
    Case { batch: 2, heads: 2, head_size: 24, query_tokens: 20, key_tokens: 20, apart: 96, ..SMALL }.check();
}

#[test]
fn a_causal_token_sees_itself_and_those_before_it() {
    Case { causal: true, query_tokens: 1, key_tokens: 1, ..SMALL }.check();
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
