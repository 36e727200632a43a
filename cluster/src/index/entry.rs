//! What a shard stores. Format 1 is frozen: every record is a version byte, then its fields in the order below.
//!
//! The first fields of an [`ObjectEntry`] are those of [`EntryHead`], so that a listing decodes no metadata and no
//! placement.

use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::error::{DecodeError as BincodeDecodeError, EncodeError};
use bincode::{Decode, Encode};

use super::object;
use crate::codec::{Blob, DecodeError};
use crate::ids::{DriveId, ExtentId, Scheme, UploadId, VersionId};
use crate::state::{FORMAT_V1, decode_record, encode_record};
use crate::store::{Checksum, ChecksumAlgorithm, ChecksumKind, ETag, ObjectMetadata};

/// An extent and where its chunks lie.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ExtentRecord {
    /// Which extent.
    pub id: ExtentId,
    /// Its length in bytes.
    pub len: u32,
    /// How it is cut.
    pub scheme: Scheme,
    /// The drive of each slot.
    pub drives: Vec<DriveId>,
}

impl ExtentRecord {
    /// Whether scheme and drives agree; a command that carries another is refused.
    pub fn is_sound(&self) -> bool {
        self.scheme.data > 0 && self.scheme.chunk_count() == self.drives.len()
    }

    /// All its chunks, as garbage.
    pub fn garbage(&self) -> GarbageExtent {
        GarbageExtent { id: self.id, chunks: (0..=u8::MAX).zip(self.drives.iter().copied()).collect() }
    }
}

/// Where the bytes of an object or part are.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Content {
    /// Here: at most 4 KiB.
    Inline(Blob),
    /// On drives, in order.
    Extents(Vec<ExtentRecord>),
    /// In part records, in order; of objects that were uploaded in parts only.
    Parts {
        /// The upload whose part records they are.
        upload: UploadId,
        /// The parts that make up the object.
        parts: Vec<PartRef>,
    },
}

impl Content {
    /// The extents named here; none for inline content and for parts.
    pub fn extents(&self) -> &[ExtentRecord] {
        match self {
            Self::Extents(extents) => extents,
            Self::Inline(_) | Self::Parts { .. } => &[],
        }
    }
}

/// A part of a completed object.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PartRef {
    /// Its number at upload.
    pub number: u32,
    /// Length in bytes.
    pub len: u64,
    /// Its checksum, if it has one.
    pub checksum: Option<Checksum>,
}

/// The current version of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectEntry {
    /// Length in bytes.
    pub len: u64,
    /// Its entity tag.
    pub etag: ETag,
    /// Milliseconds since the Unix epoch.
    pub modified_ms: u64,
    /// Which version.
    pub version: VersionId,
    /// Its checksum, if it has one.
    pub checksum: Option<Checksum>,
    /// What it carries.
    pub metadata: ObjectMetadata,
    /// Where its bytes are.
    pub content: Content,
}

impl ObjectEntry {
    /// What a listing needs.
    pub fn head(&self) -> EntryHead {
        EntryHead {
            len: self.len,
            etag: self.etag,
            modified_ms: self.modified_ms,
            checksum_type: self.checksum.as_ref().map(|checksum| (checksum.algorithm, checksum.kind)),
            version: self.version,
        }
    }
}

/// The head, then value and part count of the checksum, metadata and content.
impl Encode for ObjectEntry {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.head().encode(encoder)?;
        self.checksum.as_ref().map(|checksum| (&checksum.value, checksum.part_count)).encode(encoder)?;
        self.metadata.encode(encoder)?;
        self.content.encode(encoder)
    }
}

impl<C> Decode<C> for ObjectEntry {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, BincodeDecodeError> {
        let EntryHead { len, etag, modified_ms, checksum_type, version } = EntryHead::decode_from(decoder)?;
        let checksum = match (checksum_type, Option::<(Vec<u8>, u32)>::decode(decoder)?) {
            (Some((algorithm, kind)), Some((value, part_count))) => {
                Some(Checksum { algorithm, kind, value, part_count })
            }
            (None, None) => None,
            _ => return Err(BincodeDecodeError::Other("a checksum without type or value")),
        };
        let metadata = ObjectMetadata::decode(decoder)?;
        let content = Content::decode(decoder)?;
        Ok(Self { len, etag, modified_ms, version, checksum, metadata, content })
    }
}

bincode::impl_borrow_decode!(ObjectEntry);

/// What a listing needs of an [`ObjectEntry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct EntryHead {
    /// Length in bytes.
    pub len: u64,
    /// Its entity tag.
    pub etag: ETag,
    /// Milliseconds since the Unix epoch.
    pub modified_ms: u64,
    /// Checksum algorithm and kind, if it has one.
    pub checksum_type: Option<(ChecksumAlgorithm, ChecksumKind)>,
    /// Which version.
    pub version: VersionId,
}

/// More than the longest encoded head: bounds what decoding one may read.
const HEAD_LEN_MAX: usize = 128;

impl EntryHead {
    fn decode_from<C, D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, BincodeDecodeError> {
        <Self as Decode<C>>::decode(decoder)
    }

    /// Decodes the head of an encoded entry and ignores the rest, which may be cut.
    ///
    /// # Errors
    /// What is wrong with the bytes. Never panics, whatever they are.
    pub fn decode(entry: &[u8]) -> Result<Self, DecodeError> {
        let malformed = |cause: String| DecodeError::Malformed { what: "entry head", cause };
        let (version, body) = entry.split_first().ok_or_else(|| malformed("empty".to_owned()))?;
        if ![FORMAT_V1, object::CUT].contains(version) {
            return Err(malformed(format!("unknown version {version}")));
        }
        let config = bincode::config::standard().with_limit::<HEAD_LEN_MAX>();
        bincode::decode_from_slice(body, config).map(|(head, _)| head).map_err(|error| malformed(error.to_string()))
    }
}

/// A part of an upload, open or completed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PartRecord {
    /// Length in bytes.
    pub len: u64,
    /// MD5 of the part, as its entity tag.
    pub etag: ETag,
    /// Milliseconds since the Unix epoch.
    pub modified_ms: u64,
    /// Its checksum, if it has one.
    pub checksum: Option<Checksum>,
    /// The id of the write that made it.
    pub version: VersionId,
    /// Where its bytes are; never in parts again.
    pub content: Content,
}

/// An open upload.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct UploadRecord {
    /// Milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// Which checksum the object shall have, if any.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
    /// What the object will carry.
    pub metadata: ObjectMetadata,
}

/// Chunks of one extent that are to be cleared from drives.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GarbageExtent {
    /// Which extent.
    pub id: ExtentId,
    /// Slot and drive of each chunk still to be cleared.
    pub chunks: Vec<(u8, DriveId)>,
}

/// Chunks that no entry refers to any more.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GarbageRecord {
    /// Since when, milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Whether the chunks' extents may still be in use elsewhere: chunks that were moved away from a drive, or given up
    /// during a write that then succeeded. No chunk of such an extent is moved to such a drive before it is cleared.
    pub strays: bool,
    /// What to clear.
    pub extents: Vec<GarbageExtent>,
}

/// What a bucket holds in one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct BucketUsage {
    /// Current objects.
    pub object_count: u64,
    /// Sum of their lengths in bytes.
    pub bytes: u64,
    /// Open uploads.
    pub upload_count: u64,
}

macro_rules! versioned {
    ($($name:ident),*) => {$(
        impl $name {
            /// The stored bytes.
            pub fn encode(&self) -> Vec<u8> {
                encode_record(self)
            }

            /// Reads what `encode` made.
            ///
            /// # Errors
            /// What is wrong with the bytes. Never panics, whatever they are.
            pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                decode_record(bytes)
            }
        }
    )*};
}

versioned!(ObjectEntry, PartRecord, UploadRecord, GarbageRecord);

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn extent(number: u8) -> ExtentRecord {
        ExtentRecord {
            id: ExtentId::from_bytes([number; 16]),
            len: 1000,
            scheme: Scheme { data: 2, parity: 1 },
            drives: (1..=3).map(|drive| DriveId::from_bytes([drive; 8])).collect(),
        }
    }

    pub(crate) fn entry(number: u8) -> ObjectEntry {
        let checksum = Checksum {
            algorithm: ChecksumAlgorithm::Crc32c,
            kind: ChecksumKind::FullObject,
            value: vec![1, 2, 3, 4],
            part_count: 0,
        };
        ObjectEntry {
            len: 1000,
            etag: ETag::whole([number; 16]),
            modified_ms: 1_700_000_000_000,
            version: VersionId([number; 16]),
            checksum: Some(checksum),
            metadata: ObjectMetadata {
                headers: [("content-type".to_owned(), "text/plain".to_owned())].into(),
                user: [("a".to_owned(), "b".to_owned())].into(),
            },
            content: Content::Extents(vec![extent(number)]),
        }
    }

    #[test]
    fn the_bytes_of_format_1_never_change() {
        let part_content = Content::Inline(Blob(vec![9, 8].into()));
        let part = PartRecord {
            len: 2,
            etag: ETag::whole([3; 16]),
            modified_ms: 5,
            checksum: None,
            version: VersionId([4; 16]),
            content: part_content,
        };
        let upload = UploadRecord {
            started_ms: 5,
            checksum: Some((ChecksumAlgorithm::Sha256, ChecksumKind::Composite)),
            metadata: ObjectMetadata::default(),
        };
        let garbage = GarbageRecord { since_ms: 5, strays: true, extents: vec![extent(7).garbage()] };
        let parts = Content::Parts {
            upload: UploadId([6; 16]),
            parts: vec![PartRef { number: 300, len: 70_000, checksum: None }],
        };
        let multipart = ObjectEntry { content: parts, checksum: None, ..entry(1) };
        let encoded =
            [entry(2).encode(), multipart.encode(), part.encode(), upload.encode(), garbage.encode()].map(hex::encode);
        assert_eq!(encoded, GOLDEN);
        assert_eq!(ObjectEntry::decode(&entry(2).encode()), Ok(entry(2)));
        assert_eq!(ObjectEntry::decode(&multipart.encode()), Ok(multipart));
        assert_eq!(PartRecord::decode(&part.encode()), Ok(part));
        assert_eq!(UploadRecord::decode(&upload.encode()), Ok(upload));
        assert_eq!(GarbageRecord::decode(&garbage.encode()), Ok(garbage));
    }

    const GOLDEN: [&str; 5] = [
        "01fbe8030202020202020202020202020202020200fd0068e5cf8b0100000101000202020202020202020202020202020201040102030400010c636f6e74656e742d747970650a746578742f706c61696e0101610162010102020202020202020202020202020202fbe803020103010101010101010102020202020202020303030303030303",
        "01fbe8030101010101010101010101010101010100fd0068e5cf8b010000000101010101010101010101010101010100010c636f6e74656e742d747970650a746578742f706c61696e0101610162020606060606060606060606060606060601fb2c01fc7011010000",
        "0102030303030303030303030303030303030005000404040404040404040404040404040400020908",
        "01050104010000",
        "010501010707070707070707070707070707070703000101010101010101010202020202020202020303030303030303",
    ];

    #[test]
    fn the_head_of_an_entry_decodes_alone() {
        let entry = entry(1);
        let head = entry.head();
        assert_eq!(EntryHead::decode(&entry.encode()), Ok(head));
        let longest = EntryHead {
            len: u64::MAX,
            modified_ms: u64::MAX,
            etag: ETag { part_count: u32::MAX, ..entry.etag },
            ..head
        };
        assert_eq!(EntryHead::decode(&encode_record(&longest)), Ok(longest));
    }

    #[test]
    fn extents_that_contradict_themselves_are_not_sound() {
        let good = extent(1);
        assert!(good.is_sound());
        assert!(!ExtentRecord { scheme: Scheme { data: 0, parity: 3 }, ..good.clone() }.is_sound());
        assert!(!ExtentRecord { scheme: Scheme { data: 2, parity: 2 }, ..good }.is_sound());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), flip in 0..400_usize) {
            bytes.insert(0, 1);
            for bytes in [bytes, { let mut bytes = entry(1).encode(); let at = flip % bytes.len(); bytes[at] ^= 0x81; bytes }] {
                if let Ok(entry) = ObjectEntry::decode(&bytes) {
                    prop_assert!(EntryHead::decode(&bytes).is_ok());
                    prop_assert_eq!(ObjectEntry::decode(&entry.encode()), Ok(entry));
                }
                if let Ok(part) = PartRecord::decode(&bytes) {
                    prop_assert_eq!(PartRecord::decode(&part.encode()), Ok(part));
                }
                if let Ok(upload) = UploadRecord::decode(&bytes) {
                    prop_assert_eq!(UploadRecord::decode(&upload.encode()), Ok(upload));
                }
                if let Ok(garbage) = GarbageRecord::decode(&bytes) {
                    prop_assert_eq!(GarbageRecord::decode(&garbage.encode()), Ok(garbage));
                }
            }
        }
    }
}
