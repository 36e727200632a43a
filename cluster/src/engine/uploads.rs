//! Multipart uploads: parts are bodies like any other; completion moves no byte.

use super::Engine;
use super::body_writer::take_body;
use super::index_client::Found;
use super::objects::{check_body_len, owner, refusal, stored};
use crate::ids::{BucketId, UploadId, VersionId};
use crate::index::{IndexAnswer, IndexCommand, PartAddress, PartRecord, UploadRecord};
use crate::store::{
    Body, BucketName, CompleteUpload, ETag, Key, NewUpload, PartPage, PartQuery, PartSummary, PutPart, StoreError,
    Stored, Upload,
};

impl Engine {
    pub(super) async fn create_upload(&self, new: NewUpload) -> Result<UploadId, StoreError> {
        let started_ms = self.member.now_ms();
        let upload = self.member.randomness().with(|rng| UploadId::started(started_ms, rng));
        let record = UploadRecord { started_ms, checksum: new.checksum, metadata: new.metadata };
        let create =
            |bucket| IndexCommand::CreateUpload { bucket, key: new.key.clone(), upload, record: record.clone() };
        let bucket = self.bucket_id(&new.bucket).await?;
        match self.propose_renewed(&new.bucket, bucket, &new.key, create).await? {
            IndexAnswer::Done => Ok(upload),
            other => Err(refusal(other, &new.bucket, &new.key)),
        }
    }

    pub(super) async fn upload(&self, name: &BucketName, key: &Key, upload: UploadId) -> Result<Upload, StoreError> {
        let bucket = self.bucket_id(name).await?;
        Ok(self.find_upload(name, bucket, key, upload).await?.1)
    }

    /// An open upload and the bucket it is in: `bucket`, or the one that has its name now.
    async fn find_upload(
        &self,
        name: &BucketName,
        mut bucket: BucketId,
        key: &Key,
        upload: UploadId,
    ) -> Result<(BucketId, Upload), StoreError> {
        let mut found = self.index.upload(bucket, key, upload).await?;
        if matches!(found, Found::BucketSealed) {
            bucket = self.renewed_bucket_id(name, bucket).await?;
            found = self.index.upload(bucket, key, upload).await?;
        }
        match found {
            Found::Here(UploadRecord { started_ms, checksum, metadata }) => {
                Ok((bucket, Upload { upload, started_ms, metadata, checksum }))
            }
            Found::Missing => Err(StoreError::NoSuchUpload(upload)),
            Found::BucketSealed => Err(StoreError::BucketBusy(name.clone())),
        }
    }

    pub(super) async fn put_part<B: Body>(&self, part: PutPart, body: B) -> Result<Stored, StoreError> {
        check_body_len(body.len())?;
        let bucket = self.bucket_for_body(&part.bucket, body.len()).await?;
        // Asked first, so that a body for an upload that is gone is not stored in vain; decided at the commit.
        let (bucket, _) = self.find_upload(&part.bucket, bucket, &part.key, part.upload).await?;
        let version = self.member.randomness().with(VersionId::random);
        let len = body.len();
        let owner = owner(bucket, &part.key, version, part.number);
        let taken = take_body(&self.member, &self.writer, &owner, body).await?;
        let record = PartRecord {
            len,
            etag: ETag::whole(taken.digests.md5),
            modified_ms: self.member.now_ms(),
            checksum: taken.digests.checksum,
            version,
            content: taken.content,
        };
        let command = |bucket| IndexCommand::PutPart {
            bucket,
            key: part.key.clone(),
            part: PartAddress { upload: part.upload, number: part.number },
            record: record.clone(),
            abandoned: taken.strays.clone(),
        };
        let answer = self.propose_body(&part.bucket, bucket, &part.key, &record.content, command).await?;
        self.upload_answer(answer, &part.bucket, &part.key, part.upload)
    }

    pub(super) async fn list_parts(&self, query: PartQuery) -> Result<PartPage, StoreError> {
        let bucket = self.bucket_id(&query.bucket).await?;
        let (bucket, upload) = self.find_upload(&query.bucket, bucket, &query.key, query.upload).await?;
        // One more than asked for tells whether more follow.
        let limit = u32::try_from(query.part_count_max + 1).unwrap_or(u32::MAX);
        let mut records = self.index.parts(bucket, &query.key, query.upload, query.after, limit).await?;
        let truncated = records.len() > query.part_count_max;
        records.truncate(query.part_count_max);
        let summary = |(number, record): (u32, PartRecord)| PartSummary {
            number,
            len: record.len,
            etag: record.etag,
            modified_ms: record.modified_ms,
            checksum: record.checksum,
        };
        Ok(PartPage { upload, parts: records.into_iter().map(summary).collect(), truncated })
    }

    pub(super) async fn complete_upload(&self, complete: CompleteUpload) -> Result<Stored, StoreError> {
        let bucket = self.bucket_id(&complete.bucket).await?;
        let version = self.member.randomness().with(VersionId::random);
        let command = |bucket| IndexCommand::CompleteUpload {
            bucket,
            key: complete.key.clone(),
            upload: complete.upload,
            parts: complete.parts.clone(),
            condition: complete.condition.clone(),
            version,
            now_ms: self.member.now_ms(),
            checksum: complete.checksum.clone(),
            len: complete.len,
        };
        let answer = self.propose_renewed(&complete.bucket, bucket, &complete.key, command).await?;
        self.upload_answer(answer, &complete.bucket, &complete.key, complete.upload)
    }

    pub(super) async fn abort_upload(&self, name: &BucketName, key: &Key, upload: UploadId) -> Result<(), StoreError> {
        let bucket = self.bucket_id(name).await?;
        let now_ms = self.member.now_ms();
        let command = |bucket| IndexCommand::AbortUpload { bucket, key: key.clone(), upload, now_ms };
        match self.propose_renewed(name, bucket, key, command).await? {
            IndexAnswer::Done => Ok(()),
            IndexAnswer::NoSuchUpload => Err(StoreError::NoSuchUpload(upload)),
            other => Err(refusal(other, name, key)),
        }
    }

    fn upload_answer(
        &self,
        answer: IndexAnswer,
        bucket: &BucketName,
        key: &Key,
        upload: UploadId,
    ) -> Result<Stored, StoreError> {
        match answer {
            IndexAnswer::NoSuchUpload => Err(StoreError::NoSuchUpload(upload)),
            other => stored(other, bucket, key),
        }
    }
}
