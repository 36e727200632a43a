//! What the cluster answers when it cannot do as asked.

use super::{BodyError, BucketName, Key, UploadId};

/// Why a request cannot be served now although it is a good one. Clients may retry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// This node cannot reach the majority of a group.
    #[error("no quorum for {group}: {reachable} of {needed} needed replicas answer")]
    NoQuorum {
        /// `control` or `shard N`.
        group: String,
        /// Replicas that answer.
        reachable: usize,
        /// Replicas that must.
        needed: usize,
    },
    /// Fewer domains are up than a durable write needs.
    #[error("{up} of the {needed} domains a durable write needs are up")]
    TooFewDomains {
        /// Domains up with space.
        up: usize,
        /// Domains needed.
        needed: usize,
    },
    /// Too few chunks of an extent can be read now.
    #[error("only {readable} of {needed} needed chunks can be read now")]
    TooFewChunks {
        /// Verified chunks.
        readable: usize,
        /// Chunks needed.
        needed: usize,
    },
    /// The request was not decided within its deadline.
    #[error("{what} was not decided within {deadline_ms} ms")]
    Deadline {
        /// The step that took too long.
        what: &'static str,
        /// The deadline in milliseconds.
        deadline_ms: u64,
    },
    /// The node is starting or stopping.
    #[error("the node is {0}")]
    NotServing(&'static str),
    /// The object was replaced or deleted after it was opened, before all of it was found.
    #[error("the object was replaced while it was read")]
    Replaced,
    /// Admission refused: too much is under way.
    #[error("too many bytes are under way")]
    Busy,
}

/// The answer to a request that was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No bucket of that name.
    #[error("bucket {0} does not exist")]
    NoSuchBucket(BucketName),
    /// The bucket exists already and is the caller's.
    #[error("bucket {0} exists already")]
    BucketExists(BucketName),
    /// The bucket holds objects or open uploads.
    #[error("bucket {0} is not empty")]
    BucketNotEmpty(BucketName),
    /// A bucket of that name is still being deleted.
    #[error("bucket {0} is being deleted")]
    BucketBusy(BucketName),
    /// No object under that key.
    #[error("key {0:?} does not exist")]
    NoSuchKey(Key),
    /// No such upload.
    #[error("upload {0} does not exist")]
    NoSuchUpload(UploadId),
    /// A condition of the request does not hold.
    #[error("condition {header} does not hold")]
    PreconditionFailed {
        /// The request header that failed.
        header: &'static str,
    },
    /// A part named at completion is missing or differs.
    #[error("part {number} is missing or differs")]
    InvalidPart {
        /// Its number.
        number: u32,
    },
    /// Parts at completion are not in ascending order.
    #[error("parts are not in ascending order")]
    InvalidPartOrder,
    /// A part other than the last is smaller than 5 MiB.
    #[error("part {number} has {len} bytes, fewer than the {min} a part other than the last needs")]
    PartTooSmall {
        /// Its number.
        number: u32,
        /// Its length in bytes.
        len: u64,
        /// The least length in bytes.
        min: u64,
    },
    /// The object would be larger than S3 allows.
    #[error("{len} bytes are more than the {max} allowed")]
    TooLarge {
        /// Length in bytes asked for.
        len: u64,
        /// The most allowed.
        max: u64,
    },
    /// The checksum declared for the whole object does not match its parts.
    #[error("the object's checksum does not match the declared one")]
    ChecksumMismatch,
    /// The object's length differs from the one declared at completion.
    #[error("the parts have {actual} bytes, not the declared {declared}")]
    LenMismatch {
        /// Length in bytes that the client declared.
        declared: u64,
        /// Length in bytes of the parts.
        actual: u64,
    },
    /// The body was not what the client declared, or ended early.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// All drives are full up to their reserve.
    #[error("no drive has space left for a durable write")]
    Full,
    /// Not now.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// Bytes at rest are damaged beyond what parity can rebuild.
    #[error("object data is damaged: {readable} of {needed} needed chunks verify")]
    Damaged {
        /// Verified chunks.
        readable: usize,
        /// Chunks needed.
        needed: usize,
    },
    /// A defect on our side; the text goes to the log, not to the client.
    #[error("internal error: {0}")]
    Internal(String),
}
