//! A request's body on its way to the store: framing off, digests on, everything declared verified at the end.
//!
//! Bytes are hashed once, while they pass; nothing is kept. The bytes are handed on before the whole is known to be
//! good, so the store must commit only after [`Body::chunk`] has returned `None`.

use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use drystone_cluster::store::{Body, BodyDigests, BodyError, Checksum, ChecksumAlgorithm, ChecksumKind};
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{HeaderMap, Version};
use http_body::Body as HttpBody;
use http_body_util::BodyExt as _;
use prometheus::IntCounter;

use crate::checksum::{self, Digester};
use crate::chunked::{ChunkedDecoder, Framing, Step};
use crate::error::{ErrorCode, S3Error, too_large};
use crate::sig::Payload;

/// An HTTP body that the gateway can still reach after the store was given it, to read off what is left when the
/// request is refused early. The lock is held for single polls only and is never contended.
pub(crate) struct SharedBody<B>(Arc<Mutex<B>>);

impl<B> SharedBody<B> {
    pub(crate) fn new(body: B) -> Self {
        Self(Arc::new(Mutex::new(body)))
    }
}

impl<B> Clone for SharedBody<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for SharedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, B::Error>>> {
        let mut body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Pin::new(&mut *body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).size_hint()
    }
}

/// Reads off at most `len_max` bytes, for at most `wait`, so that a client that is still sending gets to read the
/// answer instead of a reset connection.
pub(crate) async fn drain<B>(mut body: SharedBody<B>, len_max: u64, wait: Duration)
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let read_off = async {
        let mut left = len_max;
        while let Some(Ok(frame)) = body.frame().await {
            let len = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(len_u64(len)) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    // Whether all was read or time ran out makes no difference: the connection's owner sees which.
    drop(tokio::time::timeout(wait, read_off).await);
}

pub(crate) fn len_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// The body of an authenticated request, with how the signature covers it.
pub(crate) struct Incoming<B> {
    pub(crate) body: SharedBody<B>,
    pub(crate) payload: Payload,
}

/// What reading bodies needs of the gateway.
#[derive(Clone, Debug)]
pub(crate) struct BodyTerms {
    /// The longest silence.
    pub(crate) stall_max: Duration,
    /// Counts bytes as they arrive.
    pub(crate) received: IntCounter,
}

/// The checksum a client announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Declared {
    /// None.
    Nothing,
    /// In a header.
    Value(Checksum),
    /// In a trailer still to come.
    Trailer(ChecksumAlgorithm),
}

impl Declared {
    /// Reads `x-amz-checksum-…`, `x-amz-trailer` and `x-amz-sdk-checksum-algorithm`.
    ///
    /// # Errors
    /// `InvalidRequest` for what contradicts itself or is unknown.
    pub(crate) fn parse(headers: &HeaderMap, payload: &Payload) -> Result<Self, S3Error> {
        let invalid = |message: &'static str| S3Error::new(ErrorCode::InvalidRequest, message);
        let value = checksum::declared(headers)?;
        if value.as_ref().is_some_and(|checksum| checksum.kind == ChecksumKind::Composite) {
            return Err(invalid("A composite checksum cannot be that of a body."));
        }
        let trailer = match headers.get("x-amz-trailer") {
            None => None,
            Some(names) => {
                let algorithm = names.to_str().ok().and_then(checksum::parse_header_name);
                let algorithm = algorithm
                    .ok_or_else(|| invalid("The value specified in the x-amz-trailer header is not supported"))?;
                if !matches!(payload, Payload::UnsignedTrailer | Payload::Signed { trailer: true, .. }) {
                    return Err(invalid("x-amz-trailer needs a payload that is declared to have trailers."));
                }
                Some(algorithm)
            }
        };
        let declared = match (value, trailer) {
            (Some(_), Some(_)) => {
                return Err(invalid(
                    "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
                ));
            }
            (Some(value), None) => Self::Value(value),
            (None, Some(algorithm)) => Self::Trailer(algorithm),
            (None, None) => Self::Nothing,
        };
        match (headers.get("x-amz-sdk-checksum-algorithm"), declared.algorithm()) {
            (Some(name), found) => match name.to_str().ok().and_then(checksum::parse_name) {
                None => Err(invalid("Value for x-amz-sdk-checksum-algorithm header is invalid.")),
                Some(named) if found == Some(named) => Ok(declared),
                Some(_) => Err(invalid(
                    "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found.",
                )),
            },
            (None, _) => Ok(declared),
        }
    }

    pub(crate) fn algorithm(&self) -> Option<ChecksumAlgorithm> {
        match self {
            Self::Nothing => None,
            Self::Value(checksum) => Some(checksum.algorithm),
            Self::Trailer(algorithm) => Some(*algorithm),
        }
    }
}

/// The bytes of `Content-MD5`, if the request has one.
///
/// # Errors
/// `InvalidDigest` for what is not the base64 of 16 bytes.
pub(crate) fn content_md5(headers: &HeaderMap) -> Result<Option<[u8; 16]>, S3Error> {
    let Some(value) = headers.get("content-md5") else { return Ok(None) };
    let digest = BASE64.decode(value.as_bytes().trim_ascii()).ok().and_then(|bytes| bytes.try_into().ok());
    digest.map(Some).ok_or_else(|| S3Error::from(ErrorCode::InvalidDigest))
}

/// The length of the body inside its framing.
fn declared_len<B: HttpBody>(head: &Parts, body: &B, chunked: bool) -> Result<Option<u64>, S3Error> {
    let number = |name: &str| match head.headers.get(name) {
        None => Ok(None),
        Some(value) => {
            let text = value.to_str().unwrap_or_default().trim();
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let len = text.parse().ok().filter(|_| digits);
            len.map(Some).ok_or_else(|| S3Error::argument(name, text, format!("{name} is not a length.")))
        }
    };
    if chunked {
        return number("x-amz-decoded-content-length")?.map(Some).ok_or(ErrorCode::MissingContentLength.into());
    }
    // HTTP/1.1 takes a body without any length for an empty one; S3 takes it for one whose length was forgotten.
    let framed = if head.version == Version::HTTP_2 { body.size_hint().exact() } else { None };
    Ok(number(CONTENT_LENGTH.as_str())?.or(framed))
}

/// The checksum a client declared, for whoever answers it: there once the body has ended and it was verified.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verified(Arc<OnceLock<Checksum>>);

impl Verified {
    pub(crate) fn checksum(&self) -> Option<&Checksum> {
        self.0.get()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Ended,
    Failed,
}

/// The body of a request as the store takes it.
pub(crate) struct RequestBody<B> {
    body: SharedBody<B>,
    terms: BodyTerms,
    /// Input that the decoder has not taken yet.
    input: Bytes,
    decoder: Option<ChunkedDecoder>,
    declared_len: Option<u64>,
    received: u64,
    digester: Digester,
    expected_md5: Option<[u8; 16]>,
    expected_sha256: Option<[u8; 32]>,
    declared: Declared,
    verified: Verified,
    kept: Option<ChecksumAlgorithm>,
    digests: BodyDigests,
    phase: Phase,
}

impl<B> RequestBody<B>
where
    B: HttpBody<Data = Bytes> + Send + Unpin,
    B::Error: std::fmt::Display,
{
    /// Prepares to read. `kept` is the algorithm whose checksum the store shall keep; what the client declared is
    /// verified besides.
    ///
    /// # Errors
    /// Declarations that contradict themselves.
    pub(crate) fn new(
        head: &Parts,
        incoming: Incoming<B>,
        declared: Declared,
        kept: Option<ChecksumAlgorithm>,
        terms: BodyTerms,
    ) -> Result<Self, S3Error> {
        let mut digester = Digester::new();
        let (decoder, expected_sha256) = match incoming.payload {
            Payload::Unsigned => (None, None),
            Payload::Sha256(digest) => (None, Some(digest)),
            Payload::Signed { verifier, trailer } => {
                (Some(ChunkedDecoder::new(Framing::Signed { verifier, trailer })), None)
            }
            Payload::UnsignedTrailer => (Some(ChunkedDecoder::new(Framing::Unsigned)), None),
        };
        let sha256 = expected_sha256.map(|_| ChecksumAlgorithm::Sha256);
        for algorithm in [declared.algorithm(), kept, sha256].into_iter().flatten() {
            digester.want(algorithm);
        }
        Ok(Self {
            declared_len: declared_len(head, &incoming.body, decoder.is_some())?,
            body: incoming.body,
            terms,
            input: Bytes::new(),
            decoder,
            received: 0,
            digester,
            expected_md5: content_md5(&head.headers)?,
            expected_sha256,
            declared,
            verified: Verified::default(),
            kept,
            digests: BodyDigests { md5: [0; 16], checksum: None },
            phase: Phase::Open,
        })
    }

    /// The declared length, at most `len_max`.
    ///
    /// # Errors
    /// `MissingContentLength`, `EntityTooLarge`.
    pub(crate) fn require_len(&self, len_max: u64) -> Result<u64, S3Error> {
        match self.declared_len {
            None => Err(S3Error::from(ErrorCode::MissingContentLength)),
            Some(len) if len > len_max => Err(too_large(len, len_max)),
            Some(len) => Ok(len),
        }
    }

    /// Where the declared checksum will be.
    pub(crate) fn verified(&self) -> Verified {
        self.verified.clone()
    }

    /// The whole body, verified, if it has at most `len_max` bytes.
    ///
    /// # Errors
    /// `MaxMessageLengthExceeded`, or what is wrong with the body.
    pub(crate) async fn collect(mut self, len_max: usize) -> Result<Bytes, S3Error> {
        let too_long =
            || S3Error::from(ErrorCode::MaxMessageLengthExceeded).with("MaxMessageLengthBytes", len_max.to_string());
        if self.declared_len.is_some_and(|len| len > len_u64(len_max)) {
            return Err(too_long());
        }
        let mut whole = BytesMut::new();
        while let Some(bytes) = self.next().await? {
            if whole.len() + bytes.len() > len_max {
                return Err(too_long());
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(whole.freeze())
    }

    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        match self.phase {
            Phase::Ended => return Ok(None),
            Phase::Failed => return Err(BodyError::Transport("it failed before".to_owned())),
            Phase::Open => {}
        }
        let next = self.advance().await;
        match &next {
            Ok(Some(_)) => {}
            Ok(None) => self.phase = Phase::Ended,
            Err(_) => self.phase = Phase::Failed,
        }
        next
    }

    async fn advance(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            if let Some(decoder) = &mut self.decoder {
                match decoder.step(&mut self.input)? {
                    Step::Data(data) => return self.pass(data).map(Some),
                    Step::Starved | Step::End => {}
                }
            }
            match self.receive().await? {
                Some(data) if data.is_empty() => {}
                Some(data) if self.decoder.is_some() => self.input = data,
                Some(data) => return self.pass(data).map(Some),
                None => return self.finish().map(|()| None),
            }
        }
    }

    async fn receive(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            let frame = match tokio::time::timeout(self.terms.stall_max, self.body.frame()).await {
                Err(_) => return Err(BodyError::Transport(format!("nothing came for {:?}", self.terms.stall_max))),
                Ok(None) => return Ok(None),
                // A connection that breaks is a body cut short; why it broke is of no use to anybody.
                Ok(Some(Err(error))) => match self.declared_len {
                    Some(declared) => return Err(BodyError::Incomplete { received: self.received, declared }),
                    None => return Err(BodyError::Transport(error.to_string())),
                },
                Ok(Some(Ok(frame))) => frame,
            };
            // HTTP trailers say nothing in S3: its own are inside the body.
            if let Ok(data) = frame.into_data() {
                self.terms.received.inc_by(len_u64(data.len()));
                return Ok(Some(data));
            }
        }
    }

    fn pass(&mut self, data: Bytes) -> Result<Bytes, BodyError> {
        self.received = self.received.saturating_add(len_u64(data.len()));
        match self.declared_len {
            Some(declared) if self.received > declared => Err(BodyError::TooLong { declared }),
            _ => {
                self.digester.update(&data);
                Ok(data)
            }
        }
    }

    fn finish(&mut self) -> Result<(), BodyError> {
        // A body cut short is that first of all, wherever the cut went through its framing.
        if let Some(declared) = self.declared_len.filter(|declared| *declared != self.received) {
            return Err(BodyError::Incomplete { received: self.received, declared });
        }
        if let Some(decoder) = &mut self.decoder {
            decoder.end_of_input()?;
        }
        self.check_declared()?;
        let md5 = self.digester.md5();
        if self.expected_md5.is_some_and(|expected| expected != md5) {
            return Err(BodyError::Md5Mismatch);
        }
        let sha256 = || self.digester.value(ChecksumAlgorithm::Sha256);
        if let Some(expected) = self.expected_sha256
            && sha256().as_deref() != Some(&expected[..])
        {
            return Err(BodyError::Sha256Mismatch);
        }
        let checksum = self.kept.and_then(|algorithm| self.digester.checksum(algorithm));
        self.digests = BodyDigests { md5, checksum };
        Ok(())
    }

    fn check_declared(&self) -> Result<(), BodyError> {
        let trailers = self.decoder.as_ref().map_or(&[][..], ChunkedDecoder::trailers);
        let declared = match &self.declared {
            Declared::Trailer(algorithm) => {
                let [(name, value)] = trailers else {
                    return Err(BodyError::MalformedTrailer("they are not those that were declared"));
                };
                if checksum::parse_header_name(name) != Some(*algorithm) {
                    return Err(BodyError::MalformedTrailer("they are not those that were declared"));
                }
                checksum::parse_value(*algorithm, value)
                    .filter(|checksum| checksum.kind == ChecksumKind::FullObject)
                    .ok_or(BodyError::MalformedTrailer("a checksum cannot be read"))?
            }
            _ if !trailers.is_empty() => {
                return Err(BodyError::MalformedTrailer("they are not those that were declared"));
            }
            Declared::Value(checksum) => checksum.clone(),
            Declared::Nothing => return Ok(()),
        };
        if self.digester.value(declared.algorithm).as_ref() != Some(&declared.value) {
            return Err(BodyError::ChecksumMismatch(declared.algorithm));
        }
        self.verified.0.get_or_init(|| declared);
        Ok(())
    }
}

impl<B> Body for RequestBody<B>
where
    B: HttpBody<Data = Bytes> + Send + Unpin,
    B::Error: std::fmt::Display,
{
    fn len(&self) -> u64 {
        self.declared_len.unwrap_or(0)
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        self.next().await
    }

    fn digests(&self) -> BodyDigests {
        self.digests.clone()
    }
}
