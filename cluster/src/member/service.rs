//! Serves peers: decodes each call, lets the right part of this node act, answers with bytes or a numbered fault.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drystone_erasure::{AppendClass, SealedChunk};
use drystone_transport::{BoxFuture, IncomingCall, RpcError, RpcFailure, Service};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::Member;
use crate::codec::{decode, encode};
use crate::consensus::{GroupId, SNAPSHOT_CHUNK_BYTES_MAX, snapshot_addressee};
use crate::peer::{
    ChunkDeleteRequest, ChunkReadReply, ChunkReadRequest, ChunkWriteRequest, ConsensusMessage, ControlQuery, Fault,
    Heartbeat, IndexListRequest, IndexReadRequest, Messages, Method, Proposal, SnapshotHead,
};

/// Most bytes taken from a peer's stream at once.
const RECEIVE_BYTES_MAX: usize = 256 << 10;
/// Pieces of a snapshot that wait for the disk.
const SNAPSHOT_CHUNKS_IN_FLIGHT: usize = 4;
/// No chunk is larger: an extent under scheme 1+m.
const CHUNK_LEN_MAX: usize = 8 << 20;
/// A drive that has not answered so long before the call's deadline is reported as failed, in time for the caller to
/// tell it from a node that cannot be reached. A busy network's round trip several times over.
const REPORT_MARGIN: Duration = Duration::from_millis(250);

/// What this node does for its peers.
pub(crate) struct PeerService {
    member: Arc<Member>,
}

impl PeerService {
    pub(crate) fn new(member: Arc<Member>) -> Self {
        Self { member }
    }
}

impl Service for PeerService {
    fn call(&self, mut call: IncomingCall) -> BoxFuture<'static, ()> {
        let member = Arc::clone(&self.member);
        Box::pin(async move {
            let Some(method) = Method::from_number(call.method) else {
                let fault = Fault::Malformed { reason: format!("method {} is not known here", call.method) };
                return answer(call, Err(fault)).await;
            };
            match method {
                Method::ChunkRead => read_chunk(&member, call).await,
                Method::ChunkWrite => {
                    let written = write_chunk(&member, &mut call).await;
                    answer(call, written).await;
                }
                Method::Snapshot => {
                    let installed = install_snapshot(&member, &mut call).await;
                    answer(call, installed).await;
                }
                _ => {
                    let answered = member.serve(method, &call.body, call.deadline).await;
                    answer(call, answered).await;
                }
            }
        })
    }
}

async fn answer(call: IncomingCall, result: Result<Bytes, Fault>) {
    call.respond(result.map_err(failure)).await;
}

/// Waits for a drive no longer than the caller does: calls that wait for a drive that never answers would use up the
/// calls a connection may have in progress.
async fn by_deadline<T>(deadline: Instant, operation: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let until = deadline.checked_sub(REPORT_MARGIN).unwrap_or(deadline);
    timeout_at(until, operation)
        .await
        .unwrap_or_else(|_| Err(Fault::DriveFailed { reason: "no answer before the call's deadline".to_owned() }))
}

/// Every fault crosses the wire as one code with its encoding: the code only says "a fault of the cluster layer".
fn failure(fault: Fault) -> RpcFailure {
    RpcFailure { code: FAULT_CODE, detail: Bytes::from(encode(&fault)) }
}

/// The one code of [`RpcFailure`] that the cluster uses.
const FAULT_CODE: u16 = 1;

impl Member {
    async fn serve(&self, method: Method, body: &[u8], deadline: Instant) -> Result<Bytes, Fault> {
        let time_left = deadline.saturating_duration_since(Instant::now());
        match method {
            Method::Consensus => {
                let message: ConsensusMessage = decode(body).map_err(Fault::malformed)?;
                by_deadline(deadline, self.handle_consensus(GroupId(message.group), message.body.0)).await
            }
            Method::Heartbeat => {
                let theirs: Heartbeat = decode(body).map_err(Fault::malformed)?;
                self.note_heartbeat(&theirs);
                Ok(Bytes::from(encode(&self.heartbeat())))
            }
            Method::IndexRead => {
                let request: IndexReadRequest = decode(body).map_err(Fault::malformed)?;
                self.read_index(&request, time_left).await
            }
            Method::IndexList => {
                let request: IndexListRequest = decode(body).map_err(Fault::malformed)?;
                self.list_index(&request, time_left).await
            }
            Method::ControlRead => {
                let query: ControlQuery = decode(body).map_err(Fault::malformed)?;
                self.read_control(&query, time_left).await
            }
            Method::IndexPropose | Method::ControlPropose => {
                let proposal: Proposal = decode(body).map_err(Fault::malformed)?;
                self.propose(GroupId(proposal.group), proposal.id, proposal.command.0, time_left).await
            }
            Method::ChunkDelete => {
                let request: ChunkDeleteRequest = decode(body).map_err(Fault::malformed)?;
                let deletion = by_deadline(deadline, self.delete_chunks(request.drive, &request.chunks));
                deletion.await.map(|()| Bytes::new())
            }
            Method::ChunkRead | Method::ChunkWrite | Method::Snapshot => {
                Err(Fault::Malformed { reason: format!("{method:?} carries bulk bytes") })
            }
        }
    }
}

async fn write_chunk(member: &Member, call: &mut IncomingCall) -> Result<Bytes, Fault> {
    let request: ChunkWriteRequest = decode(&call.body).map_err(Fault::malformed)?;
    let class = if request.class == 0 { AppendClass::Client } else { AppendClass::Heal };
    let head = SealedChunk::decode_head(&request.head.0).map_err(Fault::malformed)?;
    let declared_len = head.header.payload_len as usize;
    if declared_len > CHUNK_LEN_MAX {
        return Err(Fault::Malformed { reason: format!("a chunk of {declared_len} bytes") });
    }
    let deadline = call.deadline;
    let payload = timeout_at(deadline, receive_payload(call, declared_len))
        .await
        .unwrap_or_else(|_| Err(Fault::Malformed { reason: "a chunk that came too slowly".to_owned() }))?;
    let chunk = SealedChunk::from_parts(head, payload).map_err(Fault::malformed)?;
    by_deadline(deadline, member.append_chunk(request.drive, chunk, class)).await.map(|()| Bytes::new())
}

async fn receive_payload(call: &mut IncomingCall, declared_len: usize) -> Result<Vec<Bytes>, Fault> {
    let mut payload = Vec::new();
    let mut received_len = 0;
    while let Some(piece) = call.recv_bulk(RECEIVE_BYTES_MAX).await.map_err(Fault::malformed)? {
        received_len += piece.len();
        if received_len > declared_len {
            break;
        }
        payload.push(piece);
    }
    if received_len != declared_len {
        return Err(Fault::Malformed { reason: format!("{received_len} of {declared_len} bytes of a chunk") });
    }
    Ok(payload)
}

async fn read_chunk(member: &Member, call: IncomingCall) {
    let read = async {
        let request: ChunkReadRequest = decode(&call.body).map_err(Fault::malformed)?;
        let range = request.start..request.end;
        by_deadline(call.deadline, member.read_chunk(request.drive, request.chunk, range)).await
    };
    match read.await {
        Err(fault) => answer(call, Err(fault)).await,
        Ok(bytes) => match timeout_at(call.deadline, send_chunk(call, bytes)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a peer did not wait for a chunk"),
            Err(_) => tracing::debug!("a peer did not take a chunk before its deadline"),
        },
    }
}

async fn send_chunk(mut call: IncomingCall, bytes: Bytes) -> Result<(), RpcError> {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    call.reply(Ok(Bytes::from(encode(&ChunkReadReply { len })))).await?;
    call.send_bulk(bytes).await?;
    call.finish();
    Ok(())
}

async fn install_snapshot(member: &Member, call: &mut IncomingCall) -> Result<Bytes, Fault> {
    let request: SnapshotHead = decode(&call.body).map_err(Fault::malformed)?;
    let replica = snapshot_addressee(&request.head.0).ok_or_else(|| Fault::malformed("a snapshot's head"))?;
    let group = member.replica(GroupId(request.group), replica).ok_or(Fault::NoReplica)?;
    let (sender, chunks) = mpsc::channel(SNAPSHOT_CHUNKS_IN_FLIGHT);
    // Closing the channel tells the end; the snapshot's own checksum tells whether it is the true one.
    let receive = receive_snapshot(call, sender);
    let (installed, ()) = tokio::join!(group.install_snapshot(request.head.0, chunks), receive);
    let group = GroupId(request.group);
    match &installed {
        Ok(_) => {
            member.metrics.snapshots_installed.inc();
            tracing::info!(%group, "took over the group's whole state from its leader");
        }
        Err(error) => {
            member.metrics.snapshot_failures.inc();
            tracing::warn!(%group, %error, "the group's whole state did not arrive; its leader sends it again");
        }
    }
    installed.map_err(Fault::from)
}

async fn receive_snapshot(call: &mut IncomingCall, chunks: mpsc::Sender<Bytes>) {
    let mut messages = Messages::new(SNAPSHOT_CHUNK_BYTES_MAX);
    while let Ok(Some(piece)) = call.recv_bulk(RECEIVE_BYTES_MAX).await {
        messages.push(&piece);
        loop {
            let chunk = match messages.pop() {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) => return tracing::warn!(%error, "a peer sent a snapshot that is none"),
            };
            if chunks.send(chunk).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drive_that_never_answers_is_reported_before_the_caller_gives_up() {
        let deadline = Instant::now() + Duration::from_secs(5);
        let answer = by_deadline(deadline, std::future::pending::<Result<(), Fault>>()).await;
        assert!(matches!(answer, Err(Fault::DriveFailed { .. })));
        assert!(Instant::now() < deadline);
    }
}
