//! Where a chunk lies: the value of the chunk index. 30 bytes, little-endian.

use crate::chunk::PAYLOAD_LEN_MAX;
use crate::chunk::v1::HEAD_LEN_MAX;

/// Where a chunk's record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// Sequence of the segment. Sequences are never used twice, so a location in a segment that no longer exists is
    /// simply void.
    pub segment: u64,
    /// Oldest segment that may still hold a copy from before a move; `segment` if it was never moved.
    pub oldest: u64,
    /// Offset of the head within the segment.
    pub head_offset: u32,
    /// Offset of the payload within the segment.
    pub payload_offset: u32,
    /// Length of the payload.
    pub payload_len: u32,
    /// Length of the head.
    pub head_len: u16,
}

/// Length of an encoded location.
pub const LOCATION_LEN: usize = 30;

impl Location {
    /// Order of records in the log: later ones supersede earlier ones.
    pub(super) fn position(&self) -> (u64, u32) {
        (self.segment, self.head_offset)
    }

    /// Whether the numbers can be those of a record: head before payload, all within a segment and its bounds. An index
    /// may hold anything.
    pub(super) fn is_plausible(&self) -> bool {
        let head_end = u64::from(self.head_offset) + u64::from(self.head_len);
        let payload_end = u64::from(self.payload_offset) + u64::from(self.payload_len);
        head_end <= u64::from(self.payload_offset)
            && payload_end <= u64::from(u32::MAX)
            && usize::from(self.head_len) <= HEAD_LEN_MAX
            && self.payload_len <= PAYLOAD_LEN_MAX
    }

    /// Bytes of head and payload.
    pub(super) fn stored_len(&self) -> u64 {
        u64::from(self.head_len) + u64::from(self.payload_len)
    }

    /// The encoded form.
    pub fn encode(&self) -> [u8; LOCATION_LEN] {
        let mut out = [0; LOCATION_LEN];
        out[..8].copy_from_slice(&self.segment.to_le_bytes());
        out[8..16].copy_from_slice(&self.oldest.to_le_bytes());
        out[16..20].copy_from_slice(&self.head_offset.to_le_bytes());
        out[20..24].copy_from_slice(&self.payload_offset.to_le_bytes());
        out[24..28].copy_from_slice(&self.payload_len.to_le_bytes());
        out[28..].copy_from_slice(&self.head_len.to_le_bytes());
        out
    }

    /// Decodes what [`Location::encode`] made; `None` for any other length.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LOCATION_LEN] = bytes.try_into().ok()?;
        let u32_at = |at: usize| bytes[at..].first_chunk().map(|field| u32::from_le_bytes(*field));
        let u64_at = |at: usize| bytes[at..].first_chunk().map(|field| u64::from_le_bytes(*field));
        Some(Self {
            segment: u64_at(0)?,
            oldest: u64_at(8)?,
            head_offset: u32_at(16)?,
            payload_offset: u32_at(20)?,
            payload_len: u32_at(24)?,
            head_len: u16::from_le_bytes([bytes[28], bytes[29]]),
        })
    }
}
