//! Why the drive store refuses. Callers branch on variants; what is missing, damaged, full and broken are never mixed up.

use std::path::PathBuf;

use super::identity::DriveIdentity;
use crate::ids::{ChunkId, DriveId};

/// Why an operation on an open drive failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DriveError {
    /// The drive holds no such chunk.
    #[error("drive {drive} holds no chunk {chunk}")]
    NotFound {
        /// The drive.
        drive: DriveId,
        /// The chunk.
        chunk: ChunkId,
    },
    /// The chunk is there, but its bytes are not what was stored.
    #[error("chunk {chunk} on drive {drive} is damaged (block {block:?})")]
    Corrupt {
        /// The drive.
        drive: DriveId,
        /// The chunk.
        chunk: ChunkId,
        /// First block that does not verify; `None` if the head itself does not.
        block: Option<u32>,
    },
    /// The range reaches beyond the payload.
    #[error("range {start}..{end} is not within the {payload_len} bytes of chunk {chunk}")]
    OutOfRange {
        /// The chunk.
        chunk: ChunkId,
        /// Start of the range asked for.
        start: u32,
        /// End of the range asked for.
        end: u32,
        /// Length of the payload.
        payload_len: u32,
    },
    /// The operating system could not read.
    #[error("drive {drive} could not read chunk {chunk}: {kind}")]
    Read {
        /// The drive.
        drive: DriveId,
        /// The chunk.
        chunk: ChunkId,
        /// What the operating system said.
        kind: std::io::ErrorKind,
    },
    /// No room for ordinary appends. Nothing was stored.
    #[error("drive {0} is full")]
    Full(DriveId),
    /// The chunk does not fit into a segment of this drive. Nothing was stored.
    #[error("chunk {chunk} needs {len} bytes, more than a segment of drive {drive} has")]
    TooLarge {
        /// The drive.
        drive: DriveId,
        /// The chunk.
        chunk: ChunkId,
        /// What it needs.
        len: u64,
    },
    /// A write or sync failed, now or earlier: the drive takes no more changes until an operator acts. A change
    /// answered with this may or may not be there after a restart.
    #[error("drive {drive} has failed: {reason}")]
    Failed {
        /// The drive.
        drive: DriveId,
        /// What went wrong first.
        reason: FailReason,
    },
    /// The chunk index is being rebuilt from the segments; try again later.
    #[error("drive {0} is rebuilding its index")]
    IndexUnavailable(DriveId),
    /// The drive was closed, or its writer is gone.
    #[error("drive {0} is closed")]
    Closed(DriveId),
}

/// What failed a drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FailReason {
    /// A write of segment bytes.
    #[error("{} ({})", self.operation(), .0)]
    Write(std::io::ErrorKind),
    /// An `fdatasync`.
    #[error("{} ({})", self.operation(), .0)]
    Sync(std::io::ErrorKind),
    /// A change of names: creating, renaming or removing a segment, or syncing the directory.
    #[error("{} ({})", self.operation(), .0)]
    Names(std::io::ErrorKind),
    /// Replacing the checkpoint file.
    #[error("{} ({})", self.operation(), .0)]
    Checkpoint(std::io::ErrorKind),
    /// The index could be neither used nor rebuilt.
    #[error("{}", self.operation())]
    Index,
}

impl FailReason {
    /// What failed, without how.
    pub fn operation(&self) -> &'static str {
        match self {
            Self::Write(_) => "a write failed",
            Self::Sync(_) => "a sync failed",
            Self::Names(_) => "a change of the segment directory failed",
            Self::Checkpoint(_) => "the checkpoint could not be written",
            Self::Index => "the chunk index could not be rebuilt",
        }
    }
}

/// Why a directory cannot be opened as the drive it should be.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no drive identity in the directory.
    #[error("{0} is not a drive: it has no identity file; format it first")]
    Blank(PathBuf),
    /// The directory already is a drive.
    #[error("{dir} already is drive {} of cluster {}", found.drive, hex::encode(found.cluster))]
    AlreadyFormatted {
        /// The directory.
        dir: PathBuf,
        /// What it is.
        found: DriveIdentity,
    },
    /// The drive belongs to another cluster.
    #[error("{dir} belongs to cluster {}, expected {}", hex::encode(found), hex::encode(expected))]
    ForeignCluster {
        /// The directory.
        dir: PathBuf,
        /// The cluster of this node.
        expected: [u8; 16],
        /// The cluster on the drive.
        found: [u8; 16],
    },
    /// The drive belongs to another node.
    #[error("{dir} belongs to node {}, expected {}", hex::encode(found), hex::encode(expected))]
    ForeignNode {
        /// The directory.
        dir: PathBuf,
        /// This node.
        expected: [u8; 8],
        /// The node on the drive.
        found: [u8; 8],
    },
    /// Another drive than expected is mounted there.
    #[error("{dir} holds drive {found}, expected {expected}")]
    ForeignDrive {
        /// The directory.
        dir: PathBuf,
        /// The drive that should be there.
        expected: DriveId,
        /// The drive that is there.
        found: DriveId,
    },
    /// A newer release wrote the drive.
    #[error("{dir} has format version {found}; this release knows up to {known}")]
    NewerFormat {
        /// The directory.
        dir: PathBuf,
        /// Newest version known here.
        known: u8,
        /// Version found.
        found: u8,
    },
    /// The identity file is damaged.
    #[error("the identity file of {0} is damaged")]
    DamagedIdentity(PathBuf),
    /// A configuration that cannot work.
    #[error("drive configuration: {0}")]
    Config(&'static str),
    /// The operating system refused.
    #[error("{dir}: {error}")]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What it said.
        error: std::io::Error,
    },
    /// The index could be neither opened nor rebuilt.
    #[error("the chunk index of {dir} could not be rebuilt: {error}")]
    Index {
        /// The directory.
        dir: PathBuf,
        /// Why.
        error: super::index::IndexError,
    },
    /// The drive failed while it was being opened.
    #[error(transparent)]
    Drive(#[from] DriveError),
}
