//! Object content that follows from key and length alone, so that any reader can check any object.
//!
//! The first 32 bytes are the BLAKE3 hash of the key; the rest is a window into one shared pseudo-random pattern,
//! beginning at an offset drawn from that hash. Making and checking it costs a comparison per byte, no memory and no
//! copy. The pattern's length is odd, so that swapped blocks do not fit.

use bytes::Bytes;

/// Length of the pattern in bytes: about the size of a second-level cache, and odd.
const PATTERN_LEN: usize = (1 << 20) + 4099;
/// Length of the part that names the key.
const MARK_LEN: usize = 32;

/// The shared pattern. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pattern(Bytes);

impl Default for Pattern {
    fn default() -> Self {
        Self::new()
    }
}

impl Pattern {
    /// Makes the pattern, the same in every process.
    pub fn new() -> Self {
        let mut bytes = vec![0; PATTERN_LEN];
        blake3::Hasher::new_derive_key("drystone bench content 1").finalize_xof().fill(&mut bytes);
        Self(Bytes::from(bytes))
    }

    /// The content of `len` bytes that belongs under `key`.
    pub fn content(&self, key: &str, len: u64) -> Content {
        let hash = blake3::hash(key.as_bytes());
        let draw = hash.as_bytes().iter().take(4).fold(0_usize, |sum, byte| (sum << 8) | usize::from(*byte));
        let mark = Bytes::copy_from_slice(hash.as_bytes());
        let mark = mark.slice(..MARK_LEN.min(usize::try_from(len).unwrap_or(MARK_LEN)));
        Content { left: len, mark, pattern: self.0.clone(), at: draw % PATTERN_LEN }
    }
}

/// The content of one object, given out piece by piece.
#[derive(Clone, Debug)]
pub struct Content {
    left: u64,
    mark: Bytes,
    pattern: Bytes,
    at: usize,
}

impl Content {
    /// Bytes not yet given out.
    pub fn remaining(&self) -> u64 {
        self.left
    }

    /// The next bytes, `None` at the end.
    pub fn next_piece(&mut self) -> Option<Bytes> {
        self.take(usize::MAX)
    }

    /// Checks that `bytes` come next, and moves past them.
    pub fn matches(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let Some(piece) = self.take(bytes.len()) else { return false };
            let (head, rest) = bytes.split_at(piece.len());
            if head != piece {
                return false;
            }
            bytes = rest;
        }
        true
    }

    /// At most `max` of the next bytes.
    fn take(&mut self, max: usize) -> Option<Bytes> {
        if self.left == 0 {
            return None;
        }
        let piece = if self.mark.is_empty() {
            let len = (PATTERN_LEN - self.at).min(usize::try_from(self.left).unwrap_or(usize::MAX)).min(max);
            let piece = self.pattern.slice(self.at..self.at + len);
            self.at = (self.at + len) % PATTERN_LEN;
            piece
        } else {
            self.mark.split_to(self.mark.len().min(max))
        };
        self.left -= piece.len() as u64;
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(mut content: Content) -> Vec<u8> {
        std::iter::from_fn(|| content.next_piece()).flatten().collect()
    }

    #[test]
    fn content_has_its_length_and_differs_by_key() {
        let pattern = Pattern::new();
        for len in [0, 1, 31, 32, 33, 4096, 3 * PATTERN_LEN as u64 + 7] {
            assert_eq!(whole(pattern.content("k", len)).len() as u64, len);
        }
        assert_ne!(whole(pattern.content("a", 4096)), whole(pattern.content("b", 4096)));
        assert_eq!(whole(pattern.content("a", 4096)), whole(Pattern::new().content("a", 4096)));
    }

    #[test]
    fn any_cut_of_the_right_bytes_matches_and_any_changed_byte_does_not() {
        let pattern = Pattern::new();
        let len = PATTERN_LEN as u64 + 100;
        let bytes = whole(pattern.content("k", len));
        for cut in [1, 31, 33, 65_536, PATTERN_LEN] {
            let mut content = pattern.content("k", len);
            assert!(bytes.chunks(cut).all(|piece| content.matches(piece)), "{cut}");
            assert_eq!(content.remaining(), 0);
        }
        for index in [0, 31, 32, 5000, bytes.len() - 1] {
            let mut wrong = bytes.clone();
            wrong[index] ^= 1;
            assert!(!pattern.content("k", len).matches(&wrong), "{index}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(!pattern.content("k", len).matches(&longer));
    }
}
