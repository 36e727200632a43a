//! What a request carries: bytes in memory, or a generated body of any size.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::content;

/// Bytes of a generated body handed on at once.
const PIECE_LEN: usize = 256 * 1024;

/// The body of a request.
pub enum Payload {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A body of [`crate::content`], produced while it is sent; always sent as `UNSIGNED-PAYLOAD`.
    Generated(content::Stream),
}

impl Default for Payload {
    fn default() -> Self {
        Self::Bytes(Bytes::new())
    }
}

impl Payload {
    /// The hash that goes into the signature.
    #[must_use]
    pub fn sha256(&self) -> String {
        match self {
            Self::Bytes(bytes) => super::sign::sha256_hex(bytes),
            Self::Generated(_) => "UNSIGNED-PAYLOAD".to_owned(),
        }
    }

    /// Bytes left to send.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Generated(stream) => stream.remaining(),
        }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match &mut *self {
            Self::Bytes(bytes) => std::mem::take(bytes),
            Self::Generated(stream) => {
                let mut piece = vec![0; PIECE_LEN];
                let len = stream.fill(&mut piece);
                piece.truncate(len);
                Bytes::from(piece)
            }
        };
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining())
    }
}
