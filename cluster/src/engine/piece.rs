//! Plans a read: which ranges of which chunks, in the order of the object's bytes. Pure arithmetic.

use std::ops::Range;

use crate::index::ExtentRecord;

/// Most bytes read from one chunk at once: sixteen blocks. Large enough to amortise a call, small enough that the first
/// byte comes soon and that a hedge does not read much twice.
const PIECE_LEN_MAX: u32 = 1 << 20;

/// A range of the payload of one data chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Which data chunk, `0..k`.
    pub(crate) slot: u8,
    /// Bytes of its payload, `start < end`.
    pub(crate) range: Range<u32>,
}

impl Piece {
    /// Length in bytes.
    pub(crate) fn len(&self) -> u32 {
        self.range.end - self.range.start
    }
}

/// The pieces of `extent` that make up its bytes `range`, in order. Chunk i holds the i-th contiguous slice, so a
/// small range touches one drive.
pub(crate) fn plan_pieces(extent: &ExtentRecord, range: Range<u32>) -> Vec<Piece> {
    let chunk_len = extent.scheme.chunk_len(extent.len);
    let mut pieces = Vec::new();
    let mut at = range.start;
    while at < range.end.min(extent.len) {
        let slot = at / chunk_len;
        let start = at % chunk_len;
        // Pieces end where a multiple of their length lies in the chunk, so that no block is verified twice.
        let end = (start / PIECE_LEN_MAX * PIECE_LEN_MAX)
            .saturating_add(PIECE_LEN_MAX)
            .min(chunk_len)
            .min(start + (range.end.min(extent.len) - at));
        pieces.push(Piece { slot: u8::try_from(slot).unwrap_or(u8::MAX), range: start..end });
        at += end - start;
    }
    pieces
}

/// The parts of `extents` (in order, laid end to end) that cover the bytes `range`: index and range within the extent.
pub(crate) fn plan_extents(extents: &[ExtentRecord], range: Range<u64>) -> Vec<(usize, Range<u32>)> {
    let mut offset = 0_u64;
    let mut parts = Vec::new();
    for (index, extent) in extents.iter().enumerate() {
        let end = offset + u64::from(extent.len);
        let (from, to) = (range.start.max(offset), range.end.min(end));
        if from < to {
            let within = |at: u64| u32::try_from(at - offset).unwrap_or(u32::MAX);
            parts.push((index, within(from)..within(to)));
        }
        offset = end;
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{ExtentId, Scheme};

    fn extent(len: u32, data: u8) -> ExtentRecord {
        ExtentRecord { id: ExtentId::from_bytes([0; 16]), len, scheme: Scheme { data, parity: 1 }, drives: vec![] }
    }

    #[test]
    fn a_small_range_touches_one_chunk() {
        let pieces = plan_pieces(&extent(1 << 20, 2), 600_000..600_100);
        assert_eq!(pieces, vec![Piece { slot: 1, range: 75_712..75_812 }]);
    }

    #[test]
    fn a_range_over_extents_is_cut_at_their_borders() {
        let extents = [extent(100, 1), extent(50, 1)];
        assert_eq!(plan_extents(&extents, 90..120), vec![(0, 90..100), (1, 0..20)]);
        assert_eq!(plan_extents(&extents, 100..100), vec![]);
    }

    proptest! {
        #[test]
        fn pieces_cover_the_range_in_order_and_nothing_else(
            len in 1_u32..9_000_000, data in 1_u8..=16, from in 0.0..1.0_f64, to in 0.0..1.0_f64,
        ) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a fraction of a u32")]
            let at = |fraction: f64| (f64::from(len) * fraction) as u32;
            let range = at(from.min(to))..at(from.max(to));
            let extent = extent(len, data);
            let chunk_len = extent.scheme.chunk_len(len);
            let mut expected = range.start;
            for piece in plan_pieces(&extent, range.clone()) {
                prop_assert!(!piece.range.is_empty() && piece.len() <= PIECE_LEN_MAX);
                prop_assert_eq!(u32::from(piece.slot) * chunk_len + piece.range.start, expected);
                expected += piece.len();
            }
            prop_assert_eq!(expected, range.end.max(range.start));
        }
    }
}
