//! The port between the S3 gateway and the cluster.
//!
//! Everything the gateway may ask is here, in S3's nouns; nothing of nodes, drives or consensus shows through. All
//! operations are linearizable per key through any node. Writes are durable when they return `Ok`.
//! Dropping a future of a write leaves it of unknown outcome, never half done.

mod bucket;
mod error;
mod list;
mod multipart;
mod object;

use std::future::Future;

use bytes::Bytes;
use secrecy::SecretString;

pub use bucket::{Bucket, BucketName, InvalidBucketName};
pub use error::{StoreError, Unavailable};
pub use list::{ListEntry, ListPage, ListQuery, UploadPage, UploadQuery, UploadSummary};
pub use multipart::{
    CompleteUpload, CompletedPart, NewUpload, PART_LEN_MIN, PART_NUMBER_MAX, PartPage, PartQuery, PartSummary, PutPart,
    Upload,
};
pub use object::{
    BodyDigests, BodyError, Checksum, ChecksumAlgorithm, ChecksumKind, Condition, Deleted, ETag, EntityTag, InvalidKey,
    KEY_LEN_MAX, Key, ObjectHead, ObjectMetadata, PartSpan, PutObject, Stored,
};

/// Who asks, for logs and deadlines.
#[derive(Clone, Debug)]
pub struct Context {
    /// Goes with the request through every node it touches.
    pub request_id: u64,
    /// The access key that signed the request; `None` for requests the node makes itself.
    pub access_key: Option<String>,
    /// Wall-clock milliseconds since the Unix epoch when the request arrived.
    pub now_ms: u64,
}

/// An access key with its secret.
#[derive(Clone, Debug)]
pub struct AccessKey {
    /// The public part.
    pub id: String,
    /// The secret part, opened from its seal.
    pub secret: SecretString,
}

/// A body on its way in. The gateway verifies what the client declared (lengths, checksums, signatures) while it
/// hands the bytes on; the store stores them and commits only if the whole body ended well.
pub trait Body: Send {
    /// Length in bytes of the whole body, known before its first byte.
    fn len(&self) -> u64;

    /// Whether the body has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next bytes, `None` at the end. After `None` all that was declared has been verified.
    ///
    /// # Errors
    /// What was wrong with the body, which then must not be stored.
    fn chunk(&mut self) -> impl Future<Output = Result<Option<Bytes>, BodyError>> + Send;

    /// Digests of what was delivered. Meaningful after [`Body::chunk`] returned `None`.
    fn digests(&self) -> BodyDigests;
}

/// A body on its way out.
pub trait Read: Send {
    /// The next verified bytes, `None` at the end.
    ///
    /// # Errors
    /// The rest cannot be had; the response must be broken off.
    fn chunk(&mut self) -> impl Future<Output = Result<Option<Bytes>, StoreError>> + Send;
}

/// An opened version: its head, and the way to its bytes. The bytes stay readable while the reader lives for at
/// least the garbage delay, even if the object is overwritten meanwhile.
pub trait Reader: Send + Sync {
    /// The stream this reader gives.
    type Read: Read + 'static;

    /// What is known of the version.
    fn head(&self) -> &ObjectHead;

    /// Streams the bytes `range` (absolute, `start <= end <= head.len`).
    fn read(&self, range: std::ops::Range<u64>) -> Self::Read;
}

/// The cluster as the gateway sees it. Cheap to clone: a handle.
pub trait Store: Clone + Send + Sync + 'static {
    /// How this store hands out opened versions.
    type Reader: Reader + 'static;

    /// Finds an access key. Keys are the same on all nodes at once; an unknown id is confirmed by a linearizable
    /// read before `None` is returned.
    fn access_key(&self, id: &str) -> impl Future<Output = Result<Option<AccessKey>, StoreError>> + Send;

    /// Whether any access key exists. A node without keys refuses S3 and says how to make one.
    fn has_access_keys(&self) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Creates a bucket.
    ///
    /// # Errors
    /// [`StoreError::BucketExists`] if it exists already.
    fn create_bucket(
        &self,
        context: &Context,
        name: &BucketName,
    ) -> impl Future<Output = Result<Bucket, StoreError>> + Send;

    /// Finds a bucket.
    ///
    /// # Errors
    /// [`StoreError::NoSuchBucket`].
    fn bucket(&self, context: &Context, name: &BucketName) -> impl Future<Output = Result<Bucket, StoreError>> + Send;

    /// All buckets by name.
    fn buckets(&self, context: &Context) -> impl Future<Output = Result<Vec<Bucket>, StoreError>> + Send;

    /// Removes an empty bucket.
    ///
    /// # Errors
    /// [`StoreError::NoSuchBucket`], [`StoreError::BucketNotEmpty`] (objects or open uploads).
    fn delete_bucket(
        &self,
        context: &Context,
        name: &BucketName,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Stores an object: durable on `f + 1` domains at least when it returns.
    ///
    /// # Errors
    /// [`StoreError::PreconditionFailed`] and friends; then nothing changed.
    fn put_object<B: Body + 'static>(
        &self,
        context: &Context,
        put: PutObject,
        body: B,
    ) -> impl Future<Output = Result<Stored, StoreError>> + Send;

    /// Opens the current version of an object: one linearizable read.
    ///
    /// # Errors
    /// [`StoreError::NoSuchBucket`], [`StoreError::NoSuchKey`].
    fn open_object(
        &self,
        context: &Context,
        bucket: &BucketName,
        key: &Key,
    ) -> impl Future<Output = Result<Self::Reader, StoreError>> + Send;

    /// Deletes an object. Deleting what is not there succeeds, unless a condition asks for it.
    ///
    /// # Errors
    /// [`StoreError::PreconditionFailed`]; [`StoreError::NoSuchKey`] only with `If-Match`.
    fn delete_object(
        &self,
        context: &Context,
        bucket: &BucketName,
        key: &Key,
        condition: Condition,
    ) -> impl Future<Output = Result<Deleted, StoreError>> + Send;

    /// One page of a listing in key order, complete as of a moment after the call began.
    fn list_objects(
        &self,
        context: &Context,
        query: ListQuery,
    ) -> impl Future<Output = Result<ListPage, StoreError>> + Send;

    /// Starts a multipart upload.
    fn create_upload(
        &self,
        context: &Context,
        new: NewUpload,
    ) -> impl Future<Output = Result<UploadId, StoreError>> + Send;

    /// What was said when an upload was started.
    ///
    /// # Errors
    /// [`StoreError::NoSuchUpload`].
    fn upload(
        &self,
        context: &Context,
        bucket: &BucketName,
        key: &Key,
        upload: UploadId,
    ) -> impl Future<Output = Result<Upload, StoreError>> + Send;

    /// Stores a part; a part of the same number is replaced.
    ///
    /// # Errors
    /// [`StoreError::NoSuchUpload`].
    fn put_part<B: Body + 'static>(
        &self,
        context: &Context,
        part: PutPart,
        body: B,
    ) -> impl Future<Output = Result<Stored, StoreError>> + Send;

    /// One page of an upload's parts, by number.
    fn list_parts(
        &self,
        context: &Context,
        query: PartQuery,
    ) -> impl Future<Output = Result<PartPage, StoreError>> + Send;

    /// One page of a bucket's open uploads, by key, then start time.
    fn list_uploads(
        &self,
        context: &Context,
        query: UploadQuery,
    ) -> impl Future<Output = Result<UploadPage, StoreError>> + Send;

    /// Makes an object of uploaded parts; no byte moves. Completing again with the same parts gives the same answer.
    ///
    /// # Errors
    /// [`StoreError::InvalidPart`], [`StoreError::InvalidPartOrder`], [`StoreError::PartTooSmall`],
    /// [`StoreError::NoSuchUpload`], [`StoreError::PreconditionFailed`].
    fn complete_upload(
        &self,
        context: &Context,
        complete: CompleteUpload,
    ) -> impl Future<Output = Result<Stored, StoreError>> + Send;

    /// Drops an upload and its parts.
    ///
    /// # Errors
    /// [`StoreError::NoSuchUpload`].
    fn abort_upload(
        &self,
        context: &Context,
        bucket: &BucketName,
        key: &Key,
        upload: UploadId,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

pub use crate::ids::{UploadId, VersionId};
