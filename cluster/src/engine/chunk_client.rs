//! Chunks on drives of any node: the local drive is called directly, a remote one through its node.
//!
//! Nothing here decides where chunks go or what to do when one cannot be had; callers branch on [`Fault`].

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drystone_erasure::{AppendClass, SealedChunk};
use drystone_transport::{Class, Peers};

use crate::codec::{Blob, decode, encode};
use crate::ids::{ChunkId, DriveId, NodeId};
use crate::member::Member;
use crate::peer::{ChunkDeleteRequest, ChunkReadReply, ChunkReadRequest, ChunkWriteRequest, Fault, Method};

/// A drive that has not answered by then counts as failed for this request. A healthy drive under full load answers
/// within a second.
const CHUNK_DEADLINE: Duration = Duration::from_secs(5);
/// Most bytes taken from the stream at once: four blocks.
const RECEIVE_BYTES_MAX: usize = 256 << 10;

/// Reaches every drive of the cluster from one worker.
#[derive(Clone)]
pub(crate) struct ChunkClient {
    member: Arc<Member>,
    peers: Peers,
}

impl ChunkClient {
    pub(crate) fn new(member: Arc<Member>, peers: Peers) -> Self {
        Self { member, peers }
    }

    /// Stores `chunk` on `drive`: durable on return. Dropped midway, it may or may not have been stored.
    pub(crate) async fn write(&self, drive: DriveId, chunk: SealedChunk, class: AppendClass) -> Result<(), Fault> {
        match self.node_of(drive)? {
            node if node == self.member.node() => {
                within_deadline(self.member.append_chunk(drive, chunk, class), silent_drive).await
            }
            node => within_deadline(self.write_remote(node, drive, chunk, class), silent_node).await,
        }
    }

    /// Reads the verified bytes `range` of a chunk's payload, in as many pieces as they came.
    pub(crate) async fn read(&self, drive: DriveId, chunk: ChunkId, range: Range<u32>) -> Result<Vec<Bytes>, Fault> {
        match self.node_of(drive)? {
            node if node == self.member.node() => {
                let read = within_deadline(self.member.read_chunk(drive, chunk, range), silent_drive);
                read.await.map(|bytes| vec![bytes])
            }
            node => within_deadline(self.read_remote(node, drive, chunk, range), silent_node).await,
        }
    }

    /// Deletes chunks of one drive; those that are not there count as deleted. Durable on return.
    pub(crate) async fn delete(&self, drive: DriveId, chunks: Vec<ChunkId>) -> Result<(), Fault> {
        match self.node_of(drive)? {
            node if node == self.member.node() => {
                within_deadline(self.member.delete_chunks(drive, &chunks), silent_drive).await
            }
            node => {
                let request = encode(&ChunkDeleteRequest { drive, chunks });
                within_deadline(self.call(node, Method::ChunkDelete, request), silent_node).await.map(drop)
            }
        }
    }

    fn node_of(&self, drive: DriveId) -> Result<NodeId, Fault> {
        self.member.topology().node_of(drive).ok_or(Fault::NoSuchDrive(drive))
    }

    async fn write_remote(
        &self,
        node: NodeId,
        drive: DriveId,
        chunk: SealedChunk,
        class: AppendClass,
    ) -> Result<(), Fault> {
        let class = match class {
            AppendClass::Client => 0,
            AppendClass::Heal => 1,
        };
        let head = ChunkWriteRequest { drive, class, head: Blob(chunk.encode_head()) };
        let mut call = self.open(node, Method::ChunkWrite, encode(&head)).await?;
        for piece in chunk.into_payload() {
            call.send(piece).await.map_err(Fault::from)?;
        }
        call.finish();
        call.reply().await.map(drop).map_err(Fault::from)
    }

    async fn read_remote(
        &self,
        node: NodeId,
        drive: DriveId,
        chunk: ChunkId,
        range: Range<u32>,
    ) -> Result<Vec<Bytes>, Fault> {
        let request = ChunkReadRequest { drive, chunk, start: range.start, end: range.end };
        let mut call = self.open(node, Method::ChunkRead, encode(&request)).await?;
        call.finish();
        let reply: ChunkReadReply = decode(&call.reply().await.map_err(Fault::from)?).map_err(Fault::malformed)?;
        let mut pieces = Vec::new();
        let mut received_len = 0;
        while let Some(piece) = call.recv(RECEIVE_BYTES_MAX).await.map_err(Fault::from)? {
            received_len += piece.len();
            pieces.push(piece);
        }
        let wanted_len = range.end.saturating_sub(range.start) as usize;
        if received_len == wanted_len && reply.len as usize == wanted_len {
            Ok(pieces)
        } else {
            Err(Fault::malformed(format!("{received_len} of {wanted_len} bytes of a chunk arrived")))
        }
    }

    async fn open(&self, node: NodeId, method: Method, body: Vec<u8>) -> Result<drystone_transport::Call, Fault> {
        self.peers
            .open(node, Class::Data, method.number(), Bytes::from(body), CHUNK_DEADLINE)
            .await
            .map_err(Fault::from)
    }

    async fn call(&self, node: NodeId, method: Method, body: Vec<u8>) -> Result<Bytes, Fault> {
        self.peers
            .call(node, Class::Data, method.number(), Bytes::from(body), CHUNK_DEADLINE)
            .await
            .map_err(Fault::from)
    }
}

async fn within_deadline<T>(
    operation: impl Future<Output = Result<T, Fault>>,
    late: impl FnOnce() -> Fault,
) -> Result<T, Fault> {
    tokio::time::timeout(CHUNK_DEADLINE, operation).await.unwrap_or_else(|_| Err(late()))
}

/// One of this node's drives did not answer: nothing is said of the others.
fn silent_drive() -> Fault {
    Fault::DriveFailed { reason: format!("no answer within {CHUNK_DEADLINE:?}") }
}

fn silent_node() -> Fault {
    Fault::Unreachable { reason: format!("no answer within {CHUNK_DEADLINE:?}"), may_have_acted: true }
}
