//! Agreement: replicated state machines over a few groups of replicas.
//!
//! A [`Group`] is this node's replica of one group (the control group or an index shard): it takes proposals, orders
//! them with its peers, makes them durable on a majority, and applies them to a [`StateMachine`] over the drive's
//! [`crate::kv::Kv`]. The consensus library is an implementation detail: nothing outside this module names it.
//!
//! It knows nothing of topology, placement or objects; who replicates what is told by its caller.
//!
//! Invariants:
//! - an answer to [`Group::propose`] means that the command is in the synced log of a majority of voters;
//! - a command id is applied at most once within the last [`RING_SLOTS`] commands, and a retry gets the first answer;
//! - a view taken after [`Group::read_barrier`] shows every command answered before the barrier began;
//! - after a crash a replica holds exactly a prefix of what was agreed; a failed write or sync stops every replica
//!   of the drive.

mod address;
mod balance;
mod barrier;
mod codec;
mod config;
mod error;
mod group;
mod heart;
mod ids;
mod keys;
mod log;
mod machine;
mod network;
mod pace;
mod pending;
mod raft;
mod ring;
mod runtime;
mod snapshot;
mod status;
#[cfg(test)]
mod tests;
mod transaction;
mod view;

pub use self::address::{addressee, snapshot_addressee};
pub use self::codec::SNAPSHOT_CHUNK_BYTES_MAX;
pub use self::config::{GroupConfig, StartMode, Timing};
pub use self::error::{
    GroupFailure, HandleError, MembershipError, ProposeError, ReadError, StartError, TransferError, UnavailableReason,
};
pub use self::group::{Group, GroupParts};
pub use self::ids::{CommandId, GroupId, MemberRole, Members, Position, Proposal, ReplicaId};
pub use self::network::{BoxFuture, ConsensusNetwork, NetworkError};
pub use self::ring::RING_SLOTS;
pub use self::status::{GroupStatus, ReplicaRole};
pub use self::transaction::{StateMachine, Transaction};
pub use self::view::StateView;
