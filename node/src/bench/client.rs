//! A small S3 client over HTTP/1.1, made for load and for tests: connections are reused, requests are signed, bodies
//! stream, nothing is retried. It sends what it is told, so it can also send what a good client would not.
//!
//! Cheap on purpose: one task per connection, no parsing of XML beyond finding a tag.

mod answer;
mod call;
mod endpoint;
mod error;
mod operations;
mod payload;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, Request, header};
use http_body::Body as _;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

pub use super::sign::Credentials;
use super::sign::{Signable, Signer, amz_date};
pub use answer::Answer;
pub use call::Call;
pub use endpoint::{Endpoint, InvalidEndpoint};
pub use error::ClientError;
pub use operations::{ListPage, tag, tags};
pub use payload::{Hashing, Payload};

/// Where the client reads wall-clock time, which signatures need.
pub type WallClock = fn() -> SystemTime;

/// A client of one endpoint. A handle: clones share connections.
#[derive(Clone)]
pub struct S3Client {
    inner: Arc<Inner>,
}

struct Inner {
    endpoint: Endpoint,
    host: HeaderValue,
    signer: Option<Signer>,
    clock: WallClock,
    stall: Duration,
    hashing: Hashing,
    idle: Mutex<Vec<SendRequest<Payload>>>,
    connections: TaskTracker,
}

/// How a client behaves.
#[derive(Debug, Clone, Copy)]
pub struct ClientOptions {
    /// Longest wait for an answer's head, and between two pieces of its body.
    pub stall: Duration,
    /// Whether bodies are hashed before they are sent.
    pub hashing: Hashing,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { stall: Duration::from_secs(60), hashing: Hashing::Signed }
    }
}

impl S3Client {
    /// A client that signs with `credentials`, or sends anonymous requests without. Opens no connection yet.
    pub fn new(endpoint: Endpoint, credentials: Option<Credentials>, clock: WallClock, options: ClientOptions) -> Self {
        // An Authority is always a valid header value; the fallback keeps the function total.
        let host = HeaderValue::from_str(endpoint.authority()).unwrap_or(HeaderValue::from_static("localhost"));
        let inner = Inner {
            host,
            endpoint,
            signer: credentials.map(Signer::new),
            clock,
            stall: options.stall,
            hashing: options.hashing,
            idle: Mutex::new(Vec::new()),
            connections: TaskTracker::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The endpoint it talks to.
    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    /// Closes idle connections and waits for their tasks. Answers still held keep theirs open, so drop them first.
    pub async fn close(&self) {
        self.take_idle().clear();
        self.inner.connections.close();
        self.inner.connections.wait().await;
        self.inner.connections.reopen();
    }

    /// Sends a request and returns the answer as soon as its head is there, whatever its status. A pooled connection
    /// that the server closed before anything was written is replaced once; beyond that nothing is retried.
    /// Dropped: the connection is closed; whether the request took effect is unknown.
    ///
    /// # Errors
    /// No connection, a broken one, or no head within the stall time.
    pub async fn send(&self, call: Call) -> Result<Answer, ClientError> {
        let head = self.sign_head(&call)?;
        let mut request = build(&head, &call.headers, call.body)?;
        loop {
            let (mut sender, reused) = match self.pop_ready().await {
                Some(sender) => (sender, true),
                None => (self.connect().await?, false),
            };
            let sent = tokio::time::timeout(self.inner.stall, sender.try_send_request(request)).await;
            match sent.map_err(|_| self.stalled())? {
                Ok(response) => return Ok(Answer::new(self.clone(), sender, response)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) if reused => request = unsent,
                    _ => return Err(self.broken(error.into_error())),
                },
            }
        }
    }

    /// The signed head of a request.
    fn sign_head(&self, call: &Call) -> Result<http::request::Parts, ClientError> {
        let path = call.path.clone();
        let mut uri = path.clone();
        if !call.query.is_empty() {
            uri.push('?');
            uri.push_str(&call.query);
        }
        let (mut head, ()) = Request::builder().method(call.method.clone()).uri(uri).body(())?.into_parts();
        let host = call.host.as_ref().unwrap_or(&self.inner.host);
        head.headers.insert(header::HOST, host.clone());
        let Some(signer) = self.inner.signer.as_ref().filter(|_| call.signed) else { return Ok(head) };
        let payload = call.payload_hash.clone().unwrap_or_else(|| call.body.hash(self.inner.hashing));
        let date = amz_date((self.inner.clock)());
        let authorization = {
            let mut headers: Vec<(&str, &str)> = Vec::with_capacity(4 + call.headers.len());
            headers.push(("host", host.to_str().unwrap_or_default()));
            headers.push(("x-amz-content-sha256", &payload));
            headers.push(("x-amz-date", &date));
            for (name, value) in &call.headers {
                headers.push((name.as_str(), value.to_str().unwrap_or_default().trim()));
            }
            headers.sort_unstable();
            let (method, query) = (call.method.as_str(), call.query.as_str());
            signer.authorization(&date, &Signable { method, path: &path, query, headers: &headers, payload: &payload })
        };
        let value = |text: String| HeaderValue::try_from(text).map_err(http::Error::from);
        head.headers.insert("x-amz-content-sha256", value(payload)?);
        head.headers.insert("x-amz-date", value(date)?);
        head.headers.insert(header::AUTHORIZATION, value(authorization)?);
        Ok(head)
    }

    async fn connect(&self) -> Result<SendRequest<Payload>, ClientError> {
        let failed = |source| ClientError::Connect { endpoint: self.inner.endpoint.clone(), source };
        let dial = tokio::time::timeout(self.inner.stall, TcpStream::connect(self.inner.endpoint.authority())).await;
        let stream = dial.map_err(|_| self.stalled())?.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|source| self.broken(source))?;
        self.inner.connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "client connection ended");
            }
        });
        Ok(sender)
    }

    async fn pop_ready(&self) -> Option<SendRequest<Payload>> {
        loop {
            let mut sender = self.take_idle().pop()?;
            if !sender.is_closed() && sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }

    fn take_idle(&self) -> std::sync::MutexGuard<'_, Vec<SendRequest<Payload>>> {
        self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes back a connection whose answer was read to its end.
    fn give_back(&self, sender: SendRequest<Payload>) {
        if !sender.is_closed() {
            self.take_idle().push(sender);
        }
    }

    fn stalled(&self) -> ClientError {
        ClientError::Deadline { endpoint: self.inner.endpoint.clone(), seconds: self.inner.stall.as_secs() }
    }

    fn broken(&self, source: hyper::Error) -> ClientError {
        ClientError::Broken { endpoint: self.inner.endpoint.clone(), source }
    }
}

fn build(
    head: &http::request::Parts,
    extra: &[(http::HeaderName, HeaderValue)],
    body: Payload,
) -> Result<Request<Payload>, ClientError> {
    // S3 wants the length of every PUT, which hyper leaves out where it is 0.
    let is_empty_put = head.method == Method::PUT && body.is_end_stream();
    let mut request = Request::builder().method(head.method.clone()).uri(head.uri.clone()).body(body)?;
    request.headers_mut().clone_from(&head.headers);
    if is_empty_put {
        request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    }
    for (name, value) in extra {
        request.headers_mut().append(name.clone(), value.clone());
    }
    Ok(request)
}
