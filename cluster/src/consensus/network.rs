//! The port to the peers, and the consensus library's network on top of it.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use drystone_certs::NodeId;
use openraft::errors::{NetworkError as RaftNetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::SnapshotResponse;
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use tokio::sync::mpsc;

use super::codec::{self, Malformed, v1};
use super::ids::{GroupId, ReplicaId};
use super::machine::SnapshotContent;
use super::raft::{
    AppendRequest, AppendResponse, Member, Snapshot, TransferRequest, TransferResponse, Types, Vote, VoteRequest,
    VoteResponse,
};
use super::snapshot::{self, CHUNKS_IN_FLIGHT};

/// A future that can be sent between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Least time a follower is given to sync the entries it was sent.
const APPEND_DEADLINE_MIN: Duration = Duration::from_secs(2);

/// A call to a peer that brought no answer. It may have been acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// There is no connection to the peer.
    #[error("the peer cannot be reached")]
    Unreachable,
    /// The deadline passed.
    #[error("the peer did not answer in time")]
    TimedOut,
    /// The peer answered that it will not: it does not know the group, has stopped, or did not understand.
    #[error("the peer refused")]
    Refused,
}

/// How consensus reaches its peers. At the peer, the bytes of `call` go to [`super::Group::handle`], and those of
/// `send_snapshot` to [`super::Group::install_snapshot`]; what these return travels back. Cancelling a future abandons
/// the call.
pub trait ConsensusNetwork: Send + Sync + 'static {
    /// Sends a small message (at most 16 MiB; usually below 1 MiB) and waits for the answer.
    fn call(
        &self,
        to: NodeId,
        group: GroupId,
        message: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Bytes, NetworkError>>;

    /// Sends `head`, then the `chunks` (each about 256 KiB) as they come until the sender closes, and waits for the
    /// answer.
    fn send_snapshot(
        &self,
        to: NodeId,
        group: GroupId,
        head: Bytes,
        chunks: mpsc::Receiver<Bytes>,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Bytes, NetworkError>>;
}

/// How far each follower has acknowledged the log of the current leadership.
///
/// A follower that acknowledged entries and lost them (a drive that lied about a sync, a restored backup) must not be
/// counted on; the library would stop the leader over it. It is treated as unreachable instead, until the next leader.
#[derive(Default)]
struct Acknowledged {
    vote: Option<Vote>,
    upto: BTreeMap<ReplicaId, u64>,
}

impl Acknowledged {
    fn enter(&mut self, vote: Vote) {
        if self.vote != Some(vote) {
            self.vote = Some(vote);
            self.upto.clear();
        }
    }

    fn raise(&mut self, vote: Vote, replica: ReplicaId, index: u64) {
        self.enter(vote);
        let upto = self.upto.entry(replica).or_default();
        *upto = (*upto).max(index);
    }

    fn has_lost(&mut self, vote: Vote, replica: ReplicaId, missing: u64) -> bool {
        self.enter(vote);
        self.upto.get(&replica).is_some_and(|upto| missing <= *upto)
    }
}

/// Makes the library's clients.
pub(super) struct Peers {
    group: GroupId,
    replica: ReplicaId,
    network: Arc<dyn ConsensusNetwork>,
    acknowledged: Arc<Mutex<Acknowledged>>,
}

impl Peers {
    pub(super) fn new(group: GroupId, replica: ReplicaId, network: Arc<dyn ConsensusNetwork>) -> Self {
        Self { group, replica, network, acknowledged: Arc::default() }
    }
}

impl RaftNetworkFactory<Types> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &Member) -> Peer {
        Peer {
            group: self.group,
            from: self.replica,
            to: ReplicaId(target),
            node: node.node(),
            network: Arc::clone(&self.network),
            acknowledged: Arc::clone(&self.acknowledged),
        }
    }
}

/// One replica of the group on another node.
pub(super) struct Peer {
    group: GroupId,
    from: ReplicaId,
    to: ReplicaId,
    node: NodeId,
    network: Arc<dyn ConsensusNetwork>,
    acknowledged: Arc<Mutex<Acknowledged>>,
}

impl Peer {
    fn acknowledged(&self) -> MutexGuard<'_, Acknowledged> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what the follower holds, or finds that it has lost what it held.
    fn check_acknowledged(&self, rpc: &AppendRequest, response: &AppendResponse) -> Result<(), RPCError<Types>> {
        let upto = match response {
            AppendResponse::Success => rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id),
            AppendResponse::PartialSuccess(upto) => *upto,
            AppendResponse::Conflict => {
                let missing = rpc.prev_log_id.map_or(0, |id| id.index);
                if self.acknowledged().has_lost(rpc.vote, self.to, missing) {
                    tracing::error!(group = %self.group, replica = %self.to, node = %self.node, index = missing,
                        "a follower has lost entries that it had acknowledged; it is not counted on");
                    return Err(RPCError::Unreachable(Unreachable::new(&NetworkError::Refused)));
                }
                None
            }
            AppendResponse::HigherVote(_) => None,
        };
        if let Some(upto) = upto {
            self.acknowledged().raise(rpc.vote, self.to, upto.index);
        }
        Ok(())
    }

    async fn call(&self, body: v1::RequestBody, deadline: Duration) -> Result<v1::Reply, RPCError<Types>> {
        let request = v1::Request { group: self.group, from: self.from, to: self.to, body };
        let reply = self
            .network
            .call(self.node, self.group, codec::encode(&request), deadline)
            .await
            .map_err(into_rpc_error)?;
        codec::decode(&reply).map_err(|error| malformed(&error))
    }
}

fn into_rpc_error(error: NetworkError) -> RPCError<Types> {
    match error {
        NetworkError::Unreachable | NetworkError::Refused => RPCError::Unreachable(Unreachable::new(&error)),
        NetworkError::TimedOut => RPCError::Network(RaftNetworkError::new(&error)),
    }
}

fn malformed(error: &Malformed) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(error))
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = SnapshotContent;

    async fn append_entries(
        &mut self,
        rpc: AppendRequest,
        option: RPCOption,
    ) -> Result<AppendResponse, RPCError<Types>> {
        let deadline =
            if rpc.entries.is_empty() { option.hard_ttl() } else { option.hard_ttl().max(APPEND_DEADLINE_MIN) };
        let reply = self.call(v1::RequestBody::append(&rpc), deadline).await?;
        let response = reply.into_append().map_err(|error| malformed(&error))?;
        self.check_acknowledged(&rpc, &response)?;
        Ok(response)
    }

    async fn vote(&mut self, rpc: VoteRequest, option: RPCOption) -> Result<VoteResponse, RPCError<Types>> {
        let body = v1::RequestBody::Vote {
            vote: rpc.vote.into(),
            last: rpc.last_log_id.map(Into::into),
            leadership_transfer: rpc.leadership_transfer,
        };
        let reply = self.call(body, option.hard_ttl()).await?;
        reply.into_vote().map_err(|error| malformed(&error))
    }

    async fn pre_vote(&mut self, rpc: VoteRequest, option: RPCOption) -> Result<VoteResponse, RPCError<Types>> {
        let body = v1::RequestBody::PreVote {
            vote: rpc.vote.into(),
            last: rpc.last_log_id.map(Into::into),
            leadership_transfer: rpc.leadership_transfer,
        };
        let reply = self.call(body, option.hard_ttl()).await?;
        reply.into_vote().map_err(|error| malformed(&error))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<SnapshotContent>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let SnapshotContent::Source { view, generation } = snapshot.snapshot else {
            return Err(StreamingError::Unreachable(Unreachable::from_string("a received snapshot is not sent on")));
        };
        let head = v1::SnapshotHead {
            group: self.group,
            from: self.from,
            to: self.to,
            vote: vote.into(),
            last: snapshot.meta.last_log_id.map(Into::into),
            membership: (&snapshot.meta.last_membership).into(),
        };
        let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let produce = snapshot::produce(view, self.group, generation.number, sender);
        let send = self.network.send_snapshot(self.node, self.group, codec::encode(&head), receiver, option.hard_ttl());
        let reply = tokio::select! {
            biased;
            closed = cancel => return Err(StreamingError::Closed(closed)),
            (produced, reply) = futures_util::future::join(produce, send) => {
                if let Err(error) = produced {
                    tracing::error!(group = %self.group, %error, "reading a snapshot failed");
                }
                reply.map_err(|error| StreamingError::from(into_rpc_error(error)))?
            }
        };
        match codec::decode(&reply) {
            Ok(v1::Reply::SnapshotTaken { vote: answered }) => {
                if let Some(last) = snapshot.meta.last_log_id
                    && Vote::from(answered) == vote
                {
                    self.acknowledged().raise(vote, self.to, last.index);
                }
                Ok(SnapshotResponse::new(answered.into()))
            }
            Ok(_) | Err(_) => Err(StreamingError::from(malformed(&Malformed))),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferRequest,
        option: RPCOption,
    ) -> Result<TransferResponse, RPCError<Types>> {
        let body = v1::RequestBody::Transfer {
            vote: (*request.from_leader()).into(),
            successor: ReplicaId(*request.to_node_id()),
            last: request.last_log_id().copied().map(Into::into),
        };
        let reply = self.call(body, option.hard_ttl()).await?;
        reply.into_transfer().map_err(|error| malformed(&error))
    }

    fn backoff(&self) -> Option<Backoff> {
        // Soon at first, so that a peer that comes back is noticed; at most a second apart.
        Some(Backoff::new(
            (0u32..).map(|attempt| Duration::from_millis(50 << attempt.min(4)).min(Duration::from_secs(1))),
        ))
    }
}
