//! Whom a message is for, where one node holds several replicas of a group: on a single-node cluster the drives are the
//! domains.

use super::codec::{self, v1};
use super::ids::ReplicaId;

/// The replica a message is addressed to; none if it is no message of a known version.
pub fn addressee(message: &[u8]) -> Option<ReplicaId> {
    codec::decode::<v1::Request>(message).ok().map(|request| request.to)
}

/// The replica a snapshot is addressed to, by its head.
pub fn snapshot_addressee(head: &[u8]) -> Option<ReplicaId> {
    codec::decode::<v1::SnapshotHead>(head).ok().map(|head| head.to)
}
