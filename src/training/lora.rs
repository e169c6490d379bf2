//! Low-rank additions to layers that are themselves not trained (Hu et al. 2021, arXiv 2106.09685).

use crate::graph::{Error, Graph, NodeId, Op, Scope};

/// Adapters of a network: W x + scale·B(A x), with A `[rank, in_features]` and B `[out_features, rank]`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Lora {
    /// Rank of the addition.
    pub rank: usize,
    /// α/rank.
    pub scale: f32,
}

impl Lora {
    /// Adds `graph` at `scope` as [`Scope::insert`] does, with an addition to each linear layer whose path in `graph`, such as
    /// `mid_block.attentions.0.transformer_blocks.0.attn1.to_q`, `is_target`. Its weights are `lora_A.weight` and `lora_B.weight` below the
    /// layer's path.
    ///
    /// # Errors
    /// As [`Scope::insert`].
    pub fn insert(
        self,
        scope: &Scope,
        graph: &Graph,
        bound: &[(&str, NodeId)],
        is_target: impl Fn(&str) -> bool,
    ) -> Result<Vec<NodeId>, Error> {
        let before = scope.path().len() + usize::from(!scope.path().is_empty());
        scope.insert_adapted(graph, bound, &mut |layer, op, id| match *op {
            Op::Linear { x, .. } if layer.path().get(before..).is_some_and(&is_target) => {
                let out_features = layer.shape(id).last().copied().unwrap_or_default();
                let down = layer.at("lora_A").linear(x, self.rank, false)?;
                let up = layer.at("lora_B").linear(down, out_features, false)?;
                layer.add(id, layer.affine(up, self.scale, 0.0)?)
            }
            _ => Ok(id),
        })
    }
}
