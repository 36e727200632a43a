//! Applying agreed commands to the state of a group.
//!
//! Entries are applied in batches: the changes of up to [`APPLY_COUNT_MAX`] entries, their ring records, and the position
//! they lead to go to the store as one batch, without a sync of their own: after a crash the log, which is synced, is
//! applied again from the position the store remembers. Nobody waits for that batch (see [`super::pending`]): the answer
//! rests on the synced logs of a majority, and readers see the batch wherever it is.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use openraft::OptionalSend;
use openraft::storage::{ApplyResponder, RaftSnapshotBuilder, RaftStateMachine};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::codec::{self, v1};
use super::error::StartError;
use super::ids::{GroupId, Position, Proposal};
use super::keys;
use super::pace::Pace;
use super::raft::{Answer, Entry, LogId, Payload, Snapshot, SnapshotMeta, StoredMembership, Types};
use super::ring::{self, Ring};
use super::snapshot;
use super::transaction::{StateMachine, Transaction};
use super::view::{Generation, State};
use crate::kv::{Batch, KvError, KvView, LogWriter, Space};

/// Entries applied by one batch.
const APPLY_COUNT_MAX: usize = 512;
/// Bytes of commands applied by one batch; one more command may exceed it.
const APPLY_BYTES_MAX: usize = 2 << 20;

type Item = (Entry, Option<ApplyResponder<Types>>);

/// The state to send to, or received from, another replica.
pub(super) enum SnapshotContent {
    /// A frozen view of this replica's state.
    Source { view: Arc<dyn KvView>, generation: Arc<Generation> },
    /// A complete, checked state from the leader, in a generation that does not count yet.
    Received { generation: Arc<Generation> },
}

/// The applied position and membership, as stored.
pub(super) struct Applied {
    pub(super) last: Option<LogId>,
    pub(super) membership: StoredMembership,
}

impl Applied {
    /// Reads what the store remembers; the beginning, if it remembers nothing.
    pub(super) fn read(kv: &dyn KvView, group: GroupId) -> Result<Self, StartError> {
        let damaged = |record| StartError::Damaged { group, record };
        let last = match kv.get(Space::State, &keys::applied(group))? {
            Some(record) => {
                Some(codec::decode::<v1::LogId>(&record).map_err(|_| damaged("the applied position"))?.into())
            }
            None => None,
        };
        let membership = match kv.get(Space::State, &keys::membership(group))? {
            Some(record) => codec::decode::<v1::StoredMembershipRecord>(&record)
                .and_then(TryInto::try_into)
                .map_err(|_| damaged("the membership"))?,
            None => StoredMembership::default(),
        };
        Ok(Self { last, membership })
    }
}

/// The state machine of a group, as the consensus library drives it.
pub(super) struct Machine {
    state: Arc<State>,
    writer: LogWriter,
    machine: Arc<dyn StateMachine>,
    applied: Applied,
    ring: Ring,
}

impl Machine {
    pub(super) fn new(
        state: Arc<State>,
        writer: LogWriter,
        machine: Arc<dyn StateMachine>,
        applied: Applied,
    ) -> Result<Self, KvError> {
        let ring = Ring::read(&*state.kv, state.group, state.current().number)?;
        let index = applied.last.map_or(0, |last| last.index);
        *state.pace() = Pace::new(Instant::now(), index);
        Ok(Self { state, writer, machine, applied, ring })
    }

    /// A failed write stops every replica of the drive: reports it to the writer, which they share.
    fn fail(&self, error: KvError) -> io::Error {
        self.writer.fail(&error);
        error.into()
    }

    async fn apply_batch(&mut self, items: Vec<Item>) -> Result<(), KvError> {
        let state = Arc::clone(&self.state);
        let generation = state.current().number;
        if let Some((last, _)) = items.last() {
            state.pace().note(Instant::now(), last.log_id.index);
        }
        let mut transaction = Transaction::new(&*state.pending, keys::machine(state.group, generation));
        let mut records = BTreeMap::new();
        let mut answers = Vec::with_capacity(items.len());
        let mut membership_changed = false;
        for (entry, responder) in items {
            let answer = match entry.payload {
                Payload::Blank => Bytes::new(),
                Payload::Normal(proposal) => {
                    self.apply_command(&mut transaction, &mut records, entry.log_id, &proposal)?
                }
                Payload::Membership(membership) => {
                    self.applied.membership = StoredMembership::new(Some(entry.log_id), membership);
                    membership_changed = true;
                    Bytes::new()
                }
            };
            self.applied.last = Some(entry.log_id);
            if let Some(responder) = responder {
                answers.push((responder, answer));
            }
        }
        let mut batch = Batch::new();
        transaction.drain_into(&mut batch)?;
        for (slot, record) in records {
            batch.put(Space::State, keys::ring_slot(state.group, generation, slot), record);
        }
        self.put_applied(&mut batch, membership_changed);
        state.pending.submit(&self.writer, batch).await?;
        for (responder, answer) in answers {
            responder.send(Answer(answer));
        }
        Ok(())
    }

    /// Applies a command, or finds the answer it was given before. `records` are the ring records of this batch.
    fn apply_command(
        &mut self,
        transaction: &mut Transaction<'_>,
        records: &mut BTreeMap<u16, Bytes>,
        log_id: LogId,
        proposal: &Proposal,
    ) -> Result<Bytes, KvError> {
        let generation = self.state.current().number;
        for slot in self.ring.candidates(proposal.id) {
            let record = match records.get(&slot) {
                Some(record) => Some(record.clone()),
                None => self.state.pending.get(Space::State, &keys::ring_slot(self.state.group, generation, slot))?,
            };
            match record.as_ref().and_then(ring::decode_record) {
                Some((id, answer)) if id == proposal.id => return Ok(answer),
                // Another command with the same fingerprint.
                Some(_) => {}
                None => {
                    let reason = format!("the record of command {:?} is damaged", proposal.id);
                    return Err(KvError::Read { reason });
                }
            }
        }
        let position = Position { term: log_id.leader_id.term, index: log_id.index };
        let answer = self.machine.apply(transaction, position, &proposal.body);
        let slot = ring::slot_at(log_id.index);
        let record = ring::encode_record(proposal.id, &answer);
        records.insert(slot, record);
        self.ring.put(slot, proposal.id);
        Ok(answer.into())
    }

    fn put_applied(&self, batch: &mut Batch, membership_changed: bool) {
        let group = self.state.group;
        if let Some(last) = self.applied.last {
            batch.put(Space::State, keys::applied(group), codec::encode(&v1::LogId::from(last)));
        }
        if membership_changed {
            let record = v1::StoredMembershipRecord::from(&self.applied.membership);
            batch.put(Space::State, keys::membership(group), codec::encode(&record));
        }
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.applied.last, last_membership: self.applied.membership.clone() }
    }

    fn source(&self) -> SnapshotContent {
        SnapshotContent::Source { view: Arc::new(self.state.pending.frozen()), generation: self.state.current() }
    }

    async fn switch_to(&mut self, meta: &SnapshotMeta, generation: Arc<Generation>) -> Result<(), KvError> {
        let group = self.state.group;
        self.applied = Applied { last: meta.last_log_id, membership: meta.last_membership.clone() };
        let mut batch = Batch::new();
        batch.put(Space::State, keys::current_generation(group), generation.number.to_be_bytes().to_vec());
        self.put_applied(&mut batch, true);
        self.writer.write_durably(batch).await?;
        self.ring = Ring::read(&*self.state.kv, group, generation.number)?;
        self.state.switch(generation);
        *self.state.pace() = Pace::new(Instant::now(), meta.last_log_id.map_or(0, |last| last.index));
        Ok(())
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = SnapshotContent;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied.last, self.applied.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<Item>> + Unpin + OptionalSend,
    {
        let mut items = Vec::new();
        let mut len = 0;
        while let Some(item) = entries.try_next().await? {
            if let Payload::Normal(proposal) = &item.0.payload {
                len += proposal.body.len();
            }
            items.push(item);
            if items.len() >= APPLY_COUNT_MAX || len >= APPLY_BYTES_MAX {
                len = 0;
                self.apply_batch(std::mem::take(&mut items)).await.map_err(|error| self.fail(error))?;
            }
        }
        if items.is_empty() {
            return Ok(());
        }
        self.apply_batch(items).await.map_err(|error| self.fail(error))
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { meta: self.meta(), content: Some(self.source()) }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, content: SnapshotContent) -> io::Result<()> {
        match content {
            SnapshotContent::Received { generation } => {
                self.switch_to(meta, generation).await.map_err(|error| self.fail(error))
            }
            SnapshotContent::Source { view, generation } => {
                // Frozen in this process: takes the way of a received one.
                let (sender, receiver) = mpsc::channel(snapshot::CHUNKS_IN_FLIGHT);
                let produce = snapshot::produce(view, self.state.group, generation.number, sender);
                let receive = snapshot::receive(&self.state, &self.writer, receiver);
                let (produced, received) = futures_util::future::join(produce, receive).await;
                produced?;
                let generation = received.map_err(io::Error::other)?;
                self.switch_to(meta, generation).await.map_err(|error| self.fail(error))
            }
        }
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot<SnapshotContent>>> {
        // The state itself is the snapshot: it is persistent, and its log is purged only once it is durable.
        if self.applied.last.is_none() {
            return Ok(None);
        }
        Ok(Some(Snapshot { meta: self.meta(), snapshot: self.source() }))
    }
}

/// Hands out the snapshot that was frozen when it was made.
pub(super) struct Builder {
    meta: SnapshotMeta,
    content: Option<SnapshotContent>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotContent;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot<SnapshotContent>> {
        match self.content.take() {
            Some(snapshot) => Ok(Snapshot { meta: self.meta.clone(), snapshot }),
            None => Err(io::Error::other("a snapshot is handed out once")),
        }
    }
}
