//! Put, find and delete whole objects.

use drystone_erasure::Owner;

use super::Engine;
use super::body_writer::{INLINE_LEN_MAX, Taken, take_body};
use super::index_client::Found;
use crate::ids::{BucketId, VersionId};
use crate::index::{Content, IndexAnswer, IndexCommand, ObjectEntry, PutAnswer};
use crate::store::{Body, BucketName, Condition, Deleted, Key, PART_LEN_MIN, PutObject, StoreError, Stored};

/// The largest body put whole (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>).
const BODY_LEN_MAX: u64 = 5 << 30;

impl Engine {
    /// PUT: take the body in, then commit one entry; the shard decides the condition.
    pub(super) async fn put_object<B: Body>(&self, put: PutObject, body: B) -> Result<Stored, StoreError> {
        check_body_len(body.len())?;
        let bucket = self.bucket_for_body(&put.bucket, body.len()).await?;
        let version = self.member.randomness().with(VersionId::random);
        let len = body.len();
        let taken = take_body(&self.member, &self.writer, &owner(bucket, &put.key, version, 0), body).await?;
        let (entry, abandoned) = self.entry(version, len, &put, taken);
        let command = |bucket| IndexCommand::PutObject {
            bucket,
            key: put.key.clone(),
            entry: ObjectEntry { modified_ms: self.member.now_ms(), ..entry.clone() },
            condition: put.condition.clone(),
            abandoned: abandoned.clone(),
        };
        let answer = self.propose_body(&put.bucket, bucket, &put.key, &entry.content, command).await?;
        stored(answer, &put.bucket, &put.key)
    }

    /// The bucket a body of this length is taken in for. Chunks name their bucket, and are garbage once a command with
    /// them was refused, so they cannot follow a name that this node does not yet know to be given anew: who writes
    /// chunks asks the control leader first. A body that lies in the entry itself can follow, and goes by this node's
    /// replica.
    pub(super) async fn bucket_for_body(&self, name: &BucketName, len: u64) -> Result<BucketId, StoreError> {
        if len > INLINE_LEN_MAX { Ok(self.bucket(name).await?.id) } else { self.bucket_id(name).await }
    }

    /// Proposes the commit of a body that was taken in for `bucket`.
    pub(super) async fn propose_body(
        &self,
        name: &BucketName,
        bucket: BucketId,
        key: &Key,
        content: &Content,
        command: impl Fn(BucketId) -> IndexCommand,
    ) -> Result<IndexAnswer, StoreError> {
        if matches!(content, Content::Inline(_)) {
            return self.propose_renewed(name, bucket, key, command).await;
        }
        let answer = self.index.propose(self.index.shard_of(bucket, key), command(bucket)).await?;
        if answer == IndexAnswer::Sealed {
            // The bucket went while its body came in; whatever has its name now was made later.
            self.renewed_bucket_id(name, bucket).await?;
            return Err(StoreError::NoSuchBucket(name.clone()));
        }
        Ok(answer)
    }

    /// Proposes a command to the key's shard; if that has sealed the bucket, once more under the id the name has now.
    pub(super) async fn propose_renewed(
        &self,
        name: &BucketName,
        bucket: BucketId,
        key: &Key,
        command: impl Fn(BucketId) -> IndexCommand,
    ) -> Result<IndexAnswer, StoreError> {
        let answer = self.index.propose(self.index.shard_of(bucket, key), command(bucket)).await?;
        if answer != IndexAnswer::Sealed {
            return Ok(answer);
        }
        let bucket = self.renewed_bucket_id(name, bucket).await?;
        self.index.propose(self.index.shard_of(bucket, key), command(bucket)).await
    }

    fn entry(
        &self,
        version: VersionId,
        len: u64,
        put: &PutObject,
        taken: Taken,
    ) -> (ObjectEntry, Vec<crate::index::GarbageExtent>) {
        let checksum = taken.digests.checksum;
        let entry = ObjectEntry {
            len,
            etag: crate::store::ETag::whole(taken.digests.md5),
            modified_ms: self.member.now_ms(),
            version,
            checksum,
            metadata: put.metadata.clone(),
            content: taken.content,
        };
        (entry, taken.strays)
    }

    /// The current entry of a key, by one linearizable read.
    pub(super) async fn find_object(
        &self,
        name: &BucketName,
        key: &Key,
    ) -> Result<(BucketId, ObjectEntry), StoreError> {
        let mut bucket = self.bucket_id(name).await?;
        let mut found = self.index.object(bucket, key).await?;
        if matches!(found, Found::BucketSealed) {
            bucket = self.renewed_bucket_id(name, bucket).await?;
            found = self.index.object(bucket, key).await?;
        }
        match found {
            Found::Here(entry) => Ok((bucket, entry)),
            Found::Missing => Err(StoreError::NoSuchKey(key.clone())),
            Found::BucketSealed => Err(StoreError::BucketBusy(name.clone())),
        }
    }

    pub(super) async fn delete_object(
        &self,
        name: &BucketName,
        key: &Key,
        condition: Condition,
    ) -> Result<Deleted, StoreError> {
        let command = |bucket| IndexCommand::DeleteObject {
            bucket,
            key: key.clone(),
            condition: condition.clone(),
            now_ms: self.member.now_ms(),
        };
        let bucket = self.bucket_id(name).await?;
        match self.propose_renewed(name, bucket, key, command).await? {
            IndexAnswer::Deleted { existed } => Ok(Deleted { existed }),
            other => Err(refusal(other, name, key)),
        }
    }
}

/// What every chunk of a body says of whom it belongs to.
pub(super) fn owner(bucket: BucketId, key: &Key, version: VersionId, part: u32) -> Owner {
    Owner { bucket: bucket.0, key: key.as_str().to_owned(), version: version.0, part, ordinal: 0 }
}

pub(super) fn check_body_len(len: u64) -> Result<(), StoreError> {
    if len > BODY_LEN_MAX { Err(StoreError::TooLarge { len, max: BODY_LEN_MAX }) } else { Ok(()) }
}

pub(super) fn stored(answer: IndexAnswer, bucket: &BucketName, key: &Key) -> Result<Stored, StoreError> {
    match answer {
        IndexAnswer::Stored(PutAnswer { version, etag, checksum, len, modified_ms }) => {
            Ok(Stored { etag, checksum, version, len, modified_ms })
        }
        other => Err(refusal(other, bucket, key)),
    }
}

/// The state machine's refusals in the port's words.
pub(super) fn refusal(answer: IndexAnswer, bucket: &BucketName, key: &Key) -> StoreError {
    match answer {
        IndexAnswer::PreconditionFailed(condition) => StoreError::PreconditionFailed { header: condition.header() },
        IndexAnswer::NoSuchKey => StoreError::NoSuchKey(key.clone()),
        // The name was just looked up and in use: its deletion begins.
        IndexAnswer::Sealed => StoreError::BucketBusy(bucket.clone()),
        IndexAnswer::InvalidPart { number } => StoreError::InvalidPart { number },
        IndexAnswer::InvalidPartOrder => StoreError::InvalidPartOrder,
        IndexAnswer::PartTooSmall { number, len } => StoreError::PartTooSmall { number, len, min: PART_LEN_MIN },
        IndexAnswer::ChecksumMismatch => StoreError::ChecksumMismatch,
        IndexAnswer::LenMismatch { declared, actual } => StoreError::LenMismatch { declared, actual },
        other => StoreError::Internal(format!("the index answered {other:?}")),
    }
}
