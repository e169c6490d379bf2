//! Byte pair encoding: a word's bytes, then the best-ranked merge of two neighbours until none is left.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// Marks the last token of a word.
pub const END_OF_WORD: &str = "</w>";

/// The character that stands for `byte` in a vocabulary: itself where it prints, else the next unused one from U+0100
/// on, so that no token holds a blank or a control character (GPT-2's `bytes_to_unicode`).
pub fn byte_to_char(byte: u8) -> char {
    const HIDDEN_BEFORE_7F: u32 = 33;
    match byte {
        b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
        0..=b' ' => shifted(u32::from(byte)),
        0x7F..=0xA0 => shifted(HIDDEN_BEFORE_7F + u32::from(byte) - 0x7F),
        0xAD => shifted(HIDDEN_BEFORE_7F + 0xA0 - 0x7F + 1),
    }
}

fn shifted(rank: u32) -> char {
    char::from_u32(0x100 + rank).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte for which `c` stands.
pub fn char_to_byte(c: char) -> Option<u8> {
    (0..=u8::MAX).find(|&byte| byte_to_char(byte) == c)
}

/// The merges of a vocabulary, by ids.
#[derive(Debug)]
pub struct Bpe {
    /// Ids of the single bytes inside a word.
    pub inner: [u32; 256],
    /// Ids of the single bytes at a word's end.
    pub last: [u32; 256],
    /// (left, right) → (rank, merged).
    pub merges: HashMap<(u32, u32), (u32, u32)>,
}

/// A token of a word that is being merged; the tokens form a doubly linked list.
struct Symbol {
    id: u32,
    previous: usize,
    /// The next token's index; the word's length at its end.
    next: usize,
}

/// `id` of a symbol that went into its left neighbour; no vocabulary is that large.
const GONE: u32 = u32::MAX;

impl Bpe {
    /// Appends the ids of one word to `ids`.
    ///
    /// Merges are taken by rank, then from the left. A heap keeps this at n log n for a word of n bytes; scanning for
    /// the best pair anew each time would let one long word stall a page.
    pub fn encode_word(&self, word: &str, ids: &mut Vec<u32>) {
        let count = word.len();
        let mut symbols: Vec<Symbol> = word
            .bytes()
            .enumerate()
            .map(|(index, byte)| {
                let table = if index + 1 == count { &self.last } else { &self.inner };
                Symbol { id: table[usize::from(byte)], previous: index.wrapping_sub(1), next: index + 1 }
            })
            .collect();
        let merge_at = |symbols: &[Symbol], left: usize| -> Option<Reverse<(u32, usize, u32)>> {
            let symbol = symbols.get(left)?;
            let right = symbols.get(symbol.next)?;
            let &(rank, merged) = self.merges.get(&(symbol.id, right.id))?;
            Some(Reverse((rank, left, merged)))
        };
        let mut queue: BinaryHeap<_> = (0..count).filter_map(|left| merge_at(&symbols, left)).collect();
        while let Some(merge) = queue.pop() {
            let Reverse((_, left, merged)) = merge;
            // An entry is stale if either side has since changed.
            if merge_at(&symbols, left) != Some(merge) {
                continue;
            }
            let right = symbols[left].next;
            let next = symbols[right].next;
            symbols[right].id = GONE;
            symbols[left].id = merged;
            symbols[left].next = next;
            if let Some(after) = symbols.get_mut(next) {
                after.previous = left;
            }
            queue.extend(merge_at(&symbols, left));
            queue.extend(merge_at(&symbols, symbols[left].previous));
        }
        ids.extend(symbols.iter().map(|symbol| symbol.id).filter(|&id| id != GONE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_character_and_the_way_back() {
        for byte in 0..=u8::MAX {
            let c = byte_to_char(byte);
            assert!(!c.is_whitespace() && !c.is_control(), "byte {byte:#04x}");
            assert_eq!(char_to_byte(c), Some(byte), "byte {byte:#04x}");
        }
        assert_eq!([0, b' ', 0x7F, 0xA0, 0xAD].map(byte_to_char), ['Ā', 'Ġ', 'ġ', 'ł', 'Ń']);
        assert_eq!(char_to_byte('€'), None);
    }
}
