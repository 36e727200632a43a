//! Deletes the chunks that no entry refers to any more.
//!
//! Each shard keeps a queue of garbage that its commands fill; the shard's leader works it off here: delete the chunks
//! on their drives, then clear the record by a command. Every step is idempotent, so a crash or a second leader only
//! repeats work. Chunks on drives that do not answer stay queued.
//!
//! Extents of writes that failed arrive from this node's own gateways and are put into a shard's queue first, so that
//! they survive this node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::Member;
use super::groups::{ViewState, group_of_shard};
use crate::consensus::{GroupId, ReplicaRole};
use crate::detector::PeerState;
use crate::engine::{ChunkClient, GroupClient};
use crate::ids::{ChunkId, DriveId, ShardIndex};
use crate::index::query::{garbage_ahead, garbage_due};
use crate::index::{GarbageExtent, GarbageRecord, IndexCommand};

/// How often a leader looks at its queues.
const ROUND_INTERVAL: Duration = Duration::from_secs(1);
/// Records worked off per shard and round: bounds the work between two looks at the queue.
const RECORD_COUNT_MAX: usize = 256;
/// Shards worked off at once.
const SHARD_COUNT_AT_ONCE: usize = 16;
/// Commands under way at once per shard: they share the group's commits.
const COMMAND_COUNT_AT_ONCE: usize = 32;
/// Chunks in one deletion: what a drive does well within a call's deadline.
const CHUNK_COUNT_MAX: usize = 1024;
/// How long a leader looks for its majority before it reads its queue.
const BARRIER_DEADLINE: Duration = Duration::from_secs(4);
/// Abandoned extents that go into one command, and so into one record.
const ABANDONED_COUNT_MAX: usize = 256;
/// Abandoned extents that wait for the worker; at some 100 bytes each, less than 10 MiB.
const ABANDONED_QUEUE_MAX: usize = 65_536;
/// How long a stopping node tries to put what is left of them into queues.
const LAST_DEADLINE: Duration = Duration::from_secs(2);

/// A record of the queue with its place in it.
type Due = (u64, GarbageRecord);

/// A chunk on a drive.
type Held = (DriveId, ChunkId);

/// How writes that were given up reach the garbage worker. Bounded: the space of what does not fit stays used, because
/// nothing searches for chunks without an entry.
pub(super) fn abandoned_queue() -> (mpsc::Sender<GarbageExtent>, mpsc::Receiver<GarbageExtent>) {
    mpsc::channel(ABANDONED_QUEUE_MAX)
}

/// The garbage worker of one node.
pub(crate) struct GarbageWorker {
    pub(crate) member: Arc<Member>,
    pub(crate) groups: GroupClient,
    pub(crate) chunks: ChunkClient,
    pub(crate) abandoned: mpsc::Receiver<GarbageExtent>,
    /// Abandoned extents on their way into a queue: kept until that is certain.
    pub(crate) pending: Vec<GarbageExtent>,
}

impl GarbageWorker {
    /// Works until `stop`, then queues what was abandoned last.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        self.work(&stop).await;
        if timeout(LAST_DEADLINE, self.queue_abandoned()).await.is_err() {
            tracing::info!("extents of failed writes were not queued before the stop; their space stays used");
        }
    }

    async fn work(&mut self, stop: &CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.member.beat.wait(ROUND_INTERVAL) => {}
            }
            let round = async {
                self.queue_abandoned().await;
                let worker = &*self;
                stream::iter(worker.led_shards())
                    .for_each_concurrent(SHARD_COUNT_AT_ONCE, |shard| worker.work_off(shard))
                    .await;
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = round => {}
            }
        }
    }

    fn led_shards(&self) -> Vec<ShardIndex> {
        let shards = self.member.topology().shard_indexes();
        shards
            .filter(|shard| {
                let group = self.member.group(group_of_shard(shard.0));
                group.is_some_and(|group| group.status().role == ReplicaRole::Leader)
            })
            .collect()
    }

    /// Puts extents of failed writes into the queues of shards, until none is left or a shard does not take them.
    async fn queue_abandoned(&mut self) {
        loop {
            while self.pending.len() < ABANDONED_COUNT_MAX
                && let Ok(extent) = self.abandoned.try_recv()
            {
                self.pending.push(extent);
            }
            let Some(first) = self.pending.first() else { return };
            // Any shard will do; the extent's random id spreads the work.
            let shard = u16::from(first.id.as_bytes()[0]) % self.member.topology().shard_count;
            let command = IndexCommand::DropAbandoned { extents: self.pending.clone(), now_ms: self.member.now_ms() };
            if let Err(error) = self.groups.propose(group_of_shard(shard), command.encode()).await {
                tracing::debug!(%error, count = self.pending.len(), "abandoned extents wait for a quorum");
                // The next round tries another shard.
                self.pending.rotate_left(1);
                return;
            }
            self.pending.clear();
        }
    }

    async fn work_off(&self, shard: ShardIndex) {
        let group = group_of_shard(shard.0);
        let Some(replica) = self.member.group(group) else { return };
        // A leader that was deposed meanwhile would do its successor's work once more, from an old queue.
        if let Err(error) = replica.read_barrier(Instant::now() + BARRIER_DEADLINE).await {
            return tracing::debug!(%group, %error, "garbage waits for a leader with a majority");
        }
        let delay_ms = u64::try_from(self.member.config.garbage_delay.as_millis()).unwrap_or(u64::MAX);
        let (state, now_ms) = (ViewState(replica.view()), self.member.now_ms());
        let looked = garbage_due(&state, now_ms, delay_ms, RECORD_COUNT_MAX).and_then(|due| {
            let ahead = if due.is_empty() { garbage_ahead(&state, now_ms, delay_ms)? } else { Vec::new() };
            Ok((due, ahead))
        });
        match looked {
            Ok((due, ahead)) => {
                self.date_anew(group, ahead).await;
                let refused = self.delete_chunks(&due).await;
                self.clear(group, due, &refused).await;
            }
            Err(error) => tracing::error!(%group, %error, "the garbage queue cannot be read"),
        }
    }

    /// Puts records with a date in the future at the end of the queue, as of now.
    async fn date_anew(&self, group: GroupId, ahead: Vec<Due>) {
        if !ahead.is_empty() {
            tracing::info!(%group, count = ahead.len(), "garbage from a clock that was ahead is dated anew");
        }
        let now_ms = self.member.now_ms();
        let commands = ahead
            .into_iter()
            .map(|(sequence, GarbageRecord { extents, .. })| {
                (IndexCommand::RescheduleGarbage { sequence, extents, now_ms }, 0)
            })
            .collect();
        self.propose_all(group, commands).await;
    }

    /// Deletes all chunks of `due`; returns those that were not deleted.
    async fn delete_chunks(&self, due: &[Due]) -> BTreeSet<Held> {
        let mut by_drive: BTreeMap<DriveId, Vec<ChunkId>> = BTreeMap::new();
        for extent in due.iter().flat_map(|(_, record)| &record.extents) {
            for (slot, drive) in &extent.chunks {
                by_drive.entry(*drive).or_default().push(ChunkId { extent: extent.id, slot: *slot });
            }
        }
        let deletions = by_drive.into_iter().map(|(drive, chunks)| async move {
            let deleted_count = self.delete_on(drive, &chunks).await;
            chunks.into_iter().skip(deleted_count).map(|chunk| (drive, chunk)).collect::<Vec<Held>>()
        });
        let refused: BTreeSet<Held> = join_all(deletions).await.into_iter().flatten().collect();
        self.member.metrics().garbage_chunk_failures.inc_by(refused.len() as u64);
        refused
    }

    /// Deletes chunks of one drive, in order; returns how many were.
    async fn delete_on(&self, drive: DriveId, chunks: &[ChunkId]) -> usize {
        if self.is_down(drive) {
            return 0;
        }
        let mut deleted_count = 0;
        for batch in chunks.chunks(CHUNK_COUNT_MAX) {
            if let Err(fault) = self.chunks.delete(drive, batch.to_vec()).await {
                tracing::debug!(%drive, %fault, "chunks stay queued for deletion");
                break;
            }
            deleted_count += batch.len();
        }
        deleted_count
    }

    /// Whether asking the drive's node would only cost a deadline.
    fn is_down(&self, drive: DriveId) -> bool {
        let node = self.member.topology().node_of(drive);
        node.is_some_and(|node| node != self.member.node() && self.member.detector().state(node) == PeerState::Down)
    }

    async fn clear(&self, group: GroupId, due: Vec<Due>, refused: &BTreeSet<Held>) {
        let mut done = Vec::new();
        let mut done_extent_count = 0;
        let mut commands = Vec::new();
        for (sequence, record) in due {
            let extent_count = record.extents.len();
            let left = left_of(record.extents, refused);
            if left.is_empty() {
                done.push(sequence);
                done_extent_count += extent_count;
            } else {
                // What waits for a drive goes to the end of the queue, so that it does not hold up the rest.
                let now_ms = self.member.now_ms();
                let cleared_count = extent_count - left.len();
                commands.push((IndexCommand::RescheduleGarbage { sequence, extents: left, now_ms }, cleared_count));
            }
        }
        if !done.is_empty() {
            commands.push((IndexCommand::ClearGarbage { sequences: done }, done_extent_count));
        }
        self.propose_all(group, commands).await;
    }

    /// Proposes commands, each of which clears so many extents.
    async fn propose_all(&self, group: GroupId, commands: Vec<(IndexCommand, usize)>) {
        stream::iter(commands)
            .for_each_concurrent(COMMAND_COUNT_AT_ONCE, |(command, extent_count)| async move {
                match self.groups.propose(group, command.encode()).await {
                    Ok(_) => self.member.metrics().garbage_extents_deleted.inc_by(extent_count as u64),
                    Err(error) => tracing::debug!(%group, %error, "garbage will be worked off again"),
                }
            })
            .await;
    }
}

/// What is left of garbage: the chunks that were `refused`.
fn left_of(extents: Vec<GarbageExtent>, refused: &BTreeSet<Held>) -> Vec<GarbageExtent> {
    let only_refused = |mut extent: GarbageExtent| {
        let id = extent.id;
        extent.chunks.retain(|(slot, drive)| refused.contains(&(*drive, ChunkId { extent: id, slot: *slot })));
        extent
    };
    extents.into_iter().map(only_refused).filter(|extent| !extent.chunks.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ExtentId;

    #[test]
    fn only_refused_chunks_stay_queued() {
        let drive = |n: u8| DriveId::from_bytes([n; 8]);
        let extent = |n: u8, chunks: &[u8]| GarbageExtent {
            id: ExtentId::from_bytes([n; 16]),
            chunks: chunks.iter().map(|slot| (*slot, drive(*slot))).collect(),
        };
        let refused = (drive(1), ChunkId { extent: extent(8, &[]).id, slot: 1 });
        let all = || vec![extent(7, &[0, 1]), extent(8, &[0, 1, 2])];
        assert_eq!(left_of(all(), &BTreeSet::from([refused])), [extent(8, &[1])]);
        assert_eq!(left_of(all(), &BTreeSet::new()), []);
    }
}
