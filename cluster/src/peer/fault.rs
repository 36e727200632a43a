//! Why a peer did not do as asked: a numbered enum, so that callers branch on variants on both ends of the wire.

use bincode::{Decode, Encode};

use drystone_transport::{RpcError, Sent};

use crate::codec::decode;
use crate::ids::{DriveId, NodeId};

/// A refusal or failure at the serving node. Variants are append-only: their order is their number.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum Fault {
    /// The group is led elsewhere; nothing was done.
    #[error("not the leader")]
    NotLeader {
        /// Who leads, as far as this node knows.
        leader: Option<NodeId>,
    },
    /// The node holds no replica of the group.
    #[error("no replica of that group here")]
    NoReplica,
    /// The leader does not reach its majority; a command was not accepted.
    #[error("no quorum: {reason}")]
    NoQuorum {
        /// What the replica said.
        reason: String,
    },
    /// The command was accepted but its outcome is not known: it may still take effect, once.
    #[error("the outcome is unknown")]
    UnknownOutcome,
    /// The replica's state cannot be read or holds what it must not.
    #[error("state: {reason}")]
    State {
        /// What is wrong.
        reason: String,
    },
    /// No such drive on this node.
    #[error("drive {0} is not on this node")]
    NoSuchDrive(DriveId),
    /// The chunk is not on the drive.
    #[error("the chunk is not on the drive")]
    ChunkNotFound,
    /// The chunk is there but a block does not verify.
    #[error("the chunk is corrupt")]
    ChunkCorrupt,
    /// The drive is filled up to its reserve.
    #[error("the drive is full")]
    DriveFull,
    /// The drive has failed or answered with an I/O error.
    #[error("drive failure: {reason}")]
    DriveFailed {
        /// What the drive said.
        reason: String,
    },
    /// Bytes that do not decode, or a method this version does not know.
    #[error("malformed request: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// The peer cannot be reached, or the call did not end in time. Never crosses the wire.
    #[error("unreachable: {reason}")]
    Unreachable {
        /// What the transport said.
        reason: String,
        /// Whether the peer may have acted nevertheless.
        may_have_acted: bool,
    },
    /// The node is stopping, or not yet serving.
    #[error("not serving")]
    NotServing,
    /// The command is larger than the log takes.
    #[error("the command is too large")]
    CommandTooLarge,
}

impl Fault {
    /// A fault of bytes that do not decode.
    pub fn malformed(cause: impl ToString) -> Self {
        Self::Malformed { reason: cause.to_string() }
    }
}

impl From<RpcError> for Fault {
    fn from(error: RpcError) -> Self {
        match error {
            RpcError::Remote { failure, .. } => decode(&failure.detail).unwrap_or_else(Self::malformed),
            other => Self::Unreachable { may_have_acted: other.outcome() == Sent::Maybe, reason: other.to_string() },
        }
    }
}
