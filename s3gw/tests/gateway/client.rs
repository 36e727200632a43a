//! A client of the gateway in the same process: signs requests, collects answers.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use drystone_s3gw::sig::{ChunkSigner, Credentials, PayloadDeclaration, presign, sign_request};
use drystone_s3gw::{Gateway, GatewayConfig, GatewayMetrics};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt as _;
use prometheus::Registry;
use secrecy::SecretString;

use crate::memory::MemoryStore;

pub const ACCESS_KEY: &str = "AKTEST";
pub const SECRET: &str = "a secret of forty characters, more or less";
/// 2026-01-02T03:04:05.678Z
pub const NOW_MS: u64 = 1_767_323_045_678;

/// A body in pieces, which may end in a broken connection or never.
pub struct Pieces {
    pub pieces: VecDeque<Bytes>,
    pub then: Then,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Then {
    End,
    Break,
    Silence,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        match (self.pieces.pop_front(), self.then) {
            (Some(bytes), _) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            (None, Then::End) => Poll::Ready(None),
            (None, Then::Break) => Poll::Ready(Some(Err("connection reset"))),
            (None, Then::Silence) => Poll::Pending,
        }
    }
}

pub struct Client {
    pub gateway: Gateway<MemoryStore>,
    pub store: MemoryStore,
    pub registry: Registry,
    clock: Arc<AtomicU64>,
}

impl Client {
    pub fn new() -> Self {
        Self::with(MemoryStore::with_key(ACCESS_KEY, SECRET), GatewayConfig::default())
    }

    pub fn with(store: MemoryStore, config: GatewayConfig) -> Self {
        let (clock, registry) = (Arc::new(AtomicU64::new(NOW_MS)), Registry::new());
        let metrics = GatewayMetrics::new(&registry).unwrap();
        let now = Arc::clone(&clock);
        let gateway = Gateway::new(store.clone(), config, metrics, Arc::new(move || now.load(Ordering::Relaxed)), 7);
        Self { gateway, store, registry, clock }
    }

    /// A client with an empty bucket `bkt`.
    pub async fn with_bucket() -> Self {
        let client = Self::new();
        client.put("/bkt", "").await.expect(200);
        client
    }

    pub fn set_now(&self, ms: u64) {
        self.clock.store(ms, Ordering::Relaxed);
    }

    pub fn call(&self, method: Method, uri: &str) -> Call<'_> {
        let headers = HeaderMap::new();
        Call { client: self, method, uri: uri.to_owned(), headers, body: Bytes::new(), host: "node:9000".to_owned() }
    }

    pub fn get<'a>(&'a self, uri: &str) -> impl Future<Output = Reply> + use<'a> {
        self.call(Method::GET, uri).send()
    }

    pub fn head<'a>(&'a self, uri: &str) -> impl Future<Output = Reply> + use<'a> {
        self.call(Method::HEAD, uri).send()
    }

    pub fn delete<'a>(&'a self, uri: &str) -> impl Future<Output = Reply> + use<'a> {
        self.call(Method::DELETE, uri).send()
    }

    pub fn put<'a, T: Into<Bytes>>(&'a self, uri: &str, body: T) -> impl Future<Output = Reply> + use<'a, T> {
        self.call(Method::PUT, uri).body(body).send()
    }

    pub fn post<'a, T: Into<Bytes>>(&'a self, uri: &str, body: T) -> impl Future<Output = Reply> + use<'a, T> {
        self.call(Method::POST, uri).body(body).send()
    }

    pub async fn serve<B>(&self, request: Request<B>) -> Reply
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::fmt::Display,
    {
        let response = self.gateway.serve(request).await;
        let (head, body) = response.into_parts();
        let declared = http_body::Body::size_hint(&body).exact();
        match body.collect().await {
            Ok(collected) => {
                let body = collected.to_bytes();
                assert_eq!(declared, Some(body.len() as u64), "an answer has the length it declares");
                Reply { status: head.status, headers: head.headers, body, broken: None }
            }
            Err(error) => {
                let broken = Some(error.to_string());
                Reply { status: head.status, headers: head.headers, body: Bytes::new(), broken }
            }
        }
    }
}

pub fn credentials() -> Credentials {
    Credentials {
        access_key: ACCESS_KEY.to_owned(),
        secret: SecretString::from(SECRET),
        region: "us-east-1".to_owned(),
    }
}

/// A request under construction.
pub struct Call<'a> {
    client: &'a Client,
    method: Method,
    uri: String,
    headers: HeaderMap,
    body: Bytes,
    host: String,
}

impl<'a> Call<'a> {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        self
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub fn host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    /// The request, signed with `declaration` at `now_ms`, without its body.
    pub fn signed(
        &self,
        credentials: &Credentials,
        declaration: PayloadDeclaration,
        now_ms: u64,
    ) -> (http::request::Parts, ChunkSigner) {
        let mut request = Request::builder().method(self.method.clone()).uri(&self.uri).body(()).unwrap();
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert("host", HeaderValue::from_str(&self.host).unwrap());
        let mut head = request.into_parts().0;
        let signer = sign_request(credentials, &mut head, declaration, now_ms).unwrap();
        (head, signer)
    }

    pub async fn send(self) -> Reply {
        let (mut head, _) = self.signed(&credentials(), PayloadDeclaration::of(&self.body), NOW_MS);
        head.headers.entry("content-length").or_insert(HeaderValue::from(self.body.len()));
        let body = http_body_util::Full::new(self.body);
        self.client.serve(Request::from_parts(head, body)).await
    }

    /// Sends with the body in pieces, framed already, under another declaration.
    pub async fn send_pieces(
        self,
        declaration: PayloadDeclaration,
        frame: impl FnOnce(ChunkSigner) -> Vec<Bytes>,
        then: Then,
    ) -> Reply {
        let (head, signer) = self.signed(&credentials(), declaration, NOW_MS);
        let pieces = frame(signer).into();
        self.client.serve(Request::from_parts(head, Pieces { pieces, then })).await
    }

    /// Sends through a presigned URL that lives for `expires_s` from `NOW_MS`.
    pub async fn send_presigned(self, expires_s: u64) -> Reply {
        let mut headers = self.headers.clone();
        headers.insert("host", HeaderValue::from_str(&self.host).unwrap());
        let uri = self.uri.parse().unwrap();
        let uri = presign(&credentials(), &self.method, &uri, &headers, expires_s, NOW_MS).unwrap();
        let mut request =
            Request::builder().method(self.method).uri(uri).body(http_body_util::Full::new(self.body)).unwrap();
        *request.headers_mut() = headers;
        let len = http_body::Body::size_hint(request.body()).exact().unwrap();
        request.headers_mut().insert("content-length", HeaderValue::from(len));
        self.client.serve(request).await
    }
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Why the body did not end well.
    pub broken: Option<String>,
}

impl Reply {
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert!(self.headers.contains_key("x-amz-request-id") && self.headers.contains_key("x-amz-id-2"));
        assert!(self.headers.contains_key("date") && self.headers["server"] == "Drystone");
        self
    }

    /// An S3 error of that code.
    #[track_caller]
    pub fn expect_error(self, status: u16, code: &str) -> Self {
        let reply = self.expect(status);
        assert_eq!(reply.element("Code").as_deref(), Some(code), "{reply:?}");
        let id = reply.headers["x-amz-request-id"].to_str().unwrap();
        assert_eq!(reply.element("RequestId").as_deref(), Some(id));
        reply
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The text of the first element of that name, markup and all.
    pub fn element(&self, name: &str) -> Option<String> {
        self.elements(name).into_iter().next()
    }

    /// The texts of all elements of that name.
    pub fn elements(&self, name: &str) -> Vec<String> {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        self.text().split(&open).skip(1).map(|rest| rest.split(&close).next().unwrap().to_owned()).collect()
    }
}
