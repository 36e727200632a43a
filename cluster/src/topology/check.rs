//! What a topology must satisfy before anyone follows it.

use std::collections::BTreeSet;

use super::{CONTROL_VOTER_COUNT_MAX, ControlReplica, Role, ShardReplica, TOLERATED_MAX, Topology};
use crate::ids::{DriveId, NodeId, ReplicaId, ShardIndex};

/// Why a topology cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopologyProblem {
    /// No nodes.
    #[error("there are no nodes")]
    NoNodes,
    /// Epochs count from 1.
    #[error("epoch 0 is no epoch")]
    NoEpoch,
    /// The number of shards is zero or not that of the assignments.
    #[error("{declared} shards are declared and {assigned} assigned")]
    ShardCount {
        /// As declared.
        declared: u16,
        /// As assigned.
        assigned: usize,
    },
    /// More failures to survive than the domains allow.
    #[error("{domains} domains cannot survive {tolerated} failures")]
    Tolerated {
        /// `f`.
        tolerated: u8,
        /// Domains there are.
        domains: usize,
    },
    /// Two nodes have one name or one address.
    #[error("two nodes share the name or address {0:?}")]
    NodeTwice(String),
    /// A drive is listed twice.
    #[error("drive {0} is listed twice")]
    DriveTwice(DriveId),
    /// A replica is on a node that is not listed.
    #[error("replica {} is on node {node}, which is not in the topology", replica.0)]
    UnknownNode {
        /// The replica.
        replica: ReplicaId,
        /// Its node.
        node: NodeId,
    },
    /// A replica is on a drive its node does not have.
    #[error("replica {} is on drive {drive}, which node {node} does not have", replica.0)]
    UnknownDrive {
        /// The replica.
        replica: ReplicaId,
        /// Its node.
        node: NodeId,
        /// Its drive.
        drive: DriveId,
    },
    /// A replica id was given out twice, or is not below the next one.
    #[error("replica id {} is used twice or was never given out", .0.0)]
    ReplicaId(ReplicaId),
    /// The control group does not hold every node exactly once, or its voters are none, too many or too few.
    #[error("the control group has {members} members and {voters} voters for {nodes} nodes")]
    Control {
        /// Members.
        members: usize,
        /// Voters among them.
        voters: usize,
        /// Nodes there are.
        nodes: usize,
    },
    /// Two replicas of a shard are in one domain.
    #[error("shard {} has two replicas in one domain", .0.0)]
    SharedDomain(ShardIndex),
    /// A majority of a shard's replicas would not survive `f` failures.
    #[error("shard {} has {replicas} replicas, too few to survive {tolerated} failures", shard.0)]
    TooFewReplicas {
        /// The shard.
        shard: ShardIndex,
        /// Its replicas.
        replicas: usize,
        /// `f`.
        tolerated: u8,
    },
}

impl Topology {
    /// Whether the topology can be followed: what it names exists once, every group's majority is more than `f`
    /// replicas, and no two replicas of a shard share a domain.
    ///
    /// # Errors
    /// The first problem found.
    pub fn check(&self) -> Result<(), TopologyProblem> {
        let domains = self.domains().len();
        if self.nodes.is_empty() {
            return Err(TopologyProblem::NoNodes);
        }
        if self.epoch == 0 {
            return Err(TopologyProblem::NoEpoch);
        }
        if self.shard_count == 0 || self.shards.len() != usize::from(self.shard_count) {
            return Err(TopologyProblem::ShardCount { declared: self.shard_count, assigned: self.shards.len() });
        }
        if self.tolerated > TOLERATED_MAX || domains < domain_count_min(self.tolerated) {
            return Err(TopologyProblem::Tolerated { tolerated: self.tolerated, domains });
        }
        self.check_names()?;
        self.check_replica_ids()?;
        self.check_control()?;
        self.shard_indexes().zip(&self.shards).try_for_each(|(shard, replicas)| self.check_shard(shard, replicas))
    }

    fn check_names(&self) -> Result<(), TopologyProblem> {
        let (mut names, mut addresses, mut drives) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for node in self.nodes.values() {
            if !names.insert(&node.name) {
                return Err(TopologyProblem::NodeTwice(node.name.clone()));
            }
            if !addresses.insert(&node.address) {
                return Err(TopologyProblem::NodeTwice(node.address.clone()));
            }
            if let Some(twice) = node.drives.iter().find(|drive| !drives.insert(**drive)) {
                return Err(TopologyProblem::DriveTwice(*twice));
            }
        }
        Ok(())
    }

    fn check_replica_ids(&self) -> Result<(), TopologyProblem> {
        let mut seen = BTreeSet::new();
        let control = self.control.iter().map(|replica| replica.id);
        let shards = self.shards.iter().flatten().map(|replica| replica.id);
        for id in control.chain(shards) {
            if id.0 >= self.next_replica || !seen.insert(id) {
                return Err(TopologyProblem::ReplicaId(id));
            }
        }
        Ok(())
    }

    fn check_control(&self) -> Result<(), TopologyProblem> {
        if let Some(ControlReplica { id, node, .. }) =
            self.control.iter().find(|replica| !self.nodes.contains_key(&replica.node))
        {
            return Err(TopologyProblem::UnknownNode { replica: *id, node: *node });
        }
        let members: BTreeSet<NodeId> = self.control.iter().map(|replica| replica.node).collect();
        let voters = self.control.iter().filter(|replica| replica.role == Role::Voter).count();
        // On a single node drives are domains and the control group has but one member: nothing to survive.
        let voters_min = if self.nodes.len() == 1 { 1 } else { replica_count_min(self.tolerated) };
        let complete = members.len() == self.nodes.len() && self.control.len() == self.nodes.len();
        if complete && (voters_min..=CONTROL_VOTER_COUNT_MAX).contains(&voters) {
            return Ok(());
        }
        Err(TopologyProblem::Control { members: self.control.len(), voters, nodes: self.nodes.len() })
    }

    fn check_shard(&self, shard: ShardIndex, replicas: &[ShardReplica]) -> Result<(), TopologyProblem> {
        let mut domains = BTreeSet::new();
        for ShardReplica { id, node, drive } in replicas.iter().copied() {
            let Some(record) = self.nodes.get(&node) else {
                return Err(TopologyProblem::UnknownNode { replica: id, node });
            };
            if !record.drives.contains(&drive) {
                return Err(TopologyProblem::UnknownDrive { replica: id, node, drive });
            }
            if !domains.insert(self.domain_of(drive)) {
                return Err(TopologyProblem::SharedDomain(shard));
            }
        }
        if replicas.len() < replica_count_min(self.tolerated) {
            let tolerated = self.tolerated;
            return Err(TopologyProblem::TooFewReplicas { shard, replicas: replicas.len(), tolerated });
        }
        Ok(())
    }
}

/// The fewest replicas whose majority survives `f` failures: what is acknowledged by a majority of `r` is on
/// `r / 2 + 1` of them, which must be at least `f + 1`.
pub(super) fn replica_count_min(tolerated: u8) -> usize {
    (2 * usize::from(tolerated)).max(1)
}

/// The fewest domains that can survive `f` failures.
pub(super) fn domain_count_min(tolerated: u8) -> usize {
    replica_count_min(tolerated)
}
