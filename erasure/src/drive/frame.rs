//! Frames: what one commit appends to a segment. Version 1, frozen.
//!
//! A frame starts on a 4 KiB boundary with a header and a table of its records; chunk heads and payloads follow. The
//! table alone rebuilds the index. Integers are little-endian.
//!
//! | offset | bytes | header |
//! |---|---|---|
//! | 0 | 4 | `DSFR` |
//! | 4 | 1 | version, 1 |
//! | 5 | 3 | zero |
//! | 8 | 4 | frame length, a multiple of 4096 |
//! | 12 | 4 | record count |
//! | 16 | 8 | segment sequence |
//! | 24 | 8 | frame number |
//! | 32 | 16 | table hash |
//! | 48 | 16 | header hash |
//!
//! | offset | bytes | record |
//! |---|---|---|
//! | 0 | 1 | kind: 1 chunk, 2 tombstone, 3 void |
//! | 1 | 1 | slot |
//! | 2 | 2 | head length (others: 0) |
//! | 4 | 4 | head offset within the segment (tombstone: that of the newest record it kills; void: that of the record) |
//! | 8 | 4 | payload offset within the segment (others: 0) |
//! | 12 | 4 | payload length (others: 0) |
//! | 16 | 16 | extent id |
//! | 32 | 8 | oldest segment that may hold a copy (void: 0) |
//! | 40 | 8 | tombstone: segment of the newest record it kills; void: segment of the record; chunk: 0 |
//!
//! Both hashes are BLAKE3, 16 bytes, keyed by the drive's secret and the segment's sequence, which is never used
//! twice: what a recycled segment held before, or what a client puts into a payload, does not verify.

use super::location::Location;
use crate::ids::{ChunkId, ExtentId};

/// Frames start and end on multiples of this.
pub(super) const FRAME_ALIGN: u32 = 4096;
pub(super) const FRAME_HEADER_LEN: usize = 64;
pub(super) const RECORD_LEN: usize = 48;
/// Most records of a frame; a table of 192 KiB.
pub(super) const RECORDS_MAX: usize = 4096;

const MAGIC: [u8; 4] = *b"DSFR";
const VERSION: u8 = 1;

/// Authenticates the frames of one segment.
#[derive(Clone, Copy)]
pub(super) struct FrameKey([u8; 32]);

impl FrameKey {
    pub(super) fn derive(secret: &[u8; 16], sequence: u64) -> Self {
        let mut material = [0; 24];
        material[..16].copy_from_slice(secret);
        material[16..].copy_from_slice(&sequence.to_le_bytes());
        Self(blake3::derive_key("drystone 2026-11 segment frame v1", &material))
    }

    fn hash(&self, bytes: &[u8]) -> [u8; 16] {
        let mut out = [0; 16];
        out.copy_from_slice(&blake3::keyed_hash(&self.0, bytes).as_bytes()[..16]);
        out
    }
}

/// One line of a frame's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record {
    /// A chunk lies there.
    Chunk { chunk: ChunkId, location: Location },
    /// All records of the chunk up to (segment `newest`, head offset `offset`) are dead.
    Tombstone { chunk: ChunkId, oldest: u64, newest: u64, offset: u32 },
    /// The record of the frame right before this one that lies at (`segment`, head offset `offset`) was torn and never
    /// counted. Written by recovery.
    Void { chunk: ChunkId, segment: u64, offset: u32 },
}

/// A verified frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) len: u32,
    pub(super) record_count: u32,
    pub(super) number: u64,
    table_hash: [u8; 16],
}

impl FrameHeader {
    /// Bytes of header and table together.
    pub(super) fn table_end(&self) -> usize {
        FRAME_HEADER_LEN + RECORD_LEN * self.record_count as usize
    }
}

/// Header and table of a frame.
pub(super) fn encode(key: &FrameKey, sequence: u64, number: u64, len: u32, records: &[Record]) -> Vec<u8> {
    let mut out = vec![0; FRAME_HEADER_LEN];
    for record in records {
        encode_record(record, &mut out);
    }
    let table_hash = key.hash(&out[FRAME_HEADER_LEN..]);
    let record_count = u32::try_from(records.len()).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&MAGIC);
    out[4] = VERSION;
    out[8..12].copy_from_slice(&len.to_le_bytes());
    out[12..16].copy_from_slice(&record_count.to_le_bytes());
    out[16..24].copy_from_slice(&sequence.to_le_bytes());
    out[24..32].copy_from_slice(&number.to_le_bytes());
    out[32..48].copy_from_slice(&table_hash);
    let header_hash = key.hash(&out[..48]);
    out[48..64].copy_from_slice(&header_hash);
    out
}

fn encode_record(record: &Record, out: &mut Vec<u8>) {
    let (kind, chunk, head_len, head_offset, payload_offset, payload_len, oldest, newest) = match *record {
        Record::Chunk { chunk, location: l } => {
            (1, chunk, l.head_len, l.head_offset, l.payload_offset, l.payload_len, l.oldest, 0)
        }
        Record::Tombstone { chunk, oldest, newest, offset } => (2, chunk, 0, offset, 0, 0, oldest, newest),
        Record::Void { chunk, segment, offset } => (3, chunk, 0, offset, 0, 0, 0, segment),
    };
    out.extend_from_slice(&[kind, chunk.slot]);
    out.extend_from_slice(&head_len.to_le_bytes());
    out.extend_from_slice(&head_offset.to_le_bytes());
    out.extend_from_slice(&payload_offset.to_le_bytes());
    out.extend_from_slice(&payload_len.to_le_bytes());
    out.extend_from_slice(chunk.extent.as_bytes());
    out.extend_from_slice(&oldest.to_le_bytes());
    out.extend_from_slice(&newest.to_le_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |field| u32::from_le_bytes(*field))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |field| u64::from_le_bytes(*field))
}

/// The header at the start of `bytes`, if a whole one of this segment is there.
pub(super) fn decode_header(key: &FrameKey, sequence: u64, bytes: &[u8]) -> Option<FrameHeader> {
    let bytes = bytes.first_chunk::<FRAME_HEADER_LEN>()?;
    if bytes[..4] != MAGIC || bytes[4] != VERSION || key.hash(&bytes[..48]) != bytes[48..] {
        return None;
    }
    let mut table_hash = [0; 16];
    table_hash.copy_from_slice(&bytes[32..48]);
    let header =
        FrameHeader { len: u32_at(bytes, 8), record_count: u32_at(bytes, 12), number: u64_at(bytes, 24), table_hash };
    let plausible = header.len >= FRAME_ALIGN
        && header.len.is_multiple_of(FRAME_ALIGN)
        && header.record_count as usize <= RECORDS_MAX
        && header.table_end() <= header.len as usize
        && u64_at(bytes, 16) == sequence;
    plausible.then_some(header)
}

/// The records of the frame at `base` of segment `sequence` whose header and table are `bytes`, if the table is whole.
pub(super) fn decode_table(
    key: &FrameKey,
    sequence: u64,
    base: u32,
    header: &FrameHeader,
    bytes: &[u8],
) -> Option<Vec<Record>> {
    let table = bytes.get(FRAME_HEADER_LEN..header.table_end())?;
    if key.hash(table) != header.table_hash {
        return None;
    }
    table.chunks_exact(RECORD_LEN).map(|record| decode_record(sequence, base, header.len, record)).collect()
}

fn decode_record(sequence: u64, base: u32, frame_len: u32, bytes: &[u8]) -> Option<Record> {
    let extent = ExtentId::from_bytes(*bytes[16..].first_chunk()?);
    let chunk = ChunkId { extent, slot: bytes[1] };
    let location = Location {
        segment: sequence,
        oldest: u64_at(bytes, 32),
        head_offset: u32_at(bytes, 4),
        payload_offset: u32_at(bytes, 8),
        payload_len: u32_at(bytes, 12),
        head_len: u16::from_le_bytes([bytes[2], bytes[3]]),
    };
    match bytes[0] {
        1 => {
            let payload_end = u64::from(location.payload_offset) + u64::from(location.payload_len);
            let whole = location.is_plausible()
                && location.head_offset >= base
                && payload_end <= u64::from(base) + u64::from(frame_len);
            whole.then_some(Record::Chunk { chunk, location })
        }
        2 => Some(Record::Tombstone {
            chunk,
            oldest: location.oldest,
            newest: u64_at(bytes, 40),
            offset: location.head_offset,
        }),
        3 => Some(Record::Void { chunk, segment: u64_at(bytes, 40), offset: location.head_offset }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> (FrameKey, Vec<Record>) {
        let chunk = ChunkId { extent: ExtentId::from_bytes(*b"extent-id-of-16b"), slot: 2 };
        let location = Location {
            segment: 7,
            oldest: 6,
            head_offset: 8352,
            payload_offset: 8500,
            payload_len: 1000,
            head_len: 148,
        };
        let records =
            vec![Record::Chunk { chunk, location }, Record::Tombstone { chunk, oldest: 3, newest: 5, offset: 4200 }];
        (FrameKey::derive(&[9; 16], 7), records)
    }

    #[test]
    fn golden_bytes_of_version_1() {
        let (key, records) = sample();
        let bytes = encode(&key, 7, 99, 4096, &records);
        assert_eq!(
            hex::encode(&bytes),
            "4453465201000000001000000200000007000000000000006300000000000000ed0a96935a790638e4c7e5516af91999e05679c4de75fb69bc6dcce23a28275101029400a020000034210000e8030000657874656e742d69642d6f662d3136620600000000000000000000000000000002020000681000000000000000000000657874656e742d69642d6f662d31366203000000000000000500000000000000"
        );
        let header = decode_header(&key, 7, &bytes).unwrap();
        assert_eq!((header.number, header.len), (99, 4096));
        assert_eq!(decode_table(&key, 7, 8192, &header, &bytes).unwrap(), records);
    }

    #[test]
    fn a_frame_of_another_segment_or_drive_does_not_verify() {
        let (key, records) = sample();
        let bytes = encode(&key, 7, 99, 4096, &records);
        assert_eq!(decode_header(&FrameKey::derive(&[9; 16], 8), 8, &bytes), None);
        assert_eq!(decode_header(&FrameKey::derive(&[8; 16], 7), 7, &bytes), None);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (key, records) = sample();
        let good = encode(&key, 7, 99, 4096, &records);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let records = decode_header(&key, 7, &bad).and_then(|header| decode_table(&key, 7, 8192, &header, &bad));
            assert_eq!(records, None, "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_tables_never_panic(table in prop::collection::vec(any::<u8>(), 0..400), count in 0u32..9, len: u32) {
            let (key, _) = sample();
            let mut bytes = encode(&key, 7, 1, len, &[]);
            bytes.extend_from_slice(&table);
            let header = FrameHeader { len, record_count: count, number: 1, table_hash: key.hash(&table) };
            let _any: Option<_> = decode_table(&key, 7, 4096, &header, &bytes);
            let _any: Option<_> = decode_header(&key, 7, &table);
        }
    }
}
