//! Element types of stored tensors, and their conversion to what the executors compute with.

use half::{bf16, f16};

use super::blocks;

/// The type of a stored tensor's elements, little endian: a number each, or ggml's blocks of several
/// (see [`blocks`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, non_camel_case_types)] // the names are the types, as their formats spell them
pub enum Encoding {
    F64,
    F32,
    F16,
    BF16,
    F8E4M3,
    F8E5M2,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ4_NL,
}

/// The smallest part of a tensor that can be stored: `elements` numbers along a row, in `bytes` bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Number of elements that it holds; 1 for plain numbers.
    pub elements: usize,
    /// Number of bytes that it takes.
    pub bytes: usize,
}

impl Encoding {
    const ALL: [Encoding; 26] = [
        Encoding::F64,
        Encoding::F32,
        Encoding::F16,
        Encoding::BF16,
        Encoding::F8E4M3,
        Encoding::F8E5M2,
        Encoding::I64,
        Encoding::I32,
        Encoding::I16,
        Encoding::I8,
        Encoding::U64,
        Encoding::U32,
        Encoding::U16,
        Encoding::U8,
        Encoding::Bool,
        Encoding::Q8_0,
        Encoding::Q4_0,
        Encoding::Q4_1,
        Encoding::Q5_0,
        Encoding::Q5_1,
        Encoding::Q2_K,
        Encoding::Q3_K,
        Encoding::Q4_K,
        Encoding::Q5_K,
        Encoding::Q6_K,
        Encoding::IQ4_NL,
    ];

    /// The dtype that a safetensors header calls `name` (`"F16"`, `"BF16"`, …).
    pub fn from_safetensors(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name && !dtype.is_quantised())
    }

    /// The dtype called `name`, as [`Encoding::name`] has it, of any format.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// The name that safetensors headers use, or ggml for its blocks.
    pub fn name(self) -> &'static str {
        match self {
            Encoding::F64 => "F64",
            Encoding::F32 => "F32",
            Encoding::F16 => "F16",
            Encoding::BF16 => "BF16",
            Encoding::F8E4M3 => "F8_E4M3",
            Encoding::F8E5M2 => "F8_E5M2",
            Encoding::I64 => "I64",
            Encoding::I32 => "I32",
            Encoding::I16 => "I16",
            Encoding::I8 => "I8",
            Encoding::U64 => "U64",
            Encoding::U32 => "U32",
            Encoding::U16 => "U16",
            Encoding::U8 => "U8",
            Encoding::Bool => "BOOL",
            Encoding::Q8_0 => "Q8_0",
            Encoding::Q4_0 => "Q4_0",
            Encoding::Q4_1 => "Q4_1",
            Encoding::Q5_0 => "Q5_0",
            Encoding::Q5_1 => "Q5_1",
            Encoding::Q2_K => "Q2_K",
            Encoding::Q3_K => "Q3_K",
            Encoding::Q4_K => "Q4_K",
            Encoding::Q5_K => "Q5_K",
            Encoding::Q6_K => "Q6_K",
            Encoding::IQ4_NL => "IQ4_NL",
        }
    }

    /// The block of this encoding: the elements that are stored together, and the bytes they take.
    pub fn block(self) -> Block {
        let (elements, bytes) = match self {
            Encoding::F64 | Encoding::I64 | Encoding::U64 => (1, 8),
            Encoding::F32 | Encoding::I32 | Encoding::U32 => (1, 4),
            Encoding::F16 | Encoding::BF16 | Encoding::I16 | Encoding::U16 => (1, 2),
            Encoding::F8E4M3 | Encoding::F8E5M2 | Encoding::I8 | Encoding::U8 | Encoding::Bool => (1, 1),
            Encoding::Q8_0 => (32, 34),
            Encoding::Q4_0 | Encoding::IQ4_NL => (32, 18),
            Encoding::Q4_1 => (32, 20),
            Encoding::Q5_0 => (32, 22),
            Encoding::Q5_1 => (32, 24),
            Encoding::Q2_K => (256, 84),
            Encoding::Q3_K => (256, 110),
            Encoding::Q4_K => (256, 144),
            Encoding::Q5_K => (256, 176),
            Encoding::Q6_K => (256, 210),
        };
        Block { elements, bytes }
    }

    /// Whether a network's weights can be stored so: whether [`Encoding::to_f32`] reads it.
    pub fn is_weight(self) -> bool {
        matches!(self, Encoding::F64 | Encoding::F32 | Encoding::F16 | Encoding::BF16)
            || self.is_float8()
            || self.is_quantised()
    }

    /// Whether it is a float of 8 bits, each of whose values is one of f16's too.
    pub fn is_float8(self) -> bool {
        matches!(self, Encoding::F8E4M3 | Encoding::F8E5M2)
    }

    /// Whether several elements share a block.
    pub fn is_quantised(self) -> bool {
        self.block().elements > 1
    }

    /// Bytes that `elements` elements take; `None` if they are not whole blocks, or more than can be counted.
    pub fn bytes_of(self, elements: usize) -> Option<usize> {
        let block = self.block();
        elements.is_multiple_of(block.elements).then(|| (elements / block.elements).checked_mul(block.bytes))?
    }

    /// The elements as f32: exact for F32, F16, BF16 and the 8-bit floats, rounded to nearest for F64, and computed in f32
    /// as ggml does for its blocks.
    ///
    /// `bytes` may start at any address. `None` for a dtype that holds no weights (integers, booleans) and for a length
    /// that is not a whole number of elements or blocks.
    pub fn to_f32(self, bytes: &[u8]) -> Option<Vec<f32>> {
        match self {
            Encoding::F64 => decode(bytes, |b| f64::from_le_bytes(b) as f32),
            Encoding::F32 => decode(bytes, f32::from_le_bytes),
            Encoding::F16 => decode(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Encoding::BF16 => decode(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Encoding::F8E4M3 | Encoding::F8E5M2 => decode(bytes, |b| f16::from_bits(self.widen(b)).to_f32()),
            _ => blocks::dequantise(self, bytes),
        }
    }

    /// An 8-bit float as the bits of f16, which has all of its values. E5M2 is the upper half of one. E4M3 has a bias of 7
    /// rather than 15, no infinities, and a NaN where the last of its numbers would be.
    fn widen(self, [byte]: [u8; 1]) -> u16 {
        let (sign, rest) = (u16::from(byte & 0x80) << 8, u16::from(byte & 0x7F));
        match self {
            Encoding::F8E5M2 => u16::from(byte) << 8,
            _ if rest == 0x7F => sign | f16::NAN.to_bits(),
            _ => sign | f16::from_f32(f16::from_bits(rest << 7).to_f32() * 256.0).to_bits(),
        }
    }

    /// The one element of `bytes` as a number, of any dtype that has numbers; `None` if there is not exactly one.
    pub fn number(self, bytes: &[u8]) -> Option<f64> {
        if bytes.len() != self.block().bytes || self.is_quantised() {
            return None;
        }
        let signed = matches!(self, Encoding::I64 | Encoding::I32 | Encoding::I16 | Encoding::I8);
        let unsigned = matches!(self, Encoding::U64 | Encoding::U32 | Encoding::U16 | Encoding::U8);
        let value = bytes.iter().rev().fold(0u64, |number, &byte| (number << 8) | u64::from(byte));
        match self {
            Encoding::F64 => Some(f64::from_bits(value)),
            // Shifted up and down again, so that its sign is spread.
            _ if signed => Some((((value << (64 - 8 * bytes.len())) as i64) >> (64 - 8 * bytes.len())) as f64),
            _ if unsigned => Some(value as f64),
            _ => self.to_f32(bytes)?.first().copied().map(f64::from),
        }
    }

    /// The elements as the bits of f16: exact for F16 and the 8-bit floats, rounded to nearest even for all others.
    ///
    /// `bytes` may start at any address. `None` as in [`Encoding::to_f32`].
    pub fn to_f16_bits(self, bytes: &[u8]) -> Option<F16Bits> {
        let mut overflowed = 0;
        let mut narrow = |finite: bool, rounded: f16| {
            overflowed += usize::from(finite && rounded.is_infinite());
            rounded.to_bits()
        };
        let bits = match self {
            Encoding::F16 => decode(bytes, u16::from_le_bytes),
            Encoding::F8E4M3 | Encoding::F8E5M2 => decode(bytes, |b| self.widen(b)),
            Encoding::F64 => decode(bytes, |b| {
                let value = f64::from_le_bytes(b);
                narrow(value.is_finite(), f16::from_f64(value))
            }),
            Encoding::F32 => decode(bytes, |b| {
                let value = f32::from_le_bytes(b);
                narrow(value.is_finite(), f16::from_f32(value))
            }),
            Encoding::BF16 => decode(bytes, |b| {
                let value = bf16::from_le_bytes(b);
                narrow(value.is_finite(), f16::from_f32(value.to_f32()))
            }),
            _ => blocks::dequantise(self, bytes)
                .map(|values| values.iter().map(|&value| narrow(value.is_finite(), f16::from_f32(value))).collect()),
        }?;
        Some(F16Bits { bits, overflowed })
    }

    /// The bytes of `values` in this dtype, each rounded to nearest even, or quantised as ggml does without importances.
    ///
    /// `None` for a dtype that nothing here writes (F64, integers, booleans, 8-bit floats, K-quants, IQ4_NL), and for
    /// values that do not fill whole blocks. Values have to be finite and within f16's ±65504 for a dtype narrower than f32.
    pub fn encode(self, values: &[f32]) -> Option<Vec<u8>> {
        match self {
            Encoding::F32 => Some(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            Encoding::F16 => Some(values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect()),
            Encoding::BF16 => Some(values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect()),
            _ => blocks::quantise(self, values),
        }
    }
}

impl std::fmt::Display for Encoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A tensor narrowed to f16.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct F16Bits {
    /// The bits of each element.
    pub bits: Vec<u16>,
    /// Number of finite elements that are too large for f16 (beyond ±65504) and became infinite. If this is not zero, the
    /// tensor has to stay f32.
    pub overflowed: usize,
}

/// Reads elements of `N` bytes; `None` if some bytes are left over.
fn decode<const N: usize, T>(bytes: &[u8], mut element: impl FnMut([u8; N]) -> T) -> Option<Vec<T>> {
    let (elements, rest) = bytes.as_chunks::<N>();
    rest.is_empty().then(|| elements.iter().map(|&bytes| element(bytes)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_back_to_its_dtype() {
        for dtype in Encoding::ALL {
            assert_eq!(Encoding::from_name(dtype.name()), Some(dtype));
            let plain = Some(dtype).filter(|dtype| !dtype.is_quantised());
            assert_eq!(Encoding::from_safetensors(dtype.name()), plain, "safetensors has no blocks");
            assert_eq!(dtype.is_weight(), dtype.to_f32(&[]).is_some(), "{dtype}");
        }
        assert_eq!(Encoding::from_safetensors("f16"), None);
    }

    #[test]
    fn bytes_are_counted_in_whole_blocks() {
        assert_eq!(Encoding::F16.bytes_of(3), Some(6));
        assert_eq!(Encoding::Q8_0.bytes_of(64), Some(68));
        assert_eq!(Encoding::Q6_K.bytes_of(0), Some(0));
        assert_eq!(Encoding::Q4_K.bytes_of(128), None);
        assert_eq!(Encoding::F64.bytes_of(usize::MAX / 4), None);
    }

    #[test]
    fn floats_convert_from_an_odd_address() {
        let mut bytes = vec![0xAA];
        bytes.extend([1.5f32, -65504.0, f32::MIN_POSITIVE].iter().flat_map(|v| v.to_le_bytes()));
        assert_eq!(Encoding::F32.to_f32(&bytes[1..]), Some(vec![1.5, -65504.0, f32::MIN_POSITIVE]));
        assert_eq!(Encoding::F16.to_f32(&[0xAA, 0x00, 0x3E][1..]), Some(vec![1.5]));
        assert_eq!(Encoding::BF16.to_f32(&[0xAA, 0xC0, 0x3F][1..]), Some(vec![1.5]));
        assert_eq!(Encoding::F64.to_f32(&0.1f64.to_le_bytes()), Some(vec![0.1]));
    }

    #[test]
    fn every_f16_survives_the_way_through_f32_bit_for_bit() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let wide: Vec<u8> = Encoding::F16.to_f32(&bytes).unwrap().iter().flat_map(|v| v.to_le_bytes()).collect();
        let back = Encoding::F32.to_f16_bits(&wide).unwrap();
        assert_eq!(back.overflowed, 0);
        for (index, (&got, expected)) in back.bits.iter().zip(0..=u16::MAX).enumerate() {
            let is_nan = f16::from_bits(expected).is_nan();
            assert!(got == expected || (is_nan && f16::from_bits(got).is_nan()), "element {index}: {got:#06x}");
        }
    }

    #[test]
    fn narrowing_rounds_to_even_and_counts_what_overflows() {
        // Halfway cases: 2049 lies between 2048 and 2050, 2051 between 2050 and 2052; 65520 is the first that overflows.
        let values = [2049.0f32, 2051.0, 65504.0, 65519.0, 65520.0, -1e30, f32::INFINITY, f32::NAN];
        let f32_bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let f64_bytes: Vec<u8> = values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect();
        for narrowed in [Encoding::F32.to_f16_bits(&f32_bytes).unwrap(), Encoding::F64.to_f16_bits(&f64_bytes).unwrap()]
        {
            let back: Vec<f32> = narrowed.bits.iter().map(|&b| f16::from_bits(b).to_f32()).collect();
            assert_eq!(back[..4], [2048.0, 2052.0, 65504.0, 65504.0]);
            assert_eq!(back[4..7], [f32::INFINITY, f32::NEG_INFINITY, f32::INFINITY]);
            assert!(back[7].is_nan());
            assert_eq!(narrowed.overflowed, 2);
        }
        let bf16_max: Vec<u8> = bf16::MAX.to_le_bytes().into();
        assert_eq!(Encoding::BF16.to_f16_bits(&bf16_max).unwrap(), F16Bits { bits: vec![0x7C00], overflowed: 1 });
    }

    /// The value of the float whose bits are `byte`, by the definition: ±(1 + m)·2^(e − bias), or ±m·2^(1 − bias).
    fn float8(byte: u8, mantissa: i32, bias: i32) -> f64 {
        let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
        let exponent = i32::from(byte & 0x7F) >> mantissa;
        let fraction = f64::from(i32::from(byte) & ((1 << mantissa) - 1)) / 2f64.powi(mantissa);
        match exponent {
            0 => sign * fraction * 2f64.powi(1 - bias),
            _ => sign * (1.0 + fraction) * 2f64.powi(exponent - bias),
        }
    }

    #[test]
    fn each_of_the_256_floats_of_8_bits_is_its_value_as_f32_and_as_f16() {
        let bytes: Vec<u8> = (0..=u8::MAX).collect();
        for (dtype, mantissa, bias) in [(Encoding::F8E4M3, 3, 7), (Encoding::F8E5M2, 2, 15)] {
            let (wide, half) = (dtype.to_f32(&bytes).unwrap(), dtype.to_f16_bits(&bytes).unwrap());
            assert_eq!(half.overflowed, 0);
            for (byte, (wide, half)) in bytes.iter().zip(wide.into_iter().zip(half.bits)) {
                let half = f16::from_bits(half).to_f32();
                assert!(wide.to_bits() == half.to_bits() || (wide.is_nan() && half.is_nan()), "{byte:#04x} of {dtype}");
                match (dtype, byte & 0x7F) {
                    (Encoding::F8E4M3, 0x7F) | (Encoding::F8E5M2, 0x7D..) => {
                        assert!(wide.is_nan(), "{byte:#04x} of {dtype}")
                    }
                    (Encoding::F8E5M2, 0x7C) => assert!(wide.is_infinite(), "{byte:#04x}"),
                    _ => assert_eq!(f64::from(wide), float8(*byte, mantissa, bias), "{byte:#04x} of {dtype}"),
                }
                assert_eq!(wide.is_sign_negative(), byte & 0x80 != 0, "{byte:#04x} of {dtype}");
            }
        }
        assert_eq!(Encoding::F8E4M3.to_f32(&[0x7E, 0x01, 0x80]), Some(vec![448.0, 2f32.powi(-9), -0.0]));
        assert_eq!(
            Encoding::F8E5M2.to_f32(&[0x7B, 0x01, 0xFC]),
            Some(vec![57344.0, 2f32.powi(-16), f32::NEG_INFINITY])
        );
    }

    #[test]
    fn one_number_is_read_of_every_plain_dtype() {
        let cases: [(Encoding, &[u8], f64); 12] = [
            (Encoding::I64, &(-4i64).to_le_bytes(), -4.0),
            (Encoding::I32, &16i32.to_le_bytes(), 16.0),
            (Encoding::I16, &(-1i16).to_le_bytes(), -1.0),
            (Encoding::I8, &[0x80], -128.0),
            (Encoding::U64, &u64::MAX.to_le_bytes(), 18_446_744_073_709_551_615.0),
            (Encoding::U32, &8u32.to_le_bytes(), 8.0),
            (Encoding::U16, &[0xFF, 0xFF], 65535.0),
            (Encoding::U8, &[0xFF], 255.0),
            (Encoding::F64, &0.1f64.to_le_bytes(), 0.1),
            (Encoding::F32, &1.5f32.to_le_bytes(), 1.5),
            (Encoding::BF16, &[0x80, 0x41], 16.0),
            (Encoding::F8E4M3, &[0x58], 16.0),
        ];
        for (dtype, bytes, value) in cases {
            assert_eq!(dtype.number(bytes), Some(value), "{dtype}");
            assert_eq!(dtype.number(&[bytes, bytes].concat()), None, "{dtype}");
        }
        assert_eq!(Encoding::Bool.number(&[1]), None);
        assert_eq!(Encoding::Q8_0.number(&[0; 34]), None);
    }

    #[test]
    fn integers_and_part_of_an_element_are_no_weights() {
        assert_eq!(Encoding::I64.to_f32(&[0; 8]), None);
        assert_eq!(Encoding::Bool.to_f16_bits(&[1]), None);
        assert_eq!(Encoding::F32.to_f32(&[0; 7]), None);
        assert_eq!(Encoding::F16.to_f16_bits(&[0; 1]), None);
        assert_eq!(Encoding::F32.to_f32(&[]), Some(vec![]));
        assert_eq!(Encoding::Q8_0.to_f32(&[0; 33]), None);
        assert_eq!(Encoding::I64.encode(&[1.0]), None);
        assert_eq!(Encoding::Q4_K.encode(&[1.0; 256]), None);
        assert_eq!(Encoding::Q8_0.encode(&[1.0; 31]), None);
    }
}
