//! Counts latencies in buckets of about 3 % width, as HdrHistogram does (Tene 2012): 32 equal buckets per power of
//! two. Fixed size, no allocation while recording.

use std::time::Duration;

/// Buckets per power of two.
const STEPS: usize = 32;
/// log2 of it.
const STEPS_LOG2: usize = 5;
/// Enough for any 64-bit count of nanoseconds.
const BUCKETS: usize = (64 - STEPS_LOG2 + 1) * STEPS;

/// A histogram of durations. About 15 KiB.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, max_ns: 0 }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(bucket_of(ns)) {
            *count += 1;
        }
        self.total += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    /// Adds the counts of another one.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The longest duration, exactly.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max_ns)
    }

    /// The duration that `per_mille` of 1000 did not exceed: the upper end of its bucket, so at most 3 % too much.
    /// Zero when nothing was counted.
    pub fn quantile(&self, per_mille: u64) -> Duration {
        let rank = (self.total * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(upper_end_of(bucket).min(self.max_ns));
            }
        }
        Duration::ZERO
    }
}

/// Values below 32 have a bucket each; above, the five bits after the leading one choose the bucket of its power.
fn bucket_of(ns: u64) -> usize {
    let log2 = usize::try_from(ns.max(1).ilog2()).unwrap_or(0);
    let shift = log2.saturating_sub(STEPS_LOG2);
    shift * STEPS + usize::try_from(ns >> shift).unwrap_or(0)
}

fn upper_end_of(bucket: usize) -> u64 {
    let shift = (bucket / STEPS).saturating_sub(1);
    let first = (bucket - shift * STEPS) as u64;
    ((first + 1) << shift).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn every_value_lies_in_its_bucket_within_three_percent(ns in proptest::num::u64::ANY) {
            let bucket = bucket_of(ns);
            let end = upper_end_of(bucket);
            proptest::prop_assert!(bucket < BUCKETS && end >= ns && end - ns <= ns / 32);
            proptest::prop_assert!(bucket == 0 || upper_end_of(bucket - 1) < ns);
        }
    }

    #[test]
    fn quantiles_are_the_ranks_of_what_was_counted() {
        let mut histogram = Histogram::default();
        for us in 1..=1000 {
            histogram.record(Duration::from_micros(us));
        }
        for (per_mille, us) in [(500, 500), (990, 990), (1000, 1000)] {
            let found = histogram.quantile(per_mille).as_nanos();
            assert!((us * 1000..=us * 1032).contains(&found), "{per_mille}: {found}");
        }
        assert_eq!(histogram.max(), Duration::from_millis(1));
        let mut both = Histogram::default();
        both.add(&histogram);
        both.add(&histogram);
        assert_eq!((both.count(), both.quantile(500)), (2000, histogram.quantile(500)));
        assert_eq!(Histogram::default().quantile(990), Duration::ZERO);
    }
}
