//! A hash that is the same on every machine and in every version, to tell weights and runs apart.

/// FNV-1a, 64 bits (Fowler, Noll and Vo).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self::new()
    }
}

impl Hash {
    /// The hash of nothing.
    pub fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Adds more bytes, and their number.
    pub fn add(&mut self, bytes: &[u8]) {
        self.update(bytes);
        self.update(&(bytes.len() as u64).to_le_bytes());
    }

    /// The value of the hash.
    pub fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_published_function() {
        let hash = |text: &str| {
            let mut hash = Hash::new();
            hash.update(text.as_bytes());
            hash.value()
        };
        assert_eq!([hash("a"), hash("foobar")], [0xaf63_dc4c_8601_ec8c, 0x8594_4171_f739_67e8]);
    }

    #[test]
    fn where_one_text_ends_and_the_next_begins_is_part_of_a_hash() {
        let hash = |texts: &[&str]| {
            let mut hash = Hash::new();
            texts.iter().for_each(|text| hash.add(text.as_bytes()));
            hash.value()
        };
        assert!(hash(&["ab", "c"]) != hash(&["a", "bc"]) && hash(&["ab", "c"]) == hash(&["ab", "c"]));
    }
}
