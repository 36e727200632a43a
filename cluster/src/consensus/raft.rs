//! The types the consensus library is instantiated with, and short names for what it makes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use drystone_certs::NodeId;

use super::ids::{MemberRole, Members, Proposal, ReplicaId};
use super::runtime::GroupRuntime;

openraft::declare_raft_types!(
    /// The instantiation of the consensus library.
    pub(super) Types:
        D = Proposal,
        R = Answer,
        NodeId = u64,
        Node = Member,
        AsyncRuntime = GroupRuntime,
);

/// What a state machine answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answer(pub Bytes);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({} bytes)", self.id, self.body.len())
    }
}

/// The node a replica lives on, in the form the library stores with a membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Member(NodeId);

impl Member {
    pub(super) const fn new(node: NodeId) -> Self {
        Self(node)
    }

    pub(super) const fn node(&self) -> NodeId {
        self.0
    }
}

impl Default for Member {
    fn default() -> Self {
        Self(NodeId::from_bytes([0; 8]))
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

pub(super) type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, u64>;
pub(super) type LogId = openraft::LogId<LeaderId>;
pub(super) type Vote = openraft::Vote<LeaderId>;
pub(super) type Payload = openraft::EntryPayload<Proposal, u64, Member>;
pub(super) type Entry = openraft::Entry<LeaderId, Payload>;
pub(super) type Membership = openraft::Membership<u64, Member>;
pub(super) type StoredMembership = openraft::StoredMembership<LeaderId, u64, Member>;
pub(super) type SnapshotMeta = openraft::SnapshotMeta<LeaderId, u64, Member>;
pub(super) type Snapshot<Content> = openraft::Snapshot<LeaderId, u64, Member, Content>;
pub(super) type Metrics = openraft::RaftMetrics<Types>;

pub(super) type AppendRequest = openraft::raft::AppendEntriesRequest<Types>;
pub(super) type AppendResponse = openraft::raft::AppendEntriesResponse<Types>;
pub(super) type VoteRequest = openraft::raft::VoteRequest<Types>;
pub(super) type VoteResponse = openraft::raft::VoteResponse<Types>;
pub(super) type TransferRequest = openraft::raft::TransferLeaderRequest<Types>;
pub(super) type TransferResponse = openraft::raft::TransferLeaderResponse<Types>;

/// The members of a membership; in a joint one, a voter of either half is a voter.
pub(super) fn members_of(membership: &Membership) -> Members {
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    membership
        .nodes()
        .map(|(id, member)| {
            let role = if voters.contains(id) { MemberRole::Voter } else { MemberRole::Learner };
            (ReplicaId(*id), (member.node(), role))
        })
        .collect()
}

/// Every node of `members`, as the library wants them.
pub(super) fn nodes_of(members: &Members) -> BTreeMap<u64, Member> {
    members.iter().map(|(id, (node, _))| (id.0, Member::new(*node))).collect()
}

/// The voters of `members`, as the library wants them.
pub(super) fn voters_of(members: &Members) -> BTreeSet<u64> {
    members.iter().filter(|(_, (_, role))| *role == MemberRole::Voter).map(|(id, _)| id.0).collect()
}
