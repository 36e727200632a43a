//! The numbered, agreed list of nodes, drives, zones and replica assignments.
//!
//! Values only: how a topology is agreed is the control group's business, how its snapshot reaches a file the
//! node's. The encoding of [`Topology`] is frozen as format 1 of commands and snapshots.

mod check;
mod found;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bincode::{Decode, Encode};

use crate::ids::{BucketId, ClusterId, DriveId, NodeId, ReplicaId, ShardIndex};

pub use check::TopologyProblem;
pub use found::{FoundError, FoundingNode};
pub use snapshot::{SnapshotError, decode_snapshot, encode_snapshot};

/// The most failures `f` a cluster can be told to survive: with 7 voters a majority is 4.
pub const TOLERATED_MAX: u8 = 3;
/// The most voters of the control group.
pub const CONTROL_VOTER_COUNT_MAX: usize = 7;

/// A node as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NodeRecord {
    /// What operators call it; unique.
    pub name: String,
    /// `host:port` of its peer endpoint (UDP); unique.
    pub address: String,
    /// The operator's label for nodes that fail together; a node without one is a zone of its own.
    pub zone: Option<String>,
    /// Its drives.
    pub drives: Vec<DriveId>,
}

/// What a member of the control group may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Role {
    /// Votes and counts for the majority.
    Voter,
    /// Follows, so that its node reads configuration locally.
    Learner,
}

/// A replica of the control group; it lives in its node's state directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ControlReplica {
    /// Its identity in the group.
    pub id: ReplicaId,
    /// Where it lives.
    pub node: NodeId,
    /// What it may do.
    pub role: Role,
}

/// A replica of an index shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ShardReplica {
    /// Its identity in the group.
    pub id: ReplicaId,
    /// The node that holds its drive.
    pub node: NodeId,
    /// Where it lives.
    pub drive: DriveId,
}

/// What must not hold two chunks of one extent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Domain {
    /// All nodes with this label.
    Zone(String),
    /// One node.
    Node(NodeId),
    /// One drive; on a single-node cluster only.
    Drive(DriveId),
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zone(zone) => write!(f, "zone {zone}"),
            Self::Node(node) => write!(f, "node {node}"),
            Self::Drive(drive) => write!(f, "drive {drive}"),
        }
    }
}

/// Which things are domains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainLevel {
    /// Zones: at least `f + 1` of them exist.
    Zone,
    /// Nodes.
    Node,
    /// Drives: there is only one node.
    Drive,
}

/// The cluster's shape at one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Topology {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Counts changes from 1.
    pub epoch: u64,
    /// Number of index shards, fixed when the cluster is created.
    pub shard_count: u16,
    /// `f`: how many domains may be lost without losing an acknowledged write.
    pub tolerated: u8,
    /// All nodes.
    pub nodes: BTreeMap<NodeId, NodeRecord>,
    /// The control group: every node exactly once, at most 7 of them voters.
    pub control: Vec<ControlReplica>,
    /// The replicas of each shard by [`ShardIndex`]; the first of each list is the preferred leader.
    pub shards: Vec<Vec<ShardReplica>>,
    /// The lowest replica id never given out.
    pub next_replica: u64,
}

impl Topology {
    /// Which things are domains: zones if at least `f + 1` exist, else nodes; drives if there is but one
    /// node.
    pub fn domain_level(&self) -> DomainLevel {
        let zones: BTreeSet<Domain> = self.nodes.iter().map(|(id, node)| zone_of(*id, node)).collect();
        match self.nodes.len() {
            0 | 1 => DomainLevel::Drive,
            _ if zones.len() > usize::from(self.tolerated) => DomainLevel::Zone,
            _ => DomainLevel::Node,
        }
    }

    /// All domains with their drives.
    pub fn domains(&self) -> BTreeMap<Domain, Vec<DriveId>> {
        let level = self.domain_level();
        let mut domains: BTreeMap<Domain, Vec<DriveId>> = BTreeMap::new();
        for (id, node) in &self.nodes {
            for drive in &node.drives {
                domains.entry(domain(level, *id, node, *drive)).or_default().push(*drive);
            }
        }
        domains
    }

    /// The domain of every drive. For many look-ups at once; see [`Topology::domain_of`] for one.
    pub fn drive_domains(&self) -> BTreeMap<DriveId, Domain> {
        self.domains()
            .into_iter()
            .flat_map(|(domain, drives)| drives.into_iter().map(move |d| (d, domain.clone())))
            .collect()
    }

    /// The domain a drive is in; `None` if the drive is unknown.
    pub fn domain_of(&self, drive: DriveId) -> Option<Domain> {
        let level = self.domain_level();
        let (id, node) = self.nodes.iter().find(|(_, node)| node.drives.contains(&drive))?;
        Some(domain(level, *id, node, drive))
    }

    /// The node that holds a drive; `None` if the drive is unknown.
    pub fn node_of(&self, drive: DriveId) -> Option<NodeId> {
        self.nodes.iter().find(|(_, node)| node.drives.contains(&drive)).map(|(id, _)| *id)
    }

    /// The replicas of a shard, the preferred leader first; empty if there is no such shard.
    pub fn shard(&self, shard: ShardIndex) -> &[ShardReplica] {
        self.shards.get(usize::from(shard.0)).map_or(&[], Vec::as_slice)
    }

    /// All shards' indexes.
    pub fn shard_indexes(&self) -> impl Iterator<Item = ShardIndex> + use<> {
        (0..self.shard_count).map(ShardIndex)
    }

    /// The shard that owns a key.
    pub fn shard_of(&self, bucket: BucketId, key: &str) -> ShardIndex {
        shard_of(self.shard_count, bucket, key)
    }
}

/// The shard that owns a key among `shard_count` (at least 1): BLAKE3 of the bucket id (big-endian) and the key; its
/// first eight bytes, as a fraction, of the count. Frozen: a change would lose every object.
pub fn shard_of(shard_count: u16, bucket: BucketId, key: &str) -> ShardIndex {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bucket.0.to_be_bytes());
    hasher.update(key.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    let scaled = (u128::from(u64::from_be_bytes(first)) * u128::from(shard_count)) >> 64;
    // A 64-bit fraction of a u16 is a u16.
    ShardIndex(u16::try_from(scaled).unwrap_or(0))
}

fn zone_of(id: NodeId, node: &NodeRecord) -> Domain {
    node.zone.clone().map_or(Domain::Node(id), Domain::Zone)
}

fn domain(level: DomainLevel, id: NodeId, node: &NodeRecord, drive: DriveId) -> Domain {
    match level {
        DomainLevel::Zone => zone_of(id, node),
        DomainLevel::Node => Domain::Node(id),
        DomainLevel::Drive => Domain::Drive(drive),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    /// A founded cluster of `zones.len()` nodes with `drive_count` drives each.
    pub(crate) fn cluster(zones: &[Option<&str>], drive_count: usize) -> Topology {
        let mut rng = StdRng::seed_from_u64(7);
        let founding: Vec<FoundingNode> = zones
            .iter()
            .enumerate()
            .map(|(index, zone)| FoundingNode {
                name: format!("n{index}"),
                address: format!("10.0.0.{index}:7000"),
                zone: zone.map(str::to_owned),
                drive_count,
            })
            .collect();
        Topology::found(ClusterId::from_bytes([9; 16]), &founding, Some(16), None, &mut rng).unwrap()
    }

    #[test]
    fn unlabelled_nodes_are_domains_of_their_own() {
        let topology = cluster(&[None; 3], 2);
        assert_eq!(topology.domains().len(), 3);
        assert_eq!(topology.tolerated, 1);
        let (id, node) = topology.nodes.iter().next().unwrap();
        assert_eq!(topology.domain_of(node.drives[1]), Some(Domain::Node(*id)));
        assert_eq!(topology.node_of(node.drives[1]), Some(*id));
        assert_eq!(topology.node_of(DriveId::from_bytes([0; 8])), None);
    }

    #[test]
    fn zones_are_domains_when_there_are_enough_of_them() {
        let three = cluster(&[Some("a"), Some("a"), Some("b"), Some("b"), Some("c"), Some("c")], 1);
        assert_eq!((three.domain_level(), three.domains().len(), three.tolerated), (DomainLevel::Zone, 3, 1));
        let one = cluster(&[Some("a"); 5], 1);
        assert_eq!((one.domain_level(), one.domains().len(), one.tolerated), (DomainLevel::Node, 5, 2));
    }

    #[test]
    fn drives_are_domains_on_a_single_node() {
        let topology = cluster(&[None], 4);
        assert_eq!((topology.domain_level(), topology.domains().len(), topology.tolerated), (DomainLevel::Drive, 4, 1));
    }

    #[test]
    fn the_shard_of_a_key_never_changes() {
        let shards: Vec<u16> = ["", "a", "photos/2026/11/20.jpg", "ключ", "z"]
            .iter()
            .map(|key| shard_of(16, BucketId(0x0102_0304_0506_0708), key).0)
            .collect();
        assert_eq!(shards, GOLDEN_SHARDS);
        assert_eq!(shard_of(1, BucketId(3), "x"), ShardIndex(0));
    }

    const GOLDEN_SHARDS: [u16; 5] = [14, 4, 4, 13, 6];

    #[test]
    fn keys_spread_evenly_over_shards() {
        let mut counts = [0_u32; 16];
        for number in 0..16_000 {
            counts[usize::from(shard_of(16, BucketId(1), &format!("key-{number}")).0)] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }
}
