//! The ops of a solver's step: guidance with rescaling (`shaders/guidance.wgsl`), dynamic thresholding
//! (`shaders/threshold.wgsl`) and the linear update (`shaders/linear_update.wgsl`).

use crate::gpu::error::Error;
use crate::gpu::kernel::{Entry, Operand, PLAIN, parameters, shader};
use crate::gpu::lowering::{ABSENT, Lowering, UNCOUNTED};
use crate::graph::{Node, SolverOp, update};

parameters! {
    /// Parameters of `shaders/guidance.wgsl`.
    Guidance {
        invocations: u32,
        image: u32,
        rescale: f32,
    }
}

/// Classifier-free guidance with rescaling, a workgroup for each image.
static GUIDANCE: Entry = Entry {
    name: "guidance",
    source: &[shader!("guidance")],
    parameters: Guidance::UNIFORM,
    reads: &[1, 2],
    write: 3,
    ..PLAIN
};

parameters! {
    /// Parameters of `shaders/threshold.wgsl`.
    Threshold {
        invocations: u32,
        image: u32,
        ratio: f32,
        max_value: f32,
    }
}

/// Dynamic thresholding, a workgroup for each image.
static THRESHOLD: Entry =
    Entry { name: "threshold", source: &[shader!("threshold")], parameters: Threshold::UNIFORM, write: 3, ..PLAIN };

parameters! {
    /// Parameters of `shaders/linear_update.wgsl`.
    LinearUpdate {
        invocations: u32,
        guided: u32,
        given: u32,
    }
}

/// Guidance and the linear update of a step.
static LINEAR_UPDATE: Entry = Entry {
    name: "linear_update",
    source: &[shader!("linear_update")],
    constants: &[("HISTORY", update::HISTORY as f64)],
    parameters: LinearUpdate::UNIFORM,
    reads: &[1, 2, 3, 4, 5, 7],
    write: 6,
    ..PLAIN
};

#[cfg(test)]
pub static ENTRIES: [&Entry; 3] = [&GUIDANCE, &THRESHOLD, &LINEAR_UPDATE];

/// Adds the dispatch of a guidance, of a thresholding or of a linear update.
pub fn lower(lowering: &mut Lowering, node: &Node, op: &SolverOp) -> Result<(), Error> {
    let y = lowering.y();
    // Of the ops that reduce over an image.
    let images = node.shape.first().copied().unwrap_or(1);
    let image = (node.elements() / images) as u32;
    match op {
        SolverOp::Guidance { model_output, coefficients, rescale } => {
            let reads = [model_output, coefficients].map(|&id| Operand::Node(id));
            let parameters = Guidance { invocations: UNCOUNTED, image, rescale: *rescale };
            lowering.dispatch(GUIDANCE.kernel(), &[images, GUIDANCE.workgroup as usize], &reads, y, &parameters)
        }
        &SolverOp::Threshold { x, ratio, max_value } => {
            let parameters = Threshold { invocations: UNCOUNTED, image, ratio, max_value };
            let lanes = [images, THRESHOLD.workgroup as usize];
            lowering.dispatch(THRESHOLD.kernel(), &lanes, &[Operand::Node(x)], y, &parameters)
        }
        SolverOp::LinearUpdate { sample, model_output, noise, history, coefficients, x0 } => {
            let elements = |id| lowering.graph().node(id).elements();
            let count = elements(*sample);
            let parameters = LinearUpdate {
                invocations: UNCOUNTED,
                guided: u32::from(elements(*model_output) > count),
                given: u32::from(x0.is_some()),
            };
            let [a, b, c, d, e] = [sample, model_output, noise, history, coefficients].map(|&id| Operand::Node(id));
            let reads = [a, b, c, d, e, x0.map_or(ABSENT, Operand::Node)];
            lowering.dispatch(LINEAR_UPDATE.kernel(), &[count], &reads, y, &parameters)
        }
    }
}
