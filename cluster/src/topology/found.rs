//! The first topology of a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use rand::RngCore;

use super::check::domain_count_min;
use super::{
    CONTROL_VOTER_COUNT_MAX, ControlReplica, Domain, NodeRecord, Role, ShardReplica, TOLERATED_MAX, Topology, zone_of,
};
use crate::ids::{ClusterId, DriveId, NodeId, ReplicaId};

/// The fewest and the most index shards of a cluster unless said otherwise; between them it gets one per founding drive
/// (docs/decisions/0014).
const SHARD_COUNT_DEFAULT: RangeInclusive<usize> = 8..=16;
/// The most index shards a cluster can be founded with.
const SHARD_COUNT_MAX: u16 = 256;

/// A node the cluster begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundingNode {
    /// What operators call it; unique.
    pub name: String,
    /// `host:port` of its peer endpoint; unique.
    pub address: String,
    /// The operator's label for nodes that fail together.
    pub zone: Option<String>,
    /// How many drives it has, at least 1.
    pub drive_count: usize,
}

/// Why no cluster can be founded so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoundError {
    /// No nodes were given.
    #[error("a cluster needs at least one node")]
    NoNodes,
    /// No shards were asked for, or more than a cluster can have.
    #[error("a cluster has 1 to {SHARD_COUNT_MAX} index shards, not {0}")]
    ShardCount(u16),
    /// A node has no drive.
    #[error("node {0:?} has no drive")]
    NoDrives(String),
    /// Two nodes have one name or address.
    #[error("two nodes share the name or address {0:?}")]
    NodeTwice(String),
    /// The failures to survive are fewer than usual, or more than the domains allow.
    #[error("{domains} domains can survive {min} to {max} failures, not {asked}")]
    Tolerated {
        /// What was asked.
        asked: u8,
        /// The usual number.
        min: u8,
        /// The most possible.
        max: u8,
        /// Domains there are.
        domains: usize,
    },
}

impl Topology {
    /// Epoch 1 of a new cluster: draws ids, derives `f` from the number of domains (1 → 0, 2 → 1, 3–4 → 1, 5 and more
    /// → 2) unless `tolerated` asks for more, and spreads replicas and preferred leaders evenly. Unless `shard_count`
    /// says otherwise there is an index shard for each drive, but at least 8 and at most 16; their number never changes.
    ///
    /// Two or more zones are the domains, unless `tolerated` asks for more than they can survive and nodes can.
    ///
    /// # Errors
    /// Why no cluster can be founded so.
    pub fn found(
        cluster: ClusterId,
        founding: &[FoundingNode],
        shard_count: Option<u16>,
        tolerated: Option<u8>,
        rng: &mut impl RngCore,
    ) -> Result<Self, FoundError> {
        let shard_count = shard_count.unwrap_or_else(|| default_shard_count(founding));
        check_founding(founding, shard_count)?;
        let mut nodes = BTreeMap::new();
        for node in founding {
            let drives = (0..node.drive_count).map(|_| DriveId::random(rng)).collect();
            let (name, address, zone) = (node.name.clone(), node.address.clone(), node.zone.clone());
            nodes.insert(NodeId::random(rng), NodeRecord { name, address, zone, drives });
        }
        let tolerated = choose_tolerated(&nodes, tolerated)?;
        let mut topology = Self {
            cluster,
            epoch: 1,
            shard_count,
            tolerated,
            nodes,
            control: Vec::new(),
            shards: Vec::new(),
            next_replica: 1,
        };
        topology.assign_control();
        topology.assign_shards();
        Ok(topology)
    }

    fn draw_replica(&mut self) -> ReplicaId {
        let id = ReplicaId(self.next_replica);
        self.next_replica += 1;
        id
    }

    /// Voters on distinct domains, an odd number of them where that survives as much; everybody else learns.
    fn assign_control(&mut self) {
        let mut domains = BTreeSet::new();
        let candidates: Vec<NodeId> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.drives.first().is_some_and(|drive| domains.insert(self.domain_of(*drive))))
            .map(|(id, _)| *id)
            .collect();
        let most = candidates.len().min(CONTROL_VOTER_COUNT_MAX);
        let odd = most - usize::from(most.is_multiple_of(2));
        let voter_count = if odd / 2 >= usize::from(self.tolerated) { odd } else { most };
        let voters: BTreeSet<NodeId> = candidates.into_iter().take(voter_count).collect();
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            let role = if voters.contains(&node) { Role::Voter } else { Role::Learner };
            let id = self.draw_replica();
            self.control.push(ControlReplica { id, node, role });
        }
    }

    /// `2f + 1` replicas per shard (fewer where there are fewer domains), least loaded drives first.
    fn assign_shards(&mut self) {
        let domains = self.drive_domains();
        let places: Vec<(NodeId, DriveId)> =
            self.nodes.iter().flat_map(|(id, node)| node.drives.iter().map(move |drive| (*id, *drive))).collect();
        let domain_count = domains.values().collect::<BTreeSet<_>>().len();
        let replica_count = (2 * usize::from(self.tolerated) + 1).min(domain_count);
        let mut load = Load::default();
        for _ in 0..self.shard_count {
            let mut used: BTreeSet<&Domain> = BTreeSet::new();
            let mut replicas = Vec::with_capacity(replica_count);
            while replicas.len() < replica_count {
                let leads = replicas.is_empty();
                let free = places.iter().filter(|(_, drive)| domains.get(drive).is_some_and(|d| !used.contains(d)));
                let Some((node, drive)) = free.min_by_key(|place| load.of(place, leads)).copied() else { break };
                used.extend(domains.get(&drive));
                load.add((node, drive), leads);
                let id = self.draw_replica();
                replicas.push(ShardReplica { id, node, drive });
            }
            self.shards.push(replicas);
        }
    }
}

/// What has been given to whom so far.
#[derive(Default)]
struct Load {
    node_leaders: BTreeMap<NodeId, u32>,
    drive_leaders: BTreeMap<DriveId, u32>,
    node_replicas: BTreeMap<NodeId, u32>,
    drive_replicas: BTreeMap<DriveId, u32>,
}

impl Load {
    /// Smaller is a better place for the next replica.
    fn of(&self, (node, drive): &(NodeId, DriveId), leads: bool) -> [u32; 4] {
        let node_leaders = self.node_leaders.get(node).copied().unwrap_or(0);
        let drive_leaders = self.drive_leaders.get(drive).copied().unwrap_or(0);
        let node_replicas = self.node_replicas.get(node).copied().unwrap_or(0);
        let drive_replicas = self.drive_replicas.get(drive).copied().unwrap_or(0);
        if leads {
            [node_leaders, drive_leaders, drive_replicas, node_replicas]
        } else {
            [drive_replicas, node_replicas, 0, 0]
        }
    }

    fn add(&mut self, (node, drive): (NodeId, DriveId), leads: bool) {
        *self.node_replicas.entry(node).or_default() += 1;
        *self.drive_replicas.entry(drive).or_default() += 1;
        if leads {
            *self.node_leaders.entry(node).or_default() += 1;
            *self.drive_leaders.entry(drive).or_default() += 1;
        }
    }
}

/// One per drive, so that every drive's journal and every node's consensus thread has leaders to share the work.
fn default_shard_count(founding: &[FoundingNode]) -> u16 {
    let drive_count = founding.iter().map(|node| node.drive_count).fold(0, usize::saturating_add);
    let (least, most) = SHARD_COUNT_DEFAULT.into_inner();
    u16::try_from(drive_count.clamp(least, most)).unwrap_or(SHARD_COUNT_MAX)
}

fn check_founding(founding: &[FoundingNode], shard_count: u16) -> Result<(), FoundError> {
    if founding.is_empty() {
        return Err(FoundError::NoNodes);
    }
    if !(1..=SHARD_COUNT_MAX).contains(&shard_count) {
        return Err(FoundError::ShardCount(shard_count));
    }
    let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for node in founding {
        if node.drive_count == 0 {
            return Err(FoundError::NoDrives(node.name.clone()));
        }
        if !names.insert(&node.name) {
            return Err(FoundError::NodeTwice(node.name.clone()));
        }
        if !addresses.insert(&node.address) {
            return Err(FoundError::NodeTwice(node.address.clone()));
        }
    }
    Ok(())
}

/// `f` for so many domains, unless asked otherwise.
fn usual_tolerated(domains: usize) -> u8 {
    match domains {
        0 | 1 => 0,
        2..=4 => 1,
        _ => 2,
    }
}

fn choose_tolerated(nodes: &BTreeMap<NodeId, NodeRecord>, asked: Option<u8>) -> Result<u8, FoundError> {
    let zone_count = nodes.iter().map(|(id, node)| zone_of(*id, node)).collect::<BTreeSet<_>>().len();
    let node_domains = match nodes.len() {
        1 => nodes.values().map(|node| node.drives.len()).sum(),
        count => count,
    };
    let domains = if zone_count >= 2 { zone_count } else { node_domains };
    let min = usual_tolerated(domains);
    let Some(asked) = asked else { return Ok(min) };
    // With more asked than there are other zones, nodes become the domains (`Topology::domain_level`).
    let domains = if zone_count > usize::from(asked) && nodes.len() > 1 { zone_count } else { node_domains };
    let max = (0..=TOLERATED_MAX).rev().find(|f| domain_count_min(*f) <= domains).unwrap_or(0);
    if (min..=max).contains(&asked) { Ok(asked) } else { Err(FoundError::Tolerated { asked, min, max, domains }) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::super::TopologyProblem;
    use super::super::tests::cluster;
    use super::*;

    fn founding(zones: &[Option<String>], drive_count: usize) -> Vec<FoundingNode> {
        let node = |(index, zone): (usize, &Option<String>)| FoundingNode {
            name: format!("n{index}"),
            address: format!("h{index}:1"),
            zone: zone.clone(),
            drive_count,
        };
        zones.iter().enumerate().map(node).collect()
    }

    fn found(founding: &[FoundingNode], tolerated: Option<u8>) -> Result<Topology, FoundError> {
        Topology::found(ClusterId::from_bytes([1; 16]), founding, Some(16), tolerated, &mut StdRng::seed_from_u64(1))
    }

    #[test]
    fn failures_to_survive_follow_the_number_of_domains() {
        let tolerated = |count| cluster(&vec![None; count], 1).tolerated;
        assert_eq!([1, 2, 3, 4, 5, 6, 10].map(tolerated), [0, 1, 1, 1, 2, 2, 2]);
        let replicas = |count| cluster(&vec![None; count], 1).shards[0].len();
        assert_eq!([1, 2, 3, 4, 5, 6].map(replicas), [1, 2, 3, 3, 5, 5]);
    }

    #[test]
    fn an_operator_may_ask_for_more_but_not_for_the_impossible() {
        let six = founding(&vec![None; 6], 1);
        assert_eq!(found(&six, Some(3)).map(|topology| topology.tolerated), Ok(3));
        let four = founding(&vec![None; 4], 1);
        assert_eq!(found(&four, Some(2)).map(|topology| topology.check()), Ok(Ok(())));
        let refused = |asked, min, max, domains| Err(FoundError::Tolerated { asked, min, max, domains });
        assert_eq!(found(&founding(&vec![None; 3], 1), Some(2)), refused(2, 1, 1, 3));
        assert_eq!(found(&six, Some(1)), refused(1, 2, 3, 6));
        assert_eq!(found(&six, Some(4)), refused(4, 2, 3, 6));
    }

    #[test]
    fn nodes_are_the_domains_where_zones_cannot_survive_what_is_asked() {
        let zones: Vec<_> = (0..6).map(|index| Some(format!("z{}", index % 2))).collect();
        assert_eq!(found(&founding(&zones, 1), None).map(|t| (t.tolerated, t.domains().len())), Ok((1, 2)));
        assert_eq!(found(&founding(&zones, 1), Some(2)).map(|t| (t.tolerated, t.domains().len())), Ok((2, 6)));
    }

    #[test]
    fn the_control_group_has_an_odd_number_of_voters_at_most_seven() {
        let voters = |count| {
            let topology = cluster(&vec![None; count], 1);
            topology.control.iter().filter(|replica| replica.role == Role::Voter).count()
        };
        assert_eq!([1, 2, 3, 4, 5, 6, 7, 9].map(voters), [1, 2, 3, 3, 5, 5, 7, 7]);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        assert_eq!(found(&[], None), Err(FoundError::NoNodes));
        assert_eq!(found(&founding(&[None], 0), None), Err(FoundError::NoDrives("n0".to_owned())));
        let mut twins = founding(&[None, None], 1);
        twins[1].address = "h0:1".to_owned();
        assert_eq!(found(&twins, None), Err(FoundError::NodeTwice("h0:1".to_owned())));
    }

    #[test]
    fn there_is_a_shard_per_drive_within_bounds_unless_said_otherwise() {
        let shards = |nodes, drives, asked| {
            let founding = founding(&vec![None; nodes], drives);
            let mut rng = StdRng::seed_from_u64(1);
            Topology::found(ClusterId::from_bytes([1; 16]), &founding, asked, None, &mut rng).map(|t| t.shards.len())
        };
        assert_eq!([(1, 1), (3, 2), (3, 4), (4, 12)].map(|(n, d)| shards(n, d, None)), [Ok(8), Ok(8), Ok(12), Ok(16)]);
        assert_eq!([1, 40, 256].map(|asked| shards(3, 2, Some(asked))), [Ok(1), Ok(40), Ok(256)]);
        assert_eq!([0, 257].map(|n| shards(3, 2, Some(n))), [0, 257].map(|n| Err(FoundError::ShardCount(n))));
    }

    #[test]
    fn the_check_notices_a_replica_in_the_wrong_place() {
        let mut topology = cluster(&[None; 3], 2);
        let other = topology.shards[0][1];
        topology.shards[0][0].node = other.node;
        topology.shards[0][0].drive = other.drive;
        assert_eq!(topology.check(), Err(TopologyProblem::SharedDomain(crate::ids::ShardIndex(0))));
        topology.shards[0][0].drive = DriveId::from_bytes([0; 8]);
        assert!(matches!(topology.check(), Err(TopologyProblem::UnknownDrive { .. })));
        topology.shards[0].truncate(1);
        topology.shards[0][0] = other;
        assert!(matches!(topology.check(), Err(TopologyProblem::TooFewReplicas { replicas: 1, .. })));
    }

    fn spread<K: Ord>(keys: impl Iterator<Item = K>, all: impl Iterator<Item = K>) -> u32 {
        let mut counts: BTreeMap<K, u32> = all.map(|key| (key, 0)).collect();
        for key in keys {
            *counts.entry(key).or_default() += 1;
        }
        counts.values().max().unwrap() - counts.values().min().unwrap()
    }

    proptest! {
        #[test]
        fn every_founded_cluster_is_sound_and_even(
            zones in proptest::collection::vec(proptest::option::of("[a-d]"), 1..12), drives in 1..4_usize,
        ) {
            let topology = found(&founding(&zones, drives), None).unwrap();
            prop_assert_eq!(topology.check(), Ok(()));
            let nodes = || topology.nodes.keys().copied();
            let leaders = topology.shards.iter().map(|replicas| replicas[0].node);
            prop_assert!(spread(leaders, nodes()) <= 1);
            if zones.iter().all(Option::is_none) {
                let replicas = topology.shards.iter().flatten().map(|replica| replica.drive);
                let all = topology.nodes.values().flat_map(|node| node.drives.iter().copied());
                prop_assert!(spread(replicas, all) <= 2);
            }
        }
    }
}
