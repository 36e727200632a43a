//! What goes into one frame, and where in it. Pure: nothing is written here.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::frame::{FRAME_ALIGN, FRAME_HEADER_LEN, RECORD_LEN, RECORDS_MAX, Record};
use super::location::Location;
use crate::chunk::BLOCK_LEN;
use crate::ids::ChunkId;

/// A chunk that goes into the frame.
pub(super) struct Planned {
    pub(super) chunk: ChunkId,
    pub(super) head: Bytes,
    pub(super) payload: Vec<Bytes>,
    pub(super) payload_len: u32,
    /// Where it lies now, if it is being moved.
    pub(super) moved_from: Option<Location>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Touch {
    Appended,
    Deleted,
}

/// The records of the frame to be.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) chunks: Vec<Planned>,
    /// Chunks to delete and where they lie.
    pub(super) deleted: Vec<(ChunkId, Location)>,
    /// Tombstones carried over from a segment that is being emptied.
    pub(super) carried: Vec<Record>,
    touched: BTreeMap<ChunkId, Touch>,
    bytes_max: u64,
}

/// Whether a payload is aligned, and worth a hole of its own when it dies.
pub(super) fn is_big(payload_len: u32) -> bool {
    payload_len >= BLOCK_LEN
}

/// Upper bound of what a chunk adds to a frame.
pub(super) fn chunk_cost(head_len: usize, payload_len: u32) -> u64 {
    let padding = if is_big(payload_len) { u64::from(FRAME_ALIGN) } else { 8 };
    RECORD_LEN as u64 + head_len as u64 + 8 + u64::from(payload_len) + padding
}

/// Upper bound of an empty frame.
pub(super) const FRAME_COST: u64 = FRAME_HEADER_LEN as u64 + FRAME_ALIGN as u64;

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        self.record_count() == 0
    }

    pub(super) fn record_count(&self) -> usize {
        self.chunks.len() + self.deleted.len() + self.carried.len()
    }

    /// Upper bound of the frame's length.
    pub(super) fn len_max(&self) -> u64 {
        self.bytes_max + FRAME_COST
    }

    /// Whether `records` more of `bytes` in all would fit into a frame of `len_max`.
    pub(super) fn fits(&self, records: usize, bytes: u64, len_max: u64) -> bool {
        self.record_count() + records <= RECORDS_MAX && self.len_max() + bytes <= len_max
    }

    pub(super) fn appends(&self, chunk: ChunkId) -> bool {
        self.touched.get(&chunk) == Some(&Touch::Appended)
    }

    pub(super) fn deletes(&self, chunk: ChunkId) -> bool {
        self.touched.get(&chunk) == Some(&Touch::Deleted)
    }

    pub(super) fn append(&mut self, planned: Planned) {
        self.bytes_max += chunk_cost(planned.head.len(), planned.payload_len);
        self.touched.insert(planned.chunk, Touch::Appended);
        self.chunks.push(planned);
    }

    pub(super) fn delete(&mut self, chunk: ChunkId, location: Location) {
        self.bytes_max += RECORD_LEN as u64;
        self.touched.insert(chunk, Touch::Deleted);
        self.deleted.push((chunk, location));
    }

    pub(super) fn carry(&mut self, tombstone: Record) {
        self.bytes_max += RECORD_LEN as u64;
        self.carried.push(tombstone);
    }

    /// Places everything in a frame: offsets of head and payload of each chunk from the frame's start, and the
    /// frame's length. Small chunks pack tightly behind the table; then come big ones, each with its head right before
    /// its 4 KiB-aligned payload, so that one read gets both.
    pub(super) fn place(&self) -> Layout {
        let mut cursor = (FRAME_HEADER_LEN + RECORD_LEN * self.record_count()) as u64;
        let mut offsets = vec![(0, 0); self.chunks.len()];
        for big in [false, true] {
            for (i, chunk) in self.chunks.iter().enumerate().filter(|(_, chunk)| is_big(chunk.payload_len) == big) {
                let head = cursor.next_multiple_of(8);
                let head_end = head + chunk.head.len() as u64;
                let payload = if big { head_end.next_multiple_of(u64::from(FRAME_ALIGN)) } else { head_end };
                offsets[i] = (head, payload);
                cursor = payload + u64::from(chunk.payload_len);
            }
        }
        Layout { offsets, len: cursor.next_multiple_of(u64::from(FRAME_ALIGN)) }
    }

    /// Indexes of the chunks in the order of their offsets.
    pub(super) fn placement_order(&self) -> impl Iterator<Item = usize> + '_ {
        let of = move |big: bool| (0..self.chunks.len()).filter(move |i| is_big(self.chunks[*i].payload_len) == big);
        of(false).chain(of(true))
    }
}

pub(super) struct Layout {
    pub(super) offsets: Vec<(u64, u64)>,
    pub(super) len: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ExtentId;

    #[test]
    fn small_chunks_pack_and_big_ones_align_within_the_bound() {
        let mut plan = Plan::default();
        for (slot, len) in [(0, 100_000u32), (1, 10), (2, 65_536), (3, 999)] {
            let chunk = ChunkId { extent: ExtentId::from_bytes([1; 16]), slot };
            let payload = vec![Bytes::from(vec![0; len as usize])];
            plan.append(Planned {
                chunk,
                head: Bytes::from(vec![0; 150]),
                payload,
                payload_len: len,
                moved_from: None,
            });
        }
        let layout = plan.place();
        assert_eq!(layout.offsets, [(1568, 4096), (256, 406), (104_096, 106_496), (416, 566)].map(|(h, p)| (h, p)));
        assert_eq!(plan.placement_order().collect::<Vec<_>>(), [1, 3, 0, 2]);
        assert!(layout.len <= plan.len_max() && layout.len % 4096 == 0);
    }
}
