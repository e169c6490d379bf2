//! Splits dispatches whose tensors are larger than a binding may be: a part is bound to those lines of its picture that it
//! touches. So the decoder of a 512×512 picture, whose largest values are 256 MiB, runs where a binding has 128 MiB at most.
//!
//! A part is the same kernel with other numbers of lines and another padding, so that this needs to know the parameters of a few
//! kernels, and no kernel needs to know of it. What is not split, because it is a batch or an op that has no such tensors in known
//! networks, is refused as too large by the memory plan.

use std::ops::Range;

use super::lower::{Dispatch, Operand, Span};
use super::plan::ALIGNMENT;
use super::variants::Tile;
use crate::graph::{Graph, NodeId};

/// Most parts of a dispatch.
const PARTS: usize = 64;

/// `dispatch`, or the parts that do its work with bindings of at most `limit` bytes, if there are such.
pub fn split(graph: &Graph, dispatch: Dispatch, limit: u64) -> Vec<Dispatch> {
    let is_large = |operand: &Operand| matches!(*operand, Operand::Node(id) if bytes_of(graph, id) > limit);
    if !is_large(&dispatch.write) && !dispatch.reads.iter().any(is_large) {
        return vec![dispatch];
    }
    let whole = Whole { dispatch: &dispatch, limit };
    let name = dispatch.kernel.entry.name;
    // Pictures of a batch are not split: each would need its own parts, and no known network has such.
    if graph.node(dispatch.node).shape.first() != Some(&1) && name != "non_finite" {
        return vec![dispatch];
    }
    let tile = Tile::ALL.into_iter().find(|tile| tile.entry().name == name);
    let parts = match (name, tile) {
        ("conv2d" | "conv3x3", _) => whole.convolution(None),
        ("linear", _) => whole.linear(None),
        // A linear layer is a convolution of a picture one line high by a single pixel.
        (_, Some(tile)) if [1, 4, 7, 8].iter().all(|&index| whole.word(index) == 1) => whole.linear(Some(tile)),
        (_, Some(tile)) => whole.convolution(Some(tile)),
        ("moments", _) => whole.moments(),
        ("normalize_pixels", _) => whole.normalize_pixels(),
        ("non_finite", _) => whole.non_finite(),
        _ => None,
    };
    parts.unwrap_or_else(|| vec![dispatch])
}

fn bytes_of(graph: &Graph, id: NodeId) -> u64 {
    4 * graph.node(id).elements() as u64
}

/// `range` of the lines of an operand that have `line` numbers each; what is no node's value stays whole.
fn lines(operand: Operand, line: usize, range: &Range<usize>) -> Operand {
    let bytes = |count: usize| 4 * (count * line) as u64;
    match operand {
        Operand::Node(id) => Operand::Part(id, Span { offset: bytes(range.start), bytes: bytes(range.len()) }),
        other => other,
    }
}

/// Of how many lines of `line` numbers each the start of a binding must be a multiple.
fn grain(line: usize) -> usize {
    let factors_of_two = (4 * line).trailing_zeros().min(ALIGNMENT.trailing_zeros());
    ALIGNMENT as usize >> factors_of_two
}

/// A dispatch to be split. Its parameters are addressed as 32-bit words, in the order that its kernel declares.
struct Whole<'d> {
    dispatch: &'d Dispatch,
    limit: u64,
}

impl Whole<'_> {
    fn word(&self, index: usize) -> usize {
        self.dispatch.parameters.get(index).map_or(0, |&word| word as usize)
    }

    /// x, weight, bias and residual of a product whose result is a node's; one in scratch memory is laid out otherwise.
    fn operands_of_product(&self) -> Option<[Operand; 4]> {
        let operands = <[Operand; 4]>::try_from(&self.dispatch.reads[..]).ok()?;
        matches!(self.dispatch.write, Operand::Node(_)).then_some(operands)
    }

    fn fits(&self, dispatch: &Dispatch) -> bool {
        let fits = |operand: &Operand| match operand {
            Operand::Part(_, span) => span.bytes <= self.limit && span.offset.is_multiple_of(ALIGNMENT),
            _ => true,
        };
        fits(&dispatch.write) && dispatch.reads.iter().all(fits)
    }

    /// As few parts of the `count` lines as fit the limit; each but the last has a multiple of `grain` lines.
    fn parts(&self, count: usize, grain: usize, part: impl Fn(&Range<usize>) -> Dispatch) -> Option<Vec<Dispatch>> {
        (2..=PARTS).find_map(|parts| {
            let most = count.div_ceil(parts).next_multiple_of(grain);
            let parts: Vec<_> =
                (0..count).step_by(most).map(|start| part(&(start..(start + most).min(count)))).collect();
            parts.iter().all(|part| self.fits(part)).then_some(parts)
        })
    }

    /// The same with other operands and other parameters.
    fn with(&self, reads: Vec<Operand>, write: Operand, words: &[(usize, usize)]) -> Dispatch {
        let mut part = Dispatch { reads, write, ..self.dispatch.clone() };
        for &(index, value) in words {
            part.parameters[index] = value as u32;
        }
        part
    }

    /// By lines of the result.
    fn convolution(&self, tile: Option<Tile>) -> Option<Vec<Dispatch>> {
        let [x, weight, bias, residual] = self.operands_of_product()?;
        let [in_height, in_width, in_channels, height, width, channels] = [1, 2, 3, 4, 5, 6].map(|i| self.word(i));
        let (kernel_height, stride, pad_top) = (self.word(7), self.word(9), self.word(10) as isize);
        let upsample = self.word(if tile.is_some() { 16 } else { 14 });
        // Invocations and workgroups are so many times those of a line of tiles.
        let of_invocations = |lines: usize| match tile {
            Some(tile) => (lines * width).div_ceil(tile.sizes()[0]),
            None => lines.div_ceil(4),
        };
        let invocations = self.word(0) / of_invocations(height);
        let (x_line, y_line) = ((in_width >> upsample) * in_channels, width * channels);
        let x_grain = grain(x_line);
        self.parts(height, grain(y_line), |range| {
            // What the part's taps touch, in lines of the picture as it is addressed.
            let first = (range.start * stride) as isize - pad_top;
            let end = ((range.end - 1) * stride + kernel_height) as isize - pad_top;
            let stored = in_height >> upsample;
            let from = (first.max(0) as usize >> upsample).min(stored - 1) / x_grain * x_grain;
            let to = (end.max(1) as usize).div_ceil(1 << upsample).clamp(from + 1, stored);
            // Lines above the part's first: fewer than none, if more of x had to be bound.
            let pad_top = ((from << upsample) as isize - first) as i32;
            let residual = if self.word(13) == 1 { lines(residual, y_line, range) } else { residual };
            let mut words = vec![
                (0, invocations * of_invocations(range.len())),
                (1, (to - from) << upsample),
                (4, range.len()),
                (10, pad_top as u32 as usize),
            ];
            if tile.is_some() {
                words.push((14, range.len() * width));
            }
            let reads = vec![lines(x, x_line, &(from..to)), weight, bias, residual];
            self.with(reads, lines(self.dispatch.write, y_line, range), &words)
        })
    }

    /// By rows.
    fn linear(&self, tile: Option<Tile>) -> Option<Vec<Dispatch>> {
        let [x, weight, bias, residual] = self.operands_of_product()?;
        let [rows, in_channels, channels, rows_per_residual] = match tile {
            Some(_) => [14, 3, 6, 13],
            None => [1, 2, 3, 5],
        }
        .map(|index| self.word(index));
        if rows_per_residual > 1 && rows_per_residual < rows {
            return None;
        }
        let tile_rows = tile.map_or(16, |tile| tile.sizes()[0]);
        let invocations = self.word(0) / rows.div_ceil(tile_rows);
        self.parts(rows, grain(in_channels).max(grain(channels)), |range| {
            let residual = if rows_per_residual == 1 { lines(residual, channels, range) } else { residual };
            let mut words = vec![(0, invocations * range.len().div_ceil(tile_rows))];
            let counts: &[usize] = if tile.is_some() { &[2, 5, 14] } else { &[1] };
            words.extend(counts.iter().map(|&index| (index, range.len())));
            let reads = vec![lines(x, in_channels, range), weight, bias, residual];
            self.with(reads, lines(self.dispatch.write, channels, range), &words)
        })
    }

    /// By slices of pixels.
    fn moments(&self) -> Option<Vec<Dispatch>> {
        let [pixels, channels, slices, pixels_per_slice] = [2, 3, 5, 6].map(|index| self.word(index));
        let &[x] = &self.dispatch.reads[..] else { return None };
        self.parts(slices, grain(pixels_per_slice * channels), |range| {
            let of_pixels = range.start * pixels_per_slice..(range.end * pixels_per_slice).min(pixels);
            let words =
                [(0, range.len() * channels.div_ceil(4)), (2, of_pixels.len()), (5, range.len()), (8, range.start)];
            self.with(vec![lines(x, channels, &of_pixels)], self.dispatch.write, &words)
        })
    }

    /// By blocks of four pixels.
    fn normalize_pixels(&self) -> Option<Vec<Dispatch>> {
        let [pixels, channels] = [2, 3].map(|index| self.word(index));
        let &[x, bias, norm] = &self.dispatch.reads[..] else { return None };
        self.parts(pixels, grain(channels).max(4), |range| {
            let words = [(0, range.len().div_ceil(4) * channels.div_ceil(4)), (2, range.len())];
            self.with(vec![lines(x, channels, range), bias, norm], lines(self.dispatch.write, channels, range), &words)
        })
    }

    /// By numbers.
    fn non_finite(&self) -> Option<Vec<Dispatch>> {
        let &[x] = &self.dispatch.reads[..] else { return None };
        self.parts(self.word(1), grain(1), |range| {
            let words = [(0, range.len().div_ceil(64)), (1, range.len())];
            self.with(vec![lines(x, 1, range)], self.dispatch.write, &words)
        })
    }
}
