//! The file `checkpoint`: from where the log must be replayed over the index. Ours, so that the index never vouches
//! for itself.
//!
//! Version 1, little-endian: `DSCP`, version, clean (1 byte), two zero bytes, index stamp (16), three positions
//! (segment, frame number, offset: 20 bytes each, newest first), count of segment lines (4), lines (sequence, live
//! bytes, live chunks: 24 bytes each; only when clean), CRC-32C of all before. A damaged file is as good as none: the
//! index is rebuilt from all segments.

use std::io;
use std::path::Path;

use super::index::Stamp;
use crate::files::Files;

const MAGIC: [u8; 4] = *b"DSCP";
const VERSION: u8 = 1;
const FIXED_LEN: usize = 88;
const LINE_LEN: usize = 24;
/// Lines for 16 PiB in segments of 1 GiB are far below this.
const LEN_MAX: usize = 16 << 20;

/// A place in the log, between two frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Position {
    pub(super) segment: u64,
    pub(super) offset: u32,
    /// Number of the next frame.
    pub(super) number: u64,
}

/// What is live in one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentLine {
    pub(super) sequence: u64,
    pub(super) live_bytes: u64,
    pub(super) live_count: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) stamp: Stamp,
    /// The drive was closed in order: the index is exactly at `positions[0]`.
    pub(super) clean: bool,
    /// Everything before these is in the index; the older ones allow for an index that lied about its last syncs.
    pub(super) positions: [Position; 3],
    pub(super) lines: Vec<SegmentLine>,
}

impl Checkpoint {
    /// Where replay starts.
    pub(super) fn replay_from(&self) -> Position {
        if self.clean { self.positions[0] } else { self.positions[2] }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED_LEN + LINE_LEN * self.lines.len() + 4);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, u8::from(self.clean), 0, 0]);
        out.extend_from_slice(&self.stamp);
        for position in &self.positions {
            out.extend_from_slice(&position.segment.to_le_bytes());
            out.extend_from_slice(&position.number.to_le_bytes());
            out.extend_from_slice(&position.offset.to_le_bytes());
        }
        out.extend_from_slice(&u32::try_from(self.lines.len()).unwrap_or(0).to_le_bytes());
        for line in &self.lines {
            for field in [line.sequence, line.live_bytes, line.live_count] {
                out.extend_from_slice(&field.to_le_bytes());
            }
        }
        out.extend_from_slice(&crc_fast::crc32_iscsi(&out).to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, checksum) = bytes.split_last_chunk::<4>()?;
        if body.len() < FIXED_LEN || body[..5] != [b'D', b'S', b'C', b'P', VERSION] {
            return None;
        }
        if crc_fast::crc32_iscsi(body).to_le_bytes() != *checksum {
            return None;
        }
        let u32_at = |at: usize| body[at..].first_chunk().map(|field| u32::from_le_bytes(*field));
        let u64_at = |at: usize| body[at..].first_chunk().map(|field| u64::from_le_bytes(*field));
        let mut positions = [Position::default(); 3];
        for (i, position) in positions.iter_mut().enumerate() {
            let at = 24 + 20 * i;
            *position = Position { segment: u64_at(at)?, number: u64_at(at + 8)?, offset: u32_at(at + 16)? };
        }
        let lines = &body[FIXED_LEN..];
        if u32_at(84)? as usize * LINE_LEN != lines.len() {
            return None;
        }
        let field = |line: &[u8], at: usize| line[at..].first_chunk().map(|field| u64::from_le_bytes(*field));
        let line = |line: &[u8]| {
            let (sequence, live_bytes) = (field(line, 0)?, field(line, 8)?);
            Some(SegmentLine { sequence, live_bytes, live_count: field(line, 16)? })
        };
        Some(Self {
            stamp: *body[8..].first_chunk()?,
            clean: body[5] == 1,
            positions,
            lines: lines.chunks_exact(LINE_LEN).map(line).collect::<Option<_>>()?,
        })
    }

    pub(super) fn load(files: &dyn Files, dir: &Path) -> io::Result<Option<Self>> {
        let bytes = files.read_small(&dir.join("checkpoint"), LEN_MAX)?;
        Ok(bytes.and_then(|bytes| Self::decode(&bytes)))
    }

    pub(super) fn store(&self, files: &dyn Files, dir: &Path) -> io::Result<()> {
        files.write_small(&dir.join("checkpoint"), &self.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_of_version_1_and_no_damaged_file_is_believed() {
        let checkpoint = Checkpoint {
            stamp: [7; 16],
            clean: true,
            positions: [3, 2, 1].map(|n| Position { segment: n, offset: 4096, number: n * 10 }),
            lines: vec![SegmentLine { sequence: 3, live_bytes: 4, live_count: 5 }],
        };
        let bytes = checkpoint.encode();
        assert_eq!(
            hex::encode(&bytes),
            "44534350010100000707070707070707070707070707070703000000000000001e0000000000000000100000020000000000000014000000000000000010000001000000000000000a000000000000000010000001000000030000000000000004000000000000000500000000000000d7359f5c"
        );
        assert_eq!(Checkpoint::decode(&bytes), Some(checkpoint));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Checkpoint::decode(&bad), None);
        }
        assert!((0..bytes.len()).all(|len| Checkpoint::decode(&bytes[..len]).is_none()));
    }
}
