//! Whether the ring of answers is long enough for the pace of a group.
//!
//! A retry is recognised while its command is among the last [`RING_SLOTS`] of the group. A leader therefore takes no new
//! command that would push commands out which may still be retried. Every replica keeps count while it applies, so that
//! a new leader knows what the old one did. Time is an argument.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::ring::RING_SLOTS;

/// How long a command may be retried: the 8 s for which clients ask, and as much again for messages under way.
const RETRY_WINDOW: Duration = Duration::from_secs(15);
/// Least time between two marks; what is counted is up to this much longer than the window.
const MARK_INTERVAL: Duration = Duration::from_secs(1);

/// How far a group had come, about once a second, over the last [`RETRY_WINDOW`].
#[derive(Debug)]
pub(super) struct Pace {
    /// Time and log index, oldest first; all but the first are younger than the window.
    marks: VecDeque<(Instant, u64)>,
    /// The newest of them all, which is no mark yet.
    applied: (Instant, u64),
}

impl Pace {
    /// Nothing is known of what came before `applied`.
    pub(super) fn new(now: Instant, applied: u64) -> Self {
        Self { marks: VecDeque::from([(now, applied)]), applied: (now, applied) }
    }

    /// Entries up to `applied` are about to be applied.
    pub(super) fn note(&mut self, now: Instant, applied: u64) {
        if self.marks.back().is_none_or(|(time, _)| now.duration_since(*time) >= MARK_INTERVAL) {
            self.marks.push_back(self.applied);
        }
        while self.marks.get(1).is_some_and(|(time, _)| now.duration_since(*time) >= RETRY_WINDOW) {
            self.marks.pop_front();
        }
        self.applied = (now, applied);
    }

    /// How long a new command must wait, if `inflight` others may be applied before it.
    pub(super) fn delay(&self, now: Instant, inflight: usize) -> Option<Duration> {
        let room = u64::from(RING_SLOTS).saturating_sub(u64::try_from(inflight).unwrap_or(u64::MAX));
        let (time, _) = self.marks.iter().rfind(|(_, index)| self.applied.1.saturating_sub(*index) >= room)?;
        // Too many since that mark: wait until the window begins at the next one.
        let next = self.marks.iter().find(|(later, _)| later > time).map_or(self.applied.0, |(later, _)| *later);
        Some((next + RETRY_WINDOW).saturating_duration_since(now)).filter(|delay| !delay.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies `rate` commands a second as the pace lets it, in steps of 10 ms; returns (time, index) of each step.
    fn run(rate: u64, seconds: u64, inflight: usize) -> Vec<(Instant, u64)> {
        let begun = Instant::now();
        let mut pace = Pace::new(begun, 0);
        let mut steps = Vec::new();
        let mut index = 0;
        for step in 0..seconds * 100 {
            let now = begun + Duration::from_millis(step * 10);
            if pace.delay(now, inflight).is_none() {
                index += rate / 100;
                pace.note(now, index);
            }
            steps.push((now, index));
        }
        steps
    }

    fn most_within_the_window(steps: &[(Instant, u64)]) -> u64 {
        let count = usize::try_from(RETRY_WINDOW.as_millis() / 10).unwrap();
        steps.windows(count).map(|window| window[count - 1].1 - window[0].1).max().unwrap()
    }

    #[test]
    fn a_pace_that_the_ring_can_hold_is_not_delayed() {
        let steps = run(3_500, 60, 4_096);
        assert_eq!(steps.last().unwrap().1, 3_500 * 60);
    }

    #[test]
    fn no_pace_pushes_out_a_command_that_may_still_be_retried() {
        for rate in [5_000, 20_000, 300_000] {
            let steps = run(rate, 60, 4_096);
            let most = most_within_the_window(&steps);
            assert!(most <= u64::from(RING_SLOTS), "{rate}: {most}");
            let total = steps.last().unwrap().1;
            assert!(total >= 60 / 16 * 61_000, "{rate}: {total}: waits for no reason");
        }
    }
}
