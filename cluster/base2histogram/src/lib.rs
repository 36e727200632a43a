//! Takes the place of the crate of this name, in which the consensus library keeps statistics of itself.
//!
//! Those statistics are a feature of that library which is off here, yet histograms of each group are made all the same,
//! and nobody can read them. Making the first one lays out tables for every resolution there is: 27 MB that stay
//! resident, of the 60 an idle node may take. These types have the same names and count nothing. Whoever wants the
//! statistics removes this crate and its `[patch]`; `docs/decisions/0012-idle-memory.md` has the story.

use std::fmt;
use std::marker::PhantomData;

/// A histogram that nobody reads: it keeps nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram<T = ()>(PhantomData<T>);

impl<T> Histogram<T> {
    /// An empty histogram.
    #[must_use]
    pub fn new() -> Self {
        Self(PhantomData)
    }

    /// Forgets `value`.
    pub fn record(&mut self, _value: u64) {}

    /// Forgets `count` times `value`.
    pub fn record_n(&mut self, _value: u64, _count: u64) {}

    /// Of nothing.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats::default()
    }
}

/// What a histogram says of its values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PercentileStats {
    /// How many there were: none.
    pub samples: u64,
    /// The median.
    pub p50: u64,
    /// The value that 90 % do not exceed.
    pub p90: u64,
    /// The value that 99 % do not exceed.
    pub p99: u64,
    /// The value that 99.9 % do not exceed.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not counted")
    }
}

/// A picture of histograms: empty.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart(());

impl AsciiChart {
    /// An empty picture.
    #[must_use]
    pub fn new() -> Self {
        Self(())
    }

    /// Adds nothing.
    #[must_use]
    pub fn add<T>(self, _name: &str, _histogram: Histogram<T>) -> Self {
        self
    }
}
