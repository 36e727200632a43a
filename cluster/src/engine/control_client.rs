//! Reads and changes of the control state: buckets and access keys.
//!
//! Every node holds a replica of the control state, so what is there is answered locally; what is missing is confirmed
//! by a linearizable read at the leader before it becomes an error.

use std::sync::Arc;

use bytes::Bytes;

use super::group_client::GroupClient;
use crate::codec::{decode, encode};
use crate::consensus::GroupId;
use crate::control::{AccessKeyRecord, BucketPhase, BucketRecord, ControlAnswer, ControlCommand, query};
use crate::member::{Member, ViewState};
use crate::peer::{ControlQuery, Method};
use crate::state::StateError;
use crate::store::{BucketName, StoreError};

/// Asks the control group from one worker.
#[derive(Clone)]
pub(crate) struct ControlClient {
    member: Arc<Member>,
    groups: GroupClient,
}

impl ControlClient {
    pub(crate) fn new(member: Arc<Member>, groups: GroupClient) -> Self {
        Self { member, groups }
    }

    /// Proposes a command and returns the state machine's answer.
    pub(crate) async fn propose(&self, command: &ControlCommand) -> Result<ControlAnswer, StoreError> {
        let answer = self.groups.propose(GroupId::CONTROL, command.encode()).await?;
        ControlAnswer::decode(&answer).map_err(|error| StoreError::Internal(error.to_string()))
    }

    /// A bucket, from this node's replica if it is there and live; else as of now.
    pub(crate) async fn bucket(&self, name: &BucketName) -> Result<Option<BucketRecord>, StoreError> {
        match self.local(|state| query::bucket(state, name))?.flatten() {
            Some(bucket) if bucket.phase == BucketPhase::Live => Ok(Some(bucket)),
            _ => self.current_bucket(name).await,
        }
    }

    /// A bucket as of now, also one that is being deleted.
    pub(crate) async fn current_bucket(&self, name: &BucketName) -> Result<Option<BucketRecord>, StoreError> {
        self.read(ControlQuery::Bucket(name.clone())).await
    }

    /// All buckets as of now, also those being deleted.
    pub(crate) async fn buckets(&self) -> Result<Vec<(BucketName, BucketRecord)>, StoreError> {
        self.read(ControlQuery::Buckets).await
    }

    /// An access key, from this node's replica if it is there.
    pub(crate) async fn access_key(&self, id: &str) -> Result<Option<AccessKeyRecord>, StoreError> {
        match self.local(|state| query::access_key(state, id))?.flatten() {
            Some(record) => Ok(Some(record)),
            None => self.read(ControlQuery::AccessKey(id.to_owned())).await,
        }
    }

    /// All access keys as of now: id, creation time in milliseconds since the Unix epoch, note.
    pub(crate) async fn access_keys(&self) -> Result<Vec<(String, u64, String)>, StoreError> {
        self.read(ControlQuery::AccessKeys).await
    }

    /// Reads this node's replica, which may lag; `None` if it has none.
    fn local<T>(&self, read: impl FnOnce(&ViewState) -> Result<T, StateError>) -> Result<Option<T>, StoreError> {
        let Some(replica) = self.member.group(GroupId::CONTROL) else { return Ok(None) };
        read(&ViewState(replica.view())).map(Some).map_err(|error| StoreError::Internal(error.to_string()))
    }

    async fn read<T: bincode::Decode<()>>(&self, query: ControlQuery) -> Result<T, StoreError> {
        let request = Bytes::from(encode(&query));
        let local = || self.member.read_control(&query, super::group_client::ATTEMPT_DEADLINE);
        let answer = self.groups.read(GroupId::CONTROL, Method::ControlRead, request, local).await?;
        decode(&answer).map_err(|error| StoreError::Internal(error.to_string()))
    }
}
