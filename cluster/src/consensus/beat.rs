//! The beat of a node: what its replicas do from time to time, they do at the same moments.
//!
//! An idle node has little to do, but each of its replicas would do it at a moment of its own: a wake-up of the thread
//! for every clock tick, and a datagram each way for every heartbeat. On one beat a node wakes up a few times a second,
//! and the heartbeats of all groups it leads share datagrams.

use std::time::Duration;

use tokio::time::Instant;

/// Moments that all replicas of a node have in common. Copies beat together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    origin: Instant,
}

impl Beat {
    /// A beat that begins at `origin`: usually the start of the node, so that nodes do not beat together.
    #[must_use]
    pub fn new(origin: Instant) -> Self {
        Self { origin }
    }

    /// The first multiple of `period` since the origin that is at or after `time`; `time` itself for a period of 0.
    #[must_use]
    pub fn at_or_after(self, time: Instant, period: Duration) -> Instant {
        let since = time.saturating_duration_since(self.origin).as_nanos();
        let multiples = since.checked_div(period.as_nanos()).map(|whole| {
            let is_between = whole * period.as_nanos() < since;
            whole + u128::from(is_between)
        });
        let nanoseconds = multiples.map_or(since, |multiples| multiples * period.as_nanos());
        self.origin + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// The first multiple of `period` after `time`.
    #[must_use]
    pub fn after(self, time: Instant, period: Duration) -> Instant {
        self.at_or_after(time + Duration::from_nanos(1), period)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_multiples_since_the_origin() {
        let origin = Instant::now();
        let beat = Beat::new(origin);
        let ms = Duration::from_millis;
        let period = ms(100);
        for (time, wanted) in [(0, 0), (1, 100), (99, 100), (100, 100), (101, 200), (12_345, 12_400)] {
            assert_eq!(beat.at_or_after(origin + ms(time), period), origin + ms(wanted), "at {time} ms");
        }
        assert_eq!(beat.after(origin + ms(100), period), origin + ms(200));
        assert_eq!(beat.after(origin + ms(99), period), origin + ms(100));
        assert_eq!(beat.at_or_after(origin + ms(7), Duration::ZERO), origin + ms(7));
        assert_eq!(beat.at_or_after(origin, period), origin);
    }
}
