//! Carries the messages of consensus groups over the control connections, and their snapshots over the data ones.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use drystone_transport::{Class, Peers, RpcError};
use tokio::sync::mpsc;

use super::Member;
use crate::codec::{Blob, encode};
use crate::consensus::{BoxFuture, ConsensusNetwork, GroupId, NetworkError, snapshot_addressee};
use crate::ids::NodeId;
use crate::peer::{ConsensusMessage, Method, SnapshotHead, length_prefix};

/// Consensus over QUIC; between replicas of one node, by a call.
pub(crate) struct PeerNetwork {
    member: Weak<Member>,
    node: NodeId,
    peers: Peers,
}

impl PeerNetwork {
    pub(crate) fn new(member: &Arc<Member>, peers: Peers) -> Self {
        Self { member: Arc::downgrade(member), node: member.node(), peers }
    }

    async fn call_here(&self, group: GroupId, message: Bytes) -> Result<Bytes, NetworkError> {
        let member = self.member.upgrade().ok_or(NetworkError::Unreachable)?;
        member.handle_consensus(group, message).await.map_err(|_| NetworkError::Refused)
    }

    async fn send_snapshot_here(
        &self,
        group: GroupId,
        head: Bytes,
        chunks: mpsc::Receiver<Bytes>,
    ) -> Result<Bytes, NetworkError> {
        let member = self.member.upgrade().ok_or(NetworkError::Unreachable)?;
        let replica = snapshot_addressee(&head).and_then(|replica| member.replica(group, replica));
        let replica = replica.ok_or(NetworkError::Refused)?;
        replica.install_snapshot(head, chunks).await.map_err(|_| NetworkError::Refused)
    }
}

impl ConsensusNetwork for PeerNetwork {
    fn call(
        &self,
        to: NodeId,
        group: GroupId,
        message: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Bytes, NetworkError>> {
        if to == self.node {
            return Box::pin(self.call_here(group, message));
        }
        let body = Bytes::from(encode(&ConsensusMessage { group: group.0, body: Blob(message) }));
        let call = self.peers.call(to, Class::Control, Method::Consensus.number(), body, deadline);
        Box::pin(async move { call.await.map_err(|error| network_error(&error)) })
    }

    fn send_snapshot(
        &self,
        to: NodeId,
        group: GroupId,
        head: Bytes,
        mut chunks: mpsc::Receiver<Bytes>,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Bytes, NetworkError>> {
        if to == self.node {
            return Box::pin(self.send_snapshot_here(group, head, chunks));
        }
        let body = Bytes::from(encode(&SnapshotHead { group: group.0, head: Blob(head) }));
        let send = async move {
            let mut call = self.peers.open(to, Class::Data, Method::Snapshot.number(), body, deadline).await?;
            while let Some(chunk) = chunks.recv().await {
                call.send(length_prefix(&chunk)).await?;
                call.send(chunk).await?;
            }
            call.finish();
            call.reply().await
        };
        Box::pin(async move { send.await.map_err(|error| network_error(&error)) })
    }
}

fn network_error(error: &RpcError) -> NetworkError {
    match error {
        RpcError::Deadline { .. } => NetworkError::TimedOut,
        RpcError::Remote { .. } => NetworkError::Refused,
        _ => NetworkError::Unreachable,
    }
}
