//! Objects: keys, tags, checksums, conditions, heads.

use std::collections::BTreeMap;
use std::fmt;

use bincode::{Decode, Encode};

use super::{BucketName, StoreError, VersionId};

/// An object's key: 1–1024 bytes of UTF-8. No normalisation, no hierarchy: `a/b` and `a/b/c` coexist.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Key(String);

/// The longest key in bytes (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html>).
pub use drystone_erasure::chunk::KEY_LEN_MAX;

/// A text that cannot be a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Keys have at least one byte.
    #[error("the key is empty")]
    Empty,
    /// Keys have at most 1024 bytes.
    #[error("the key has {len} bytes, more than {KEY_LEN_MAX}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
}

impl Key {
    /// Checks the length of `text`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidKey> {
        let text = text.into();
        match text.len() {
            0 => Err(InvalidKey::Empty),
            1..=KEY_LEN_MAX => Ok(Self(text)),
            len => Err(InvalidKey::TooLong { len }),
        }
    }

    /// The key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// An entity tag as AWS computes them: the MD5 of the body, or for a multipart object the MD5 of its parts' MD5s with
/// the number of parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct ETag {
    /// The digest.
    pub md5: [u8; 16],
    /// 0 for a body put whole, else the number of parts.
    pub part_count: u32,
}

impl ETag {
    /// The tag of a body put whole.
    pub const fn whole(md5: [u8; 16]) -> Self {
        Self { md5, part_count: 0 }
    }

    /// Reads a tag with or without its quotes.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        let (digest, part_count) = match bare.split_once('-') {
            Some((digest, count)) => (digest, count.parse().ok()?),
            None => (bare, 0),
        };
        let mut md5 = [0; 16];
        hex::decode_to_slice(digest, &mut md5).ok()?;
        Some(Self { md5, part_count })
    }
}

/// Without quotes.
impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.md5))?;
        match self.part_count {
            0 => Ok(()),
            count => write!(f, "-{count}"),
        }
    }
}

/// Additional checksums of S3
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html>).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum ChecksumAlgorithm {
    /// CRC-32 (ISO-HDLC), 4 bytes.
    Crc32,
    /// CRC-32C (Castagnoli), 4 bytes.
    Crc32c,
    /// CRC-64/NVME, 8 bytes.
    Crc64Nvme,
    /// SHA-1, 20 bytes.
    Sha1,
    /// SHA-256, 32 bytes.
    Sha256,
}

/// What a checksum of a multipart object covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum ChecksumKind {
    /// All bytes of the object.
    FullObject,
    /// The checksums of its parts.
    Composite,
}

/// A checksum value.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Checksum {
    /// By which algorithm.
    pub algorithm: ChecksumAlgorithm,
    /// Of what.
    pub kind: ChecksumKind,
    /// The digest, big-endian for CRCs; its length is the algorithm's.
    pub value: Vec<u8>,
    /// For a composite checksum, the number of parts; else 0.
    pub part_count: u32,
}

/// Digests of a body, computed while it passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyDigests {
    /// For the ETag.
    pub md5: [u8; 16],
    /// The additional checksum the client declared or asked for, verified.
    pub checksum: Option<Checksum>,
}

/// Why a body must not be stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The connection ended before the declared length.
    #[error("the body ended after {received} of {declared} bytes")]
    Incomplete {
        /// Bytes received.
        received: u64,
        /// Bytes declared.
        declared: u64,
    },
    /// More bytes than declared.
    #[error("the body is longer than the declared {declared} bytes")]
    TooLong {
        /// Bytes declared.
        declared: u64,
    },
    /// Content-MD5 does not match.
    #[error("Content-MD5 does not match the body")]
    Md5Mismatch,
    /// x-amz-content-sha256 does not match.
    #[error("x-amz-content-sha256 does not match the body")]
    Sha256Mismatch,
    /// A declared x-amz-checksum does not match.
    #[error("the declared {0:?} checksum does not match the body")]
    ChecksumMismatch(ChecksumAlgorithm),
    /// A chunk's or the trailer's signature does not match.
    #[error("a chunk signature does not match")]
    SignatureMismatch,
    /// The aws-chunked framing is malformed.
    #[error("the chunked body is malformed: {0}")]
    Malformed(&'static str),
    /// A trailer of an aws-chunked body is malformed, missing or not the one declared.
    #[error("the chunked body's trailers are malformed: {0}")]
    MalformedTrailer(&'static str),
    /// The client was too slow, or the connection broke.
    #[error("the body could not be read: {0}")]
    Transport(String),
    /// The source of a copy could not be read on.
    #[error("the source of the copy could not be read: {0}")]
    Source(Box<StoreError>),
}

/// A tag to compare with, as in `If-Match`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum EntityTag {
    /// `*`: any current version.
    Any,
    /// One of these tags.
    OneOf(Vec<ETag>),
}

/// Conditions decided at the commit, atomically with the change (RFC 9110 §13; AWS "conditional requests").
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Condition {
    /// `If-Match`: the current version must exist and match.
    pub if_match: Option<EntityTag>,
    /// `If-None-Match`: no current version may match.
    pub if_none_match: Option<EntityTag>,
}

/// What an object carries besides its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ObjectMetadata {
    /// Standard headers that are kept: lower-case name (`content-type`, `cache-control`, `content-disposition`,
    /// `content-encoding`, `content-language`, `expires`, `x-amz-website-redirect-location`, `x-amz-storage-class`) to value.
    pub headers: BTreeMap<String, String>,
    /// `x-amz-meta-…`: lower-case name without the prefix to value.
    pub user: BTreeMap<String, String>,
}

/// Stores an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutObject {
    /// Where.
    pub bucket: BucketName,
    /// Under which key.
    pub key: Key,
    /// What it carries.
    pub metadata: ObjectMetadata,
    /// Decided at the commit.
    pub condition: Condition,
}

/// The answer to a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The new entity tag.
    pub etag: ETag,
    /// The checksum that is kept with the object or part.
    pub checksum: Option<Checksum>,
    /// The new version.
    pub version: VersionId,
    /// Length in bytes.
    pub len: u64,
    /// Milliseconds since the Unix epoch.
    pub modified_ms: u64,
}

/// The answer to a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// Whether there was something to delete.
    pub existed: bool,
}

/// Where a part lies within its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartSpan {
    /// The part's number at upload.
    pub number: u32,
    /// Its first byte's offset from the start of the object.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// Its checksum, if it has one.
    pub checksum: Option<Checksum>,
}

/// What is known of a version without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectHead {
    /// Which version.
    pub version: VersionId,
    /// Length in bytes.
    pub len: u64,
    /// Its entity tag.
    pub etag: ETag,
    /// Milliseconds since the Unix epoch.
    pub modified_ms: u64,
    /// What it carries.
    pub metadata: ObjectMetadata,
    /// Its checksum.
    pub checksum: Option<Checksum>,
    /// The parts of a multipart object in order; empty for one put whole.
    pub parts: Vec<PartSpan>,
}
