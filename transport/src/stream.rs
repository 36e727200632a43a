//! The two halves of a QUIC stream as this protocol uses them: whole frames, then raw bulk.
//!
//! quinn *finishes* a send stream that is dropped; a half-written frame or a cancelled transfer would look complete to
//! the other end. So a [`FrameSender`] that was not finished resets its stream when dropped.

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};

use crate::codes::STREAM_CANCELLED;
use crate::frame::{FrameError, FrameHeader, FrameKind, HEADER_LEN, decode_header, encode_header};

/// Bodies up to this long are copied out of their packet (a small slice would keep up to 64 KiB of packets alive), and
/// are written together with their header.
const SMALL_LEN: usize = 4 << 10;

/// What a body may claim in memory before its bytes arrive.
const EARLY_LEN_MAX: usize = 256 << 10;

/// Why a stream could not be read or written further.
#[derive(Debug, Clone)]
pub(crate) enum StreamError {
    /// The connection is gone.
    Lost(ConnectionError),
    /// The other end reset or stopped the stream, with its code.
    Code(u64),
    /// The stream ended inside a frame.
    Truncated,
    /// What came is no frame.
    Frame(FrameError),
    /// Written after its end.
    Ended,
}

impl From<ReadError> for StreamError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => StreamError::Code(code.into_inner()),
            ReadError::ConnectionLost(cause) => StreamError::Lost(cause),
            ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => StreamError::Ended,
        }
    }
}

impl From<WriteError> for StreamError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => StreamError::Code(code.into_inner()),
            WriteError::ConnectionLost(cause) => StreamError::Lost(cause),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => StreamError::Ended,
        }
    }
}

impl From<FrameError> for StreamError {
    fn from(error: FrameError) -> Self {
        StreamError::Frame(error)
    }
}

/// The sending half. Unless finished, dropping it resets the stream.
#[derive(Debug)]
pub(crate) struct FrameSender {
    stream: SendStream,
    ended: bool,
}

impl FrameSender {
    pub(crate) fn new(stream: SendStream) -> Self {
        Self { stream, ended: false }
    }

    /// Writes a header and its body. Returns when both are in the connection's send buffer.
    pub(crate) async fn send_frame(&mut self, header: &FrameHeader, body: Bytes) -> Result<(), StreamError> {
        if self.ended {
            return Err(StreamError::Ended);
        }
        let head = encode_header(header);
        if body.len() <= SMALL_LEN {
            let mut frame = Vec::with_capacity(HEADER_LEN + body.len());
            frame.extend_from_slice(&head);
            frame.extend_from_slice(&body);
            self.stream.write_chunk(Bytes::from(frame)).await?;
        } else {
            self.stream.write_all_chunks(&mut [Bytes::copy_from_slice(&head), body]).await?;
        }
        Ok(())
    }

    /// Hands bulk bytes to the connection without copying them.
    pub(crate) async fn send_bulk(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        if self.ended {
            return Err(StreamError::Ended);
        }
        Ok(self.stream.write_chunk(bytes).await?)
    }

    /// Marks the end; what was written still arrives.
    pub(crate) fn finish(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            // Fails only if the stream was reset, and then there is nothing to finish.
            drop(self.stream.finish());
        }
    }

    /// Gives the stream up with a code.
    pub(crate) fn reset(&mut self, code: VarInt) {
        if !std::mem::replace(&mut self.ended, true) {
            // Fails only if the stream has already ended.
            drop(self.stream.reset(code));
        }
    }

    pub(crate) fn set_priority(&self, priority: i32) {
        // Fails only for a stream that has ended, and then nothing is left to order.
        drop(self.stream.set_priority(priority));
    }

    /// Resolves when the other end stops reading or the connection is lost.
    pub(crate) fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        self.stream.stopped().map(|_outcome| ())
    }
}

impl Drop for FrameSender {
    fn drop(&mut self) {
        self.reset(STREAM_CANCELLED);
    }
}

/// The receiving half. Unless read to its end, dropping it tells the other end to stop.
#[derive(Debug)]
pub(crate) struct FrameReceiver {
    stream: RecvStream,
    /// Received, not yet consumed.
    rest: Bytes,
    ended: bool,
}

impl FrameReceiver {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self { stream, rest: Bytes::new(), ended: false }
    }

    async fn read_more(&mut self, len_max: usize) -> Result<Option<Bytes>, StreamError> {
        if self.ended {
            return Ok(None);
        }
        match self.stream.read_chunk(len_max, true).await {
            Ok(Some(chunk)) => Ok(Some(chunk.bytes)),
            Ok(None) => {
                self.ended = true;
                Ok(None)
            }
            Err(error) => {
                self.ended = true;
                Err(error.into())
            }
        }
    }

    /// Reads a header of the expected kind with a body within `body_len_max`.
    pub(crate) async fn read_header(
        &mut self,
        expected: FrameKind,
        body_len_max: u32,
    ) -> Result<FrameHeader, StreamError> {
        let mut head = [0; HEADER_LEN];
        let mut filled = 0;
        while filled < HEADER_LEN {
            if self.rest.is_empty() {
                self.rest = self.read_more(usize::MAX).await?.ok_or(StreamError::Truncated)?;
            }
            let len = self.rest.len().min(HEADER_LEN - filled);
            head[filled..filled + len].copy_from_slice(&self.rest[..len]);
            self.rest.advance(len);
            filled += len;
        }
        let header = decode_header(&head)?;
        if header.kind != expected {
            return Err(FrameError::Unexpected { expected, found: header.kind }.into());
        }
        if header.body_len > body_len_max {
            return Err(FrameError::TooLong { len: header.body_len, max: body_len_max }.into());
        }
        Ok(header)
    }

    /// Reads a body of exactly `len` bytes, which the caller has bounded. Memory grows with what arrives.
    pub(crate) async fn read_body(&mut self, len: usize) -> Result<Bytes, StreamError> {
        if self.rest.len() >= len {
            let body = self.rest.split_to(len);
            return Ok(if len <= SMALL_LEN { Bytes::copy_from_slice(&body) } else { body });
        }
        let mut body = BytesMut::with_capacity(len.min(EARLY_LEN_MAX));
        body.extend_from_slice(&std::mem::take(&mut self.rest));
        while body.len() < len {
            let chunk = self.read_more(len - body.len()).await?.ok_or(StreamError::Truncated)?;
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// The next bulk bytes, at most `len_max`; `None` at the stream's end.
    pub(crate) async fn read_bulk(&mut self, len_max: usize) -> Result<Option<Bytes>, StreamError> {
        if self.rest.is_empty() {
            return self.read_more(len_max.max(1)).await;
        }
        let len = self.rest.len().min(len_max.max(1));
        Ok(Some(self.rest.split_to(len)))
    }

    /// Takes note of an end that has already arrived, so that dropping sends no needless STOP_SENDING.
    fn settle(&mut self) {
        if !self.ended && self.rest.is_empty() {
            // Bulk that nobody wants any more may come out here; it is dropped with the stream.
            drop(self.read_more(usize::MAX).now_or_never());
        }
    }
}

impl Drop for FrameReceiver {
    fn drop(&mut self) {
        self.settle();
        if !self.ended {
            // Fails only if the stream has already ended.
            drop(self.stream.stop(STREAM_CANCELLED));
        }
    }
}

/// Refuses an incoming stream at once and without waiting.
pub(crate) fn refuse(mut send: SendStream, mut recv: RecvStream, code: VarInt) {
    // Both fail only if the stream has already ended.
    drop(send.reset(code));
    drop(recv.stop(code));
}
