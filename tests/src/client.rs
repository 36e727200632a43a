//! A thin S3 client for tests: signs with its own code, hides nothing, retries nothing.
//!
//! Every answer, 503 included, is an `Ok`; only the lack of an answer is an error, and that says whether the request
//! may have arrived. Bodies are collected in memory but for [`Client::open`].

mod operations;
mod payload;
pub mod raw;
pub mod sign;
pub mod xml;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use time::OffsetDateTime;
use tokio::time::timeout;

pub use operations::{CompletedPart, ListPage, Listed, Listing, etag_of};
pub use payload::Payload;
pub use sign::Credentials;
use sign::{Signing, amz_date, encode_path, encode_query};

/// How long a request may take before its outcome is called unknown.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection: the request was certainly not seen.
    #[error("not sent: {cause}")]
    NotSent {
        /// What the system said.
        cause: String,
    },
    /// The connection broke: the request may have taken effect.
    #[error("broken off: {cause}")]
    Broken {
        /// What was seen of it.
        cause: String,
    },
    /// No answer in time: the request may have taken effect, now or later.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The answer was not what S3 specifies.
    #[error("not an answer of S3: {cause}")]
    Nonsense {
        /// What is wrong with it.
        cause: String,
    },
}

/// How a request proves who sends it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Authentication {
    /// `Authorization` header.
    #[default]
    Header,
    /// Signed query, valid for so many seconds.
    Presigned(u64),
    /// Nothing.
    Anonymous,
}

/// A request to be signed and sent.
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path, not encoded: `/bucket/key`.
    pub path: String,
    /// The query, not encoded.
    pub query: Vec<(String, String)>,
    /// Headers beyond those of the signature, names in lower case; signed.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub payload: Payload,
    /// How it is signed.
    pub authentication: Authentication,
    /// What stands for the payload's hash instead of the hash.
    pub content_sha256: Option<String>,
    /// Seconds by which the client's clock is ahead.
    pub clock_ahead_s: i64,
}

impl Request {
    /// A signed request without query, headers or body.
    #[must_use]
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            query: Vec::new(),
            headers: Vec::new(),
            payload: Payload::default(),
            authentication: Authentication::Header,
            content_sha256: None,
            clock_ahead_s: 0,
        }
    }

    /// Adds a query parameter.
    #[must_use]
    pub fn query(mut self, name: &str, value: impl Into<String>) -> Self {
        self.query.push((name.to_owned(), value.into()));
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.into()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, bytes: impl Into<Bytes>) -> Self {
        self.payload = Payload::Bytes(bytes.into());
        self
    }

    /// Sets what `x-amz-content-sha256` says, true or not.
    #[must_use]
    pub fn content_sha256(mut self, word: impl Into<String>) -> Self {
        self.content_sha256 = Some(word.into());
        self
    }

    /// Sets how it is signed.
    #[must_use]
    pub fn authentication(mut self, authentication: Authentication) -> Self {
        self.authentication = authentication;
        self
    }

    /// Signs with a clock that is so many seconds ahead (negative: behind).
    #[must_use]
    pub fn clock_ahead_s(mut self, seconds: i64) -> Self {
        self.clock_ahead_s = seconds;
        self
    }
}

/// An answer with its whole body.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Response {
    /// A header as text, empty if there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// The `Code` of an error document, empty if the body is none.
    #[must_use]
    pub fn error_code(&self) -> String {
        let root = xml::Element::parse(&self.body).unwrap_or_default();
        if root.name == "Error" { root.text_of("Code").to_owned() } else { String::new() }
    }

    /// Status, code and the start of the body, for messages.
    #[must_use]
    pub fn describe(&self) -> String {
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(600)]).into_owned();
        format!("{} {text}", self.status)
    }
}

/// A client of one endpoint. A handle: clones share connections.
#[derive(Clone)]
pub struct Client {
    http: Http<HttpConnector, Payload>,
    endpoint: Arc<str>,
    credentials: Arc<Credentials>,
    region: Arc<str>,
    timeout: Duration,
}

impl Client {
    /// A client of `endpoint` (`http://host:port`) that keeps idle connections.
    #[must_use]
    pub fn new(endpoint: &str, credentials: &Credentials, region: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(5)));
        // A node that was killed leaves connections that only fail when used; hyper sends a request again only if not
        // a byte of it was written.
        let http = Http::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(20)).build(connector);
        Self {
            http,
            endpoint: endpoint.trim_end_matches('/').into(),
            credentials: Arc::new(credentials.clone()),
            region: region.into(),
            timeout: REQUEST_TIMEOUT,
        }
    }

    /// The same with another timeout.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same with other credentials.
    #[must_use]
    pub fn with_credentials(mut self, credentials: &Credentials) -> Self {
        self.credentials = Arc::new(credentials.clone());
        self
    }

    /// The endpoint, `http://host:port`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// `host:port` of the endpoint.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.endpoint.split_once("://").map_or(&*self.endpoint, |(_, authority)| authority)
    }

    /// The request target (path and query) and all headers, signature included, of `request`.
    #[must_use]
    pub fn sign(&self, request: &Request) -> (String, Vec<(String, String)>) {
        let path = encode_path(&request.path);
        let at = OffsetDateTime::from(SystemTime::now()) + time::Duration::seconds(request.clock_ahead_s);
        let mut headers = vec![("host".to_owned(), self.authority().to_owned())];
        headers.extend(request.headers.iter().cloned());
        let is_header = request.authentication == Authentication::Header;
        let payload_hash = match &request.content_sha256 {
            Some(word) => word.clone(),
            None if is_header => request.payload.sha256(),
            None => "UNSIGNED-PAYLOAD".to_owned(),
        };
        if is_header {
            headers.push(("x-amz-content-sha256".to_owned(), payload_hash.clone()));
            headers.push(("x-amz-date".to_owned(), amz_date(at)));
        }
        let signing = Signing {
            credentials: &self.credentials,
            region: &self.region,
            at,
            method: request.method.as_str(),
            path: &path,
            query: &request.query,
            headers: &headers,
            payload_hash: &payload_hash,
        };
        let mut query = request.query.clone();
        match request.authentication {
            Authentication::Header => headers.push(("authorization".to_owned(), signing.authorization())),
            Authentication::Presigned(expires_s) => query = signing.presigned_query(expires_s),
            Authentication::Anonymous => {}
        }
        let target = if query.is_empty() { path } else { format!("{path}?{}", encode_query(&query)) };
        (target, headers)
    }

    /// Sends a request and gives the head of the answer and its body as it arrives. No timeout covers the body.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn open(&self, request: Request) -> Result<http::Response<Incoming>, ClientError> {
        let (target, headers) = self.sign(&request);
        let is_put = request.method == Method::PUT;
        let mut built = http::Request::builder().method(request.method).uri(format!("{}{target}", self.endpoint));
        for (name, value) in headers {
            built = built.header(name, value);
        }
        // S3 wants the length of every PUT, which hyper leaves out where it is 0.
        if is_put && request.payload.remaining() == 0 {
            built = built.header(http::header::CONTENT_LENGTH, 0);
        }
        let built = built.body(request.payload).map_err(|cause| ClientError::NotSent { cause: cause.to_string() })?;
        let answer = timeout(self.timeout, self.http.request(built)).await;
        answer.map_err(|_| ClientError::Timeout(self.timeout))?.map_err(|error| {
            let cause = chain(&error);
            if error.is_connect() { ClientError::NotSent { cause } } else { ClientError::Broken { cause } }
        })
    }

    /// Sends a request and collects the answer.
    ///
    /// # Errors
    /// There was no whole answer within the client's timeout.
    pub async fn send(&self, request: Request) -> Result<Response, ClientError> {
        let exchange = async {
            let (head, body) = self.open(request).await?.into_parts();
            let collected = body.collect().await.map_err(|error| ClientError::Broken { cause: chain(&error) })?;
            Ok(Response { status: head.status, headers: head.headers, body: collected.to_bytes() })
        };
        timeout(self.timeout, exchange).await.map_err(|_| ClientError::Timeout(self.timeout))?
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
