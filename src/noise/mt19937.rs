//! The Mersenne Twister of Matsumoto and Nishimura, "Mersenne Twister: A 623-dimensionally equidistributed uniform
//! pseudo-random number generator" (1998), as `torch.Generator("cpu")` uses it.

const N: usize = 624;
const M: usize = 397;

#[derive(Clone, Debug)]
pub(crate) struct Mt19937 {
    state: Box<[u32; N]>,
    /// The next word of `state` to hand out; `N` when all are spent.
    next: usize,
}

impl Mt19937 {
    pub(crate) fn new(seed: u32) -> Self {
        let mut state = Box::new([0; N]);
        let mut word = seed;
        for (i, slot) in (0u32..).zip(state.iter_mut()) {
            if i > 0 {
                word = 1_812_433_253u32.wrapping_mul(word ^ (word >> 30)).wrapping_add(i);
            }
            *slot = word;
        }
        Self { state, next: N }
    }

    pub(crate) fn next_u32(&mut self) -> u32 {
        if self.next == N {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn twist(&mut self) {
        for i in 0..N {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
            let magic = if y & 1 == 0 { 0 } else { 0x9908_b0df };
            self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ magic;
        }
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::Mt19937;

    #[test]
    fn the_ten_thousandth_word_is_the_one_that_the_cpp_standard_requires() {
        let mut mt = Mt19937::new(5489);
        for _ in 1..10_000 {
            mt.next_u32();
        }
        assert_eq!(mt.next_u32(), 4_123_659_995);
    }
}
