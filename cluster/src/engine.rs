//! The object engine: what the gateway's [`Store`] calls become in terms of groups, extents and chunks.
//!
//! One [`ClusterStore`] per worker; all of them share the node's [`Member`]. Each operation reads as the steps of
//! docs/architecture.md, Paths. Nothing here is remembered between requests: state lives in groups and on drives.

mod access;
mod body_writer;
mod buckets;
mod chunk_client;
mod control_client;
mod extent_reader;
mod extent_writer;
mod group_client;
mod index_client;
mod lists;
mod objects;
mod piece;
mod reader;
mod uploads;

use std::sync::Arc;

use drystone_transport::Peers;

use crate::member::Member;
use crate::store::{
    AccessKey, Body, Bucket, BucketName, CompleteUpload, Condition, Context, Deleted, Key, ListPage, ListQuery,
    NewUpload, PartPage, PartQuery, PutObject, PutPart, Store, StoreError, Stored, Upload, UploadId, UploadPage,
    UploadQuery,
};

pub use self::access::{AccessKeySummary, KeyDeletion, seal_access_key};
pub(crate) use self::buckets::finish_interrupted_deletions;
pub(crate) use self::chunk_client::ChunkClient;
pub(crate) use self::control_client::ControlClient;
pub(crate) use self::group_client::GroupClient;
pub use self::reader::{ClusterRead, ClusterReader};

/// The cluster as one worker of one node sees it. Cheap to clone.
#[derive(Clone)]
pub struct ClusterStore(Arc<Engine>);

/// What the operations of one worker share.
pub(crate) struct Engine {
    member: Arc<Member>,
    groups: GroupClient,
    control: ControlClient,
    index: index_client::IndexClient,
    writer: extent_writer::ExtentWriter,
    extents: extent_reader::ExtentReader,
}

impl ClusterStore {
    /// A store for one worker, which reaches other nodes through `peers`, made on the worker's runtime.
    pub fn new(member: Arc<Member>, peers: Peers) -> Self {
        let groups = GroupClient::new(Arc::clone(&member), peers.clone());
        let chunks = ChunkClient::new(Arc::clone(&member), peers.clone());
        Self(Arc::new(Engine {
            control: ControlClient::new(Arc::clone(&member), groups.clone()),
            index: index_client::IndexClient::new(Arc::clone(&member), groups.clone(), peers),
            writer: extent_writer::ExtentWriter::new(Arc::clone(&member), chunks.clone()),
            extents: extent_reader::ExtentReader::new(Arc::clone(&member), chunks),
            groups,
            member,
        }))
    }

    /// The node behind this store.
    pub fn member(&self) -> &Arc<Member> {
        &self.0.member
    }
}

impl Store for ClusterStore {
    type Reader = ClusterReader;

    async fn access_key(&self, id: &str) -> Result<Option<AccessKey>, StoreError> {
        self.0.access_key(id).await
    }

    async fn has_access_keys(&self) -> Result<bool, StoreError> {
        self.0.has_access_keys().await
    }

    async fn create_bucket(&self, context: &Context, name: &BucketName) -> Result<Bucket, StoreError> {
        self.0.create_bucket(context, name).await
    }

    async fn bucket(&self, _context: &Context, name: &BucketName) -> Result<Bucket, StoreError> {
        self.0.bucket(name).await
    }

    async fn buckets(&self, _context: &Context) -> Result<Vec<Bucket>, StoreError> {
        self.0.buckets().await
    }

    async fn delete_bucket(&self, _context: &Context, name: &BucketName) -> Result<(), StoreError> {
        self.0.delete_bucket(name).await
    }

    async fn put_object<B: Body + 'static>(
        &self,
        _context: &Context,
        put: PutObject,
        body: B,
    ) -> Result<Stored, StoreError> {
        self.0.put_object(put, body).await
    }

    async fn open_object(
        &self,
        _context: &Context,
        bucket: &BucketName,
        key: &Key,
    ) -> Result<ClusterReader, StoreError> {
        let (bucket, entry) = self.0.find_object(bucket, key).await?;
        Ok(ClusterReader::new(Arc::clone(&self.0), bucket, key.clone(), entry))
    }

    async fn delete_object(
        &self,
        _context: &Context,
        bucket: &BucketName,
        key: &Key,
        condition: Condition,
    ) -> Result<Deleted, StoreError> {
        self.0.delete_object(bucket, key, condition).await
    }

    async fn list_objects(&self, _context: &Context, query: ListQuery) -> Result<ListPage, StoreError> {
        self.0.list_objects(query).await
    }

    async fn create_upload(&self, _context: &Context, new: NewUpload) -> Result<UploadId, StoreError> {
        self.0.create_upload(new).await
    }

    async fn upload(
        &self,
        _context: &Context,
        bucket: &BucketName,
        key: &Key,
        upload: UploadId,
    ) -> Result<Upload, StoreError> {
        self.0.upload(bucket, key, upload).await
    }

    async fn put_part<B: Body + 'static>(
        &self,
        _context: &Context,
        part: PutPart,
        body: B,
    ) -> Result<Stored, StoreError> {
        self.0.put_part(part, body).await
    }

    async fn list_parts(&self, _context: &Context, query: PartQuery) -> Result<PartPage, StoreError> {
        self.0.list_parts(query).await
    }

    async fn list_uploads(&self, _context: &Context, query: UploadQuery) -> Result<UploadPage, StoreError> {
        self.0.list_uploads(query).await
    }

    async fn complete_upload(&self, _context: &Context, complete: CompleteUpload) -> Result<Stored, StoreError> {
        self.0.complete_upload(complete).await
    }

    async fn abort_upload(
        &self,
        _context: &Context,
        bucket: &BucketName,
        key: &Key,
        upload: UploadId,
    ) -> Result<(), StoreError> {
        self.0.abort_upload(bucket, key, upload).await
    }
}
