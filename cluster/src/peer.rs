//! What nodes say to each other above the transport: numbered methods, their messages, and the numbered faults that
//! cross the wire.
//!
//! Numbers are append-only. A message is a frozen struct; a change of shape gets a new method number.

mod fault;
mod message;
mod messages;

pub use fault::Fault;
pub use message::{
    ChunkDeleteRequest, ChunkReadReply, ChunkReadRequest, ChunkWriteRequest, ConsensusMessage, ControlQuery,
    DriveReport, Heartbeat, IndexListRequest, IndexReadRequest, ListReply, Listed, Proposal, ShardCursor, ShardQuery,
    ShardReply, SnapshotHead,
};
pub use messages::{MessageTooLong, Messages, length_prefix};

/// What a call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Method {
    /// A message between replicas of a group.
    Consensus = 1,
    /// A snapshot for a replica that lags too far; the state follows as bulk.
    Snapshot = 2,
    /// "I live": epoch, drives, load; answered in kind.
    Heartbeat = 3,
    /// A linearizable read at the leader of an index shard.
    IndexRead = 10,
    /// A command for an index shard, to its leader.
    IndexPropose = 11,
    /// One listing query over several shards that this node leads.
    IndexList = 12,
    /// A linearizable read at the leader of the control group.
    ControlRead = 13,
    /// A command for the control group, to its leader.
    ControlPropose = 14,
    /// Stores a chunk; its payload follows as bulk.
    ChunkWrite = 20,
    /// Reads a range of a chunk; the verified bytes follow the reply as bulk.
    ChunkRead = 21,
    /// Deletes chunks of one drive.
    ChunkDelete = 22,
}

impl Method {
    /// The method of a number, if this version knows it.
    pub fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Consensus,
            2 => Self::Snapshot,
            3 => Self::Heartbeat,
            10 => Self::IndexRead,
            11 => Self::IndexPropose,
            12 => Self::IndexList,
            13 => Self::ControlRead,
            14 => Self::ControlPropose,
            20 => Self::ChunkWrite,
            21 => Self::ChunkRead,
            22 => Self::ChunkDelete,
            _ => return None,
        })
    }

    /// The number on the wire.
    pub const fn number(self) -> u16 {
        self as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_frozen() {
        let all = [
            (1, "Consensus"),
            (2, "Snapshot"),
            (3, "Heartbeat"),
            (10, "IndexRead"),
            (11, "IndexPropose"),
            (12, "IndexList"),
            (13, "ControlRead"),
            (14, "ControlPropose"),
            (20, "ChunkWrite"),
            (21, "ChunkRead"),
            (22, "ChunkDelete"),
        ];
        for (number, name) in all {
            let method = Method::from_number(number).unwrap();
            assert_eq!((method.number(), format!("{method:?}").as_str()), (number, name));
        }
        assert_eq!((0..=u16::MAX).filter_map(Method::from_number).count(), all.len());
    }
}
