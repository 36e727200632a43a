//! The nouns of agreement: who takes part, and where in the order of commands something stands.

use std::collections::BTreeMap;
use std::fmt;

use bincode::{Decode, Encode};
use bytes::Bytes;
use drystone_certs::NodeId;

pub use crate::ids::{CommandId, ReplicaId};

/// A group of replicas: 0 is the control group, 1 and up are the index shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct GroupId(pub u16);

impl GroupId {
    /// The group that owns topology, buckets, keys and policies.
    pub const CONTROL: Self = Self(0);
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{}", self.0)
    }
}

/// A command and its id, as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// What a retry is recognised by.
    pub id: CommandId,
    /// What the state machine is given.
    pub body: Bytes,
}

/// Whether a replica counts for majorities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberRole {
    /// Votes, and counts for majorities.
    Voter,
    /// Receives everything, decides nothing.
    Learner,
}

/// The replicas of a group, the nodes they live on, and their roles.
pub type Members = BTreeMap<ReplicaId, (NodeId, MemberRole)>;

/// Where a command stands in the agreed order. Grows strictly from one applied command to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The term of the leader that ordered it.
    pub term: u64,
    /// Its place in the log.
    pub index: u64,
}
