//! Kernels that walk over tensors with strides: copies (`shaders/layout.wgsl`) and element-wise functions of two tensors
//! (`shaders/elementwise.wgsl`).

use crate::gpu::error::Error;
use crate::gpu::kernel::{Entry, Kernel, Operand, PLAIN, parameters, shader};
use crate::gpu::lowering::{Lowering, UNCOUNTED};
use crate::graph::{BinaryOp, Node, Op, Walk, strides};

parameters! {
    /// Parameters of `shaders/strides.wgsl`.
    Strided {
        invocations: u32,
        operation: u32,
        a_start: u32,
        b_start: u32,
        y_start: u32,
        _to_16_bytes: [u32; 3],
        shape: [u32; 4],
        a_strides: [u32; 4],
        b_strides: [u32; 4],
        y_strides: [u32; 4],
    }
}

/// y = a.
static COPY: Entry = Entry {
    name: "copy",
    source: &[shader!("strides"), shader!("layout")],
    parameters: Strided::UNIFORM,
    write: 3,
    ..PLAIN
};

/// y = a + b, a − b or a · b.
static BINARY: Entry = Entry {
    name: "binary",
    source: &[shader!("strides"), shader!("elementwise")],
    parameters: Strided::UNIFORM,
    reads: &[1, 2],
    write: 3,
    ..PLAIN
};

#[cfg(test)]
pub static ENTRIES: [&Entry; 2] = [&COPY, &BINARY];

/// Adds the dispatches of a function of two tensors, of a concatenation, of a slice or of a permutation.
pub fn lower(lowering: &mut Lowering, node: &Node) -> Result<(), Error> {
    let own = strides(&node.shape);
    match &node.op {
        Op::Binary { op, a, b } => {
            let operation = match op {
                BinaryOp::Add => 0,
                BinaryOp::Sub => 1,
                BinaryOp::Mul => 2,
            };
            let (of_a, of_b) = (lowering.shape(*a), lowering.shape(*b));
            let mut b_strides = strides(of_b);
            for (stride, (of_b, of_a)) in b_strides.iter_mut().zip(of_b.iter().zip(of_a)) {
                if of_b != of_a {
                    *stride = 0;
                }
            }
            let walk = Walk::new(&node.shape, [&own, &b_strides, &own]);
            let reads = [Operand::Node(*a), Operand::Node(*b)];
            boxes(lowering, BINARY.kernel(), &reads, operation, walk, [0; 3])
        }
        Op::Concat { inputs, axis } => {
            let mut start = 0;
            for &input in inputs {
                let shape = lowering.shape(input);
                let walk = Walk::new(shape, [&strides(shape), &own, &own]);
                copy(lowering, Operand::Node(input), walk, 0, start * own[*axis])?;
                start += shape[*axis];
            }
            Ok(())
        }
        Op::Slice { x, axis, start } => {
            let x_strides = strides(lowering.shape(*x));
            let walk = Walk::new(&node.shape, [&x_strides, &own, &own]);
            copy(lowering, Operand::Node(*x), walk, start * x_strides[*axis], 0)
        }
        Op::Permute { x, axes } => {
            let of_source = strides(lowering.shape(*x));
            let x_strides: Vec<_> = axes.iter().map(|&axis| of_source[axis]).collect();
            let walk = Walk::new(&node.shape, [&x_strides, &own, &own]);
            copy(lowering, Operand::Node(*x), walk, 0, 0)
        }
        _ => Ok(()),
    }
}

/// Adds copies of the first `channels` of each of `rows` rows of `padded` channels.
pub fn drop_padding(
    lowering: &mut Lowering,
    from: Operand,
    rows: usize,
    padded: usize,
    channels: usize,
) -> Result<(), Error> {
    let walk = Walk::new(&[rows, channels], [&[padded, 1], &[channels, 1], &[channels, 1]]);
    copy(lowering, from, walk, 0, 0)
}

fn copy(lowering: &mut Lowering, from: Operand, walk: Walk, a_start: usize, y_start: usize) -> Result<(), Error> {
    boxes(lowering, COPY.kernel(), &[from], 0, walk, [a_start, 0, y_start])
}

/// Adds a dispatch for each box of four axes; `starts` are the first elements of the two operands and of the result.
fn boxes(
    lowering: &mut Lowering,
    kernel: Kernel,
    reads: &[Operand],
    operation: u32,
    walk: Walk,
    starts: [usize; 3],
) -> Result<(), Error> {
    let outer = walk.shape.len() - 4;
    let last_axes = |values: &[usize]| {
        let mut lanes = [0; 4];
        for (lane, &value) in lanes.iter_mut().zip(&values[outer..]) {
            *lane = value as u32;
        }
        lanes
    };
    let [a_strides, b_strides, y_strides] = walk.strides.each_ref().map(|strides| last_axes(strides));
    for starts in walk.boxes(starts) {
        let [a_start, b_start, y_start] = starts.map(|start| start as u32);
        let parameters = Strided {
            invocations: UNCOUNTED,
            operation,
            a_start,
            b_start,
            y_start,
            _to_16_bytes: [0; 3],
            shape: last_axes(&walk.shape),
            a_strides,
            b_strides,
            y_strides,
        };
        lowering.dispatch(kernel, &walk.shape[outer..], reads, lowering.y(), &parameters)?;
    }
    Ok(())
}
