//! What the transport asks its owner: who may connect, where a node lives, what time it is on the wall.

use std::net::SocketAddr;
use std::time::SystemTime;

use drystone_certs::{ClusterId, InstanceId, NodeId};

use crate::error::ConnectError;
use crate::hello::Hello;

/// Why a peer with a valid certificate is not admitted. Numbers are append-only and cross the wire in the close code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not in the topology.
    #[error("node {0} is not in this cluster's topology: it was removed, or this node does not know it yet")]
    UnknownNode(NodeId),
    /// It was evicted.
    #[error("node {0} is denied: it was evicted from the cluster")]
    Denied(NodeId),
    /// Its state directory is not the one that peers know.
    #[error(
        "node {node} has a new state directory (instance {found}, known is {known}): restore the one it had; a node that \
         has lost it cannot come back yet (docs/durability.md, What is not there yet)"
    )]
    WrongInstance {
        /// Whose.
        node: NodeId,
        /// The instance the topology knows.
        known: InstanceId,
        /// The instance that connects.
        found: InstanceId,
    },
    /// It belongs to another cluster.
    #[error("the peer is of cluster {theirs}, this is cluster {ours}")]
    OtherCluster {
        /// The refusing end's cluster.
        ours: ClusterId,
        /// The other's.
        theirs: ClusterId,
    },
    /// No protocol version in common.
    #[error(
        "no protocol version in common: ours are {ours_min} to {ours_max}, theirs {theirs_min} to {theirs_max}; upgrade the older node"
    )]
    Version {
        /// Oldest of the refusing end.
        ours_min: u16,
        /// Newest of the refusing end.
        ours_max: u16,
        /// Oldest of the other.
        theirs_min: u16,
        /// Newest of the other.
        theirs_max: u16,
    },
    /// The hello says otherwise than the certificate or the connection.
    #[error("the hello of node {0} contradicts its certificate or its connection")]
    Contradiction(NodeId),
    /// Anything else the policy holds against it.
    #[error("{0}")]
    Other(&'static str),
}

impl Refusal {
    pub(crate) const fn number(&self) -> u32 {
        match self {
            Refusal::UnknownNode(_) => 1,
            Refusal::Denied(_) => 2,
            Refusal::WrongInstance { .. } => 3,
            Refusal::OtherCluster { .. } => 4,
            Refusal::Version { .. } => 5,
            Refusal::Contradiction(_) => 6,
            Refusal::Other(_) => 7,
        }
    }
}

/// Who may connect. Asked at both ends of every new connection; must answer at once.
pub trait PeerPolicy: Send + Sync {
    /// The newest topology epoch this node knows, for its hellos.
    fn epoch(&self) -> u64;

    /// Whether the peer that says this hello (its certificate is already verified) may be a peer.
    ///
    /// # Errors
    ///
    /// The refusal; its text and number are sent to the peer and reported to both ends' policies.
    fn admit(&self, hello: &Hello) -> Result<(), Refusal>;

    /// The address of `node` was not found, so nobody was dialled. Whether it is logged is decided here; it comes again at
    /// each dial.
    fn unresolved(&self, node: NodeId, why: &ConnectError) {
        let _unused = (node, why);
    }

    /// A connection with `address` was refused, by us or by the peer, or went wrong before it began. It has been counted;
    /// whether it is logged is decided here. Anybody who reaches the port can cause this.
    fn refused(&self, address: SocketAddr, why: &ConnectError) {
        let _unused = (address, why);
    }
}

/// Where nodes live.
pub trait Directory: Send + Sync {
    /// `host:port` of a node, as configured; resolved anew at each dial. `None` if the node is not known.
    fn address(&self, node: NodeId) -> Option<String>;
}

/// The wall clock: certificates are valid by it, nothing else here is.
pub trait WallClock: Send + Sync + std::fmt::Debug {
    /// Now.
    fn now(&self) -> SystemTime;
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}
