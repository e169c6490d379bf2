//! Attention: in one kernel that never stores scores (`shaders/flash_attention.wgsl`), or in three over blocks of scores
//! (`shaders/attention.wgsl`).

use super::channels::CHANNELS;
use crate::gpu::error::Error;
use crate::gpu::kernel::{Axis, Entry, Operand, PLAIN, Setting, parameters, shader};
use crate::gpu::lowering::{Lowering, UNCOUNTED};
use crate::graph::{Node, Op};

/// The axis of [`FLASH_ATTENTION`]: how many columns of a head an invocation has.
static COLUMNS: Axis = Axis(&[
    Setting::constant("1 columns", &[("COLUMNS", 1.0)]),
    Setting::constant("2 columns", &[("COLUMNS", 2.0)]),
    Setting::constant("3 columns", &[("COLUMNS", 3.0)]),
    Setting::constant("4 columns", &[("COLUMNS", 4.0)]),
    Setting::constant("5 columns", &[("COLUMNS", 5.0)]),
]);

parameters! {
    /// Parameters of `shaders/flash_attention.wgsl`.
    FlashAttention {
        invocations: u32,
        query_tokens: u32,
        key_tokens: u32,
        heads: u32,
        head_size: u32,
        q_channels: u32,
        k_channels: u32,
        v_channels: u32,
        q_first: u32,
        k_first: u32,
        v_first: u32,
        scale: f32,
        causal: u32,
    }
}

/// Attention with an online softmax, a workgroup for 64 queries of a head.
static FLASH_ATTENTION: Entry = Entry {
    name: "flash_attention",
    source: &[shader!("flash_attention")],
    axes: &[&CHANNELS, &COLUMNS],
    workgroup: 128,
    parameters: FlashAttention::UNIFORM,
    reads: &[1, 4, 8],
    write: 5,
    ..PLAIN
};

parameters! {
    /// Parameters of `shaders/attention.wgsl`, of all three kernels.
    Attention {
        invocations: u32,
        query_tokens: u32,
        key_tokens: u32,
        channels: u32,
        heads: u32,
        pair: u32,
        query: u32,
        queries: u32,
        scale: f32,
        causal: u32,
    }
}

/// Scores of a block of queries.
static SCORES: Entry = Entry {
    name: "scores",
    source: &[shader!("attention")],
    axes: &[&CHANNELS],
    workgroup: 16,
    parameters: Attention::UNIFORM,
    reads: &[1, 4],
    write: 7,
    ..PLAIN
};

/// Scores to weights, in place.
static SOFTMAX: Entry = Entry {
    name: "softmax",
    source: &[shader!("aligned"), shader!("attention")],
    workgroup: 16,
    parameters: Attention::UNIFORM,
    reads: &[],
    write: 7,
    ..PLAIN
};

/// Weights × values.
static MIX_VALUES: Entry = Entry {
    name: "mix_values",
    source: &[shader!("attention")],
    axes: &[&CHANNELS],
    workgroup: 16,
    parameters: Attention::UNIFORM,
    reads: &[1, 6],
    write: 5,
    ..PLAIN
};

#[cfg(test)]
pub static ENTRIES: [&Entry; 4] = [&FLASH_ATTENTION, &SCORES, &SOFTMAX, &MIX_VALUES];

/// Adds the dispatches of an attention.
pub fn lower(lowering: &mut Lowering, node: &Node) -> Result<(), Error> {
    let Op::Attention { q, k, v, heads, causal } = node.op else { return Ok(()) };
    let &[batch, query_tokens, channels] = lowering.shape(q) else {
        return Err(lowering.unsupported("its operands are no sequences".to_owned()));
    };
    let y = lowering.y();
    let key_tokens = lowering.shape(k)[1];
    let head_size = channels / heads;
    let scale = 1.0 / (head_size as f32).sqrt();
    if lowering.variants.flash_attention() {
        // Tiles of whole heads where an invocation has registers enough, else of equal parts.
        let quads = head_size.div_ceil(4);
        let slices = quads.div_ceil(8 * COLUMNS.0.len());
        let columns = quads.div_ceil(8 * slices);
        let kernel = FLASH_ATTENTION.kernel().channels(&[head_size]).with(&COLUMNS, columns - 1);
        let lanes = [batch * heads, slices, query_tokens.div_ceil(64), FLASH_ATTENTION.workgroup as usize];
        let channels = channels as u32;
        let parameters = FlashAttention {
            invocations: UNCOUNTED,
            query_tokens: query_tokens as u32,
            key_tokens: key_tokens as u32,
            heads: heads as u32,
            head_size: head_size as u32,
            q_channels: channels,
            k_channels: channels,
            v_channels: channels,
            q_first: 0,
            k_first: 0,
            v_first: 0,
            scale,
            causal: u32::from(causal),
        };
        return lowering.dispatch(kernel, &lanes, &[q, k, v].map(Operand::Node), y, &parameters);
    }
    let key_quads = key_tokens.div_ceil(4);
    // Blocks of whole heads where one head's scores fit the budget, else of a head's queries.
    let rows = (lowering.limits.score_bytes as usize / (16 * key_quads)).max(4);
    let (pairs_at_once, queries_at_once) =
        if rows >= query_tokens { (rows / query_tokens, query_tokens) } else { (1, rows / 4 * 4) };
    let pairs_at_once = pairs_at_once.min(batch * heads);
    let score = lowering.scratch(pairs_at_once * queries_at_once * key_quads * 4);
    let scores = SCORES.kernel().channels(&[head_size]);
    let mix_values = MIX_VALUES.kernel().channels(&[head_size]);
    for pair in (0..batch * heads).step_by(pairs_at_once) {
        let pairs = pairs_at_once.min(batch * heads - pair);
        for query in (0..query_tokens).step_by(queries_at_once) {
            let queries = queries_at_once.min(query_tokens - query);
            let block = Attention {
                invocations: UNCOUNTED,
                query_tokens: query_tokens as u32,
                key_tokens: key_tokens as u32,
                channels: channels as u32,
                heads: heads as u32,
                pair: pair as u32,
                query: query as u32,
                queries: queries as u32,
                scale,
                causal: u32::from(causal),
            };
            let tiles = [pairs, queries.div_ceil(4), key_quads];
            lowering.dispatch(scores, &tiles, &[Operand::Node(q), Operand::Node(k)], score, &block)?;
            lowering.dispatch(SOFTMAX.kernel(), &[pairs, queries], &[], score, &block)?;
            let tiles = [pairs, queries.div_ceil(4), head_size.div_ceil(8)];
            lowering.dispatch(mix_values, &tiles, &[Operand::Node(v), score], y, &block)?;
        }
    }
    Ok(())
}
