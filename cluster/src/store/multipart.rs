//! Multipart uploads.

use bincode::{Decode, Encode};

use super::{BucketName, Checksum, ChecksumAlgorithm, ChecksumKind, Condition, ETag, Key, ObjectMetadata, UploadId};

/// A part other than the last must have at least 5 MiB
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>).
pub const PART_LEN_MIN: u64 = 5 << 20;
/// Parts are numbered `1..=10_000`.
pub const PART_NUMBER_MAX: u32 = 10_000;

/// Starts an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUpload {
    /// Where.
    pub bucket: BucketName,
    /// Under which key.
    pub key: Key,
    /// What the object will carry.
    pub metadata: ObjectMetadata,
    /// Which checksum the object will have, if any.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
}

/// An open upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Its id.
    pub upload: UploadId,
    /// Milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// What the object will carry.
    pub metadata: ObjectMetadata,
    /// Which checksum the object will have, if any.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
}

/// Stores a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutPart {
    /// Where.
    pub bucket: BucketName,
    /// Under which key.
    pub key: Key,
    /// Of which upload.
    pub upload: UploadId,
    /// `1..=10_000`.
    pub number: u32,
}

/// Which parts to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartQuery {
    /// Where.
    pub bucket: BucketName,
    /// Under which key.
    pub key: Key,
    /// Of which upload.
    pub upload: UploadId,
    /// Only parts with a greater number.
    pub after: u32,
    /// At most so many, `0..=1000`.
    pub part_count_max: usize,
}

/// A part in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartSummary {
    /// Its number.
    pub number: u32,
    /// Length in bytes.
    pub len: u64,
    /// MD5 of the part, as its entity tag.
    pub etag: ETag,
    /// Milliseconds since the Unix epoch.
    pub modified_ms: u64,
    /// Its checksum, if it has one.
    pub checksum: Option<Checksum>,
}

/// A page of parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartPage {
    /// The upload.
    pub upload: Upload,
    /// By number.
    pub parts: Vec<PartSummary>,
    /// Whether more follow.
    pub truncated: bool,
}

/// A part named at completion.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CompletedPart {
    /// Its number.
    pub number: u32,
    /// Its entity tag as the client was told.
    pub etag: ETag,
    /// Its checksum, if the client says one; must then match.
    pub checksum: Option<Checksum>,
}

/// Completes an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompleteUpload {
    /// Where.
    pub bucket: BucketName,
    /// Under which key.
    pub key: Key,
    /// Which upload.
    pub upload: UploadId,
    /// The parts, in ascending order.
    pub parts: Vec<CompletedPart>,
    /// Decided at the commit.
    pub condition: Condition,
    /// The checksum the client declares for the whole object; must match what the parts give.
    pub checksum: Option<Checksum>,
    /// The length the client declares (`x-amz-mp-object-size`); must match.
    pub len: Option<u64>,
}
