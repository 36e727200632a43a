//! One request, before it is signed and sent.

use http::{HeaderName, HeaderValue, Method};

use super::Payload;
use crate::bench::sign::{encode_path, encode_query};

/// One request. Build it with [`Call::new`], [`Call::bucket`] or [`Call::object`] and add what differs.
pub struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) host: Option<HeaderValue>,
    pub(super) payload_hash: Option<String>,
    pub(super) signed: bool,
    pub(super) body: Payload,
}

impl Call {
    /// A request for a path that is already percent-encoded.
    pub fn new(method: Method, path: &str) -> Self {
        Self {
            method,
            path: path.to_owned(),
            query: String::new(),
            headers: Vec::new(),
            host: None,
            payload_hash: None,
            signed: true,
            body: Payload::empty(),
        }
    }

    /// A request about a bucket.
    pub fn bucket(method: Method, bucket: &str) -> Self {
        Self::new(method, &encode_path(Some(bucket), None))
    }

    /// A request about an object.
    pub fn object(method: Method, bucket: &str, key: &str) -> Self {
        Self::new(method, &encode_path(Some(bucket), Some(key)))
    }

    /// Sets the query; it is encoded and sorted.
    #[must_use]
    pub fn query(mut self, pairs: &[(&str, &str)]) -> Self {
        self.query = encode_query(pairs);
        self
    }

    /// Adds a header, which is signed too.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Sends another `Host`, as virtual-host style does.
    #[must_use]
    pub fn host(mut self, host: HeaderValue) -> Self {
        self.host = Some(host);
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: Payload) -> Self {
        self.body = body;
        self
    }

    /// Declares this in `x-amz-content-sha256` instead of the body's hash.
    #[must_use]
    pub fn payload_hash(mut self, hash: &str) -> Self {
        self.payload_hash = Some(hash.to_owned());
        self
    }

    /// Sends the request without a signature.
    #[must_use]
    pub fn anonymous(mut self) -> Self {
        self.signed = false;
        self
    }
}
