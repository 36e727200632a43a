//! Chunks on this node's own drives.

use std::ops::Range;

use bytes::Bytes;
use drystone_erasure::{AppendClass, Drive, DriveError, SealedChunk};

use super::Member;
use crate::ids::{ChunkId, DriveId};
use crate::peer::Fault;

impl Member {
    /// Stores a chunk on one of this node's drives: durable on return.
    pub(crate) async fn append_chunk(
        &self,
        drive: DriveId,
        chunk: SealedChunk,
        class: AppendClass,
    ) -> Result<(), Fault> {
        self.local_drive(drive)?.append_as(chunk, class).await.map_err(fault)
    }

    /// Reads a verified range of a chunk's payload.
    pub(crate) async fn read_chunk(&self, drive: DriveId, chunk: ChunkId, range: Range<u32>) -> Result<Bytes, Fault> {
        self.local_drive(drive)?.read(chunk, range).await.map(|read| read.bytes).map_err(fault)
    }

    /// Deletes chunks; those that are not there count as deleted. Durable on return.
    pub(crate) async fn delete_chunks(&self, drive: DriveId, chunks: &[ChunkId]) -> Result<(), Fault> {
        self.local_drive(drive)?.delete(chunks).await.map_err(fault)
    }

    fn local_drive(&self, drive: DriveId) -> Result<&Drive, Fault> {
        match (self.drives.get(&drive), self.lost_drives.get(&drive)) {
            (Some(drive), _) => Ok(drive),
            (None, Some(reason)) => Err(Fault::DriveFailed { reason: reason.clone() }),
            (None, None) => Err(Fault::NoSuchDrive(drive)),
        }
    }
}

fn fault(error: DriveError) -> Fault {
    match error {
        DriveError::NotFound { .. } => Fault::ChunkNotFound,
        DriveError::Corrupt { .. } => Fault::ChunkCorrupt,
        DriveError::Full(_) => Fault::DriveFull,
        other => Fault::DriveFailed { reason: other.to_string() },
    }
}
