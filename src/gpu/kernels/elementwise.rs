//! Element-wise functions of one tensor, `shaders/activation.wgsl`: activations, scale and shift, GEGLU.

use crate::gpu::error::Error;
use crate::gpu::kernel::{Axis, Entry, Kernel, Operand, PLAIN, Setting, parameters, shader};
use crate::gpu::lowering::{Lowering, UNCOUNTED, rows_and_channels};
use crate::graph::{Activation, Node, Op};

/// The axis of kernels that end with an activation. The numbers are those of `shaders/activation_functions.wgsl`.
pub static ACTIVATION: Axis = Axis(&[
    Setting::constant("no activation", &[("ACTIVATION", 0.0)]),
    Setting::constant("Silu", &[("ACTIVATION", 1.0)]),
    Setting::constant("Gelu", &[("ACTIVATION", 2.0)]),
    Setting::constant("GeluTanh", &[("ACTIVATION", 3.0)]),
    Setting::constant("QuickGelu", &[("ACTIVATION", 4.0)]),
    Setting::constant("Mish", &[("ACTIVATION", 5.0)]),
    Setting::constant("Relu", &[("ACTIVATION", 6.0)]),
    Setting::constant("Tanh", &[("ACTIVATION", 7.0)]),
    Setting::constant("Exp", &[("ACTIVATION", 8.0)]),
    Setting::constant("Sqrt", &[("ACTIVATION", 9.0)]),
]);

impl Kernel {
    /// The variant that ends with `activation`.
    pub fn activation(self, activation: Option<Activation>) -> Self {
        let setting = match activation {
            None => 0,
            Some(Activation::Silu) => 1,
            Some(Activation::Gelu) => 2,
            Some(Activation::GeluTanh) => 3,
            Some(Activation::QuickGelu) => 4,
            Some(Activation::Mish) => 5,
            Some(Activation::Relu) => 6,
            Some(Activation::Tanh) => 7,
            Some(Activation::Exp) => 8,
            Some(Activation::Sqrt) => 9,
        };
        self.with(&ACTIVATION, setting)
    }
}

parameters! {
    /// Parameters of `shaders/activation.wgsl`.
    Elementwise {
        invocations: u32,
        scale: f32,
        shift: f32,
        channels: u32,
    }
}

const OF_ACTIVATION: Entry = Entry {
    source: &[shader!("activation_functions"), shader!("activation")],
    parameters: Elementwise::UNIFORM,
    ..PLAIN
};

/// y = activation(x).
static ACTIVATE: Entry = Entry { name: "activation", axes: &[&ACTIVATION], ..OF_ACTIVATION };

/// y = scale · x + shift.
static AFFINE: Entry = Entry { name: "affine", ..OF_ACTIVATION };

/// y = a · gelu(b), of the halves of the last axis of x.
static GEGLU: Entry = Entry { name: "geglu", ..OF_ACTIVATION };

#[cfg(test)]
pub static ENTRIES: [&Entry; 3] = [&ACTIVATE, &AFFINE, &GEGLU];

/// Adds the dispatch of an activation by itself, of a scale and shift, or of a GEGLU.
pub fn lower(lowering: &mut Lowering, node: &Node) -> Result<(), Error> {
    let elements = node.elements();
    let (x, kernel, count, scale, shift, channels) = match node.op {
        Op::Activate { x, activation } => {
            (x, ACTIVATE.kernel().activation(Some(activation)), elements.div_ceil(4), 0.0, 0.0, 0)
        }
        Op::Affine { x, scale, shift } => (x, AFFINE.kernel(), elements.div_ceil(4), scale, shift, 0),
        Op::Geglu { x } => (x, GEGLU.kernel(), elements, 0.0, 0.0, rows_and_channels(&node.shape).1),
        _ => return Ok(()),
    };
    let parameters = Elementwise { invocations: UNCOUNTED, scale, shift, channels: channels as u32 };
    lowering.dispatch(kernel, &[count], &[Operand::Node(x)], lowering.y(), &parameters)
}
