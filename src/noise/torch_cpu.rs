use half::{bf16, f16};

use super::mt19937::Mt19937;

/// Number of values from which on torch fills a tensor with uniforms first and transforms them in blocks of this many.
const BLOCK: usize = 16;

/// `torch.Generator("cpu").manual_seed(seed)`: one stream, from which every draw takes its share in order.
///
/// Each method stands for one call of `torch.randn` or `torch.rand` with this generator; `n` is the number of elements
/// of the tensor, in row-major order. How many words of the stream a call consumes depends on `n` and on the dtype, so
/// one call for eight values is not two calls for four.
#[derive(Clone, Debug)]
pub struct TorchCpu {
    mt: Mt19937,
    /// Box and Muller's method gives normals in pairs; the second waits here for the next small draw of any dtype,
    /// even when larger draws come in between.
    spare: Option<f64>,
}

impl TorchCpu {
    /// Seeds the stream. As in torch, only the low 32 bits of the seed count.
    pub fn new(seed: u64) -> Self {
        Self { mt: Mt19937::new(seed as u32), spare: None }
    }

    /// `torch.rand(n, dtype=torch.float32)`: uniform in [0, 1), multiples of 2⁻²⁴.
    pub fn rand(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.uniform()).collect()
    }

    /// `torch.rand(n, dtype=torch.float64)`: uniform in [0, 1), multiples of 2⁻⁵³.
    pub fn rand_f64(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| self.uniform_f64()).collect()
    }

    /// `torch.rand(n, dtype=torch.float16)`: the f32 values rounded, so that 1 itself can occur.
    pub fn rand_f16(&mut self, n: usize) -> Vec<f16> {
        (0..n).map(|_| f16::from_f32(self.uniform())).collect()
    }

    /// `torch.rand(n, dtype=torch.bfloat16)`: the f32 values rounded, so that 1 itself can occur.
    pub fn rand_bf16(&mut self, n: usize) -> Vec<bf16> {
        (0..n).map(|_| bf16::from_f32(self.uniform())).collect()
    }

    /// `torch.randn(n, dtype=torch.float32)`: standard normal.
    pub fn randn(&mut self, n: usize) -> Vec<f32> {
        self.normals(n, n, |stream| f64::from(stream.uniform())).into_iter().map(|x| x as f32).collect()
    }

    /// `torch.randn(n, dtype=torch.float64)`: standard normal.
    pub fn randn_f64(&mut self, n: usize) -> Vec<f64> {
        self.normals(n, n, Self::uniform_f64)
    }

    /// `torch.randn(n, dtype=torch.float16)`: standard normal.
    pub fn randn_f16(&mut self, n: usize) -> Vec<f16> {
        self.normals_of_half_width(n).map(f16::from_f32).collect()
    }

    /// `torch.randn(n, dtype=torch.bfloat16)`: standard normal.
    pub fn randn_bf16(&mut self, n: usize) -> Vec<bf16> {
        self.normals_of_half_width(n).map(bf16::from_f32).collect()
    }

    fn normals_of_half_width(&mut self, n: usize) -> impl Iterator<Item = f32> + use<> {
        // torch draws for these dtypes block by block and leaves a short last block to the redraw, so such a tensor
        // consumes fewer uniforms than one of f32.
        let whole_blocks = n / BLOCK * BLOCK;
        self.normals(n, whole_blocks, |stream| f64::from(stream.uniform())).into_iter().map(|x| x as f32)
    }

    /// `n` standard normals. A tensor of at least one block draws `drawn` uniforms in one go before any is transformed.
    fn normals(&mut self, n: usize, drawn: usize, mut uniform: impl FnMut(&mut Self) -> f64) -> Vec<f64> {
        if n < BLOCK {
            return (0..n).map(|_| self.normal()).collect();
        }
        let mut values: Vec<f64> = (0..drawn).map(|_| uniform(self)).collect();
        values.resize(n, 0.0);
        for block in values.chunks_exact_mut(BLOCK) {
            box_muller(block);
        }
        if !n.is_multiple_of(BLOCK) {
            // A ragged end is redrawn as a whole block, over values that were already done.
            let tail = &mut values[n - BLOCK..];
            tail.fill_with(|| uniform(self));
            box_muller(tail);
        }
        values
    }

    /// One standard normal in f64: the path of tensors that are smaller than a block, whatever their dtype.
    fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let (u1, u2) = (self.uniform_f64(), self.uniform_f64());
        let radius = libm::sqrt(-2.0 * libm::log1p(-u2));
        let (sin, cos) = libm::sincos(std::f64::consts::TAU * u1);
        self.spare = Some(radius * sin);
        radius * cos
    }

    fn uniform(&mut self) -> f32 {
        (self.mt.next_u32() & ((1 << 24) - 1)) as f32 / (1u32 << 24) as f32
    }

    fn uniform_f64(&mut self) -> f64 {
        let (high, low) = (u64::from(self.mt.next_u32()), u64::from(self.mt.next_u32()));
        let bits = (high << 32 | low) & ((1 << 53) - 1);
        bits as f64 / (1u64 << 53) as f64
    }
}

/// Box and Muller's transform of one block of uniforms, in place: element j pairs with element j + 8.
fn box_muller(block: &mut [f64]) {
    let (first, second) = block.split_at_mut(BLOCK / 2);
    for (a, b) in first.iter_mut().zip(second) {
        // 1 − u lies in (0, 1], where the logarithm is finite.
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - *a));
        let (sin, cos) = libm::sincos(std::f64::consts::TAU * *b);
        (*a, *b) = (radius * cos, radius * sin);
    }
}
