//! Signing as a client. The counterpart of `verify`, over the same canonical request.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{AUTHORIZATION, HOST, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Uri};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};

use super::canonical::{CanonicalInput, canonical_request, host_of};
use super::{
    ALGORITHM, ChunkVerifier, EMPTY_SHA256_HEX, EXPIRES_S_MAX, Mac256, STREAMING_SIGNED, STREAMING_SIGNED_TRAILER,
    STREAMING_UNSIGNED_TRAILER, UNSIGNED_PAYLOAD, derive_key, hmac, scope, string_to_sign,
};
use crate::route::{Query, Slash, encode_into};
use crate::timestamp::amz_date;

/// Who signs, and for which region.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The access key id.
    pub access_key: String,
    /// Its secret.
    pub secret: SecretString,
    /// The region the server expects.
    pub region: String,
}

/// What a signed request says about its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadDeclaration {
    /// No body.
    Empty,
    /// The SHA-256 of the body.
    Sha256([u8; 32]),
    /// Nothing.
    Unsigned,
    /// The body comes framed by a [`ChunkSigner`], without trailers.
    Chunked,
    /// The body comes framed by a [`ChunkSigner`], with trailers.
    ChunkedTrailer,
    /// The body comes in unsigned chunks with trailers.
    UnsignedTrailer,
}

impl PayloadDeclaration {
    /// The SHA-256 of `body`.
    pub fn of(body: &[u8]) -> Self {
        Self::Sha256(Sha256::digest(body).into())
    }

    fn text(self) -> String {
        match self {
            Self::Empty => EMPTY_SHA256_HEX.to_owned(),
            Self::Sha256(digest) => hex::encode(digest),
            Self::Unsigned => UNSIGNED_PAYLOAD.to_owned(),
            Self::Chunked => STREAMING_SIGNED.to_owned(),
            Self::ChunkedTrailer => STREAMING_SIGNED_TRAILER.to_owned(),
            Self::UnsignedTrailer => STREAMING_UNSIGNED_TRAILER.to_owned(),
        }
    }
}

/// Why a request cannot be signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// Neither a `Host` header nor an authority in the URI.
    #[error("the request names no host")]
    NoHost,
    /// Path or query are not properly percent-encoded UTF-8.
    #[error("the URI is not properly percent-encoded")]
    BadUri,
    /// The access key, region or a result cannot stand in a header or URI.
    #[error("the credentials cannot stand in a header")]
    BadCredentials,
    /// Presigned URLs live between a second and seven days.
    #[error("{0} s is not between 1 s and 7 days")]
    BadExpiry(u64),
}

const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");

/// Headers that proxies and HTTP libraries add or change on the way, which therefore must not be signed.
fn never_signed(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "authorization"
            | "connection"
            | "expect"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "user-agent"
            | "accept-encoding"
    )
}

fn signed_header_names(headers: &HeaderMap) -> String {
    let mut names: Vec<&str> = headers.keys().filter(|name| !never_signed(name)).map(HeaderName::as_str).collect();
    if !names.contains(&"host") {
        names.push("host");
    }
    names.sort_unstable();
    names.dedup();
    names.join(";")
}

/// Signs a request in place: sets `x-amz-date`, `x-amz-content-sha256` and `Authorization`, and a `Host` header if there
/// is none. All headers present are signed, except those that change on the way. For a chunked declaration the answer
/// begins the chain of chunk signatures.
///
/// # Errors
/// See [`SignError`]; the request may then carry some of the headers.
pub fn sign_request(
    credentials: &Credentials,
    head: &mut Parts,
    payload: PayloadDeclaration,
    now_ms: u64,
) -> Result<ChunkSigner, SignError> {
    let timestamp = amz_date(now_ms);
    let date = &timestamp[..8];
    let host = host_of(&head.headers, &head.uri).ok_or(SignError::NoHost)?.to_owned();
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| SignError::BadCredentials);
    let payload = payload.text();
    head.headers.insert(HOST, value(&host)?);
    head.headers.insert(AMZ_DATE, value(&timestamp)?);
    head.headers.insert(CONTENT_SHA256, value(&payload)?);
    let query = Query::parse(head.uri.query()).map_err(|_| SignError::BadUri)?;
    let signed_headers = signed_header_names(&head.headers);
    let input = CanonicalInput {
        method: &head.method,
        uri: &head.uri,
        query: &query,
        headers: &head.headers,
        signed_headers: &signed_headers,
        payload: &payload,
    };
    let canonical = canonical_request(&input).ok_or(SignError::BadUri)?;
    let scope = scope(date, &credentials.region);
    let key = derive_key(credentials.secret.expose_secret(), date, &credentials.region);
    let signature = hmac(&key, string_to_sign(&timestamp, &scope, &canonical).as_bytes());
    let authorization = format!(
        "{ALGORITHM} Credential={}/{scope},SignedHeaders={signed_headers},Signature={}",
        credentials.access_key,
        hex::encode(signature)
    );
    head.headers.insert(AUTHORIZATION, value(&authorization)?);
    Ok(ChunkSigner { chain: ChunkVerifier::new(key, timestamp, scope, signature) })
}

/// The URI with which anybody may do `method` on it until `expires_s` seconds after `now_ms`. `headers` are those the
/// request will carry and the signature covers; without a `Host` among them the URI's authority is taken.
///
/// # Errors
/// See [`SignError`].
pub fn presign(
    credentials: &Credentials,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    expires_s: u64,
    now_ms: u64,
) -> Result<Uri, SignError> {
    if !(1..=EXPIRES_S_MAX).contains(&expires_s) {
        return Err(SignError::BadExpiry(expires_s));
    }
    host_of(headers, uri).ok_or(SignError::NoHost)?;
    let timestamp = amz_date(now_ms);
    let date = &timestamp[..8];
    let scope = scope(date, &credentials.region);
    let signed_headers = signed_header_names(headers);
    let mut path = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    path.push(if path.contains('?') { '&' } else { '?' });
    path.push_str("X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=");
    encode_into(&mut path, format!("{}/{scope}", credentials.access_key).as_bytes(), Slash::Encoded);
    path.push_str(&format!("&X-Amz-Date={timestamp}&X-Amz-Expires={expires_s}&X-Amz-SignedHeaders="));
    encode_into(&mut path, signed_headers.as_bytes(), Slash::Encoded);
    let unsigned = rebuilt(uri, &path)?;
    let query = Query::parse(unsigned.query()).map_err(|_| SignError::BadUri)?;
    let payload = UNSIGNED_PAYLOAD;
    let input =
        CanonicalInput { method, uri: &unsigned, query: &query, headers, signed_headers: &signed_headers, payload };
    let canonical = canonical_request(&input).ok_or(SignError::BadUri)?;
    let key = derive_key(credentials.secret.expose_secret(), date, &credentials.region);
    let signature = hmac(&key, string_to_sign(&timestamp, &scope, &canonical).as_bytes());
    rebuilt(uri, &format!("{path}&X-Amz-Signature={}", hex::encode(signature)))
}

fn rebuilt(uri: &Uri, path_and_query: &str) -> Result<Uri, SignError> {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path_and_query.parse().map_err(|_| SignError::BadUri)?);
    Uri::from_parts(parts).map_err(|_| SignError::BadUri)
}

/// Frames and signs the chunks of an `aws-chunked` body, in order.
#[derive(Clone, Debug)]
pub struct ChunkSigner {
    chain: ChunkVerifier,
}

impl ChunkSigner {
    #[cfg(test)]
    pub(crate) fn of_chain(chain: ChunkVerifier) -> Self {
        Self { chain }
    }

    /// One chunk with its header line. Not for the empty one at the end.
    pub fn frame(&mut self, data: &[u8]) -> Bytes {
        self.chain.update(data);
        let signature = self.chain.sign_chunk();
        framed(data, Some(&signature))
    }

    /// The empty chunk that ends a body, with its trailers if any were declared. Names must be lower-case.
    pub fn finish(mut self, trailers: &[(&str, &str)]) -> Bytes {
        let signature = self.chain.sign_chunk();
        let mut out = BytesMut::new();
        out.put_slice(format!("0;chunk-signature={}\r\n", hex::encode(signature)).as_bytes());
        if !trailers.is_empty() {
            for (name, value) in trailers {
                self.chain.update(format!("{name}:{value}\n").as_bytes());
                out.put_slice(format!("{name}:{value}\r\n").as_bytes());
            }
            let signature = hex::encode(self.chain.sign_trailer());
            out.put_slice(format!("x-amz-trailer-signature:{signature}\r\n").as_bytes());
        }
        out.put_slice(b"\r\n");
        out.freeze()
    }

    /// One chunk of an unsigned chunked body.
    pub fn frame_unsigned(data: &[u8]) -> Bytes {
        framed(data, None)
    }

    /// The end of an unsigned chunked body with its trailers.
    pub fn finish_unsigned(trailers: &[(&str, &str)]) -> Bytes {
        let lines: String = trailers.iter().map(|(name, value)| format!("{name}:{value}\r\n")).collect();
        Bytes::from(format!("0\r\n{lines}\r\n"))
    }
}

fn framed(data: &[u8], signature: Option<&Mac256>) -> Bytes {
    let mut out = BytesMut::with_capacity(data.len() + 100);
    out.put_slice(format!("{:x}", data.len()).as_bytes());
    if let Some(signature) = signature {
        out.put_slice(b";chunk-signature=");
        out.put_slice(hex::encode(signature).as_bytes());
    }
    out.put_slice(b"\r\n");
    out.put_slice(data);
    out.put_slice(b"\r\n");
    out.freeze()
}
