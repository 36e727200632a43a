//! What a replica says about itself.

use drystone_certs::NodeId;

use super::ids::{MemberRole, Members, ReplicaId};
use super::raft::{Member, Metrics, members_of};

/// What a replica does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReplicaRole {
    /// Orders commands.
    Leader,
    /// Follows a leader and votes.
    Follower,
    /// Stands for election.
    Candidate,
    /// Follows a leader and does not vote.
    Learner,
    /// Was stopped, or its drive failed.
    Stopped,
}

/// A moment of a replica, as it sees the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatus {
    /// What it does.
    pub role: ReplicaRole,
    /// Who leads, as far as it knows. A leader that was cut off still names itself until it hears of another.
    pub leader: Option<(ReplicaId, NodeId)>,
    /// The term.
    pub term: u64,
    /// Index of the last entry of its log.
    pub last_log_index: Option<u64>,
    /// Index up to which it knows entries to be agreed.
    pub committed: Option<u64>,
    /// Index up to which its state is applied.
    pub applied: Option<u64>,
    /// The effective members.
    pub members: Members,
    /// Entries that are agreed but not applied here.
    pub lag: u64,
    /// On a leader: index each other member is known to hold. Empty elsewhere.
    pub matched: std::collections::BTreeMap<ReplicaId, Option<u64>>,
}

impl GroupStatus {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let members = members_of(metrics.membership_config.membership());
        let role = role(metrics);
        // After a restart the library names the leader of its stored vote, which may be itself; after its end the last
        // one it heard of, for ever.
        let is_known = |id: &u64| match role {
            ReplicaRole::Leader => true,
            ReplicaRole::Stopped => false,
            _ => *id != metrics.id,
        };
        let leader = metrics.current_leader.filter(is_known).and_then(|id| {
            let replica = ReplicaId(id);
            members.get(&replica).map(|(node, _)| (replica, *node))
        });
        let committed = metrics.local_committed.map(|id| id.index);
        let applied = metrics.last_applied.map(|id| id.index);
        Self {
            role,
            leader,
            term: metrics.current_term,
            last_log_index: metrics.last_log_index,
            committed,
            applied,
            members,
            lag: committed.map_or(0, |index| index + 1).saturating_sub(applied.map_or(0, |index| index + 1)),
            matched: metrics
                .replication
                .iter()
                .flatten()
                .map(|(id, matched)| (ReplicaId(*id), matched.map(|id| id.index)))
                .collect(),
        }
    }

    /// Voters among the members.
    pub fn voters(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        self.members.iter().filter(|(_, (_, role))| *role == MemberRole::Voter).map(|(id, _)| *id)
    }
}

fn role(metrics: &Metrics) -> ReplicaRole {
    use openraft::ServerState;
    if metrics.running_state.is_err() {
        return ReplicaRole::Stopped;
    }
    match metrics.state {
        ServerState::Leader => ReplicaRole::Leader,
        ServerState::Follower => ReplicaRole::Follower,
        ServerState::Candidate => ReplicaRole::Candidate,
        ServerState::Learner => ReplicaRole::Learner,
        ServerState::Shutdown => ReplicaRole::Stopped,
    }
}

/// Names a member for an error or a status.
pub(super) fn named(id: Option<u64>, node: Option<&Member>) -> Option<(ReplicaId, NodeId)> {
    Some((ReplicaId(id?), node?.node()))
}
