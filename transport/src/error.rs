//! What can go wrong, typed by what the caller can do about it.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use drystone_certs::{NodeId, PeerRejection};

use crate::frame::FrameError;
use crate::policy::Refusal;

/// Whether the other end may have acted on a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It certainly has not: the call may be made again anywhere.
    No,
    /// It may have: only an idempotent call may be made again.
    Maybe,
}

/// Why an endpoint could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Values that contradict each other or exceed bounds.
    #[error("transport configuration: {}", .0.join("; "))]
    Config(Vec<String>),
    /// The socket could not be made.
    #[error("cannot open the peer port {address} (UDP): {cause}")]
    Socket {
        /// Where it should listen.
        address: SocketAddr,
        /// What the operating system says.
        cause: std::io::Error,
    },
    /// The identity does not make a TLS configuration.
    #[error("the node's certificate, key or authorities are not usable for TLS: {0}")]
    Tls(rustls::Error),
}

/// Why a connection to or from a peer did not come about, or ended. The text names the reason for an operator.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// The directory has no address of the node.
    #[error("no address of the node is known")]
    NoAddress,
    /// The host name does not resolve.
    #[error("{address} does not resolve ({detail}): check the address and the name service")]
    Lookup {
        /// The address as configured.
        address: String,
        /// What the resolver says.
        detail: String,
    },
    /// Nothing came back in time.
    #[error("no answer in time: the node is down, the address is wrong, or UDP is blocked on the way")]
    NoAnswer,
    /// We do not accept its certificate.
    #[error("refused by this node: {0}")]
    Rejected(PeerRejection),
    /// We do not admit it.
    #[error("refused by this node: {0}")]
    Refused(Refusal),
    /// It does not accept our certificate; its text says why. The peer is not authenticated.
    #[error("refused by the peer: {reason}")]
    RejectedByPeer {
        /// The peer's words, printable and bounded.
        reason: String,
    },
    /// It does not admit us; its text says why.
    #[error("refused by the peer (code {code}): {reason}")]
    RefusedByPeer {
        /// The refusal's number.
        code: u32,
        /// The peer's words, printable and bounded.
        reason: String,
    },
    /// It closed the connection in good order.
    #[error("closed by the peer (code {code}): {reason}")]
    ClosedByPeer {
        /// The close code.
        code: u64,
        /// The peer's words, printable and bounded.
        reason: String,
    },
    /// It restarted: it no longer knows the connection.
    #[error("the peer restarted")]
    PeerRestarted,
    /// It sent what no peer sends.
    #[error("the peer broke the protocol: {0}")]
    Protocol(#[from] FrameError),
    /// QUIC or TLS failed in another way.
    #[error("{0}")]
    Transport(String),
    /// This endpoint is closed.
    #[error("this node is shutting down")]
    LocallyClosed,
    /// Too soon after a failed dial.
    #[error("not dialled again yet after: {0}")]
    BackingOff(Arc<ConnectError>),
}

/// An error that a service gave as its answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the service answered error {code}")]
pub struct RpcFailure {
    /// The service's own number for it.
    pub code: u16,
    /// The service's own encoding of the rest; at most the body bound less two bytes.
    pub detail: Bytes,
}

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RpcError {
    /// There is no connection to the peer and none could be made.
    #[error("node {peer} is unreachable: {cause}")]
    Unreachable {
        /// The peer.
        peer: NodeId,
        /// Why.
        cause: Arc<ConnectError>,
    },
    /// The deadline passed.
    #[error("node {peer} did not answer in time")]
    Deadline {
        /// The peer.
        peer: NodeId,
        /// Whether the request may have reached it.
        sent: Sent,
    },
    /// The peer has too many calls in progress from this node.
    #[error("node {peer} is busy")]
    Busy {
        /// The peer.
        peer: NodeId,
    },
    /// The peer is stopping and takes no new calls.
    #[error("node {peer} is shutting down")]
    Draining {
        /// The peer.
        peer: NodeId,
    },
    /// The connection was lost during the call.
    #[error("the connection to node {peer} was lost: {cause}")]
    Closed {
        /// The peer.
        peer: NodeId,
        /// Why.
        cause: Arc<ConnectError>,
        /// Whether the request may have reached it.
        sent: Sent,
    },
    /// The other end gave the call up: its handler ended without an answer, or no longer reads.
    #[error("node {peer} gave up the call (stream code {code})")]
    GaveUp {
        /// The peer.
        peer: NodeId,
        /// The stream code.
        code: u64,
    },
    /// Bulk bytes made no progress for the stall timeout.
    #[error("the transfer with node {peer} stalled")]
    Stalled {
        /// The peer.
        peer: NodeId,
    },
    /// The service answered an error.
    #[error("node {peer}: {failure}")]
    Remote {
        /// The peer.
        peer: NodeId,
        /// What it answered.
        failure: RpcFailure,
    },
    /// The peer sent what no peer sends.
    #[error("node {peer} broke the protocol: {cause}")]
    Protocol {
        /// The peer.
        peer: NodeId,
        /// How.
        cause: FrameError,
    },
    /// The body given here exceeds the bound; nothing was sent.
    #[error("a body of {len} bytes exceeds the bound of {max}")]
    TooLarge {
        /// Its length.
        len: usize,
        /// The bound.
        max: u32,
    },
    /// A method of the call was used out of its order (bulk after the end, a second reply).
    #[error("the call is past that step")]
    OutOfOrder,
}

impl RpcError {
    /// Whether the other end may have acted.
    pub fn outcome(&self) -> Sent {
        match self {
            RpcError::Unreachable { .. }
            | RpcError::Busy { .. }
            | RpcError::Draining { .. }
            | RpcError::TooLarge { .. } => Sent::No,
            RpcError::Deadline { sent, .. } | RpcError::Closed { sent, .. } => *sent,
            RpcError::GaveUp { .. }
            | RpcError::Stalled { .. }
            | RpcError::Remote { .. }
            | RpcError::Protocol { .. }
            | RpcError::OutOfOrder => Sent::Maybe,
        }
    }

    /// A short name of the kind, for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            RpcError::Unreachable { .. } => "unreachable",
            RpcError::Deadline { .. } => "deadline",
            RpcError::Busy { .. } => "busy",
            RpcError::Draining { .. } => "draining",
            RpcError::Closed { .. } => "closed",
            RpcError::GaveUp { .. } => "gave_up",
            RpcError::Stalled { .. } => "stalled",
            RpcError::Remote { .. } => "failure",
            RpcError::Protocol { .. } => "protocol",
            RpcError::TooLarge { .. } => "too_large",
            RpcError::OutOfOrder => "out_of_order",
        }
    }
}
