//! Serves the groups this node has replicas of: proposals and linearizable reads at the leader.
//!
//! Also the adapters between the deciding modules (`control`, `index`), which know only [`StateRead`] and
//! [`StateWrite`], and the consensus module, which knows only bytes.

use std::cell::RefCell;
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio::time::Instant;

use super::Member;
use crate::codec::{Blob, encode};
use crate::consensus::{
    GroupId, HandleError, Position, ProposeError, ReadError, StateMachine, StateView, Transaction, UnavailableReason,
    addressee,
};
use crate::control;
use crate::ids::{BucketId, CommandId, NodeId};
use crate::index::listing::{Scope, ShardPage, UploadEntry, list_shard, list_uploads_shard};
use crate::index::{self, BucketStatus, query, raw};
use crate::kv::{KeyRange, KvError};
use crate::peer::{
    ControlQuery, Fault, IndexListRequest, IndexReadRequest, ListReply, Listed, ShardCursor, ShardQuery, ShardReply,
};
use crate::state::{StateError, StateRead, StateWrite, Visit};
use crate::store::ListEntry;

/// The consensus group of an index shard.
pub(crate) fn group_of_shard(shard: u16) -> GroupId {
    // A shard number from the wire may be anything; there is no group of the last number.
    GroupId(shard.saturating_add(1))
}

impl Member {
    /// Proposes a command to a group this node leads.
    pub(crate) async fn propose(
        &self,
        group: GroupId,
        id: CommandId,
        command: Bytes,
        time_left: Duration,
    ) -> Result<Bytes, Fault> {
        let replica = self.group(group).ok_or(Fault::NoReplica)?;
        replica.propose(id, command, Instant::now() + time_left).await.map_err(Fault::from)
    }

    /// Hands a message of a peer to the replica it is for.
    pub(crate) async fn handle_consensus(&self, group: GroupId, message: Bytes) -> Result<Bytes, Fault> {
        let replica = addressee(&message).ok_or_else(|| Fault::malformed("a consensus message"))?;
        let replica = self.replica(group, replica).ok_or(Fault::NoReplica)?;
        replica.handle(message).await.map_err(Fault::from)
    }

    /// Reads from a shard this node leads; the answer shows everything acknowledged before the call.
    pub(crate) async fn read_index(&self, request: &IndexReadRequest, time_left: Duration) -> Result<Bytes, Fault> {
        let view = self.current_view(group_of_shard(request.shard), time_left).await?;
        let reply = answer_query(&ViewState(view), &request.query).map_err(state_fault)?;
        Ok(Bytes::from(encode(&reply)))
    }

    /// Lists from several shards this node leads, each as of one moment.
    pub(crate) async fn list_index(&self, request: &IndexListRequest, time_left: Duration) -> Result<Bytes, Fault> {
        let barriers = request.shards.iter().map(|cursor| self.current_view(group_of_shard(cursor.shard), time_left));
        let views = try_join_all(barriers).await?;
        match request.what {
            Listed::Objects => list_all(request, views, list_objects),
            Listed::Uploads => list_all(request, views, list_uploads),
        }
    }

    /// Reads the control state if this node leads the control group.
    pub(crate) async fn read_control(&self, query: &ControlQuery, time_left: Duration) -> Result<Bytes, Fault> {
        let view = ViewState(self.current_view(GroupId::CONTROL, time_left).await?);
        let answer = match query {
            ControlQuery::Position => Vec::new(),
            ControlQuery::Bucket(name) => encode(&control::query::bucket(&view, name).map_err(state_fault)?),
            ControlQuery::Buckets => encode(&control::query::buckets(&view).map_err(state_fault)?),
            ControlQuery::AccessKey(id) => encode(&control::query::access_key(&view, id).map_err(state_fault)?),
            ControlQuery::AccessKeys => {
                let keys = control::query::access_keys(&view).map_err(state_fault)?.into_iter();
                let summaries: Vec<_> = keys.map(|(id, record)| (id, record.created_ms, record.note)).collect();
                encode(&summaries)
            }
        };
        Ok(Bytes::from(answer))
    }

    /// The state of a group this node leads, no older than the call.
    async fn current_view(&self, group: GroupId, time_left: Duration) -> Result<StateView, Fault> {
        let replica = self.group(group).ok_or(Fault::NoReplica)?;
        replica.read_barrier(Instant::now() + time_left).await.map_err(Fault::from)?;
        Ok(replica.view())
    }

    /// The leader of a group: as this node's own replica knows it, else as was last heard.
    pub(crate) fn leader_of(&self, group: GroupId) -> Option<NodeId> {
        let by_replica = self.group(group).and_then(|replica| replica.status().leader).map(|(_, node)| node);
        by_replica.or_else(|| self.leaders().get(group))
    }

    /// Whether this node's replica of the control state knows any access key.
    pub(crate) fn has_local_access_key(&self) -> bool {
        let Some(replica) = self.group(GroupId::CONTROL) else { return false };
        control::query::access_key_count(&ViewState(replica.view())).is_ok_and(|count| count > 0)
    }
}

fn answer_query(state: &ViewState, query: &ShardQuery) -> Result<ShardReply, StateError> {
    let (bucket, record) = match query {
        ShardQuery::Object { bucket, key } => (*bucket, raw::entry(state, *bucket, key.as_str())?),
        ShardQuery::Upload { bucket, key, upload } => (*bucket, raw::upload(state, *bucket, key.as_str(), *upload)?),
        ShardQuery::Parts { bucket, key, upload, after, limit } => {
            let records = raw::parts(state, *bucket, key.as_str(), *upload, *after, *limit as usize)?;
            return Ok(ShardReply::Records(records.into_iter().map(|(number, bytes)| (number, Blob(bytes))).collect()));
        }
        ShardQuery::Refers { bucket, key, version, part, extent } => {
            let owned = query::owned_extent(state, *bucket, key.as_str(), *version, *part, *extent)?;
            return Ok(ShardReply::Verdict(owned.is_some()));
        }
        ShardQuery::IsEmpty { bucket } => return Ok(ShardReply::Verdict(query::is_empty(state, *bucket)?)),
    };
    match record {
        Some(bytes) => Ok(ShardReply::Record(Blob(bytes))),
        None if is_open(state, bucket)? => Ok(ShardReply::Missing),
        None => Ok(ShardReply::BucketSealed),
    }
}

fn is_open(state: &ViewState, bucket: BucketId) -> Result<bool, StateError> {
    Ok(query::bucket_status(state, bucket)? == BucketStatus::Open)
}

fn list_objects(
    state: &ViewState,
    scope: &Scope<'_>,
    cursor: &ShardCursor,
) -> Result<ShardPage<ListEntry>, StateError> {
    list_shard(state, scope, cursor.after.as_deref(), cursor.limit as usize)
}

fn list_uploads(
    state: &ViewState,
    scope: &Scope<'_>,
    cursor: &ShardCursor,
) -> Result<ShardPage<UploadEntry>, StateError> {
    list_uploads_shard(state, scope, cursor.after.as_deref(), cursor.upload_after, cursor.limit as usize)
}

fn list_all<E: bincode::Encode>(
    request: &IndexListRequest,
    views: Vec<StateView>,
    list: fn(&ViewState, &Scope<'_>, &ShardCursor) -> Result<ShardPage<E>, StateError>,
) -> Result<Bytes, Fault> {
    let scope = Scope { bucket: request.bucket, prefix: &request.prefix, delimiter: request.delimiter.as_deref() };
    let mut pages = Vec::with_capacity(views.len());
    for (cursor, view) in request.shards.iter().zip(views) {
        let state = ViewState(view);
        let page = list(&state, &scope, cursor).map_err(state_fault)?;
        if page.entries.is_empty() && !is_open(&state, request.bucket).map_err(state_fault)? {
            return Ok(Bytes::from(encode(&ListReply::<E>::BucketSealed)));
        }
        pages.push(page);
    }
    Ok(Bytes::from(encode(&ListReply::Pages(pages))))
}

/// The view of one moment of a group, as the deciding modules read it.
pub(crate) struct ViewState(pub(crate) StateView);

impl StateRead for ViewState {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        self.0.get(key).map_err(StateError::storage)
    }

    fn scan(&self, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), StateError> {
        self.0.scan(&range(from, to), visit).map_err(StateError::storage)
    }
}

/// What a state machine's commands read and change.
struct TransactionState<'t, 'kv>(RefCell<&'t mut Transaction<'kv>>);

impl StateRead for TransactionState<'_, '_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        // An error of the store is remembered by the transaction, which then drops the whole batch.
        Ok(self.0.borrow_mut().get(key))
    }

    fn scan(&self, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), StateError> {
        self.0.borrow_mut().scan(&range(from, to), visit);
        Ok(())
    }
}

impl StateWrite for TransactionState<'_, '_> {
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.0.get_mut().put(key, value);
    }

    fn delete(&mut self, key: Vec<u8>) {
        self.0.get_mut().delete(key);
    }
}

fn range(from: &[u8], to: Option<&[u8]>) -> KeyRange {
    let end = to.map_or(Bound::Unbounded, |to| Bound::Excluded(to.to_vec()));
    KeyRange { start: Bound::Included(from.to_vec()), end }
}

/// The control group's state machine.
pub(super) struct ControlMachine;

impl StateMachine for ControlMachine {
    fn apply(&self, transaction: &mut Transaction<'_>, _position: Position, command: &[u8]) -> Vec<u8> {
        apply_with(transaction, command, control::apply)
    }
}

/// An index shard's state machine.
pub(super) struct IndexMachine;

impl StateMachine for IndexMachine {
    fn apply(&self, transaction: &mut Transaction<'_>, _position: Position, command: &[u8]) -> Vec<u8> {
        apply_with(transaction, command, index::apply)
    }
}

type Apply = fn(&mut dyn StateWrite, &[u8]) -> Result<Vec<u8>, StateError>;

/// Applies a command; state that cannot be read fails the transaction and so stops the replica, whose answer could
/// differ from the others'.
fn apply_with(transaction: &mut Transaction<'_>, command: &[u8], apply: Apply) -> Vec<u8> {
    let applied = apply(&mut TransactionState(RefCell::new(transaction)), command);
    applied.unwrap_or_else(|error| {
        transaction.fail(KvError::Read { reason: error.to_string() });
        Vec::new()
    })
}

fn state_fault(error: StateError) -> Fault {
    Fault::State { reason: error.to_string() }
}

impl From<ProposeError> for Fault {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotLeader { leader } => Self::NotLeader { leader: leader.map(|(_, node)| node) },
            ProposeError::Unavailable { reason: UnavailableReason::TooLarge } => Self::CommandTooLarge,
            ProposeError::Unavailable { reason } => Self::NoQuorum { reason: reason.to_string() },
            ProposeError::Unknown => Self::UnknownOutcome,
            ProposeError::Stopped => Self::NotServing,
        }
    }
}

impl From<ReadError> for Fault {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotLeader { leader } => Self::NotLeader { leader: leader.map(|(_, node)| node) },
            ReadError::Unavailable { reason } => Self::NoQuorum { reason: reason.to_string() },
            ReadError::Stopped => Self::NotServing,
        }
    }
}

impl From<HandleError> for Fault {
    fn from(error: HandleError) -> Self {
        match error {
            HandleError::Stopped => Self::NotServing,
            HandleError::Kv(error) => Self::State { reason: error.to_string() },
            HandleError::Malformed | HandleError::Misrouted { .. } | HandleError::BrokenSnapshot => {
                Self::malformed(error)
            }
        }
    }
}
