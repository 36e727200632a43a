//! The beat of a node: what it does from time to time, it does at the same moments.
//!
//! An idle node has little to do, but each of its replicas and workers would do it at a moment of its own: a wake-up of
//! the thread for every clock tick, and a datagram each way for every heartbeat. On one beat a node wakes up a few times
//! a second, and what it has to say to a peer shares datagrams.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Moments that everything on a node has in common. Copies beat together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    origin: Instant,
    phase: Duration,
}

impl Beat {
    /// A beat whose period `p` goes off at `phase % p` after `origin`, and then every `p`. Each node should have a phase
    /// of its own, so that nodes which start together do not beat together.
    #[must_use]
    pub fn new(origin: Instant, phase: Duration) -> Self {
        Self { origin, phase }
    }

    /// The first moment of `period` at or after `time`; `time` itself for a period of 0.
    #[must_use]
    pub fn at_or_after(self, time: Instant, period: Duration) -> Instant {
        let Some(phase) = self.phase.as_nanos().checked_rem(period.as_nanos()) else { return time };
        let first = self.origin + nanoseconds(phase);
        let since = time.saturating_duration_since(first).as_nanos();
        first + nanoseconds(since.div_ceil(period.as_nanos()) * period.as_nanos())
    }

    /// Waits for the next moment of `period`. Cancelling loses nothing.
    pub async fn wait(self, period: Duration) {
        // The moment that is now is past.
        sleep_until(self.at_or_after(Instant::now() + Duration::from_nanos(1), period)).await;
    }
}

fn nanoseconds(count: u128) -> Duration {
    Duration::from_nanos(u64::try_from(count).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn moments_are_multiples_behind_the_phase() {
        let origin = Instant::now();
        let beat = Beat::new(origin, ms(730));
        for (time, wanted) in [(0, 30), (29, 30), (30, 30), (31, 130), (130, 130), (12_345, 12_430)] {
            assert_eq!(beat.at_or_after(origin + ms(time), ms(100)), origin + ms(wanted), "at {time} ms");
        }
        assert_eq!(beat.at_or_after(origin, ms(1000)), origin + ms(730));
        assert_eq!(beat.at_or_after(origin + ms(7), Duration::ZERO), origin + ms(7));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_at_every_moment_once() {
        let origin = Instant::now();
        let beat = Beat::new(origin, ms(50));
        for wanted in [50, 150, 250] {
            beat.wait(ms(100)).await;
            assert_eq!(origin.elapsed(), ms(wanted));
        }
    }
}
