//! Answers: the body type that hyper sends, and the few shapes all answers have.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use drystone_cluster::store::{ETag, Read, StoreError};
use futures_util::stream::{Stream, unfold};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Frame, SizeHint};

use crate::body::len_u64;
use crate::metrics::Meter;
use crate::xml::XmlWriter;

type Stored = Pin<Box<dyn Stream<Item = Result<Bytes, StoreError>> + Send>>;

/// The rest of a body cannot be had, so its transfer is broken off: better a client that retries than wrong bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokenOff {
    /// The store could not read on.
    #[error("the object could not be read on: {0}")]
    Store(#[from] StoreError),
    /// The store gave fewer or more bytes than the object has.
    #[error("the object's bytes are not as many as its head says")]
    Length,
}

enum Content {
    Empty,
    Whole(Bytes),
    Stored { stream: Stored, left: u64 },
}

/// The body of an answer. Its length is always known. Dropping it before its end is noticed and counted.
pub struct GatewayBody {
    content: Content,
    meter: Option<Meter>,
}

impl GatewayBody {
    /// Nothing.
    pub fn empty() -> Self {
        Self { content: Content::Empty, meter: None }
    }

    /// Bytes at hand.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let content = if bytes.is_empty() { Content::Empty } else { Content::Whole(bytes) };
        Self { content, meter: None }
    }

    /// `len` bytes of which `first` has been read already.
    pub(crate) fn stored<R: Read + 'static>(first: Bytes, read: R, len: u64) -> Self {
        if len_u64(first.len()) == len {
            return Self::whole(first);
        }
        let stream = unfold((Some(first), read), |(mut first, mut read)| async move {
            let next = match first.take() {
                Some(bytes) => Ok(Some(bytes)),
                None => read.chunk().await,
            };
            next.transpose().map(|item| (item, (None, read)))
        });
        Self { content: Content::Stored { stream: Box::pin(stream), left: len }, meter: None }
    }

    /// Has `meter` count what is sent, and finish when the body is dropped.
    pub(crate) fn metered(mut self, meter: Meter) -> Self {
        self.meter = Some(meter);
        self
    }

    fn left(&self) -> u64 {
        match &self.content {
            Content::Empty => 0,
            Content::Whole(bytes) => len_u64(bytes.len()),
            Content::Stored { left, .. } => *left,
        }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        match std::mem::replace(&mut self.content, Content::Empty) {
            Content::Empty => Poll::Ready(None),
            Content::Whole(bytes) => Poll::Ready(Some(Ok(bytes))),
            Content::Stored { mut stream, left } => {
                let item = match stream.as_mut().poll_next(cx) {
                    Poll::Pending => {
                        self.content = Content::Stored { stream, left };
                        return Poll::Pending;
                    }
                    Poll::Ready(item) => item,
                };
                Poll::Ready(match item {
                    None if left == 0 => None,
                    None => Some(Err(BrokenOff::Length)),
                    Some(Err(error)) => Some(Err(error.into())),
                    Some(Ok(bytes)) => match left.checked_sub(len_u64(bytes.len())) {
                        None => Some(Err(BrokenOff::Length)),
                        Some(left) => {
                            // The stream is dropped with the last byte: nobody may poll again after it.
                            if left > 0 {
                                self.content = Content::Stored { stream, left };
                            }
                            Some(Ok(bytes))
                        }
                    },
                })
            }
        }
    }
}

impl std::fmt::Debug for GatewayBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GatewayBody").field("left", &self.left()).finish_non_exhaustive()
    }
}

impl http_body::Body for GatewayBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let this = self.get_mut();
        let polled = this.poll_data(cx);
        if let (Some(meter), Poll::Ready(Some(item))) = (&mut this.meter, &polled) {
            match item {
                Ok(bytes) => meter.sent(len_u64(bytes.len())),
                Err(error) => meter.broke_off(error),
            }
        }
        polled.map(|item| item.map(|result| result.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left())
    }
}

/// What handlers answer with.
pub(crate) type Answer = Response<GatewayBody>;

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(GatewayBody::empty());
    *answer.status_mut() = status;
    answer
}

/// An XML document with 200.
pub(crate) fn xml(document: XmlWriter) -> Answer {
    let mut answer = Response::new(GatewayBody::whole(document.finish()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    answer
}

/// Sets a header from text; text that cannot stand in one is left out. Non-ASCII goes out as UTF-8, as it came in.
pub(crate) fn set(answer: &mut Answer, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
        answer.headers_mut().insert(name, value);
    }
}

/// Sets `ETag` in its quotes.
pub(crate) fn set_etag(answer: &mut Answer, etag: ETag) {
    set(answer, ETAG, &format!("\"{etag}\""));
}

/// Sets `Content-Length` for an answer whose body is not sent.
pub(crate) fn set_len(answer: &mut Answer, len: u64) {
    answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(len));
}
