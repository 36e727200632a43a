//! How nodes talk: QUIC with mutual TLS, one RPC per bidirectional stream, raw bulk bytes after a bounded head.
//!
//! An [`Endpoint`] owns the node's UDP port and serves peers through a [`Service`]; [`Peers`] dials them and calls.
//! This crate knows nothing of objects, consensus or topology: who may connect is a [`PeerPolicy`], where a node lives
//! is a [`Directory`], what a method means is the service's.
//!
//! Invariants: nothing is served to a peer whose certificate did not verify; every frame is bounded before it is
//! allocated; no call waits without a deadline; whatever a peer sends, at worst its connection closes.

mod cid;
pub mod class;
pub mod codes;
pub mod config;
pub mod endpoint;
pub mod error;
pub mod frame;
pub mod hello;
pub mod log_limit;
pub mod metrics;
pub mod peers;
pub mod policy;
mod serve;
pub mod service;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod socket;
mod stream;
mod tls;

pub use class::Class;
pub use config::{ClassLimits, TransportConfig};
pub use endpoint::{Endpoint, EndpointSetup, Runtimes};
pub use error::{ConnectError, RpcError, RpcFailure, Sent, SetupError};
pub use hello::Hello;
pub use log_limit::LogLimit;
pub use metrics::{ConnectionReport, TransportMetrics};
pub use peers::{Call, Peers, Request};
pub use policy::{Directory, PeerPolicy, Refusal, SystemClock, WallClock};
pub use service::{BoxFuture, IncomingCall, Service};
pub use socket::{BoundSocket, bind};
