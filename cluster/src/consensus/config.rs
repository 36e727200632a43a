//! What a replica is told when it starts.

use std::time::Duration;

use super::ids::{GroupId, Members, ReplicaId};

/// The clock of a group. All replicas of a group should use the same values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// How often a leader speaks to a follower that it has nothing to tell; default 500 ms. A follower that was just
    /// sent entries is not sent a heartbeat.
    pub heartbeat: Duration,
    /// Least time a follower waits, beyond the leader's lease, before it stands for election; default 1 s. Must exceed
    /// 1.75 heartbeats.
    pub election_min: Duration,
    /// Most time it waits, and the leader's lease; default 1.5 s. With lease and wait together a dead leader is noticed
    /// 2.5–3 s after its last heartbeat.
    pub election_max: Duration,
    /// How long one transfer of a whole snapshot may take; default 10 min.
    pub snapshot_transfer_max: Duration,
    /// How long after its start the preferred leader waits before it stands for election; default 200 ms, to which up to
    /// as much again is added by the seed.
    pub preferred_election_delay: Duration,
    /// Least time between two attempts to hand leadership back to the preferred replica; default 30 s.
    pub balance_interval: Duration,
}

impl Timing {
    /// How often a replica looks at its clock, to see whether an election is due: twice per heartbeat.
    pub(super) fn tick(&self) -> Duration {
        self.heartbeat / 2
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(500),
            election_min: Duration::from_millis(1000),
            election_max: Duration::from_millis(1500),
            snapshot_transfer_max: Duration::from_secs(600),
            preferred_election_delay: Duration::from_millis(200),
            balance_interval: Duration::from_secs(30),
        }
    }
}

/// What a replica may assume about its storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartMode {
    /// A founding replica of a new group: makes its storage, or resumes if it is there already. Every founding replica
    /// must be given the same members. Never for a replica that may have lost its storage: it would forget its votes.
    Create,
    /// A replica added later: makes its storage, or resumes, and waits to be told by the leader. Never founds a group.
    Join,
    /// A replica that existed before. Missing storage is an error: a wiped replica must not pretend to be the one that
    /// voted.
    Resume,
}

/// What a replica is told when it starts.
#[derive(Debug, Clone)]
pub struct GroupConfig {
    /// The group.
    pub group: GroupId,
    /// This replica.
    pub replica: ReplicaId,
    /// The founding members; used by [`StartMode::Create`] on empty storage and ignored afterwards, when the agreed
    /// membership counts.
    pub members: Members,
    /// Whether storage must exist.
    pub mode: StartMode,
    /// The replica that should lead when all is well; the same on all replicas. None: whoever wins.
    pub preferred_leader: Option<ReplicaId>,
    /// The group's clock.
    pub timing: Timing,
    /// Entries after which a new snapshot allows older log entries to go; default 20,000.
    pub snapshot_every: u64,
    /// Entries kept behind the snapshot for followers that lag; default 5,000.
    pub log_keep: u64,
    /// Bytes of recent log entries kept in memory, so that replication does not read the drive; default 1 MiB. Entries
    /// not yet written are kept beyond it.
    pub log_cache_bytes: usize,
    /// Proposals that may wait for their outcome at once; default 4,096. Further ones wait.
    pub inflight_proposals_max: usize,
    /// Largest command in bytes; default 4 MiB, also the upper limit.
    pub command_bytes_max: usize,
}

impl GroupConfig {
    /// A configuration with the defaults above.
    pub fn new(group: GroupId, replica: ReplicaId, members: Members, mode: StartMode) -> Self {
        Self {
            group,
            replica,
            members,
            mode,
            preferred_leader: None,
            timing: Timing::default(),
            snapshot_every: 20_000,
            log_keep: 5_000,
            log_cache_bytes: 1 << 20,
            inflight_proposals_max: 4_096,
            command_bytes_max: 4 << 20,
        }
    }
}
