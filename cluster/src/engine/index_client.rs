//! Commands and reads of index shards, typed.

use std::sync::Arc;

use bytes::Bytes;
use drystone_transport::Peers;

use super::group_client::{ATTEMPT_DEADLINE, GroupClient};
use crate::codec::{Blob, decode, encode};
use crate::ids::{BucketId, ShardIndex, UploadId};
use crate::index::{IndexAnswer, IndexCommand, ObjectEntry, PartRecord, UploadRecord};
use crate::member::{Member, group_of_shard};
use crate::peer::{IndexReadRequest, Method, ShardQuery, ShardReply};
use crate::store::{Key, StoreError};

/// Asks shards from one worker.
#[derive(Clone)]
pub(crate) struct IndexClient {
    pub(super) member: Arc<Member>,
    pub(super) groups: GroupClient,
    pub(super) peers: Peers,
}

/// What a shard found, or that it has sealed the bucket.
pub(crate) enum Found<T> {
    Here(T),
    Missing,
    BucketSealed,
}

impl IndexClient {
    pub(crate) fn new(member: Arc<Member>, groups: GroupClient, peers: Peers) -> Self {
        Self { member, groups, peers }
    }

    /// The shard of a key.
    pub(crate) fn shard_of(&self, bucket: BucketId, key: &Key) -> ShardIndex {
        self.member.topology().shard_of(bucket, key.as_str())
    }

    /// Proposes a command to a shard and returns the state machine's answer.
    pub(crate) async fn propose(&self, shard: ShardIndex, command: IndexCommand) -> Result<IndexAnswer, StoreError> {
        let answer = self.groups.propose(group_of_shard(shard.0), command.encode()).await?;
        IndexAnswer::decode(&answer).map_err(internal)
    }

    /// The current entry of a key.
    pub(crate) async fn object(&self, bucket: BucketId, key: &Key) -> Result<Found<ObjectEntry>, StoreError> {
        let query = ShardQuery::Object { bucket, key: key.clone() };
        match self.read(self.shard_of(bucket, key), query).await? {
            ShardReply::Record(record) => ObjectEntry::decode(&record.0).map(Found::Here).map_err(internal),
            ShardReply::Missing => Ok(Found::Missing),
            ShardReply::BucketSealed => Ok(Found::BucketSealed),
            ShardReply::Records(_) | ShardReply::Verdict(_) => Err(wrong_kind()),
        }
    }

    /// The record of an open upload.
    pub(crate) async fn upload(
        &self,
        bucket: BucketId,
        key: &Key,
        upload: UploadId,
    ) -> Result<Found<UploadRecord>, StoreError> {
        let query = ShardQuery::Upload { bucket, key: key.clone(), upload };
        match self.read(self.shard_of(bucket, key), query).await? {
            ShardReply::Record(record) => UploadRecord::decode(&record.0).map(Found::Here).map_err(internal),
            ShardReply::Missing => Ok(Found::Missing),
            ShardReply::BucketSealed => Ok(Found::BucketSealed),
            ShardReply::Records(_) | ShardReply::Verdict(_) => Err(wrong_kind()),
        }
    }

    /// At most `limit` part records with numbers above `after`, in order.
    pub(crate) async fn parts(
        &self,
        bucket: BucketId,
        key: &Key,
        upload: UploadId,
        after: u32,
        limit: u32,
    ) -> Result<Vec<(u32, PartRecord)>, StoreError> {
        let query = ShardQuery::Parts { bucket, key: key.clone(), upload, after, limit };
        match self.read(self.shard_of(bucket, key), query).await? {
            ShardReply::Records(records) => records
                .into_iter()
                .map(|(number, Blob(record))| Ok((number, PartRecord::decode(&record).map_err(internal)?)))
                .collect(),
            ShardReply::Missing | ShardReply::BucketSealed => Ok(Vec::new()),
            ShardReply::Record(_) | ShardReply::Verdict(_) => Err(wrong_kind()),
        }
    }

    /// Whether a bucket has neither objects nor open uploads in a shard.
    pub(crate) async fn is_empty(&self, shard: ShardIndex, bucket: BucketId) -> Result<bool, StoreError> {
        match self.read(shard, ShardQuery::IsEmpty { bucket }).await? {
            ShardReply::Verdict(empty) => Ok(empty),
            ShardReply::Missing | ShardReply::BucketSealed | ShardReply::Record(_) | ShardReply::Records(_) => {
                Err(wrong_kind())
            }
        }
    }

    async fn read(&self, shard: ShardIndex, query: ShardQuery) -> Result<ShardReply, StoreError> {
        let request = IndexReadRequest { shard: shard.0, query };
        let encoded = Bytes::from(encode(&request));
        let local = || self.member.read_index(&request, ATTEMPT_DEADLINE);
        let answer = self.groups.read(group_of_shard(shard.0), Method::IndexRead, encoded, local).await?;
        decode(&answer).map_err(internal)
    }
}

pub(super) fn internal(error: impl ToString) -> StoreError {
    StoreError::Internal(error.to_string())
}

fn wrong_kind() -> StoreError {
    StoreError::Internal("a shard answered with another kind of record".to_owned())
}
