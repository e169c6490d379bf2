/// Threads of a block, in the launches that torch makes here.
const BLOCK: usize = 256;

/// Number of normals that a thread makes in one round.
const UNROLL: usize = 4;

/// `torch.Generator("cuda").manual_seed(seed)`: a counter instead of a state, so that every thread of a GPU draws for
/// itself (Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
///
/// Thread i of T draws for the elements i, i + T, i + 2T and i + 3T, then for the next four. T is the number of
/// elements, rounded up to whole blocks; but no more than a GPU holds at once, its multiprocessors times 1024 to 2048,
/// which makes the draws of large tensors depend on the GPU. This stream is that of a GPU that holds them all.
#[derive(Clone, Debug)]
pub struct TorchCuda {
    key: [u32; 2],
    /// Rounds that every thread has made.
    offset: u64,
    max_threads: usize,
}

impl TorchCuda {
    /// Seeds the stream; all 64 bits of the seed count.
    pub fn new(seed: u64) -> Self {
        Self::with_max_threads(seed, usize::MAX)
    }

    /// The stream of a GPU that holds `max_threads` at once, a multiple of 256 (its multiprocessors times the threads
    /// that each holds); less than one block counts as one.
    pub fn with_max_threads(seed: u64, max_threads: usize) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32], offset: 0, max_threads: max_threads.max(BLOCK) / BLOCK * BLOCK }
    }

    /// `torch.randn(n, dtype=torch.float32)`: standard normal.
    pub fn randn(&mut self, n: usize) -> Vec<f32> {
        let threads = n.div_ceil(BLOCK).saturating_mul(BLOCK).min(self.max_threads);
        let mut values = vec![0.0; n];
        for (round, chunk) in (self.offset..).zip(values.chunks_mut(threads.saturating_mul(UNROLL).max(1))) {
            self.offset = round + 1;
            for thread in 0..threads.min(chunk.len()) {
                let counter = [round as u32, (round >> 32) as u32, thread as u32, (thread as u64 >> 32) as u32];
                let normals = normals(philox(counter, self.key));
                for (value, normal) in chunk[thread..].iter_mut().step_by(threads).zip(normals) {
                    *value = normal;
                }
            }
        }
        values
    }
}

/// Ten rounds of Philox: a keyed permutation of 128 bits.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let [c0, c1, c2, c3] = counter;
        let (a, b) = (u64::from(c0) * 0xd251_1f53, u64::from(c2) * 0xcd9e_8d57);
        counter = [(b >> 32) as u32 ^ c1 ^ key[0], b as u32, (a >> 32) as u32 ^ c3 ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    counter
}

/// Box and Muller's transform of two pairs of words. The uniforms are f32, as CUDA has them: of those close to 1, whose
/// normals are close to 0, the rounding shows.
fn normals(words: [u32; 4]) -> [f32; UNROLL] {
    let pair = |a: u32, b: u32| {
        let uniform = |word: u32| word as f32 * 2f32.powi(-32) + 2f32.powi(-33);
        let radius = libm::sqrt(-2.0 * libm::log(f64::from(uniform(a))));
        let (sin, cos) = libm::sincos(f64::from(uniform(b) * std::f32::consts::TAU));
        [(radius * sin) as f32, (radius * cos) as f32]
    };
    let ([a, b], [c, d]) = (pair(words[0], words[1]), pair(words[2], words[3]));
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::philox;

    #[test]
    fn philox_gives_the_known_answers_of_its_authors() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }
}
