//! Concatenation, slices and permutations. Twin of `shaders/layout.wgsl`.

/// Copies `from`, `[outer, length, inner]`, to indices `start..` of the middle axis of `to`, `[outer, to_length, inner]`.
pub fn copy_into(from: &[f64], length: usize, to: &mut [f64], to_length: usize, start: usize, inner: usize) {
    for (from, to) in from.chunks_exact(length * inner).zip(to.chunks_exact_mut(to_length * inner)) {
        to[start * inner..(start + length) * inner].copy_from_slice(from);
    }
}

/// Copies indices `start..start + length` of the middle axis of `from`, `[outer, from_length, inner]`.
pub fn copy_out_of(from: &[f64], from_length: usize, start: usize, to: &mut [f64], length: usize, inner: usize) {
    for (from, to) in from.chunks_exact(from_length * inner).zip(to.chunks_exact_mut(length * inner)) {
        to.copy_from_slice(&from[start * inner..(start + length) * inner]);
    }
}

/// Axis i of the result is axis `axes[i]` of `x`.
pub fn permute(x: &[f64], shape: &[usize], axes: &[usize], out: &mut [f64]) {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    let mut index = vec![0; axes.len()];
    for out in out {
        *out = x[index.iter().zip(axes).map(|(i, &axis)| i * strides[axis]).sum::<usize>()];
        for (i, &axis) in index.iter_mut().zip(axes).rev() {
            *i += 1;
            if *i < shape[axis] {
                break;
            }
            *i = 0;
        }
    }
}
