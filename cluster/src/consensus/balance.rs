//! Who should lead: the preferred replica stands first when the group starts, and gets leadership back later.
//!
//! With a different preferred replica per group, leaders spread evenly over the nodes. It never forces anything: standing
//! early goes through a pre-vote like any election, and leadership is handed back only to a voter that is up to date, at
//! most once per interval.

use std::sync::Arc;
use std::time::Duration;

use openraft::Raft;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;

use super::config::GroupConfig;
use super::ids::{MemberRole, ReplicaId};
use super::machine::Machine;
use super::raft::Types;
use super::status::{GroupStatus, ReplicaRole};

/// How many entries the preferred replica may be behind when leadership is handed back: what it catches up at once.
const LAG_MAX: u64 = 256;

/// Watches over who leads a group, from one replica.
pub(super) struct Balance {
    pub(super) raft: Raft<Types, Machine>,
    pub(super) config: Arc<GroupConfig>,
    pub(super) seed: u64,
}

impl Balance {
    /// Runs until cancelled.
    pub(super) async fn run(self, cancelled: &CancellationToken) {
        tokio::select! {
            biased;
            () = cancelled.cancelled() => {}
            () = self.watch() => {}
        }
    }

    async fn watch(&self) {
        let mut rng = SmallRng::seed_from_u64(self.seed);
        if self.config.preferred_leader == Some(self.config.replica) {
            self.stand_early(&mut rng).await;
        }
        let interval = self.config.timing.balance_interval;
        loop {
            tokio::time::sleep(interval.mul_f64(rng.random_range(1.0..1.25))).await;
            if let Some(successor) = self.successor()
                && self.raft.trigger().transfer_leader(successor.0).await.is_err()
            {
                return;
            }
        }
    }

    fn status(&self) -> GroupStatus {
        use openraft::async_runtime::WatchReceiver;
        GroupStatus::new(&self.raft.metrics().borrow_watched())
    }

    /// Stands for election a few times soon after the start, while nobody leads.
    async fn stand_early(&self, rng: &mut SmallRng) {
        let timing = &self.config.timing;
        let mut waited = Duration::ZERO;
        while waited < timing.election_max {
            let delay = timing.preferred_election_delay.mul_f64(rng.random_range(1.0..2.0));
            tokio::time::sleep(delay).await;
            waited += delay;
            let status = self.status();
            if status.leader.is_some() || status.role != ReplicaRole::Follower && status.role != ReplicaRole::Candidate
            {
                return;
            }
            if self.raft.trigger().elect(true).await.is_err() {
                return;
            }
        }
    }

    /// The preferred replica, if this one leads in its place and it could take over now.
    fn successor(&self) -> Option<ReplicaId> {
        let preferred = self.config.preferred_leader.filter(|preferred| *preferred != self.config.replica)?;
        let status = self.status();
        let is_voter = status.members.get(&preferred).is_some_and(|(_, role)| *role == MemberRole::Voter);
        let matched = status.matched.get(&preferred).copied().flatten()?;
        let is_near = matched + LAG_MAX >= status.last_log_index?;
        (status.role == ReplicaRole::Leader && is_voter && is_near).then_some(preferred)
    }
}
