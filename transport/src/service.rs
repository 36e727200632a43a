//! What a node offers its peers: one function from calls to futures.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use drystone_certs::NodeId;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

use crate::class::Class;
use crate::codes::{STREAM_CANCELLED, STREAM_STALLED};
use crate::error::{RpcError, RpcFailure};
use crate::frame::{FrameHeader, FrameKind, Status};
use crate::metrics::TransportMetrics;
use crate::peers::call_error;
use crate::stream::{FrameReceiver, FrameSender};

/// A boxed future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a node offers its peers.
pub trait Service: Send + Sync {
    /// Handles one call, in a task of its own on the connection's runtime. The future may be dropped at any await after
    /// the connection was lost or the endpoint closes, once the drain timeout has passed; until then its I/O with the
    /// peer fails and it should end by itself. A call that ends without a reply is given up at the caller.
    fn call(&self, call: IncomingCall) -> BoxFuture<'static, ()>;
}

/// How far the answer to a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Open,
    Replied,
    Ended,
}

/// A call of a peer. Dropping it before its end gives the call up: the peer sees it fail, never a short success.
#[derive(Debug)]
pub struct IncomingCall {
    /// Who calls; proven by its certificate.
    pub peer: NodeId,
    /// The class of its connection.
    pub class: Class,
    /// What it wants.
    pub method: u16,
    /// The request's body.
    pub body: Bytes,
    /// Identifies the request in the logs of both ends.
    pub request_id: u64,
    /// When the caller stops waiting for the head of the answer. For calls with bulk it counts from the bulk's end.
    pub deadline: Instant,
    pub(crate) sender: FrameSender,
    pub(crate) receiver: FrameReceiver,
    pub(crate) meter: Meter,
    pub(crate) _budget: Option<OwnedSemaphorePermit>,
}

/// What a call needs of its connection.
#[derive(Debug)]
pub(crate) struct Meter {
    metrics: TransportMetrics,
    class: Class,
    stall: Duration,
    body_len_max: u32,
    answer: Answer,
    failed: bool,
}

impl Meter {
    pub(crate) fn new(metrics: TransportMetrics, class: Class, stall: Duration, body_len_max: u32) -> Self {
        Self { metrics, class, stall, body_len_max, answer: Answer::Open, failed: false }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let outcome = match (self.answer, self.failed) {
            (Answer::Ended, false) => None,
            (Answer::Ended, true) => Some("failure"),
            (Answer::Open | Answer::Replied, _) => Some("gave_up"),
        };
        self.metrics.served(self.class, outcome);
    }
}

impl IncomingCall {
    /// The next bulk bytes of the request, at most `len_max`, without copying; `None` at their end. They share memory
    /// with up to 64 KiB of packets: what is kept for long should be copied. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`RpcError::Stalled`] if nothing came for the stall timeout, [`RpcError::Closed`] or [`RpcError::GaveUp`] if the
    /// caller is gone.
    pub async fn recv_bulk(&mut self, len_max: usize) -> Result<Option<Bytes>, RpcError> {
        match timeout(self.meter.stall, self.receiver.read_bulk(len_max)).await {
            Ok(Ok(bytes)) => {
                self.meter.metrics.received(self.class, bytes.as_ref().map_or(0, Bytes::len));
                Ok(bytes)
            }
            Ok(Err(error)) => Err(call_error(self.peer, error)),
            Err(_elapsed) => Err(RpcError::Stalled { peer: self.peer }),
        }
    }

    /// Sends the head of the answer; once. After [`Ok`] bulk may follow, after an error only [`Self::finish`].
    ///
    /// # Errors
    ///
    /// [`RpcError::TooLarge`] (nothing was sent; another reply may be made), [`RpcError::OutOfOrder`] for a second reply,
    /// otherwise as [`Self::send_bulk`].
    pub async fn reply(&mut self, answer: Result<Bytes, RpcFailure>) -> Result<(), RpcError> {
        if self.meter.answer != Answer::Open {
            return Err(RpcError::OutOfOrder);
        }
        let (status, body) = match answer {
            Ok(body) => (Status::Ok, body),
            Err(failure) => (Status::Failure, encode_failure(&failure)),
        };
        let body_len = check_len(body.len(), self.meter.body_len_max)?;
        let header = FrameHeader {
            kind: FrameKind::Reply,
            code: status.number(),
            body_len,
            deadline_ms: 0,
            request_id: self.request_id,
        };
        self.meter.answer = Answer::Replied;
        self.meter.failed = status == Status::Failure;
        self.meter.metrics.sent(self.class, body.len());
        match timeout(self.meter.stall, self.sender.send_frame(&header, body)).await {
            Ok(sent) => sent.map_err(|error| call_error(self.peer, error)),
            Err(_elapsed) => Err(self.stalled()),
        }
    }

    /// Hands bulk bytes of the answer to the connection without copying them; waits for its window.
    ///
    /// # Errors
    ///
    /// [`RpcError::OutOfOrder`] before the reply, [`RpcError::Stalled`] if the caller read nothing for the stall timeout,
    /// [`RpcError::Closed`] or [`RpcError::GaveUp`] if it is gone.
    pub async fn send_bulk(&mut self, bytes: Bytes) -> Result<(), RpcError> {
        if self.meter.answer != Answer::Replied || self.meter.failed {
            return Err(RpcError::OutOfOrder);
        }
        self.meter.metrics.sent(self.class, bytes.len());
        match timeout(self.meter.stall, self.sender.send_bulk(bytes)).await {
            Ok(sent) => sent.map_err(|error| call_error(self.peer, error)),
            Err(_elapsed) => Err(self.stalled()),
        }
    }

    /// Ends the answer: only now does the caller take it as complete. What was sent still arrives.
    pub fn finish(mut self) {
        if self.meter.answer == Answer::Replied {
            self.sender.finish();
            self.meter.answer = Answer::Ended;
        }
    }

    /// [`Self::reply`] and [`Self::finish`] in one. Failures to send are of no use to the service: the caller is gone.
    pub async fn respond(mut self, answer: Result<Bytes, RpcFailure>) {
        match self.reply(answer).await {
            Ok(()) => self.finish(),
            Err(cause) => {
                tracing::debug!(peer = %self.peer, request_id = self.request_id, %cause, "the answer was not sent");
            }
        }
    }

    /// Resolves when the caller has given the call up or its connection is lost. For handlers that wait for long.
    pub fn abandoned(&self) -> impl Future<Output = ()> + Send + 'static {
        self.sender.stopped()
    }

    /// How urgent the answer's bytes are among the streams of the connection; higher goes first, 0 is the default.
    pub fn set_priority(&self, priority: i32) {
        self.sender.set_priority(priority);
    }

    fn stalled(&mut self) -> RpcError {
        self.sender.reset(STREAM_STALLED);
        RpcError::Stalled { peer: self.peer }
    }
}

impl Drop for IncomingCall {
    fn drop(&mut self) {
        if self.meter.answer != Answer::Ended {
            self.sender.reset(STREAM_CANCELLED);
        }
    }
}

/// The length of a body as the header carries it, if it is within the bound.
pub(crate) fn check_len(len: usize, max: u32) -> Result<u32, RpcError> {
    u32::try_from(len).ok().filter(|len| *len <= max).ok_or(RpcError::TooLarge { len, max })
}

fn encode_failure(failure: &RpcFailure) -> Bytes {
    let mut body = BytesMut::with_capacity(2 + failure.detail.len());
    body.put_u16_le(failure.code);
    body.extend_from_slice(&failure.detail);
    body.freeze()
}

/// Reads what [`encode_failure`] wrote; `None` if it is too short.
pub(crate) fn decode_failure(mut body: Bytes) -> Option<RpcFailure> {
    let code = body.get(..2)?;
    let code = u16::from_le_bytes([code[0], code[1]]);
    Some(RpcFailure { code, detail: body.split_off(2) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_read_back() {
        let failure = RpcFailure { code: 513, detail: Bytes::from_static(b"why") };
        let body = encode_failure(&failure);
        assert_eq!(&body[..], b"\x01\x02why");
        assert_eq!(decode_failure(body), Some(failure));
        assert_eq!(decode_failure(Bytes::from_static(b"\x01")), None);
    }
}
