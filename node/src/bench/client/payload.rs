//! Request bodies: nothing, bytes in memory, a pattern of any length that costs no memory, or another body.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use sha2::{Digest, Sha256};

use crate::bench::content::Content;
use crate::bench::sign::{EMPTY_SHA256, UNSIGNED_PAYLOAD};
use crate::http::BoxError;

/// The body of a request.
pub struct Payload(Kind);

enum Kind {
    Bytes(Bytes),
    Content(Content),
    Other(UnsyncBoxBody<Bytes, BoxError>),
}

impl Payload {
    /// No body.
    pub fn empty() -> Self {
        Self(Kind::Bytes(Bytes::new()))
    }

    /// Bytes in memory.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self(Kind::Bytes(bytes.into()))
    }

    /// Content that any reader can check, made while it is sent.
    pub fn content(content: Content) -> Self {
        Self(Kind::Content(content))
    }

    /// Any other body. It is not signed, and sent chunked unless its size hint is exact.
    pub fn other(body: UnsyncBoxBody<Bytes, BoxError>) -> Self {
        Self(Kind::Other(body))
    }

    /// What to declare in `x-amz-content-sha256`.
    pub(super) fn hash(&self, hashing: Hashing) -> String {
        match (&self.0, hashing) {
            (Kind::Bytes(bytes), _) if bytes.is_empty() => EMPTY_SHA256.to_owned(),
            (Kind::Other(_), _) | (_, Hashing::Unsigned) => UNSIGNED_PAYLOAD.to_owned(),
            (Kind::Bytes(bytes), Hashing::Signed) => hex::encode(Sha256::digest(bytes)),
            (Kind::Content(content), Hashing::Signed) => {
                let mut content = content.clone();
                let mut sha = Sha256::new();
                while let Some(piece) = content.next_piece() {
                    sha.update(&piece);
                }
                hex::encode(sha.finalize())
            }
        }
    }
}

/// Whether the body's hash is part of the signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hashing {
    /// Hash the body before it is sent.
    Signed,
    /// Declare `UNSIGNED-PAYLOAD`.
    Unsigned,
}

impl Body for Payload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let next = match &mut self.0 {
            Kind::Bytes(bytes) if bytes.is_empty() => None,
            Kind::Bytes(bytes) => Some(std::mem::take(bytes)),
            Kind::Content(content) => content.next_piece(),
            Kind::Other(body) => return Pin::new(body).poll_frame(cx),
        };
        Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Bytes(bytes) => bytes.is_empty(),
            Kind::Content(content) => content.remaining() == 0,
            Kind::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Content(content) => SizeHint::with_exact(content.remaining()),
            Kind::Other(body) => body.size_hint(),
        }
    }
}
