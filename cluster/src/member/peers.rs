//! Who may connect and where nodes live, by the topology; and the lives of peers, by what they said first.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, PoisonError, Weak};

use drystone_transport::{ConnectError, Directory, Hello, LogLimit, PeerPolicy, Refusal};
use tokio::time::Instant;

use super::Member;
use crate::ids::NodeId;

/// Asks the member, which is made after the endpoint that asks.
pub(super) struct Admission {
    member: Arc<OnceLock<Weak<Member>>>,
    refusals: LogLimit,
    /// A name that does not resolve fails at each dial, about once a second, and says the same each time.
    unresolved: LogLimit,
}

/// Lines a minute for names that do not resolve.
const UNRESOLVED_LINES_MAX: u32 = 2;

impl Admission {
    pub(super) fn new(member: Arc<OnceLock<Weak<Member>>>) -> Self {
        Self { member, refusals: LogLimit::default(), unresolved: LogLimit::of(UNRESOLVED_LINES_MAX) }
    }

    fn member(&self) -> Option<Arc<Member>> {
        self.member.get().and_then(Weak::upgrade)
    }
}

impl PeerPolicy for Admission {
    fn epoch(&self) -> u64 {
        self.member().map_or(0, |member| member.topology().epoch)
    }

    fn admit(&self, hello: &Hello) -> Result<(), Refusal> {
        match self.member() {
            Some(member) => member.admit_peer(hello),
            None => Err(Refusal::Other("the node is starting")),
        }
    }

    fn refused(&self, address: SocketAddr, why: &ConnectError) {
        if let Some(unsaid) = self.refusals.note(Instant::now()) {
            tracing::warn!(%address, %why, unsaid, "no connection with a peer");
        }
    }

    fn unresolved(&self, peer: NodeId, why: &ConnectError) {
        if let Some(unsaid) = self.unresolved.note(Instant::now()) {
            tracing::warn!(%peer, %why, unsaid, "no connection with a peer");
        }
    }
}

/// Finds nodes by the topology.
pub(super) struct Addresses(pub(super) Arc<Member>);

impl Directory for Addresses {
    fn address(&self, node: NodeId) -> Option<String> {
        self.0.topology().nodes.get(&node).map(|record| record.address.clone())
    }
}

impl Member {
    /// A peer is admitted if the topology has it and it is the one that was heard first. The first hello of a peer is
    /// remembered durably before it is answered: a node whose state was wiped comes back with another instance, and must
    /// not vote in the name of the one that voted.
    fn admit_peer(&self, hello: &Hello) -> Result<(), Refusal> {
        if !self.topology().nodes.contains_key(&hello.node) {
            return Err(Refusal::UnknownNode(hello.node));
        }
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        match record.peers.get(&hello.node) {
            Some(known) if *known == hello.instance => Ok(()),
            Some(known) => Err(Refusal::WrongInstance { node: hello.node, known: *known, found: hello.instance }),
            None => {
                let mut next = record.clone();
                next.peers.insert(hello.node, hello.instance);
                if let Err(error) = self.state_dir.write_member(&next) {
                    tracing::error!(%error, "a peer's life could not be remembered");
                    return Err(Refusal::Other("the node cannot write its state directory"));
                }
                *record = next;
                Ok(())
            }
        }
    }
}
