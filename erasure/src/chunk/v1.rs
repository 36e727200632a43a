//! Version 1 of a chunk's head, frozen: written by every release so far, readable for ever.
//!
//! All integers are little-endian. A head is
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | `DSCH` |
//! | 4 | 1 | version, 1 |
//! | 5 | 1 | zero |
//! | 6 | 2 | key length |
//! | 8 | 4 | payload length |
//! | 12 | 4 | CRC-32C of bytes 0..12 |
//! | 16 | 4 | CRC-32C of bytes 20.. to the end of the head |
//! | 20 | 16 | extent id |
//! | 36 | 3 | slot, k, m |
//! | 39 | 1 | zero |
//! | 40 | 4 | extent length |
//! | 44 | 16 | cluster id |
//! | 60 | 8 | bucket id |
//! | 68 | 16 | version id |
//! | 84 | 4 | part |
//! | 88 | 4 | ordinal |
//! | 92 | 8 | created, milliseconds since 1970 |
//! | 100 | key length | key, UTF-8 |
//! | … | 32 × blocks | block hashes |
//!
//! The first checksum covers all that decides the head's length; no length is believed before it.

use bytes::{BufMut, Bytes, BytesMut};

use super::{BLOCK_COUNT_MAX, BLOCK_LEN, ChunkHead, ChunkHeader, EXTENT_LEN_MAX, KEY_LEN_MAX, Owner, PAYLOAD_LEN_MAX};
use crate::ids::{ChunkId, ExtentId, Scheme};

/// What a head starts with.
pub const MAGIC: [u8; 4] = *b"DSCH";
/// The version this file describes.
pub const VERSION: u8 = 1;
/// Bytes from which a head's length is known.
pub const PRELUDE_LEN: usize = 16;
/// Bytes before the key.
pub const FIXED_LEN: usize = 100;
/// Longest head: longest key, most blocks.
pub const HEAD_LEN_MAX: usize = FIXED_LEN + KEY_LEN_MAX + 32 * BLOCK_COUNT_MAX as usize;

/// Why bytes are not a chunk's head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeChunkError {
    /// Fewer bytes than the head has.
    #[error("a chunk head of {needed} bytes was cut at {found}")]
    Truncated {
        /// Length of the head, or of its prelude if not even that is there.
        needed: usize,
        /// Bytes given.
        found: usize,
    },
    /// More bytes than the head has.
    #[error("a chunk head of {needed} bytes is followed by {extra} more")]
    TrailingBytes {
        /// Length of the head.
        needed: usize,
        /// Bytes after it.
        extra: usize,
    },
    /// Does not start as a head does.
    #[error("not a chunk head")]
    Magic,
    /// Written by a newer release.
    #[error("chunk format version {0} is not known here (newest known: {VERSION})")]
    Version(u8),
    /// A checksum does not match: the bytes are damaged.
    #[error("the checksum of a chunk head does not match")]
    Checksum,
    /// Checksums match, but a field is outside its bounds: written by something that is not us.
    #[error("a chunk head with an impossible {0}")]
    Field(&'static str),
}

/// Length of the head of a chunk with this key and payload length.
pub fn head_len(key_len: usize, payload_len: u32) -> usize {
    FIXED_LEN + key_len + 32 * payload_len.div_ceil(BLOCK_LEN) as usize
}

/// Encodes a head. The header's bounds were checked when the chunk was sealed.
pub fn encode_head(header: &ChunkHeader, block_hashes: &[[u8; 32]]) -> Bytes {
    let owner = &header.owner;
    let mut out = BytesMut::with_capacity(head_len(owner.key.len(), header.payload_len));
    out.put_slice(&MAGIC);
    out.put_u8(VERSION);
    out.put_u8(0);
    out.put_u16_le(u16::try_from(owner.key.len()).unwrap_or(u16::MAX));
    out.put_u32_le(header.payload_len);
    out.put_u32_le(crc_fast::crc32_iscsi(&out[..12]));
    out.put_u32_le(0);
    out.put_slice(header.chunk.extent.as_bytes());
    out.put_slice(&[header.chunk.slot, header.scheme.data, header.scheme.parity, 0]);
    out.put_u32_le(header.extent_len);
    out.put_slice(&header.cluster);
    out.put_u64_le(owner.bucket);
    out.put_slice(&owner.version);
    out.put_u32_le(owner.part);
    out.put_u32_le(owner.ordinal);
    out.put_u64_le(header.created_ms);
    out.put_slice(owner.key.as_bytes());
    for hash in block_hashes {
        out.put_slice(hash);
    }
    let checksum = crc_fast::crc32_iscsi(&out[20..]);
    out[16..20].copy_from_slice(&checksum.to_le_bytes());
    out.freeze()
}

/// Length of the head that starts with `prelude` (at least [`PRELUDE_LEN`] bytes), its checksum verified.
///
/// # Errors
/// Not the start of a head of a known version.
pub fn decode_head_len(prelude: &[u8]) -> Result<usize, DecodeChunkError> {
    let Some(prelude) = prelude.first_chunk::<PRELUDE_LEN>() else {
        return Err(DecodeChunkError::Truncated { needed: PRELUDE_LEN, found: prelude.len() });
    };
    if prelude[..4] != MAGIC {
        return Err(DecodeChunkError::Magic);
    }
    if prelude[4] != VERSION {
        return Err(DecodeChunkError::Version(prelude[4]));
    }
    if crc_fast::crc32_iscsi(&prelude[..12]).to_le_bytes() != prelude[12..16] {
        return Err(DecodeChunkError::Checksum);
    }
    let key_len = usize::from(u16::from_le_bytes([prelude[6], prelude[7]]));
    let payload_len = u32::from_le_bytes([prelude[8], prelude[9], prelude[10], prelude[11]]);
    if key_len > KEY_LEN_MAX {
        return Err(DecodeChunkError::Field("key length"));
    }
    if payload_len > PAYLOAD_LEN_MAX {
        return Err(DecodeChunkError::Field("payload length"));
    }
    if prelude[5] != 0 {
        return Err(DecodeChunkError::Field("reserved byte"));
    }
    Ok(head_len(key_len, payload_len))
}

/// Decodes a head that fills `bytes` exactly.
///
/// # Errors
/// See [`DecodeChunkError`].
pub fn decode_head(bytes: &[u8]) -> Result<ChunkHead, DecodeChunkError> {
    let needed = decode_head_len(bytes)?;
    if bytes.len() < needed {
        return Err(DecodeChunkError::Truncated { needed, found: bytes.len() });
    }
    if bytes.len() > needed {
        return Err(DecodeChunkError::TrailingBytes { needed, extra: bytes.len() - needed });
    }
    if crc_fast::crc32_iscsi(&bytes[20..]).to_le_bytes() != bytes[16..20] {
        return Err(DecodeChunkError::Checksum);
    }
    let mut fields = Fields(&bytes[20..]);
    let extent = ExtentId::from_bytes(fields.take());
    let [slot, data, parity, reserved] = fields.take();
    let header = ChunkHeader {
        chunk: ChunkId { extent, slot },
        scheme: Scheme { data, parity },
        extent_len: u32::from_le_bytes(fields.take()),
        cluster: fields.take(),
        payload_len: u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]),
        owner: Owner {
            bucket: u64::from_le_bytes(fields.take()),
            version: fields.take(),
            part: u32::from_le_bytes(fields.take()),
            ordinal: u32::from_le_bytes(fields.take()),
            key: String::new(),
        },
        created_ms: u64::from_le_bytes(fields.take()),
    };
    let key_len = usize::from(u16::from_le_bytes([bytes[6], bytes[7]]));
    let (key, hashes) = fields.0.split_at(key_len);
    let key = std::str::from_utf8(key).map_err(|_| DecodeChunkError::Field("key"))?.to_owned();
    let header = ChunkHeader { owner: Owner { key, ..header.owner }, ..header };
    check_fields(&header, reserved)?;
    let (block_hashes, _) = hashes.as_chunks::<32>();
    Ok(ChunkHead { header, block_hashes: block_hashes.to_vec() })
}

fn check_fields(header: &ChunkHeader, reserved: u8) -> Result<(), DecodeChunkError> {
    if reserved != 0 {
        return Err(DecodeChunkError::Field("reserved byte"));
    }
    if header.scheme.data == 0 || usize::from(header.chunk.slot) >= header.scheme.chunk_count() {
        return Err(DecodeChunkError::Field("slot or scheme"));
    }
    if header.extent_len > EXTENT_LEN_MAX {
        return Err(DecodeChunkError::Field("extent length"));
    }
    Ok(())
}

/// Reads fixed-length fields off the front. The caller has checked that there are enough bytes.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (mut field, taken) = ([0; N], N.min(self.0.len()));
        field[..taken].copy_from_slice(&self.0[..taken]);
        self.0 = &self.0[taken..];
        field
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::chunk::SealedChunk;

    fn sample() -> SealedChunk {
        let header = ChunkHeader {
            chunk: ChunkId { extent: ExtentId::from_bytes(*b"extent-id-of-16b"), slot: 5 },
            scheme: Scheme { data: 4, parity: 2 },
            extent_len: 19,
            cluster: *b"cluster-id-16byt",
            owner: Owner {
                bucket: 0x0102_0304_0506_0708,
                key: "walls/dry stone".into(),
                version: *b"version-id-16byt",
                part: 3,
                ordinal: 2,
            },
            payload_len: 5,
            created_ms: 1_795_000_000_123,
        };
        SealedChunk::seal(header, vec![Bytes::from_static(b"stone")]).unwrap()
    }

    #[test]
    fn golden_bytes_of_version_1() {
        let golden = "4453434801000f00050000001753fc1df7e139a9657874656e742d69642d6f662d3136620504020013000000636c75737465722d69642d3136627974080706050403020176657273696f6e2d69642d313662797403000000020000007b5e56eea101000077616c6c732f6472792073746f6e65181c89364b208205fcd1632bf509a0b65e6961dd905bbb91c5c33c540a7f9294";
        assert_eq!(hex::encode(sample().encode_head()), golden);
        let head = decode_head(&hex::decode(golden).unwrap()).unwrap();
        assert_eq!((&head.header, &head.block_hashes[..]), (sample().header(), sample().block_hashes()));
        assert_eq!(head.find_bad_block(0, b"stone"), None);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = sample().encode_head().to_vec();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_head(&bad).is_err(), "bit {bit} went unnoticed");
        }
    }

    #[test]
    fn every_other_length_is_refused() {
        let good = sample().encode_head().to_vec();
        for len in 0..good.len() {
            assert!(matches!(decode_head(&good[..len]), Err(DecodeChunkError::Truncated { .. })));
        }
        let longer = [&good[..], &[0]].concat();
        assert!(matches!(decode_head(&longer), Err(DecodeChunkError::TrailingBytes { extra: 1, .. })));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), whole in any::<bool>()) {
            let mut bytes = bytes;
            if whole && bytes.len() >= PRELUDE_LEN {
                // Reach the code behind the first checksum.
                bytes[..4].copy_from_slice(&MAGIC);
                bytes[4] = VERSION;
                let checksum = crc_fast::crc32_iscsi(&bytes[..12]).to_le_bytes();
                bytes[12..16].copy_from_slice(&checksum);
                if bytes.len() > 20 {
                    let checksum = crc_fast::crc32_iscsi(&bytes[20..]).to_le_bytes();
                    bytes[16..20].copy_from_slice(&checksum);
                }
            }
            let _ignored: Result<_, _> = decode_head(&bytes);
        }
    }
}
