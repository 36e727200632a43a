//! Which faults a seed has, and when.

use drystone_erasure::files::SimFault;
use drystone_transport::sim::Weather;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::world::World;

/// A kind of fault. Every seed has at least the one of its number and a few drawn ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Datagrams are lost, doubled and damaged for a while.
    Storm,
    /// One node loses power.
    CrashOne,
    /// More than half of the nodes lose power at once.
    CrashMost,
    /// All nodes lose power at once.
    CrashAll,
    /// One node stops in order and comes back.
    StopOne,
    /// One node is cut off.
    Isolate,
    /// The nodes are cut in two.
    Split,
    /// One node is heard by nobody, yet hears everybody.
    OneWay,
    /// Two nodes do not reach each other, all others do.
    CutLink,
    /// The drives of one node become slow.
    SlowDrives,
    /// The power of one node goes in the middle of a write.
    TornWrite,
    /// A node's clock is off.
    Skew,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::CrashAll,
        Self::Storm,
        Self::Isolate,
        Self::CrashOne,
        Self::Split,
        Self::TornWrite,
        Self::OneWay,
        Self::CrashMost,
        Self::StopOne,
        Self::CutLink,
        Self::SlowDrives,
        Self::Skew,
    ];

    /// What it is counted as when it happens.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Storm => "fault: storm",
            Self::CrashOne => "fault: one node loses power",
            Self::CrashMost => "fault: most nodes lose power",
            Self::CrashAll => "fault: all nodes lose power",
            Self::StopOne => "fault: one node stops in order",
            Self::Isolate => "fault: one node is cut off",
            Self::Split => "fault: the nodes are cut in two",
            Self::OneWay => "fault: one node is not heard",
            Self::CutLink => "fault: one link is cut",
            Self::SlowDrives => "fault: slow drives",
            Self::TornWrite => "fault: power goes within a write",
            Self::Skew => "fault: a clock is off",
        }
    }
}

/// One thing done to the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// A fault of this kind begins.
    Begin(Kind),
    /// [`World::set_weather`].
    Weather(Weather),
    /// [`World::crash`] of each.
    Crash(Vec<usize>),
    /// [`World::restart`] of each.
    Restart(Vec<usize>),
    /// [`World::stop`].
    Stop(usize),
    /// [`World::cut`].
    Cut(Vec<usize>, Vec<usize>),
    /// [`World::cut_one_way`].
    CutOneWay(Vec<usize>, Vec<usize>),
    /// [`World::mend_links`].
    MendLinks,
    /// The files of a node meet a fault.
    Files(usize, SimFault),
    /// The files of a node are healthy again.
    HealFiles(usize),
    /// The clock of a node is so many milliseconds off.
    Skew(usize, i64),
}

impl World {
    /// Does it.
    pub fn act(&mut self, act: &Act) {
        match act {
            Act::Begin(kind) => {
                self.trace().event(kind.name());
                self.trace().fired(kind.name());
            }
            Act::Weather(weather) => self.set_weather(*weather),
            Act::Crash(nodes) => nodes.iter().for_each(|node| self.crash(*node)),
            Act::Restart(nodes) => nodes.iter().for_each(|node| self.restart(*node)),
            Act::Stop(node) => self.stop(*node),
            Act::Cut(these, those) => self.cut(these, those),
            Act::CutOneWay(from, to) => self.cut_one_way(from, to),
            Act::MendLinks => self.mend_links(),
            Act::Files(node, fault) => self.disturb_files(*node, *fault),
            Act::HealFiles(node) => self.heal_files(*node),
            Act::Skew(node, skew_ms) => self.skew_clock(*node, *skew_ms),
        }
    }
}

/// When what is done, in order; times are milliseconds from the beginning of the safety phase.
pub type Plan = Vec<(u64, Act)>;

/// Draws the faults of a seed for a safety phase of `len_ms`.
#[must_use]
pub fn plan(seed: u64, rng: &mut StdRng, node_count: usize, len_ms: u64) -> Plan {
    let own = Kind::ALL[usize::try_from(seed % Kind::ALL.len() as u64).unwrap_or(0)];
    let mut kinds = vec![own];
    for _ in 0..rng.random_range(1..=4) {
        kinds.push(Kind::ALL[rng.random_range(0..Kind::ALL.len())]);
    }
    let mut plan = Plan::new();
    for kind in kinds {
        let begin_ms = rng.random_range(0..len_ms * 2 / 3);
        // Short ones end before anybody notices, long ones after everybody has.
        let len_ms = [300, 1_500, 4_000, 8_000][rng.random_range(0..4)];
        plan.push((begin_ms, Act::Begin(kind)));
        plan.extend(draw(kind, rng, node_count, len_ms).into_iter().map(|(at_ms, act)| (begin_ms + at_ms, act)));
    }
    plan.sort_by_key(|(at_ms, _)| *at_ms);
    plan
}

fn draw(kind: Kind, rng: &mut StdRng, node_count: usize, len_ms: u64) -> Plan {
    let mut nodes: Vec<usize> = (0..node_count).collect();
    nodes.shuffle(rng);
    let (one, others) = (nodes[0], nodes[1..].to_vec());
    let most = nodes[..node_count / 2 + 1].to_vec();
    let outage = |nodes: Vec<usize>| vec![(0, Act::Crash(nodes.clone())), (len_ms, Act::Restart(nodes))];
    let cut = |act| vec![(0, act), (len_ms, Act::MendLinks)];
    match kind {
        Kind::Storm => {
            let weather = Weather {
                loss: rng.random_range(0.01..0.1),
                duplication: rng.random_range(0.0..0.1),
                corruption: rng.random_range(0.0..0.03),
            };
            vec![(0, Act::Weather(weather)), (len_ms, Act::Weather(Weather::default()))]
        }
        Kind::CrashOne => outage(vec![one]),
        Kind::CrashMost => outage(most),
        Kind::CrashAll => outage(nodes),
        Kind::StopOne => vec![(0, Act::Stop(one)), (len_ms + 4_000, Act::Restart(vec![one]))],
        Kind::Isolate => cut(Act::Cut(vec![one], others)),
        Kind::Split => cut(Act::Cut(nodes[..node_count / 2].to_vec(), nodes[node_count / 2..].to_vec())),
        Kind::OneWay => cut(Act::CutOneWay(vec![one], others)),
        Kind::CutLink => cut(Act::Cut(vec![one], vec![others[0]])),
        Kind::SlowDrives => {
            let delay = std::time::Duration::from_millis(rng.random_range(5..400));
            vec![(0, Act::Files(one, SimFault::Slow(delay))), (len_ms, Act::HealFiles(one))]
        }
        Kind::TornWrite => vec![
            (0, Act::Files(one, SimFault::CrashAfter(rng.random_range(1..12)))),
            (rng.random_range(20..300), Act::Crash(vec![one])),
            (len_ms + 300, Act::Restart(vec![one])),
        ],
        Kind::Skew => {
            let skew_ms = rng.random_range(-40_000..40_000);
            vec![(0, Act::Skew(one, skew_ms)), (len_ms, Act::Skew(one, 0))]
        }
    }
}
