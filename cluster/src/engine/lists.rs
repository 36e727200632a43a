//! Listings: each node that leads shards is asked once for the next lines of all of them, and the answers are merged.
//! Cost follows the page, never the bucket.

use std::collections::BTreeMap;

use bytes::Bytes;
use drystone_transport::Class;
use futures_util::future::{join_all, try_join_all};

use super::Engine;
use super::group_client::ATTEMPT_DEADLINE;
use super::index_client::internal;
use crate::codec::{decode, encode};
use crate::ids::{BucketId, NodeId, ShardIndex};
use crate::index::listing::{ShardPage, UploadEntry};
use crate::index::merge::{Fetch, Line, Merge};
use crate::member::group_of_shard;
use crate::peer::{Fault, IndexListRequest, ListReply, Listed, Method, ShardCursor};
use crate::store::{ListEntry, ListPage, ListQuery, StoreError, UploadId, UploadPage, UploadQuery};

/// What is listed, without where to go on.
#[derive(Clone)]
struct Scope {
    bucket: BucketId,
    prefix: String,
    delimiter: Option<String>,
}

/// The pages of some shards, or that one of them has sealed the bucket.
enum Fetched<E> {
    Pages(Vec<(ShardIndex, ShardPage<E>)>),
    BucketSealed,
}

impl Engine {
    pub(super) async fn list_objects(&self, query: ListQuery) -> Result<ListPage, StoreError> {
        let mut bucket = self.bucket_id(&query.bucket).await?;
        for _ in 0..2 {
            let scope = Scope { bucket, prefix: query.prefix.clone(), delimiter: query.delimiter.clone() };
            let merge = Merge::<ListEntry>::new(self.member.topology().shard_count, query.entry_count_max);
            let begin = (query.after.clone(), None);
            if let Some(merge) = self.fill(merge, &scope, begin, |position| (Some(position), None)).await? {
                return merge.into_page().ok_or_else(incomplete);
            }
            bucket = self.renewed_bucket_id(&query.bucket, bucket).await?;
        }
        Err(StoreError::NoSuchBucket(query.bucket))
    }

    pub(super) async fn list_uploads(&self, query: UploadQuery) -> Result<UploadPage, StoreError> {
        let mut bucket = self.bucket_id(&query.bucket).await?;
        for _ in 0..2 {
            let scope = Scope { bucket, prefix: query.prefix.clone(), delimiter: query.delimiter.clone() };
            let merge = Merge::<UploadEntry>::new(self.member.topology().shard_count, query.entry_count_max);
            let begin = (query.key_after.clone(), query.upload_after);
            if let Some(merge) = self.fill(merge, &scope, begin, |(key, upload)| (Some(key), upload)).await? {
                return merge.into_page().ok_or_else(incomplete);
            }
            bucket = self.renewed_bucket_id(&query.bucket, bucket).await?;
        }
        Err(StoreError::NoSuchBucket(query.bucket))
    }

    /// Fetches from shards until the merge has its page; `None` if a shard has sealed the bucket.
    async fn fill<E: ListedLine>(
        &self,
        mut merge: Merge<E>,
        scope: &Scope,
        begin: Cursor,
        cursor: impl Fn(E::Position) -> Cursor,
    ) -> Result<Option<Merge<E>>, StoreError> {
        loop {
            let wants = merge.wants();
            if wants.is_empty() {
                return Ok(Some(merge));
            }
            let cursors = wants.into_iter().map(|Fetch { shard, after, limit }| {
                let (after, upload_after) = after.map_or_else(|| begin.clone(), &cursor);
                let limit = u32::try_from(limit).unwrap_or(u32::MAX);
                ShardCursor { shard: shard.0, after, upload_after, limit }
            });
            match self.fetch::<E>(scope, cursors.collect()).await? {
                Fetched::Pages(pages) => pages.into_iter().for_each(|(shard, page)| merge.feed(shard, page)),
                Fetched::BucketSealed => return Ok(None),
            }
        }
    }

    /// Asks each known leader once; shards whose leader is not known, or that moved meanwhile, one by one.
    async fn fetch<E: ListedLine>(&self, scope: &Scope, cursors: Vec<ShardCursor>) -> Result<Fetched<E>, StoreError> {
        let mut by_leader: BTreeMap<Option<NodeId>, Vec<ShardCursor>> = BTreeMap::new();
        for cursor in cursors {
            by_leader.entry(self.member.leader_of(group_of_shard(cursor.shard))).or_default().push(cursor);
        }
        let mut singly = by_leader.remove(&None).unwrap_or_default();
        let led = by_leader.into_iter().filter_map(|(leader, cursors)| Some((leader?, cursors)));
        let asked = join_all(led.map(|(leader, cursors)| async move {
            let answer = self.ask_leader::<E>(scope, leader, &cursors).await;
            (leader, cursors, answer)
        }));
        let mut pages = Vec::new();
        for (leader, cursors, answer) in asked.await {
            match answer {
                Ok(ListReply::Pages(got)) if got.len() == cursors.len() => {
                    pages.extend(cursors.iter().map(|cursor| ShardIndex(cursor.shard)).zip(got));
                }
                Ok(ListReply::BucketSealed) => return Ok(Fetched::BucketSealed),
                Ok(ListReply::Pages(_)) | Err(_) => {
                    for cursor in &cursors {
                        self.member.leaders().forget(group_of_shard(cursor.shard), leader);
                    }
                    singly.extend(cursors);
                }
            }
        }
        for (shard, reply) in try_join_all(singly.into_iter().map(|cursor| self.ask_shard::<E>(scope, cursor))).await? {
            match reply {
                ListReply::Pages(got) => pages.extend(got.into_iter().map(|page| (shard, page))),
                ListReply::BucketSealed => return Ok(Fetched::BucketSealed),
            }
        }
        Ok(Fetched::Pages(pages))
    }

    async fn ask_leader<E: ListedLine>(
        &self,
        scope: &Scope,
        leader: NodeId,
        cursors: &[ShardCursor],
    ) -> Result<ListReply<E>, Fault> {
        let request = scope.request::<E>(cursors.to_vec());
        let answer = if leader == self.member.node() {
            self.member.list_index(&request, ATTEMPT_DEADLINE).await?
        } else {
            let body = Bytes::from(encode(&request));
            let method = Method::IndexList.number();
            self.index.peers.call(leader, Class::Data, method, body, ATTEMPT_DEADLINE).await.map_err(Fault::from)?
        };
        decode(&answer).map_err(Fault::malformed)
    }

    async fn ask_shard<E: ListedLine>(
        &self,
        scope: &Scope,
        cursor: ShardCursor,
    ) -> Result<(ShardIndex, ListReply<E>), StoreError> {
        let shard = cursor.shard;
        let request = scope.request::<E>(vec![cursor]);
        let body = Bytes::from(encode(&request));
        let local = || self.member.list_index(&request, ATTEMPT_DEADLINE);
        let answer = self.groups.read(group_of_shard(shard), Method::IndexList, body, local).await?;
        Ok((ShardIndex(shard), decode(&answer).map_err(internal)?))
    }
}

/// Where a shard goes on: after this name, and of uploads of this very key after that one.
type Cursor = (Option<String>, Option<UploadId>);

impl Scope {
    fn request<E: ListedLine>(&self, shards: Vec<ShardCursor>) -> IndexListRequest {
        IndexListRequest {
            shards,
            bucket: self.bucket,
            prefix: self.prefix.clone(),
            delimiter: self.delimiter.clone(),
            what: E::WHAT,
        }
    }
}

/// Lines that shards list.
trait ListedLine: Line + bincode::Decode<()> + Send + Sync {
    const WHAT: Listed;
}

impl ListedLine for ListEntry {
    const WHAT: Listed = Listed::Objects;
}

impl ListedLine for UploadEntry {
    const WHAT: Listed = Listed::Uploads;
}

fn incomplete() -> StoreError {
    StoreError::Internal("a listing ended before its page was full".to_owned())
}
