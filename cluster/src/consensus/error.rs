//! Why a group did not do what was asked. Callers branch on variants; texts are for people.

use drystone_certs::NodeId;

use super::ids::{GroupId, ReplicaId};
use crate::kv::KvError;

/// A replica that could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The storage belongs to another replica of the group.
    #[error("the storage of group {group} belongs to replica {stored}, not to {wanted}")]
    OtherReplica {
        /// The group.
        group: GroupId,
        /// Whom the storage belongs to.
        stored: ReplicaId,
        /// Who was to be started.
        wanted: ReplicaId,
    },
    /// [`super::StartMode::Resume`], and there is nothing to resume.
    #[error("replica {replica} of group {group} has lost its storage")]
    ReplicaStateMissing {
        /// The group.
        group: GroupId,
        /// The replica.
        replica: ReplicaId,
    },
    /// [`super::StartMode::Create`] with members that do not include this replica as a voter or learner, or no voter.
    #[error("the founding members of group {group} do not include replica {replica}, or hold no voter")]
    NotAMember {
        /// The group.
        group: GroupId,
        /// The replica.
        replica: ReplicaId,
    },
    /// A timing or a limit that cannot work.
    #[error("the configuration of group {group} cannot work: {reason}")]
    Config {
        /// The group.
        group: GroupId,
        /// What is wrong.
        reason: String,
    },
    /// Stored bytes that are no record of ours.
    #[error("the storage of group {group} is damaged: {record} cannot be read")]
    Damaged {
        /// The group.
        group: GroupId,
        /// Which record.
        record: &'static str,
    },
    /// The store failed.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// The consensus library refused what is stored.
    #[error("group {group} cannot start from its storage: {reason}")]
    Refused {
        /// The group.
        group: GroupId,
        /// Its words.
        reason: String,
    },
}

/// Why a group cannot answer now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnavailableReason {
    /// No leader is known.
    #[error("no leader is known")]
    NoLeader,
    /// The leader does not reach a majority.
    #[error("no majority answers")]
    NoQuorum,
    /// The deadline passed before the request was taken up.
    #[error("the deadline passed")]
    Deadline,
    /// Too many proposals wait already.
    #[error("too many proposals wait")]
    Overloaded,
    /// The command is larger than the limit.
    #[error("the command is too large")]
    TooLarge,
}

/// A proposal without an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This replica does not lead. Nothing was proposed.
    #[error("not the leader (leader: {leader:?})")]
    NotLeader {
        /// Who leads, as far as this replica knows.
        leader: Option<(ReplicaId, NodeId)>,
    },
    /// Nothing was proposed.
    #[error("unavailable: {reason}")]
    Unavailable {
        /// Why.
        reason: UnavailableReason,
    },
    /// It was proposed, and may or may not take effect later. A retry with the same id is safe.
    #[error("the outcome is unknown")]
    Unknown,
    /// The replica was stopped, or its drive failed. Nothing was proposed.
    #[error("stopped")]
    Stopped,
}

/// A read that cannot be shown to be current.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// This replica does not lead.
    #[error("not the leader (leader: {leader:?})")]
    NotLeader {
        /// Who leads, as far as this replica knows.
        leader: Option<(ReplicaId, NodeId)>,
    },
    /// No majority confirmed in time that this replica still leads.
    #[error("unavailable: {reason}")]
    Unavailable {
        /// Why.
        reason: UnavailableReason,
    },
    /// The replica was stopped, or its drive failed.
    #[error("stopped")]
    Stopped,
}

/// Leadership that was not handed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// This replica does not lead.
    #[error("not the leader (leader: {leader:?})")]
    NotLeader {
        /// Who leads, as far as this replica knows.
        leader: Option<(ReplicaId, NodeId)>,
    },
    /// No other voter is up to date, or the wanted one is not.
    #[error("no other voter is up to date")]
    NoCandidate,
    /// The other one did not take over in time; the outcome is open.
    #[error("leadership was not taken over in time")]
    Deadline,
    /// The replica was stopped, or its drive failed.
    #[error("stopped")]
    Stopped,
}

/// A message from a peer that was not acted on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// The bytes are no message of a known version.
    #[error("not a consensus message of a known version")]
    Malformed,
    /// The message is for another group or replica.
    #[error("a message for replica {to} of group {group} came to the wrong place")]
    Misrouted {
        /// Addressed group.
        group: GroupId,
        /// Addressed replica.
        to: ReplicaId,
    },
    /// A snapshot stream ended early, or its checksum does not match. Nothing was installed.
    #[error("the snapshot stream is incomplete or damaged")]
    BrokenSnapshot,
    /// Storage failed; the replica stops.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// The replica was stopped, or its drive failed.
    #[error("stopped")]
    Stopped,
}

/// What stopped a replica for good, until its process starts anew.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupFailure {
    /// The drive's store failed; every replica on it has stopped.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// The consensus library gave up.
    #[error("consensus stopped: {reason}")]
    Consensus {
        /// Its words.
        reason: String,
    },
}

/// Members that were not changed, or not completely. Asking again for the same members is safe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// This replica does not lead.
    #[error("not the leader (leader: {leader:?})")]
    NotLeader {
        /// Who leads, as far as this replica knows.
        leader: Option<(ReplicaId, NodeId)>,
    },
    /// Another change is under way, or no voter would be left, or a replica would move to another node.
    #[error("the change is refused: {reason}")]
    Refused {
        /// In the words of the consensus library.
        reason: String,
    },
    /// The deadline passed; the change may still happen, in part or wholly.
    #[error("the outcome is unknown")]
    Unknown,
    /// The replica was stopped, or its drive failed.
    #[error("stopped")]
    Stopped,
}
