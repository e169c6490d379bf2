//! Walks of kernels over tensors that do not lie side by side.

/// Elements from one index of each axis to the next, of a tensor that lies in memory row by row.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// A box of elements with the strides of two operands and the result along each axis, with as few axes as possible, and at least four.
pub(crate) struct Walk {
    pub shape: Vec<usize>,
    pub strides: [Vec<usize>; 3],
}

impl Walk {
    /// The box of `shape`, with the strides of two operands and the result.
    pub fn new(shape: &[usize], strides: [&[usize]; 3]) -> Self {
        let mut walk = Walk { shape: Vec::new(), strides: [const { Vec::new() }; 3] };
        for (axis, &length) in shape.iter().enumerate() {
            if length == 1 {
                continue;
            }
            // An axis continues the one before it if one step there is `length` steps here, for all tensors.
            let continues =
                walk.strides.iter().zip(&strides).all(|(merged, own)| merged.last() == Some(&(own[axis] * length)));
            for (merged, own) in walk.strides.iter_mut().zip(&strides) {
                if continues {
                    merged.pop();
                }
                merged.push(own[axis]);
            }
            match walk.shape.last_mut() {
                Some(last) if continues => *last *= length,
                _ => walk.shape.push(length),
            }
        }
        while walk.shape.len() < 4 {
            walk.shape.insert(0, 1);
            walk.strides.iter_mut().for_each(|strides| strides.insert(0, 0));
        }
        walk
    }

    /// The start of each box of the last four axes in the three tensors, if the first one starts at `starts`.
    pub fn boxes(&self, starts: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
        let outer = self.shape.len() - 4;
        (0..self.shape[..outer].iter().product()).map(move |mut rest| {
            let mut starts = starts;
            for axis in (0..outer).rev() {
                for (start, strides) in starts.iter_mut().zip(&self.strides) {
                    *start += rest % self.shape[axis] * strides[axis];
                }
                rest /= self.shape[axis];
            }
            starts
        })
    }
}
