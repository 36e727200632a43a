//! Where the chunks of an extent go: weighted rendezvous hashing of the extent id over free space, one
//! chunk per domain.
//!
//! Pure: (topology, health, extent id, length) → scheme and drives, or a typed refusal. Every drive gets a score that
//! depends on the extent and the drive alone; the best drive of each domain stands for it, and the best domains are
//! taken. So a drive that comes or goes changes at most one place of any extent.
//!
//! The scores follow Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", 2005: −w / ln(u).

use std::collections::{BTreeMap, BTreeSet};

/// The most bytes of an object in one extent: what the format of a chunk takes.
pub use drystone_erasure::chunk::EXTENT_LEN_MAX;

use crate::ids::{DriveId, ExtentId, NodeId, Scheme};
use crate::topology::{Domain, Topology};

/// Extents up to this length are plain copies (k = 1): 128 KiB.
pub const COPY_LEN_MAX: u32 = 128 << 10;
/// The most data chunks of an extent.
pub const DATA_CHUNK_COUNT_MAX: usize = 8;

/// Whether a drive can take new chunks now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriveCondition {
    /// It takes work.
    Up {
        /// Bytes it can still take, its reserve not counted.
        free_bytes: u64,
        /// An operator's factor in percent, 100 for none; 0 keeps new chunks away.
        weight_percent: u32,
    },
    /// It works but slowly: used only where too few domains are left without slow drives.
    Slow {
        /// As for `Up`.
        free_bytes: u64,
    },
    /// Its node has missed probes.
    Suspect,
    /// It has no space beyond its reserve.
    Full,
    /// An operator empties it.
    Draining,
    /// It reported errors and is read-only.
    Failed,
    /// Its node is down, or nothing is known of it.
    Down,
}

/// The condition of every drive; one that is not mentioned is down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    drives: BTreeMap<DriveId, DriveCondition>,
}

impl Health {
    /// Sets the condition of a drive.
    pub fn set(&mut self, drive: DriveId, condition: DriveCondition) {
        self.drives.insert(drive, condition);
    }

    /// The condition of a drive.
    pub fn of(&self, drive: DriveId) -> DriveCondition {
        self.drives.get(&drive).copied().unwrap_or(DriveCondition::Down)
    }
}

impl FromIterator<(DriveId, DriveCondition)> for Health {
    fn from_iter<I: IntoIterator<Item = (DriveId, DriveCondition)>>(conditions: I) -> Self {
        Self { drives: conditions.into_iter().collect() }
    }
}

/// An extent to place.
#[derive(Clone, Copy, Debug)]
pub struct Want<'w> {
    /// Which extent.
    pub extent: ExtentId,
    /// Its length in bytes.
    pub len: u32,
    /// Drives not to use, whatever their condition: they failed this very write.
    pub exclude: &'w [DriveId],
    /// The node that writes: if a chosen drive is its own it gets slot 0. Never changes which drives are chosen.
    pub local: Option<NodeId>,
}

/// Where an extent goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// How it is cut.
    pub scheme: Scheme,
    /// The drive of each slot, all in different domains.
    pub drives: Vec<DriveId>,
}

/// Why an extent cannot be placed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A write would not survive `f` failures.
    #[error("{up} of the {needed} domains a durable write needs are up")]
    TooFewDomains {
        /// Domains with a working drive.
        up: usize,
        /// Domains needed.
        needed: usize,
    },
    /// Enough domains are up, but too few of them have space.
    #[error("too few domains have space left for a durable write")]
    Full,
}

/// Chooses scheme and drives for an extent: `m = f`; `k = min(8, d − m)` with `d` the domains that take work, but 1
/// for lengths up to [`COPY_LEN_MAX`].
///
/// # Errors
/// [`Refusal`] if fewer than `f + 1` domains take work.
pub fn place(topology: &Topology, health: &Health, want: &Want<'_>) -> Result<Placement, Refusal> {
    let parity = usize::from(topology.tolerated);
    let candidates = Candidates::gather(topology, health, want.extent, want.len, want.exclude);
    let ranked = candidates.ranked(&BTreeSet::new(), parity + 1)?;
    let data = if want.len <= COPY_LEN_MAX { 1 } else { (ranked.len() - parity).min(DATA_CHUNK_COUNT_MAX) };
    let mut drives: Vec<DriveId> = ranked.into_iter().take(data + parity).collect();
    let local_slot = want.local.and_then(|node| drives.iter().position(|drive| topology.node_of(*drive) == Some(node)));
    if let Some(slot) = local_slot {
        drives[..=slot].rotate_right(1);
    }
    // At most 8 data chunks.
    let data = u8::try_from(data).unwrap_or(1);
    Ok(Placement { scheme: Scheme { data, parity: topology.tolerated }, drives })
}

/// Whether enough domains are up, but too few of them have space left for even a byte.
pub fn is_full(topology: &Topology, health: &Health) -> bool {
    let want = Want { extent: ExtentId::from_bytes([0; 16]), len: 1, exclude: &[], local: None };
    place(topology, health, &want) == Err(Refusal::Full)
}

/// Chooses another drive for the chunk of `slot` of an extent that lies, or is being put, on `drives`. The new drive's
/// domain holds none of the other chunks; the old drive and `want.exclude` are not considered.
///
/// # Errors
/// [`Refusal`] if no such drive takes work: `up` and `needed` then count domains for this one chunk. A write may plan
/// its extent anew, with a smaller k and a new extent id.
pub fn place_replacement(
    topology: &Topology,
    health: &Health,
    want: &Want<'_>,
    drives: &[DriveId],
    slot: usize,
) -> Result<DriveId, Refusal> {
    let domains = topology.drive_domains();
    let others = drives.iter().enumerate().filter(|(other, _)| *other != slot).map(|(_, drive)| drive);
    let taken: BTreeSet<&Domain> = others.filter_map(|drive| domains.get(drive)).collect();
    let exclude: Vec<DriveId> = want.exclude.iter().chain(drives).copied().collect();
    let candidates = Candidates::gather(topology, health, want.extent, want.len, &exclude);
    candidates.ranked(&taken, 1)?.first().copied().ok_or(Refusal::TooFewDomains { up: 0, needed: 1 })
}

/// What a drive can do for the extent at hand.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fitness {
    /// It works but has no space.
    NoSpace,
    /// It takes work if it must.
    Reluctant,
    /// It takes work.
    Fit,
}

struct Candidates {
    by_domain: BTreeMap<Domain, Vec<Candidate>>,
}

#[derive(Clone, Copy)]
struct Candidate {
    drive: DriveId,
    fitness: Fitness,
    score: f64,
}

impl Candidates {
    fn gather(topology: &Topology, health: &Health, extent: ExtentId, len: u32, exclude: &[DriveId]) -> Self {
        let candidate = |drive: DriveId| {
            if exclude.contains(&drive) {
                return None;
            }
            let (fitness, weight) = fitness(health.of(drive), len)?;
            Some(Candidate { drive, fitness, score: score(extent, drive, weight) })
        };
        let domains = topology.domains().into_iter();
        Self {
            by_domain: domains
                .map(|(domain, drives)| (domain, drives.into_iter().filter_map(candidate).collect()))
                .collect(),
        }
    }

    /// The best drive of each domain not in `taken`, best first; slow ones only if fewer than `needed` domains remain
    /// without them.
    fn ranked(&self, taken: &BTreeSet<&Domain>, needed: usize) -> Result<Vec<DriveId>, Refusal> {
        let mut up = 0;
        for least in [Fitness::Fit, Fitness::Reluctant, Fitness::NoSpace] {
            let mut best: Vec<Candidate> = self
                .by_domain
                .iter()
                .filter(|(domain, _)| !taken.contains(domain))
                .filter_map(|(_, drives)| drives.iter().filter(|d| d.fitness >= least).copied().max_by(by_score))
                .collect();
            up = best.len();
            if up >= needed {
                if least == Fitness::NoSpace {
                    return Err(Refusal::Full);
                }
                best.sort_by(|one, other| by_score(other, one));
                return Ok(best.into_iter().map(|candidate| candidate.drive).collect());
            }
        }
        Err(Refusal::TooFewDomains { up, needed })
    }
}

/// By score, then by id, so that the order is total.
fn by_score(one: &Candidate, other: &Candidate) -> std::cmp::Ordering {
    one.score.total_cmp(&other.score).then(one.drive.cmp(&other.drive))
}

/// `None` for a drive that does not count as working.
fn fitness(condition: DriveCondition, len: u32) -> Option<(Fitness, f64)> {
    let roomy = |free_bytes: u64, weight: f64, fitness| {
        if free_bytes >= u64::from(len).max(1) {
            (fitness, free_bytes as f64 * weight)
        } else {
            (Fitness::NoSpace, 0.0)
        }
    };
    match condition {
        DriveCondition::Up { weight_percent: 0, .. } => None,
        DriveCondition::Up { free_bytes, weight_percent } => {
            Some(roomy(free_bytes, f64::from(weight_percent), Fitness::Fit))
        }
        DriveCondition::Slow { free_bytes } => Some(roomy(free_bytes, 100.0, Fitness::Reluctant)),
        DriveCondition::Full => Some((Fitness::NoSpace, 0.0)),
        DriveCondition::Suspect | DriveCondition::Draining | DriveCondition::Failed | DriveCondition::Down => None,
    }
}

fn score(extent: ExtentId, drive: DriveId, weight: f64) -> f64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(extent.as_bytes());
    hasher.update(drive.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    // 53 bits, the precision of an f64, in the open interval (0, 1).
    let uniform = ((u64::from_be_bytes(first) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -weight / uniform.ln()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::topology::tests::cluster;

    const GIB: u64 = 1 << 30;

    fn all_up(topology: &Topology) -> Health {
        let drives = topology.nodes.values().flat_map(|node| node.drives.iter().copied());
        drives.map(|drive| (drive, DriveCondition::Up { free_bytes: 100 * GIB, weight_percent: 100 })).collect()
    }

    fn want(number: u8, len: u32) -> Want<'static> {
        Want { extent: ExtentId::from_bytes([number; 16]), len, exclude: &[], local: None }
    }

    fn scheme_of(nodes: usize, len: u32) -> (u8, u8) {
        let topology = cluster(&vec![None; nodes], 2);
        let placement = place(&topology, &all_up(&topology), &want(1, len)).unwrap();
        assert_eq!(placement.drives.len(), placement.scheme.chunk_count());
        (placement.scheme.data, placement.scheme.parity)
    }

    #[test]
    fn the_scheme_follows_the_domains_that_are_up() {
        let large = |nodes| scheme_of(nodes, EXTENT_LEN_MAX);
        assert_eq!([2, 3, 4, 5, 6, 10, 14].map(large), [(1, 1), (2, 1), (3, 1), (3, 2), (4, 2), (8, 2), (8, 2)]);
        assert_eq!([2, 3, 6].map(|nodes| scheme_of(nodes, COPY_LEN_MAX)), [(1, 1), (1, 1), (1, 2)]);
        assert_eq!([3, 6].map(|nodes| scheme_of(nodes, COPY_LEN_MAX + 1)), [(2, 1), (4, 2)]);
        let lonely = cluster(&[None], 1);
        let placement = place(&lonely, &all_up(&lonely), &want(1, EXTENT_LEN_MAX)).unwrap();
        assert_eq!(placement.scheme, Scheme { data: 1, parity: 0 });
    }

    fn fail_node(health: &mut Health, topology: &Topology, index: usize, condition: DriveCondition) {
        for drive in &topology.nodes.values().nth(index).unwrap().drives {
            health.set(*drive, condition);
        }
    }

    #[test]
    fn with_a_domain_down_k_shrinks_and_m_does_not() {
        let topology = cluster(&[None; 3], 2);
        let mut health = all_up(&topology);
        fail_node(&mut health, &topology, 0, DriveCondition::Down);
        let placement = place(&topology, &health, &want(1, EXTENT_LEN_MAX)).unwrap();
        assert_eq!(placement.scheme, Scheme { data: 1, parity: 1 });
        fail_node(&mut health, &topology, 1, DriveCondition::Suspect);
        let refused = place(&topology, &health, &want(1, EXTENT_LEN_MAX));
        assert_eq!(refused, Err(Refusal::TooFewDomains { up: 1, needed: 2 }));
    }

    #[test]
    fn full_drives_are_told_apart_from_missing_ones() {
        let topology = cluster(&[None; 3], 2);
        let mut health = all_up(&topology);
        fail_node(&mut health, &topology, 0, DriveCondition::Full);
        fail_node(&mut health, &topology, 1, DriveCondition::Up { free_bytes: 10, weight_percent: 100 });
        assert_eq!(place(&topology, &health, &want(1, EXTENT_LEN_MAX)), Err(Refusal::Full));
        assert!(!is_full(&topology, &health), "ten bytes are room for one");
        fail_node(&mut health, &topology, 1, DriveCondition::Full);
        assert!(is_full(&topology, &health));
        fail_node(&mut health, &topology, 0, DriveCondition::Failed);
        fail_node(&mut health, &topology, 1, DriveCondition::Draining);
        assert!(!is_full(&topology, &health), "too few domains is not full");
        let refused = place(&topology, &health, &want(1, EXTENT_LEN_MAX));
        assert_eq!(refused, Err(Refusal::TooFewDomains { up: 1, needed: 2 }));
    }

    #[test]
    fn slow_drives_are_used_only_where_there_are_no_others() {
        let topology = cluster(&[None; 3], 1);
        let mut health = all_up(&topology);
        fail_node(&mut health, &topology, 0, DriveCondition::Slow { free_bytes: 100 * GIB });
        assert_eq!(place(&topology, &health, &want(1, EXTENT_LEN_MAX)).unwrap().drives.len(), 2);
        fail_node(&mut health, &topology, 1, DriveCondition::Slow { free_bytes: 100 * GIB });
        assert_eq!(place(&topology, &health, &want(1, EXTENT_LEN_MAX)).unwrap().drives.len(), 3);
    }

    #[test]
    fn chunks_spread_in_proportion_to_free_space() {
        let topology = cluster(&[None; 4], 1);
        let drives: Vec<DriveId> = topology.nodes.values().map(|node| node.drives[0]).collect();
        let mut health = all_up(&topology);
        health.set(drives[0], DriveCondition::Up { free_bytes: 50 * GIB, weight_percent: 100 });
        health.set(drives[1], DriveCondition::Up { free_bytes: 100 * GIB, weight_percent: 50 });
        let mut first = [0_u32; 4];
        for number in 0..6000_u32 {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&number.to_le_bytes());
            let want = Want { extent: ExtentId::from_bytes(id), ..want(0, 1) };
            let chosen = place(&topology, &health, &want).unwrap().drives[0];
            first[drives.iter().position(|drive| *drive == chosen).unwrap()] += 1;
        }
        let near = |count: u32, expected: u32| count.abs_diff(expected) < 150;
        assert!(
            near(first[0], 1000) && near(first[1], 1000) && near(first[2], 2000) && near(first[3], 2000),
            "{first:?}"
        );
    }

    #[test]
    fn a_replacement_may_be_another_drive_of_the_failed_ones_domain() {
        let topology = cluster(&[None; 3], 2);
        let health = all_up(&topology);
        let placed = place(&topology, &health, &want(1, EXTENT_LEN_MAX)).unwrap();
        let failed = placed.drives[1];
        let other = place_replacement(&topology, &health, &want(1, EXTENT_LEN_MAX), &placed.drives, 1).unwrap();
        assert_ne!(other, failed);
        assert_eq!(topology.node_of(other), topology.node_of(failed));
        let exclude = [other];
        let want = Want { exclude: &exclude, ..want(1, EXTENT_LEN_MAX) };
        let refused = place_replacement(&topology, &health, &want, &placed.drives, 1);
        assert_eq!(refused, Err(Refusal::TooFewDomains { up: 0, needed: 1 }));
    }

    fn distinct_domains(topology: &Topology, drives: &[DriveId]) -> bool {
        drives.iter().map(|drive| topology.domain_of(*drive)).collect::<BTreeSet<_>>().len() == drives.len()
    }

    fn condition() -> impl Strategy<Value = DriveCondition> {
        prop_oneof![
            4 => (EXTENT_LEN_MAX..u32::MAX).prop_map(|free| DriveCondition::Up { free_bytes: u64::from(free), weight_percent: 100 }),
            1 => Just(DriveCondition::Slow { free_bytes: GIB }),
            1 => Just(DriveCondition::Full),
            1 => Just(DriveCondition::Down),
        ]
    }

    proptest! {
        #[test]
        fn placements_are_on_distinct_domains_and_never_refused_without_need(
            nodes in 1..9_usize, drive_count in 1..4_usize, extent: [u8; 16], len in 0..=EXTENT_LEN_MAX,
            conditions in proptest::collection::vec(condition(), 27), local in 0..9_usize,
        ) {
            let topology = cluster(&vec![None; nodes], drive_count);
            let all: Vec<DriveId> = topology.nodes.values().flat_map(|node| node.drives.clone()).collect();
            let health: Health = all.iter().copied().zip(conditions).collect();
            let usable = |drive: &DriveId| {
                matches!(health.of(*drive), DriveCondition::Up { .. } | DriveCondition::Slow { .. })
            };
            let up: BTreeSet<Domain> = all.iter().filter(|d| usable(d)).filter_map(|d| topology.domain_of(*d)).collect();
            let extent = ExtentId::from_bytes(extent);
            let want = Want { extent, len, exclude: &[], local: None };
            let needed = usize::from(topology.tolerated) + 1;
            match place(&topology, &health, &want) {
                Ok(placement) => {
                    prop_assert!(distinct_domains(&topology, &placement.drives));
                    prop_assert!(placement.drives.iter().all(usable));
                    prop_assert_eq!(placement.drives.len(), placement.scheme.chunk_count());
                    prop_assert_eq!(placement.scheme.parity, topology.tolerated);
                    let again = place(&topology, &health, &want);
                    prop_assert_eq!(again.as_ref(), Ok(&placement));
                    let node = topology.nodes.keys().nth(local % nodes).copied();
                    let near = place(&topology, &health, &Want { local: node, ..want }).unwrap();
                    let sorted = |drives: &[DriveId]| drives.iter().copied().collect::<BTreeSet<_>>();
                    prop_assert_eq!(sorted(&near.drives), sorted(&placement.drives));
                    if near.drives.iter().any(|drive| topology.node_of(*drive) == node) {
                        prop_assert_eq!(topology.node_of(near.drives[0]), node);
                    }
                }
                Err(Refusal::TooFewDomains { needed: said, .. }) => {
                    prop_assert_eq!(said, needed);
                    prop_assert!(up.len() < needed);
                }
                Err(Refusal::Full) => prop_assert!(up.len() < needed),
            }
        }

        #[test]
        fn a_drive_that_leaves_moves_at_most_its_own_chunk(
            nodes in 3..9_usize, extent: [u8; 16], leaving in 0..16_usize,
        ) {
            let topology = cluster(&vec![None; nodes], 2);
            let all: Vec<DriveId> = topology.nodes.values().flat_map(|node| node.drives.clone()).collect();
            let mut health = all_up(&topology);
            let want = Want { extent: ExtentId::from_bytes(extent), len: 1, exclude: &[], local: None };
            let before: BTreeSet<DriveId> = place(&topology, &health, &want).unwrap().drives.into_iter().collect();
            let leaving = all[leaving % all.len()];
            health.set(leaving, DriveCondition::Failed);
            let after: BTreeSet<DriveId> = place(&topology, &health, &want).unwrap().drives.into_iter().collect();
            let moved: Vec<&DriveId> = before.difference(&after).collect();
            if before.contains(&leaving) {
                prop_assert_eq!(moved, vec![&leaving]);
            } else {
                prop_assert_eq!(moved, Vec::<&DriveId>::new());
            }
        }

        #[test]
        fn replacements_keep_domains_distinct(
            nodes in 2..9_usize, extent: [u8; 16], len in 1..=EXTENT_LEN_MAX, slot in 0..10_usize,
        ) {
            let topology = cluster(&vec![None; nodes], 2);
            let health = all_up(&topology);
            let want = Want { extent: ExtentId::from_bytes(extent), len, exclude: &[], local: None };
            let mut drives = place(&topology, &health, &want).unwrap().drives;
            let slot = slot % drives.len();
            let replacement = place_replacement(&topology, &health, &want, &drives, slot).unwrap();
            prop_assert!(!drives.contains(&replacement));
            drives[slot] = replacement;
            prop_assert!(distinct_domains(&topology, &drives));
        }
    }
}
