//! Whether peers answer: alive → suspect → down → alive.
//!
//! A pure function of samples and `now`, the time since the node started. It sends nothing: whoever owns it probes
//! every tracked peer at every interval, suspect and down ones included, and reports what came of it. Being down is
//! concluded from missed probes *and* from time, so that a node that was itself paused does not take its own silence
//! for that of its peers.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::NodeId;

/// The detector's thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DetectorConfig {
    /// How often every peer is probed. Default 1 s.
    pub probe_interval: Duration,
    /// A peer that misses so many probes in a row is suspect. Default 3, at least 1.
    pub suspect_after_missed: u32,
    /// A suspect peer without an answer for so long is down. Default 10 s.
    pub down_after: Duration,
    /// A suspect or down peer that answers so many probes in a row is alive again. Default 3, at least 1.
    pub alive_after_answers: u32,
}

impl Default for DetectorConfig {
    fn default() -> Self {
        Self {
            probe_interval: Duration::from_secs(1),
            suspect_after_missed: 3,
            down_after: Duration::from_secs(10),
            alive_after_answers: 3,
        }
    }
}

/// What is thought of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerState {
    /// It answers.
    Alive,
    /// It has missed probes, or was never heard of: new work goes elsewhere.
    Suspect,
    /// It has been silent for long.
    Down,
}

/// A change of mind about a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// About whom.
    pub peer: NodeId,
    /// What was thought before.
    pub from: PeerState,
    /// What is thought now.
    pub to: PeerState,
    /// Since when.
    pub at: Duration,
}

/// All that is known of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerReport {
    /// What is thought of it.
    pub state: PeerState,
    /// Since when.
    pub since: Duration,
    /// When it last answered; `None` if never.
    pub last_answer: Option<Duration>,
    /// Smoothed round trip (an eighth of each new sample); `None` before the first answer.
    pub round_trip: Option<Duration>,
    /// Probes missed in a row.
    pub missed_count: u32,
    /// Probes answered in a row.
    pub answered_count: u32,
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    report: PeerReport,
    /// Silence is counted from here before the first answer.
    tracked_at: Duration,
}

/// Judges peers by their answers.
///
/// A peer that was never heard of starts out suspect, so that no work is sent to it, and is alive with its first
/// answer; once alive it takes [`DetectorConfig::alive_after_answers`] in a row to come back.
#[derive(Clone, Debug)]
pub struct Detector {
    config: DetectorConfig,
    peers: BTreeMap<NodeId, Peer>,
    transitions: Vec<Transition>,
}

impl Detector {
    /// A detector that tracks nobody yet.
    pub fn new(config: DetectorConfig) -> Self {
        Self { config, peers: BTreeMap::new(), transitions: Vec::new() }
    }

    /// The thresholds.
    pub fn config(&self) -> DetectorConfig {
        self.config
    }

    /// Tracks exactly these peers from now on; what is known of those that stay is kept.
    pub fn track(&mut self, peers: impl IntoIterator<Item = NodeId>, now: Duration) {
        let mut known = std::mem::take(&mut self.peers);
        self.peers = peers.into_iter().map(|id| (id, known.remove(&id).unwrap_or_else(|| Peer::new(now)))).collect();
    }

    /// Every tracked peer: all of them are to be probed at every interval, whatever is thought of them.
    pub fn peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.peers.keys().copied()
    }

    /// A probe was answered at `now` after `round_trip`. A peer that is not tracked is ignored.
    pub fn on_answer(&mut self, peer: NodeId, now: Duration, round_trip: Duration) {
        let Some(record) = self.peers.get_mut(&peer) else { return };
        let report = &mut record.report;
        let first = report.last_answer.is_none();
        report.last_answer = Some(report.last_answer.map_or(now, |last| last.max(now)));
        report.round_trip = Some(report.round_trip.map_or(round_trip, |old| (old * 7 + round_trip) / 8));
        report.missed_count = 0;
        report.answered_count = report.answered_count.saturating_add(1);
        let enough = first || report.answered_count >= self.config.alive_after_answers;
        if enough && report.state != PeerState::Alive {
            self.transitions.push(record.turn(peer, PeerState::Alive, now));
        }
    }

    /// A probe was not answered in time, or could not be sent. A peer that is not tracked is ignored.
    pub fn on_miss(&mut self, peer: NodeId, now: Duration) {
        let Some(record) = self.peers.get_mut(&peer) else { return };
        record.report.answered_count = 0;
        record.report.missed_count = record.report.missed_count.saturating_add(1);
        let missed = record.report.missed_count >= self.config.suspect_after_missed;
        if missed && record.report.state == PeerState::Alive {
            self.transitions.push(record.turn(peer, PeerState::Suspect, now));
        }
    }

    /// Concludes from the time that passed; returns all changes of mind since the last call, in the order in which they
    /// happened.
    pub fn tick(&mut self, now: Duration) -> Vec<Transition> {
        for (id, peer) in &mut self.peers {
            let silent = now.saturating_sub(peer.report.last_answer.unwrap_or(peer.tracked_at));
            let missed = peer.report.missed_count >= self.config.suspect_after_missed;
            if peer.report.state == PeerState::Suspect && missed && silent >= self.config.down_after {
                self.transitions.push(peer.turn(*id, PeerState::Down, now));
            }
        }
        std::mem::take(&mut self.transitions)
    }

    /// What is thought of a peer; one that is not tracked is suspect.
    pub fn state(&self, peer: NodeId) -> PeerState {
        self.peers.get(&peer).map_or(PeerState::Suspect, |peer| peer.report.state)
    }

    /// All that is known of a peer; `None` if it is not tracked.
    pub fn report(&self, peer: NodeId) -> Option<PeerReport> {
        self.peers.get(&peer).map(|peer| peer.report)
    }
}

impl Peer {
    fn new(now: Duration) -> Self {
        let report = PeerReport {
            state: PeerState::Suspect,
            since: now,
            last_answer: None,
            round_trip: None,
            missed_count: 0,
            answered_count: 0,
        };
        Self { report, tracked_at: now }
    }

    fn turn(&mut self, peer: NodeId, to: PeerState, at: Duration) -> Transition {
        let from = std::mem::replace(&mut self.report.state, to);
        self.report.since = at;
        Transition { peer, from, to, at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId::from_bytes([1; 8]);
    const RTT: Duration = Duration::from_millis(8);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn alive_at(now: Duration) -> Detector {
        let mut detector = Detector::new(DetectorConfig::default());
        detector.track([PEER], s(0));
        detector.on_answer(PEER, now, RTT);
        detector.tick(now);
        detector
    }

    fn turn(from: PeerState, to: PeerState, at: Duration) -> Vec<Transition> {
        vec![Transition { peer: PEER, from, to, at }]
    }

    #[test]
    fn a_peer_is_suspect_until_its_first_answer() {
        let mut detector = Detector::new(DetectorConfig::default());
        detector.track([PEER], s(0));
        assert_eq!(detector.state(PEER), PeerState::Suspect);
        assert_eq!(detector.tick(s(60)), []);
        detector.on_answer(PEER, s(60), RTT);
        assert_eq!(detector.tick(s(60)), turn(PeerState::Suspect, PeerState::Alive, s(60)));
    }

    #[test]
    fn three_missed_probes_make_suspect_and_ten_seconds_make_down() {
        let mut detector = alive_at(s(1));
        for second in 2..4 {
            detector.on_miss(PEER, s(second));
            assert_eq!(detector.tick(s(second)), []);
        }
        detector.on_miss(PEER, s(4));
        assert_eq!(detector.tick(s(4)), turn(PeerState::Alive, PeerState::Suspect, s(4)));
        assert_eq!(detector.tick(Duration::from_millis(10_999)), []);
        assert_eq!(detector.tick(s(11)), turn(PeerState::Suspect, PeerState::Down, s(11)));
        assert_eq!(detector.report(PEER).map(|report| (report.missed_count, report.since)), Some((3, s(11))));
    }

    #[test]
    fn an_answer_between_misses_starts_the_count_again() {
        let mut detector = alive_at(s(1));
        for second in [2, 3, 5, 6] {
            detector.on_miss(PEER, s(second));
            if second == 3 {
                detector.on_answer(PEER, s(4), RTT);
            }
        }
        assert_eq!((detector.tick(s(6)), detector.state(PEER)), (vec![], PeerState::Alive));
    }

    #[test]
    fn three_answers_in_a_row_bring_a_down_peer_back() {
        let mut detector = alive_at(s(1));
        (2..5).for_each(|second| detector.on_miss(PEER, s(second)));
        detector.tick(s(20));
        assert_eq!(detector.state(PEER), PeerState::Down);
        detector.on_answer(PEER, s(21), RTT);
        detector.on_answer(PEER, s(22), RTT);
        detector.on_miss(PEER, s(23));
        detector.on_answer(PEER, s(24), RTT);
        detector.on_answer(PEER, s(25), RTT);
        assert_eq!(detector.tick(s(25)), []);
        detector.on_answer(PEER, s(26), RTT);
        assert_eq!(detector.tick(s(26)), turn(PeerState::Down, PeerState::Alive, s(26)));
    }

    #[test]
    fn a_node_that_was_paused_does_not_blame_its_peers() {
        let mut detector = alive_at(s(1));
        assert_eq!(detector.tick(s(600)), []);
        assert_eq!(detector.state(PEER), PeerState::Alive);
    }

    #[test]
    fn a_peer_never_heard_of_goes_down_after_missing_probes() {
        let mut detector = Detector::new(DetectorConfig::default());
        detector.track([PEER], s(5));
        (6..9).for_each(|second| detector.on_miss(PEER, s(second)));
        assert_eq!(detector.tick(s(14)), []);
        assert_eq!(detector.tick(s(15)), turn(PeerState::Suspect, PeerState::Down, s(15)));
    }

    #[test]
    fn tracking_keeps_what_is_known_and_forgets_who_left() {
        let other = NodeId::from_bytes([2; 8]);
        let mut detector = alive_at(s(1));
        detector.track([PEER, other], s(2));
        assert_eq!((detector.state(PEER), detector.state(other)), (PeerState::Alive, PeerState::Suspect));
        detector.track([other], s(3));
        assert_eq!(detector.peers().collect::<Vec<_>>(), [other]);
        detector.on_answer(PEER, s(4), RTT);
        assert_eq!((detector.tick(s(4)), detector.report(PEER)), (vec![], None));
    }

    #[test]
    fn the_round_trip_is_smoothed() {
        let mut detector = alive_at(s(1));
        detector.on_answer(PEER, s(2), Duration::from_millis(16));
        assert_eq!(detector.report(PEER).and_then(|report| report.round_trip), Some(Duration::from_millis(9)));
    }
}
