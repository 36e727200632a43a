//! The handle of a replica: start, propose, read, hand over, stop.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardToLeader, RaftError};
use openraft::{ChangeMembers, Config, Raft, SnapshotPolicy};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::balance::Balance;
use super::barrier::Barrier;
use super::codec::{self, v1};
use super::config::{GroupConfig, StartMode};
use super::error::{
    GroupFailure, HandleError, MembershipError, ProposeError, ReadError, StartError, TransferError, UnavailableReason,
};
use super::heart::Heart;
use super::ids::{CommandId, MemberRole, Members, Proposal, ReplicaId};
use super::keys;
use super::log::Log;
use super::machine::{Applied, Machine, SnapshotContent};
use super::network::{ConsensusNetwork, Peers};
use super::raft::{
    AppendRequest, Entry, Membership, Metrics, Snapshot, SnapshotMeta, TransferRequest, Types, Vote, VoteRequest,
    nodes_of, voters_of,
};
use super::runtime::{GroupRuntime, Ticks};
use super::snapshot;
use super::status::{GroupStatus, ReplicaRole, named};
use super::transaction::StateMachine;
use super::view::{State, StateView};
use crate::beat::Beat;
use crate::kv::{Batch, Kv, LogWriter, Space};

/// Log entries go in batches of at least this many, unless snapshots are made more often.
const PURGE_COUNT_MIN: u64 = 256;

/// What a replica works with.
#[derive(Clone)]
pub struct GroupParts {
    /// The store of the replica's drive.
    pub kv: Arc<dyn Kv>,
    /// The group commit of that store, shared by all replicas on the drive.
    pub log_writer: LogWriter,
    /// What commands mean.
    pub state_machine: Arc<dyn StateMachine>,
    /// The way to the peers.
    pub network: Arc<dyn ConsensusNetwork>,
    /// Source of the replica's randomness (election timeouts); should differ between replicas and groups.
    pub rng_seed: u64,
    /// When replicas of this node do what they do from time to time; the same for all of them.
    pub beat: Beat,
}

struct Inner {
    config: Arc<GroupConfig>,
    raft: Raft<Types, Machine>,
    state: Arc<State>,
    log_writer: LogWriter,
    barrier: Arc<Barrier>,
    permits: Semaphore,
    installing: tokio::sync::Mutex<()>,
    cancelled: CancellationToken,
    tasks: Mutex<Option<JoinSet<()>>>,
}

/// This node's replica of a group. Cheap to clone; every method can be called from any runtime thread. Its tasks run on
/// the runtime it was started on, until [`Group::shutdown`], which its owner must call.
#[derive(Clone)]
pub struct Group {
    inner: Arc<Inner>,
}

impl Group {
    /// Makes or resumes a replica, as `config.mode` says, and starts its tasks. Founding replicas may start in any order
    /// and at the same time.
    ///
    /// # Errors
    /// See [`StartError`]. Nothing runs then.
    pub async fn start(config: GroupConfig, parts: GroupParts) -> Result<Self, StartError> {
        check(&config)?;
        claim_storage(&config, &parts).await?;
        let config = Arc::new(config);
        let log = Log::open(config.group, Arc::clone(&parts.kv), parts.log_writer.clone(), config.log_cache_bytes)?;
        let (sweeper, retired) = mpsc::unbounded_channel();
        let state = Arc::new(open_state(&config, &parts, sweeper)?);
        let applied = Applied::read(&*parts.kv, config.group)?;
        let machine =
            Machine::new(Arc::clone(&state), parts.log_writer.clone(), Arc::clone(&parts.state_machine), applied)?;
        let peers = Peers::new(config.group, config.replica, Arc::clone(&parts.network));
        let library_config = Arc::new(library_config(&config)?);
        let start = Raft::new(config.replica.0, library_config, peers, log, machine);
        let ticks = Ticks { beat: parts.beat, period: config.timing.tick() };
        let raft = GroupRuntime::scope(parts.rng_seed, ticks, start).await.map_err(|error| refused(&config, &error))?;
        // Ours, on the beat, instead of the library's.
        raft.runtime_config().heartbeat(false);
        let group = Self {
            inner: Arc::new(Inner {
                permits: Semaphore::new(config.inflight_proposals_max),
                config,
                raft,
                state,
                log_writer: parts.log_writer.clone(),
                barrier: Arc::default(),
                installing: tokio::sync::Mutex::default(),
                cancelled: CancellationToken::new(),
                tasks: Mutex::new(None),
            }),
        };
        group.spawn_tasks(parts.rng_seed, parts.beat, retired);
        Ok(group)
    }

    fn spawn_tasks(&self, seed: u64, beat: Beat, mut retired: mpsc::UnboundedReceiver<u32>) {
        let inner = &self.inner;
        let mut tasks = JoinSet::new();
        let balance = Balance { raft: inner.raft.clone(), config: Arc::clone(&inner.config), seed };
        let cancelled = inner.cancelled.clone();
        tasks.spawn(async move { balance.run(&cancelled).await });

        let heart = Heart { raft: inner.raft.clone(), beat, period: inner.config.timing.heartbeat };
        let cancelled = inner.cancelled.clone();
        tasks.spawn(async move { heart.run(&cancelled).await });

        let (raft, barrier, cancelled) = (inner.raft.clone(), Arc::clone(&inner.barrier), inner.cancelled.clone());
        let round_max = inner.config.timing.election_max;
        tasks.spawn(async move { barrier.run(&raft, round_max, &cancelled).await });

        let (kv, group, cancelled) = (Arc::clone(&inner.state.kv), inner.config.group, inner.cancelled.clone());
        let log_writer = inner.log_writer.clone();
        tasks.spawn(async move {
            let sweep = async {
                while let Some(generation) = retired.recv().await {
                    if let Err(error) = snapshot::sweep(&*kv, &log_writer, group, generation).await {
                        log_writer.fail(&error);
                        return;
                    }
                }
            };
            tokio::select! {
                biased;
                () = cancelled.cancelled() => {}
                () = sweep => {}
            }
        });

        // A store that failed through another replica stops this one too.
        let (raft, cancelled) = (inner.raft.clone(), inner.cancelled.clone());
        let mut failure = inner.log_writer.watch_failure();
        tasks.spawn(async move {
            let failed = async { failure.wait_for(Option::is_some).await.is_ok() };
            tokio::select! {
                biased;
                () = cancelled.cancelled() => {}
                failed = failed => {
                    if failed && let Err(error) = raft.shutdown().await {
                        tracing::error!(%group, %error, "a replica of a failed drive did not stop cleanly");
                    }
                }
            }
        });
        *inner.tasks.lock().unwrap_or_else(PoisonError::into_inner) = Some(tasks);
    }

    fn metrics<T>(&self, read: impl FnOnce(&Metrics) -> T) -> T {
        read(&self.inner.raft.metrics().borrow_watched())
    }

    /// Proposes a command and waits until it is agreed, durable on a majority, and applied here; returns the state
    /// machine's answer. A command whose id was applied before is not applied again and gets the first answer.
    ///
    /// Cancelling stops the waiting; the command may still take effect.
    ///
    /// # Errors
    /// See [`ProposeError`]: only [`ProposeError::Unknown`] leaves the outcome open.
    pub async fn propose(&self, id: CommandId, body: Bytes, deadline: Instant) -> Result<Bytes, ProposeError> {
        let unavailable = |reason| ProposeError::Unavailable { reason };
        if body.len() > self.inner.config.command_bytes_max {
            return Err(unavailable(UnavailableReason::TooLarge));
        }
        self.check_leading()?;
        let permit = timeout_at(deadline, self.inner.permits.acquire())
            .await
            .map_err(|_| unavailable(UnavailableReason::Overloaded))?
            .map_err(|_| ProposeError::Stopped)?;
        self.wait_for_room(deadline).await?;
        if Instant::now() >= deadline {
            return Err(unavailable(UnavailableReason::Deadline));
        }
        let outcome = timeout_at(deadline, self.inner.raft.client_write(Proposal { id, body })).await;
        drop(permit);
        match outcome {
            Err(_) => Err(ProposeError::Unknown),
            Ok(Ok(response)) => Ok(response.data.0),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                Err(ProposeError::NotLeader { leader: leader_of(&forward) })
            }
            // Appended, and then the leader changed or the replica failed.
            Ok(Err(_)) => Err(ProposeError::Unknown),
        }
    }

    /// Waits until one more command does not push out one that may still be retried.
    async fn wait_for_room(&self, deadline: Instant) -> Result<(), ProposeError> {
        loop {
            let now = Instant::now();
            let delay = self.inner.state.pace().delay(now, self.inner.config.inflight_proposals_max);
            let Some(delay) = delay else { return Ok(()) };
            if now + delay >= deadline {
                return Err(ProposeError::Unavailable { reason: UnavailableReason::Overloaded });
            }
            tokio::time::sleep(delay).await;
        }
    }

    /// Refuses early what cannot succeed: on a follower, and on a leader that has not heard from a majority for longer
    /// than its lease and an election.
    fn check_leading(&self) -> Result<(), ProposeError> {
        let silence_max = self.inner.config.timing.election_max * 2;
        self.metrics(|metrics| {
            if metrics.running_state.is_err() {
                return Err(ProposeError::Stopped);
            }
            if metrics.state != openraft::ServerState::Leader {
                let status = GroupStatus::new(metrics);
                return match status.leader {
                    Some((leader, _)) if leader == self.inner.config.replica => {
                        Err(ProposeError::NotLeader { leader: None })
                    }
                    leader => Err(ProposeError::NotLeader { leader }),
                };
            }
            match metrics.last_quorum_acked {
                Some(acked) if acked.elapsed() > silence_max => {
                    Err(ProposeError::Unavailable { reason: UnavailableReason::NoQuorum })
                }
                _ => Ok(()),
            }
        })
    }

    /// Waits until a view taken afterwards shows every command that was answered before this call began. Only on the
    /// leader; costs one round trip to a majority, shared with other readers.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read_barrier(&self, deadline: Instant) -> Result<(), ReadError> {
        match self.check_leading() {
            Ok(()) => {}
            Err(ProposeError::NotLeader { leader }) => return Err(ReadError::NotLeader { leader }),
            Err(ProposeError::Unavailable { reason }) => {
                return Err(ReadError::Unavailable { reason });
            }
            Err(ProposeError::Unknown | ProposeError::Stopped) => return Err(ReadError::Stopped),
        }
        let answer = self.inner.barrier.join()?;
        match timeout_at(deadline, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(ReadError::Stopped),
            Err(_) => Err(ReadError::Unavailable { reason: UnavailableReason::Deadline }),
        }
    }

    /// The newest applied state, each call of the view by itself. Not a linearizable read by itself.
    pub fn view(&self) -> StateView {
        self.inner.state.view()
    }

    /// The applied state of now, which later commands do not change. Not a linearizable read by itself.
    pub fn frozen_view(&self) -> StateView {
        self.inner.state.frozen_view()
    }

    /// What this replica knows of itself and the group. Cheap.
    pub fn status(&self) -> GroupStatus {
        self.metrics(GroupStatus::new)
    }

    /// What stopped this replica, if something did other than [`Group::shutdown`].
    pub fn failure(&self) -> Option<GroupFailure> {
        if let Some(error) = self.inner.log_writer.failure() {
            return Some(GroupFailure::Kv(error));
        }
        self.metrics(|metrics| match &metrics.running_state {
            Err(openraft::errors::Fatal::Stopped) | Ok(()) => None,
            Err(error) => Some(GroupFailure::Consensus { reason: error.to_string() }),
        })
    }

    /// Waits until this replica knows a leader.
    ///
    /// # Errors
    /// [`UnavailableReason::NoLeader`] at the deadline, or when the replica has stopped.
    pub async fn wait_leader(
        &self,
        deadline: Instant,
    ) -> Result<(ReplicaId, drystone_certs::NodeId), UnavailableReason> {
        let mut metrics = self.inner.raft.metrics();
        let found = async {
            loop {
                let status = GroupStatus::new(&metrics.borrow_watched());
                if let Some(leader) = status.leader {
                    return Some(leader);
                }
                metrics.changed().await.ok()?;
            }
        };
        timeout_at(deadline, found).await.ok().flatten().ok_or(UnavailableReason::NoLeader)
    }

    /// Hands leadership to `to`, or to the voter that is most up to date, and waits until it is given up. For a planned
    /// stop and for balance.
    ///
    /// # Errors
    /// See [`TransferError`].
    pub async fn transfer_leadership(&self, to: Option<ReplicaId>, deadline: Instant) -> Result<(), TransferError> {
        let own = self.inner.config.replica;
        let status = self.status();
        match status.role {
            ReplicaRole::Leader => {}
            ReplicaRole::Stopped => return Err(TransferError::Stopped),
            _ => {
                return Err(TransferError::NotLeader { leader: status.leader });
            }
        }
        let candidates = status.voters().filter(|id| *id != own && to.is_none_or(|to| to == *id));
        let successor = candidates
            .filter_map(|id| Some((status.matched.get(&id).copied().flatten()?, id)))
            .max()
            .ok_or(TransferError::NoCandidate)?
            .1;
        self.inner.raft.trigger().transfer_leader(successor.0).await.map_err(|_| TransferError::Stopped)?;
        let mut metrics = self.inner.raft.metrics();
        let given_up = metrics.wait_until(|metrics| {
            metrics.current_leader.is_some_and(|leader| leader != own.0) || metrics.running_state.is_err()
        });
        match timeout_at(deadline, given_up).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(TransferError::Stopped),
            Err(_) => Err(TransferError::Deadline),
        }
    }

    /// Makes `members` the members of the group: adds the new ones (which first catch up as learners), changes roles,
    /// removes the rest. Through joint consensus, so that any change of voters is safe. Only on the leader; idempotent.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn change_members(&self, members: &Members, deadline: Instant) -> Result<(), MembershipError> {
        let steps = async {
            let current = self.status().members;
            let added: Members =
                members.iter().filter(|(id, _)| !current.contains_key(id)).map(|(id, m)| (*id, *m)).collect();
            if !added.is_empty() {
                self.change(ChangeMembers::AddNodes(nodes_of(&added))).await?;
            }
            if voters_of(members) != voters_of(&current) {
                self.change(ChangeMembers::ReplaceAllVoters(voters_of(members))).await?;
            }
            let removed: std::collections::BTreeSet<u64> =
                current.keys().filter(|id| !members.contains_key(id)).map(|id| id.0).collect();
            if !removed.is_empty() {
                self.change(ChangeMembers::RemoveNodes(removed)).await?;
            }
            Ok(())
        };
        timeout_at(deadline, steps).await.unwrap_or(Err(MembershipError::Unknown))
    }

    async fn change(&self, change: ChangeMembers<u64, super::raft::Member>) -> Result<(), MembershipError> {
        match self.inner.raft.change_membership(change, true).await {
            Ok(_) => Ok(()),
            Err(RaftError::Fatal(_)) => Err(MembershipError::Stopped),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                Err(MembershipError::NotLeader { leader: leader_of(&forward) })
            }
            Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => Err(MembershipError::Unknown),
            Err(RaftError::APIError(error)) => Err(MembershipError::Refused { reason: error.to_string() }),
        }
    }

    /// Acts on a message that a peer's [`ConsensusNetwork::call`] brought here, and returns the answer for it. An append
    /// is answered once its entries are durable.
    ///
    /// # Errors
    /// See [`HandleError`]; the peer is told that it was refused.
    pub async fn handle(&self, message: Bytes) -> Result<Bytes, HandleError> {
        let request: v1::Request = codec::decode(&message).map_err(|_| HandleError::Malformed)?;
        self.check_route(request.group, request.to)?;
        let raft = &self.inner.raft;
        let reply = match request.body {
            v1::RequestBody::Append { vote, previous, entries, committed } => {
                let entries: Result<Vec<Entry>, _> = entries.into_iter().map(TryInto::try_into).collect();
                let request = AppendRequest {
                    vote: vote.into(),
                    prev_log_id: previous.map(Into::into),
                    entries: entries.map_err(|_| HandleError::Malformed)?,
                    leader_commit: committed.map(Into::into),
                };
                check_contiguous(&request)?;
                raft.append_entries(request).await.map(v1::Reply::from)
            }
            v1::RequestBody::Vote { vote, last, leadership_transfer } => {
                raft.vote(vote_request(vote, last, leadership_transfer)).await.map(v1::Reply::from)
            }
            v1::RequestBody::PreVote { vote, last, leadership_transfer } => {
                raft.pre_vote(vote_request(vote, last, leadership_transfer)).await.map(v1::Reply::from)
            }
            v1::RequestBody::Transfer { vote, successor, last } => {
                let request = TransferRequest::new(vote.into(), successor.0, last.map(Into::into));
                let response = raft.handle_transfer_leader(request).await.map_err(|_| HandleError::Stopped)?;
                Ok(v1::Reply::from(response))
            }
        };
        reply.map(|reply| codec::encode(&reply)).map_err(|_| HandleError::Stopped)
    }

    /// Receives a whole state that a peer's [`ConsensusNetwork::send_snapshot`] brought here, and returns the answer for
    /// it once the state is durable and counts. Memory is bounded by a few chunks. Cancelling leaves the old state.
    ///
    /// # Errors
    /// See [`HandleError`]; the old state stays.
    pub async fn install_snapshot(&self, head: Bytes, chunks: mpsc::Receiver<Bytes>) -> Result<Bytes, HandleError> {
        let head: v1::SnapshotHead = codec::decode(&head).map_err(|_| HandleError::Malformed)?;
        self.check_route(head.group, head.to)?;
        let last_membership = head.membership.try_into().map_err(|_| HandleError::Malformed)?;
        let meta = SnapshotMeta { last_log_id: head.last.map(Into::into), last_membership };
        let vote = Vote::from(head.vote);
        // One at a time: a second stream waits, unread, so that it does not fill the drive as well.
        let _installing = self.inner.installing.lock().await;
        let generation =
            snapshot::receive(&self.inner.state, &self.inner.log_writer, chunks).await.inspect_err(|error| {
                if let HandleError::Kv(error) = error {
                    self.inner.log_writer.fail(error);
                }
            })?;
        let snapshot = Snapshot { meta, snapshot: SnapshotContent::Received { generation } };
        let response = self.inner.raft.install_full_snapshot(vote, snapshot).await.map_err(|_| HandleError::Stopped)?;
        Ok(codec::encode(&v1::Reply::SnapshotTaken { vote: response.vote.into() }))
    }

    fn check_route(&self, group: super::ids::GroupId, to: ReplicaId) -> Result<(), HandleError> {
        if group == self.inner.config.group && to == self.inner.config.replica {
            Ok(())
        } else {
            Err(HandleError::Misrouted { group, to })
        }
    }

    /// Stops the replica: its tasks have ended when this returns, and what it was asked is refused. Leadership is not
    /// handed over first; see [`Group::transfer_leadership`]. The store and its writer stay open, and must until then.
    /// Idempotent.
    pub async fn shutdown(&self) {
        self.inner.cancelled.cancel();
        self.inner.permits.close();
        let tasks = self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut tasks) = tasks {
            while let Some(ended) = tasks.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(group = %self.inner.config.group, %error, "a task of the replica panicked");
                }
            }
        }
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::error!(group = %self.inner.config.group, %error, "the replica did not stop cleanly");
        }
    }
}

fn leader_of(forward: &ForwardToLeader<Types>) -> Option<(ReplicaId, drystone_certs::NodeId)> {
    named(forward.leader_id, forward.leader_node.as_ref())
}

fn refused(config: &GroupConfig, error: &openraft::errors::Fatal<Types>) -> StartError {
    StartError::Refused { group: config.group, reason: error.to_string() }
}

fn vote_request(vote: v1::Vote, last: Option<v1::LogId>, leadership_transfer: bool) -> VoteRequest {
    let mut request = VoteRequest::new(vote.into(), last.map(Into::into));
    request.leadership_transfer = leadership_transfer;
    request
}

/// Entries must follow the previous one and each other without a gap: the library takes that for granted.
fn check_contiguous(request: &AppendRequest) -> Result<(), HandleError> {
    let first = request.prev_log_id.map_or(0, |id| id.index.saturating_add(1));
    let contiguous = request.entries.iter().zip(first..).all(|(entry, index)| entry.log_id.index == index);
    if contiguous { Ok(()) } else { Err(HandleError::Malformed) }
}

fn check(config: &GroupConfig) -> Result<(), StartError> {
    let group = config.group;
    if config.command_bytes_max > 4 << 20 || config.inflight_proposals_max == 0 {
        let reason = "commands are at most 4 MiB, and at least one proposal may wait".to_owned();
        return Err(StartError::Config { group, reason });
    }
    let has_voter = config.members.values().any(|(_, role)| *role == MemberRole::Voter);
    if config.mode == StartMode::Create && !(has_voter && config.members.contains_key(&config.replica)) {
        return Err(StartError::NotAMember { group, replica: config.replica });
    }
    Ok(())
}

/// Checks whose storage it is, and marks empty storage as ours.
async fn claim_storage(config: &GroupConfig, parts: &GroupParts) -> Result<(), StartError> {
    let (group, replica) = (config.group, config.replica);
    let key = keys::replica(group);
    match parts.kv.get(Space::Log, &key)? {
        Some(record) => {
            let damaged = |_| StartError::Damaged { group, record: "the replica's mark" };
            let stored: ReplicaId = codec::decode(&record).map_err(damaged)?;
            if stored == replica { Ok(()) } else { Err(StartError::OtherReplica { group, stored, wanted: replica }) }
        }
        None if config.mode == StartMode::Resume => Err(StartError::ReplicaStateMissing { group, replica }),
        None => {
            let mut batch = Batch::new();
            batch.put(Space::Log, key, codec::encode(&replica));
            if config.mode == StartMode::Create {
                put_foundation(config, &mut batch)?;
            }
            parts.log_writer.write_durably(batch).await?;
            Ok(())
        }
    }
}

/// What every founding replica begins with: the founding members as the first log entry, as if the founder with the
/// smallest id had led term 0 and replicated it, and a vote for that founder in term 1, as if it had been asked for one.
/// The entry is the same everywhere, so that any founder can win the first election.
fn put_foundation(config: &GroupConfig, batch: &mut Batch) -> Result<(), StartError> {
    let not_a_member = StartError::NotAMember { group: config.group, replica: config.replica };
    let voters = voters_of(&config.members);
    let Some(founder) = voters.first().copied() else {
        return Err(not_a_member);
    };
    let Ok(membership) = Membership::new(vec![voters], nodes_of(&config.members)) else {
        return Err(not_a_member);
    };
    let entry = v1::Entry {
        log_id: v1::LogId { term: 0, leader: founder, index: 0 },
        body: v1::EntryBody::Membership((&membership).into()),
    };
    let vote = v1::Vote { term: 1, candidate: founder, granted_by_majority: false };
    batch.put(Space::Log, keys::entry(config.group, 0), codec::encode(&entry));
    batch.put(Space::Log, keys::vote(config.group), codec::encode(&vote));
    Ok(())
}

/// Finds the generation that counts, and has every other one swept.
fn open_state(
    config: &GroupConfig,
    parts: &GroupParts,
    sweeper: mpsc::UnboundedSender<u32>,
) -> Result<State, StartError> {
    let group = config.group;
    let damaged = StartError::Damaged { group, record: "the generation" };
    let current = match parts.kv.get(Space::State, &keys::current_generation(group))? {
        Some(record) => match <[u8; 4]>::try_from(&record[..]) {
            Ok(bytes) => u32::from_be_bytes(bytes),
            Err(_) => return Err(damaged),
        },
        None => 1,
    };
    let stored = snapshot::stored_generations(&*parts.kv, group)?;
    let greatest = stored.last().copied().unwrap_or_default().max(current);
    let Some(next) = greatest.checked_add(1) else {
        return Err(damaged);
    };
    for generation in stored.into_iter().filter(|stored| *stored != current) {
        if sweeper.send(generation).is_err() {
            tracing::debug!(%group, generation, "nobody sweeps");
        }
    }
    Ok(State::new(Arc::clone(&parts.kv), group, current, next, sweeper))
}

fn library_config(config: &GroupConfig) -> Result<Config, StartError> {
    let timing = &config.timing;
    let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let library = Config {
        cluster_name: config.group.to_string(),
        heartbeat_interval: millis(timing.heartbeat),
        heartbeat_min_interval: Some(millis(timing.heartbeat) / 2),
        election_timeout_min: millis(timing.election_min),
        election_timeout_max: millis(timing.election_max),
        install_snapshot_timeout: millis(timing.snapshot_transfer_max),
        max_payload_entries: 1_024,
        replication_lag_threshold: config.snapshot_every.saturating_mul(2),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_every.max(1)),
        max_in_snapshot_log_to_keep: config.log_keep,
        purge_batch_size: config.snapshot_every.clamp(1, PURGE_COUNT_MIN),
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        // Statistics that are not compiled in; 144 KiB a group by default. The library's other buffers (of commands,
        // answers and responders, about 1.8 MB a group when all their pages have been used) have no setting.
        log_stage_capacity: Some(1),
        ..Config::default()
    };
    library.validate().map_err(|error| StartError::Config { group: config.group, reason: error.to_string() })
}
