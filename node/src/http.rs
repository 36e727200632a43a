//! The port that clients and operators talk to: accept loop, limits, TLS, graceful drain, and the choice between S3
//! and the `/-/` endpoints.
//!
//! Every worker thread has its own listener on the same port (`SO_REUSEPORT`); a connection lives and dies on the
//! worker that accepted it. What S3 means is not known here: a [`Service`] answers all that is not `/-/`.

mod admin;
mod connection;
mod expectation;
mod front;
mod listener;
mod metrics;
mod operator;
mod server;
mod stall;
mod tls;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;

pub use admin::{AccessKeySummary, Admin, AdminError, CreateKey, CreatedKey, KeyList, Status};
pub use front::Front;
pub use listener::bind_listeners;
pub use metrics::HttpMetrics;
pub use operator::{NodeView, operator_routes};
pub use server::{Drained, HttpLimits, HttpServer};
pub use tls::{TlsError, load_tls};

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of every answer.
pub type BoxBody = UnsyncBoxBody<Bytes, BoxError>;

/// What answers S3 requests. Shared by all connections of a worker.
pub trait Service: Send + Sync + 'static {
    /// Answers one request; errors are answers too. Dropped when the client goes away, or when a drain ends.
    fn serve(&self, request: Request<Incoming>) -> BoxFuture<'_, Response<BoxBody>>;
}

#[cfg(test)]
mod tests;
