//! ggml's block formats: some elements along a row share a scale, and each has a few bits of its own.
//!
//! A block begins with what is shared unless said otherwise; `d`, `m` and `dmin` are f16. Of the 32-element formats the
//! nibbles of byte j are elements j (low) and j + 16 (high).
//!
//! | dtype | elements | bytes of a block | element |
//! |---|---|---|---|
//! | Q8_0 | 32 | `d`, 32 i8 | d·q |
//! | Q4_0 | 32 | `d`, 16 of nibbles | d·(q − 8) |
//! | Q4_1 | 32 | `d`, `m`, 16 of nibbles | d·q + m |
//! | Q5_0 | 32 | `d`, 4 of fifth bits, 16 of nibbles | d·(q − 16) |
//! | Q5_1 | 32 | `d`, `m`, 4 of fifth bits, 16 of nibbles | d·q + m |
//! | IQ4_NL | 32 | `d`, 16 of nibbles | `d·table[q]` |
//! | Q2_K | 256 | 16 of scale and minimum, 64 of 2 bits, `d`, `dmin` | d·scale·q − dmin·minimum |
//! | Q3_K | 256 | 32 of third bits, 64 of 2 bits, 12 of scales, `d` | d·(scale − 32)·q, q from −4 |
//! | Q4_K | 256 | `d`, `dmin`, 12 of scales and minima, 128 of nibbles | d·scale·q − dmin·minimum |
//! | Q5_K | 256 | `d`, `dmin`, 12 of scales and minima, 32 of fifth bits, 128 of nibbles | as Q4_K |
//! | Q6_K | 256 | 128 of nibbles, 64 of 2 bits, 16 i8 of scales, `d` | d·scale·(q − 32) |
//!
//! The scales of the 256-element formats are those of 16 elements each, in Q4_K and Q5_K of 32. Arithmetic is f32, in
//! ggml's order, so that values agree with it bit for bit.

use std::array;

use half::f16;

use super::Encoding;

/// The values that an index of IQ4_NL stands for: denser around zero, as weights are.
const IQ4_NL: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The elements of whole blocks; `None` for other dtypes and part of a block. See [`Encoding::to_f32`].
pub(super) fn dequantise(dtype: Encoding, bytes: &[u8]) -> Option<Vec<f32>> {
    match dtype {
        Encoding::Q8_0 => unpack(bytes, |[d0, d1, q @ ..]: &[u8; 34]| {
            let d = half([*d0, *d1]);
            q.map(|q| d * f32::from(q as i8))
        }),
        Encoding::Q4_0 => unpack(bytes, |[d0, d1, q @ ..]: &[u8; 18]| {
            let d = half([*d0, *d1]);
            array::from_fn::<_, 32, _>(|e| d * (f32::from(nibble(q, e)) - 8.0))
        }),
        Encoding::Q4_1 => unpack(bytes, |[d0, d1, m0, m1, q @ ..]: &[u8; 20]| {
            let (d, m) = (half([*d0, *d1]), half([*m0, *m1]));
            array::from_fn::<_, 32, _>(|e| d * f32::from(nibble(q, e)) + m)
        }),
        Encoding::Q5_0 => unpack(bytes, |[d0, d1, h0, h1, h2, h3, q @ ..]: &[u8; 22]| {
            let (d, high) = (half([*d0, *d1]), [*h0, *h1, *h2, *h3]);
            array::from_fn::<_, 32, _>(|e| d * (f32::from(nibble(q, e) | fifth_bit(high, e)) - 16.0))
        }),
        Encoding::Q5_1 => unpack(bytes, |[d0, d1, m0, m1, h0, h1, h2, h3, q @ ..]: &[u8; 24]| {
            let (d, m, high) = (half([*d0, *d1]), half([*m0, *m1]), [*h0, *h1, *h2, *h3]);
            array::from_fn::<_, 32, _>(|e| d * f32::from(nibble(q, e) | fifth_bit(high, e)) + m)
        }),
        Encoding::IQ4_NL => unpack(bytes, |[d0, d1, q @ ..]: &[u8; 18]| {
            let d = half([*d0, *d1]);
            array::from_fn::<_, 32, _>(|e| d * f32::from(IQ4_NL[usize::from(nibble(q, e))]))
        }),
        Encoding::Q2_K => unpack(bytes, |block: &[u8; 84]| {
            let (scales, q, [d0, d1, m0, m1]) = split::<16, 64, 4, _>(block);
            let (d, dmin) = (half([*d0, *d1]), half([*m0, *m1]));
            array::from_fn::<_, 256, _>(|e| {
                let scale = scales[e / 16];
                d * f32::from(scale & 15) * f32::from(two_bits(q, e)) - dmin * f32::from(scale >> 4)
            })
        }),
        Encoding::Q3_K => unpack(bytes, |block: &[u8; 110]| {
            let (third, q, rest) = split::<32, 64, 14, _>(block);
            let [scales @ .., d0, d1] = rest;
            let d = half([*d0, *d1]);
            array::from_fn::<_, 256, _>(|e| {
                let s = e / 16;
                let low = (scales[s % 8] >> (4 * (s / 8))) & 15;
                let high = (scales[8 + s % 4] >> (2 * (s / 4))) & 3;
                let scale = f32::from(low | (high << 4)) - 32.0;
                // A third bit that is not set takes 4 away.
                let offset = if (third[e % 32] >> (e / 32)) & 1 == 0 { 4.0 } else { 0.0 };
                d * scale * (f32::from(two_bits(q, e)) - offset)
            })
        }),
        Encoding::Q4_K => unpack(bytes, |[d0, d1, m0, m1, rest @ ..]: &[u8; 144]| {
            let (d, dmin) = (half([*d0, *d1]), half([*m0, *m1]));
            let (scales, q, []) = split::<12, 128, 0, _>(rest);
            array::from_fn::<_, 256, _>(|e| {
                let (scale, minimum) = scale_and_minimum(scales, e / 32);
                d * scale * f32::from(nibble_of_32(q, e)) - dmin * minimum
            })
        }),
        Encoding::Q5_K => unpack(bytes, |[d0, d1, m0, m1, rest @ ..]: &[u8; 176]| {
            let (d, dmin) = (half([*d0, *d1]), half([*m0, *m1]));
            let (scales, fifth, q) = split::<12, 32, 128, _>(rest);
            array::from_fn::<_, 256, _>(|e| {
                let (scale, minimum) = scale_and_minimum(scales, e / 32);
                let high = ((fifth[e % 32] >> (e / 32)) & 1) << 4;
                d * scale * f32::from(nibble_of_32(q, e) | high) - dmin * minimum
            })
        }),
        Encoding::Q6_K => unpack(bytes, |block: &[u8; 210]| {
            let (q, high, rest) = split::<128, 64, 18, _>(block);
            let [scales @ .., d0, d1] = rest;
            let d = half([*d0, *d1]);
            array::from_fn::<_, 256, _>(|e| {
                let low = (q[e / 128 * 64 + e % 64] >> (e % 128 / 64 * 4)) & 15;
                let q = f32::from(low | (two_bits(high, e) << 4)) - 32.0;
                d * f32::from(scales[e / 16] as i8) * q
            })
        }),
        _ => None,
    }
}

/// The blocks of `values`, rounded as ggml's reference does; `None` for dtypes that are only read, and for part of a
/// block. See [`Encoding::encode`].
pub(super) fn quantise(dtype: Encoding, values: &[f32]) -> Option<Vec<u8>> {
    let (blocks, []) = values.as_chunks::<32>() else { return None };
    let mut bytes = Vec::with_capacity(dtype.bytes_of(values.len())?);
    let pack: fn(&[f32; 32], &mut Vec<u8>) = match dtype {
        Encoding::Q8_0 => |values, bytes| {
            let d = values.iter().fold(0.0f32, |most, value| most.max(value.abs())) / 127.0;
            let inverse = reciprocal(d);
            bytes.extend(f16::from_f32(d).to_le_bytes());
            bytes.extend(values.map(|value| (value * inverse).round() as i8 as u8));
        },
        Encoding::Q4_0 => |values, bytes| {
            let (d, q) = symmetric(values, 8);
            bytes.extend(f16::from_f32(d).to_le_bytes());
            bytes.extend(nibbles(&q));
        },
        Encoding::Q4_1 => |values, bytes| {
            let (d, m, q) = with_minimum(values, 15);
            bytes.extend([d, m].into_iter().flat_map(|shared| f16::from_f32(shared).to_le_bytes()));
            bytes.extend(nibbles(&q));
        },
        Encoding::Q5_0 => |values, bytes| {
            let (d, q) = symmetric(values, 16);
            bytes.extend(f16::from_f32(d).to_le_bytes());
            bytes.extend(fifth_bits(&q));
            bytes.extend(nibbles(&q));
        },
        Encoding::Q5_1 => |values, bytes| {
            let (d, m, q) = with_minimum(values, 31);
            bytes.extend([d, m].into_iter().flat_map(|shared| f16::from_f32(shared).to_le_bytes()));
            bytes.extend(fifth_bits(&q));
            bytes.extend(nibbles(&q));
        },
        _ => return None,
    };
    blocks.iter().for_each(|block| pack(block, &mut bytes));
    Some(bytes)
}

/// Decodes each block; `None` if some bytes are left over.
fn unpack<const BYTES: usize, const ELEMENTS: usize>(
    bytes: &[u8],
    block: impl Fn(&[u8; BYTES]) -> [f32; ELEMENTS],
) -> Option<Vec<f32>> {
    let (blocks, []) = bytes.as_chunks::<BYTES>() else { return None };
    let mut values = Vec::with_capacity(blocks.len() * ELEMENTS);
    blocks.iter().for_each(|bytes| values.extend_from_slice(&block(bytes)));
    Some(values)
}

/// A block's three parts, whose lengths make up its own.
fn split<const A: usize, const B: usize, const C: usize, const ALL: usize>(
    block: &[u8; ALL],
) -> (&[u8; A], &[u8; B], &[u8; C]) {
    const { assert!(A + B + C == ALL) };
    let (a, rest) = block.split_at(A);
    let (b, c) = rest.split_at(B);
    let part = "lengths that are checked when compiled";
    (a.try_into().expect(part), b.try_into().expect(part), c.try_into().expect(part))
}

fn half(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

/// Nibble of element `e` of 32: the low ones come first.
fn nibble(bytes: &[u8; 16], e: usize) -> u8 {
    (bytes[e % 16] >> (e / 16 * 4)) & 15
}

/// Fifth bit of element `e` of 32, in its place.
fn fifth_bit(bytes: [u8; 4], e: usize) -> u8 {
    ((bytes[e / 8] >> (e % 8)) & 1) << 4
}

/// Nibble of element `e` of 256: 32 bytes hold 64 elements, the low nibbles first.
fn nibble_of_32(bytes: &[u8; 128], e: usize) -> u8 {
    (bytes[e / 64 * 32 + e % 32] >> (e % 64 / 32 * 4)) & 15
}

/// Two bits of element `e` of 256: 32 bytes hold 128 elements, the lowest bits first.
fn two_bits(bytes: &[u8; 64], e: usize) -> u8 {
    (bytes[e / 128 * 32 + e % 32] >> (e % 128 / 32 * 2)) & 3
}

/// Scale and minimum of the 32 elements number `s` of 8, of 6 bits each in 12 bytes: the first four of either in the
/// low six bits of bytes 0 to 3 and 4 to 7, the others in the nibbles of bytes 8 to 11 and the two bits left over there.
fn scale_and_minimum(bytes: &[u8; 12], s: usize) -> (f32, f32) {
    let (scale, minimum) = match s {
        0..4 => (bytes[s] & 63, bytes[s + 4] & 63),
        _ => ((bytes[s + 4] & 15) | (bytes[s - 4] >> 6 << 4), (bytes[s + 4] >> 4) | (bytes[s] >> 6 << 4)),
    };
    (f32::from(scale), f32::from(minimum))
}

/// 1/d, or 0 if all values are the same and any will do.
fn reciprocal(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Scale and quants from 0 to 2·`half` − 1 that stand for −`half` and on: the value farthest from zero is exactly
/// −`half`·d, whatever its sign.
fn symmetric(values: &[f32; 32], half: u8) -> (f32, [u8; 32]) {
    let most = values.iter().fold(0.0f32, |most, &value| if value.abs() > most.abs() { value } else { most });
    let half = f32::from(half);
    let d = most / -half;
    let inverse = f64::from(reciprocal(d));
    // As with a fused multiplication and addition, which is what compilers make of ggml's f32.
    let quant = |value: f32| (f64::from(value) * inverse + f64::from(half + 0.5)) as f32 as u8;
    (d, values.map(|value| quant(value).min(2 * half as u8 - 1)))
}

/// Scale, minimum and quants from 0 to `most`.
fn with_minimum(values: &[f32; 32], most: u8) -> (f32, f32, [u8; 32]) {
    let minimum = values.iter().copied().fold(f32::INFINITY, f32::min);
    let maximum = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let d = (maximum - minimum) / f32::from(most);
    let inverse = reciprocal(d);
    (d, minimum, values.map(|value| (((value - minimum) * inverse + 0.5) as u8).min(most)))
}

/// The low four bits of each quant.
fn nibbles(q: &[u8; 32]) -> [u8; 16] {
    array::from_fn(|j| (q[j] & 15) | (q[j + 16] << 4))
}

/// The fifth bit of each quant.
fn fifth_bits(q: &[u8; 32]) -> [u8; 4] {
    let bits = q.iter().enumerate().fold(0u32, |bits, (e, &q)| bits | (u32::from((q >> 4) & 1) << e));
    bits.to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_one_value_keep_it() {
        for value in [0.0f32, 1.0, -0.5] {
            for dtype in [Encoding::Q8_0, Encoding::Q4_0, Encoding::Q4_1, Encoding::Q5_0, Encoding::Q5_1] {
                let bytes = dtype.encode(&[value; 64]).unwrap();
                assert_eq!(bytes.len(), dtype.bytes_of(64).unwrap());
                for back in dtype.to_f32(&bytes).unwrap() {
                    // The scale is an f16; of Q8_0 it is a 127th.
                    assert!((back - value).abs() <= value.abs() / 2048.0, "{dtype}: {value} became {back}");
                }
            }
        }
    }
}
