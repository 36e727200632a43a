//! A chunk: what it says about itself, the hashes that prove its bytes, and the payload.
//!
//! A chunk describes itself well enough to recover objects from drives alone. Its *head* (header and block hashes)
//! travels and lies on disk in one frozen encoding ([`v1`]); the payload follows raw. Block hashes are BLAKE3, keyed
//! by the chunk's identity and the block's index, so the right bytes in the wrong place do not verify.
//!
//! Nothing here knows where a chunk is stored.

pub mod v1;

use bytes::Bytes;

use crate::ids::{ChunkId, Scheme};

pub use v1::DecodeChunkError;

/// Bytes of a chunk that share one hash: the unit of verification. The last block of a chunk may be shorter.
pub const BLOCK_LEN: u32 = 64 * 1024;
/// Longest payload of one chunk: an extent of 8 MiB kept as plain copies.
pub const PAYLOAD_LEN_MAX: u32 = 8 * 1024 * 1024;
/// Longest extent.
pub const EXTENT_LEN_MAX: u32 = 8 * 1024 * 1024;
/// Longest object key in bytes, as S3 has it.
pub const KEY_LEN_MAX: usize = 1024;
/// Most blocks of one chunk.
pub const BLOCK_COUNT_MAX: u32 = PAYLOAD_LEN_MAX / BLOCK_LEN;

/// Whose bytes a chunk holds: enough to find the object's other chunks and put it together again.
#[derive(Clone, PartialEq, Eq)]
pub struct Owner {
    /// Bucket id.
    pub bucket: u64,
    /// Object key, at most [`KEY_LEN_MAX`] bytes.
    pub key: String,
    /// Version id.
    pub version: [u8; 16],
    /// Part number of a multipart upload, else 0.
    pub part: u32,
    /// Zero-based position of the extent within the part.
    pub ordinal: u32,
}

impl std::fmt::Debug for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let version = hex::encode(self.version);
        write!(f, "{}/{:?}@{version} part {} extent {}", self.bucket, self.key, self.part, self.ordinal)
    }
}

/// What a chunk says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// Which chunk this is.
    pub chunk: ChunkId,
    /// How its extent was cut.
    pub scheme: Scheme,
    /// Length of the whole extent in bytes.
    pub extent_len: u32,
    /// The cluster it belongs to.
    pub cluster: [u8; 16],
    /// The object it belongs to.
    pub owner: Owner,
    /// Length of this chunk's payload in bytes, at most [`PAYLOAD_LEN_MAX`].
    pub payload_len: u32,
    /// When the writer made it, in milliseconds since 1970.
    pub created_ms: u64,
}

impl ChunkHeader {
    /// The key material of this chunk's block hashes. Derive once per chunk, then hash blocks with it.
    pub fn block_key(&self) -> BlockKey {
        BlockKey::derive(&self.cluster, self.chunk)
    }

    fn check(&self) -> Result<(), SealError> {
        if self.payload_len > PAYLOAD_LEN_MAX || self.extent_len > EXTENT_LEN_MAX {
            return Err(SealError::TooLong { payload: self.payload_len, extent: self.extent_len });
        }
        if self.owner.key.len() > KEY_LEN_MAX {
            return Err(SealError::KeyTooLong(self.owner.key.len()));
        }
        if self.scheme.data == 0 || usize::from(self.chunk.slot) >= self.scheme.chunk_count() {
            return Err(SealError::Slot { slot: self.chunk.slot, scheme: self.scheme });
        }
        Ok(())
    }
}

/// Hashes blocks of one chunk.
#[derive(Clone)]
pub struct BlockKey([u8; 32]);

impl BlockKey {
    /// The key of `chunk` in `cluster`: BLAKE3's key derivation over both.
    pub fn derive(cluster: &[u8; 16], chunk: ChunkId) -> Self {
        let mut material = [0; 33];
        material[..16].copy_from_slice(cluster);
        material[16..32].copy_from_slice(chunk.extent.as_bytes());
        material[32] = chunk.slot;
        Self(blake3::derive_key("drystone 2026-11 chunk block hash v1", &material))
    }

    /// The key of block `index`: the index is mixed into the key, so that the hashed bytes stay aligned.
    fn of_block(&self, index: u32) -> [u8; 32] {
        let mut key = self.0;
        for (byte, mix) in key[28..].iter_mut().zip(index.to_le_bytes()) {
            *byte ^= mix;
        }
        key
    }

    /// The hash of block `index` with these bytes.
    pub fn hash(&self, index: u32, block: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.of_block(index), block).as_bytes()
    }

    /// The hashes of all blocks of a payload given in pieces.
    pub fn hash_rope(&self, payload: &[Bytes]) -> Vec<[u8; 32]> {
        let mut hashes = Vec::new();
        let mut open: Option<blake3::Hasher> = None;
        let (mut index, mut filled) = (0u32, 0usize);
        let block_len = BLOCK_LEN as usize;
        for piece in payload {
            let mut rest: &[u8] = piece;
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(block_len - filled));
                rest = later;
                if filled == 0 && now.len() == block_len {
                    hashes.push(self.hash(index, now));
                    index += 1;
                    continue;
                }
                open.get_or_insert_with(|| blake3::Hasher::new_keyed(&self.of_block(index))).update(now);
                filled += now.len();
                if filled == block_len {
                    hashes.extend(open.take().map(|hasher| *hasher.finalize().as_bytes()));
                    (index, filled) = (index + 1, 0);
                }
            }
        }
        hashes.extend(open.map(|hasher| *hasher.finalize().as_bytes()));
        hashes
    }
}

/// Why a chunk could not be sealed; each is a caller's mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The payload or the extent is longer than the format allows.
    #[error("payload of {payload} or extent of {extent} bytes is longer than {PAYLOAD_LEN_MAX}")]
    TooLong {
        /// Declared payload length.
        payload: u32,
        /// Declared extent length.
        extent: u32,
    },
    /// The key is longer than [`KEY_LEN_MAX`].
    #[error("key of {0} bytes is longer than {KEY_LEN_MAX}")]
    KeyTooLong(usize),
    /// The slot is not one of the scheme's.
    #[error("slot {slot} does not exist in scheme {scheme}")]
    Slot {
        /// The slot.
        slot: u8,
        /// The scheme.
        scheme: Scheme,
    },
    /// The payload's pieces do not add up to the declared length.
    #[error("payload of {found} bytes where the header says {declared}")]
    PayloadLength {
        /// From the header.
        declared: u32,
        /// Sum of the pieces.
        found: usize,
    },
}

/// A chunk ready to be sent or stored: header, a hash per block, and the payload as a rope.
#[derive(Clone)]
pub struct SealedChunk {
    header: ChunkHeader,
    block_hashes: Vec<[u8; 32]>,
    payload: Vec<Bytes>,
}

impl std::fmt::Debug for SealedChunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealedChunk({}, {} bytes)", self.header.chunk, self.header.payload_len)
    }
}

impl SealedChunk {
    /// Hashes `payload` block by block under the identity in `header`. About 6 GB/s on one core; copies nothing.
    ///
    /// # Errors
    /// A header outside the format's bounds, or one whose `payload_len` is not the payload's length.
    pub fn seal(header: ChunkHeader, payload: Vec<Bytes>) -> Result<Self, SealError> {
        header.check()?;
        check_payload_len(&header, &payload)?;
        let block_hashes = header.block_key().hash_rope(&payload);
        Ok(Self { header, block_hashes, payload })
    }

    /// Puts together what arrived from a peer: a decoded head and the payload. Does **not** hash the payload: call
    /// [`SealedChunk::verify`] where the bytes may have been damaged since they were sealed.
    ///
    /// # Errors
    /// The payload is not as long as the header says.
    pub fn from_parts(head: ChunkHead, payload: Vec<Bytes>) -> Result<Self, SealError> {
        check_payload_len(&head.header, &payload)?;
        Ok(Self { header: head.header, block_hashes: head.block_hashes, payload })
    }

    /// Whether every block of the payload has the hash that the head says.
    pub fn verify(&self) -> bool {
        self.header.block_key().hash_rope(&self.payload) == self.block_hashes
    }

    /// What the chunk says about itself.
    pub fn header(&self) -> &ChunkHeader {
        &self.header
    }

    /// One hash per block.
    pub fn block_hashes(&self) -> &[[u8; 32]] {
        &self.block_hashes
    }

    /// The payload's pieces in order.
    pub fn payload(&self) -> &[Bytes] {
        &self.payload
    }

    /// Takes the payload out.
    pub fn into_payload(self) -> Vec<Bytes> {
        self.payload
    }

    /// Header and block hashes in the frozen encoding v1, as they travel and lie on disk; at most
    /// [`v1::HEAD_LEN_MAX`] bytes.
    pub fn encode_head(&self) -> Bytes {
        v1::encode_head(&self.header, &self.block_hashes)
    }

    /// Reads a head that fills `bytes` exactly.
    ///
    /// # Errors
    /// Anything but a whole, undamaged head of a known version.
    pub fn decode_head(bytes: &[u8]) -> Result<ChunkHead, DecodeChunkError> {
        ChunkHead::decode(bytes)
    }
}

fn check_payload_len(header: &ChunkHeader, payload: &[Bytes]) -> Result<(), SealError> {
    let found = payload.iter().map(Bytes::len).sum();
    match usize::try_from(header.payload_len) {
        Ok(declared) if declared == found => Ok(()),
        _ => Err(SealError::PayloadLength { declared: header.payload_len, found }),
    }
}

/// A decoded head: the header and one hash per block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkHead {
    /// What the chunk says about itself.
    pub header: ChunkHeader,
    /// One hash per block of the payload.
    pub block_hashes: Vec<[u8; 32]>,
}

impl ChunkHead {
    /// Reads a head that fills `bytes` exactly: the version first, then a checksum, and only then lengths.
    ///
    /// # Errors
    /// Anything but a whole, undamaged head of a known version.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeChunkError> {
        v1::decode_head(bytes)
    }

    /// The first block of `payload`, which starts at block `first`, that does not have its hash; `None` if all do.
    /// Every block but the chunk's last must be whole.
    pub fn find_bad_block(&self, first: u32, payload: &[u8]) -> Option<u32> {
        let key = self.header.block_key();
        let is_bad =
            |(index, block): &(u32, &[u8])| self.block_hashes.get(*index as usize) != Some(&key.hash(*index, block));
        let mut blocks = (first..).zip(payload.chunks(BLOCK_LEN as usize));
        blocks.find(is_bad).map(|(index, _)| index)
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "test data is far below any bound")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::ExtentId;

    fn header(payload_len: u32) -> ChunkHeader {
        ChunkHeader {
            chunk: ChunkId { extent: ExtentId::from_bytes([7; 16]), slot: 1 },
            scheme: Scheme { data: 2, parity: 1 },
            extent_len: payload_len,
            cluster: [9; 16],
            owner: Owner { bucket: 3, key: "a/b".into(), version: [1; 16], part: 0, ordinal: 4 },
            payload_len,
            created_ms: 1_700_000_000_000,
        }
    }

    proptest! {
        #[test]
        fn hashes_do_not_depend_on_how_the_rope_is_cut(len in 0usize..300_000, cuts in prop::collection::vec(1usize..90_000, 0..9)) {
            let whole = Bytes::from((0..len).map(|i| (i * 7) as u8).collect::<Vec<_>>());
            let mut rope = Vec::new();
            let mut rest = whole.clone();
            for cut in cuts {
                rope.push(rest.split_to(cut.min(rest.len())));
            }
            rope.push(rest);
            let header = header(len as u32);
            let one = SealedChunk::seal(header.clone(), vec![whole.clone()]).unwrap();
            let many = SealedChunk::seal(header, rope).unwrap();
            prop_assert_eq!(one.block_hashes(), many.block_hashes());
            prop_assert!(many.verify());
            let head = ChunkHead::decode(&one.encode_head()).unwrap();
            prop_assert_eq!(head.find_bad_block(0, &whole), None);
        }
    }

    #[test]
    fn the_right_bytes_in_the_wrong_place_do_not_verify() {
        let block = vec![5u8; BLOCK_LEN as usize];
        let key = header(0).block_key();
        let mut other = header(0);
        other.chunk.slot = 0;
        let mut foreign = header(0);
        foreign.cluster[0] ^= 1;
        let hashes = [
            key.hash(0, &block),
            key.hash(1, &block),
            other.block_key().hash(0, &block),
            foreign.block_key().hash(0, &block),
        ];
        for (i, a) in hashes.iter().enumerate() {
            assert!(hashes[i + 1..].iter().all(|b| a != b));
        }
    }

    #[test]
    fn a_flipped_bit_names_its_block() {
        let mut bytes = vec![1u8; 200_000];
        let sealed = SealedChunk::seal(header(200_000), vec![Bytes::from(bytes.clone())]).unwrap();
        bytes[140_000] ^= 4;
        let head = ChunkHead::decode(&sealed.encode_head()).unwrap();
        assert_eq!(head.find_bad_block(0, &bytes), Some(2));
        assert_eq!(head.find_bad_block(1, &bytes[65_536..131_072]), None);
        let damaged = SealedChunk::from_parts(head, vec![Bytes::from(bytes)]).unwrap();
        assert!(!damaged.verify());
    }

    #[test]
    fn bounds_are_checked_when_sealing() {
        let seal = |edit: fn(&mut ChunkHeader)| {
            let mut header = header(3);
            edit(&mut header);
            SealedChunk::seal(header, vec![Bytes::from_static(b"abc")]).unwrap_err()
        };
        assert!(matches!(seal(|h| h.payload_len = 4), SealError::PayloadLength { declared: 4, found: 3 }));
        assert!(matches!(seal(|h| h.extent_len = EXTENT_LEN_MAX + 1), SealError::TooLong { .. }));
        assert!(matches!(seal(|h| h.owner.key = "k".repeat(1025)), SealError::KeyTooLong(1025)));
        assert!(matches!(seal(|h| h.chunk.slot = 3), SealError::Slot { slot: 3, .. }));
    }
}
