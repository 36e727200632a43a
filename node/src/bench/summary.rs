//! What a run found.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::histogram::Histogram;
use super::plan::Workload;

/// The kinds of operation that are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// `PutObject`.
    Put,
    /// `GetObject`.
    Get,
    /// `DeleteObject`.
    Delete,
    /// One page of `ListObjectsV2`.
    List,
}

/// What one worker, or all of them, counted.
#[derive(Debug, Default)]
pub struct Tally {
    by_operation: BTreeMap<Operation, Histogram>,
    bytes: u64,
    errors: BTreeMap<String, u64>,
}

impl Tally {
    /// Counts a success with the bytes it moved.
    pub fn succeed(&mut self, operation: Operation, took: Duration, bytes: u64) {
        self.by_operation.entry(operation).or_default().record(took);
        self.bytes += bytes;
    }

    /// Counts a failure.
    pub fn fail(&mut self, label: String) {
        *self.errors.entry(label).or_default() += 1;
    }

    /// Adds another tally.
    pub fn add(&mut self, other: &Self) {
        for (operation, histogram) in &other.by_operation {
            self.by_operation.entry(*operation).or_default().add(histogram);
        }
        self.bytes += other.bytes;
        for (label, count) in &other.errors {
            *self.errors.entry(label.clone()).or_default() += count;
        }
    }

    /// The summary of a run that took `elapsed`, with this longest time without any success.
    pub fn summary(&self, workload: Workload, size: u64, elapsed: Duration, longest_stall: Duration) -> Summary {
        let mut all = Histogram::default();
        for histogram in self.by_operation.values() {
            all.add(histogram);
        }
        let seconds = elapsed.as_secs_f64().max(1e-9);
        let latency = |histogram: &Histogram| Latency::of(histogram, seconds);
        Summary {
            workload,
            size_bytes: size,
            seconds,
            bytes: self.bytes,
            mb_per_second: rounded(lossy(self.bytes) / 1e6 / seconds),
            all: latency(&all),
            by_operation: self.by_operation.iter().map(|(name, histogram)| (*name, latency(histogram))).collect(),
            errors: self.errors.values().sum(),
            errors_by_kind: self.errors.clone(),
            longest_stall_ms: millis(longest_stall),
            cleanup: None,
        }
    }
}

/// Rates and latencies of some operations.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Latency {
    /// Successful operations.
    pub operations: u64,
    /// Per second.
    pub per_second: f64,
    /// Median in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile in milliseconds.
    pub p99_ms: f64,
    /// Longest in milliseconds.
    pub max_ms: f64,
}

impl Latency {
    fn of(histogram: &Histogram, seconds: f64) -> Self {
        Self {
            operations: histogram.count(),
            per_second: rounded(lossy(histogram.count()) / seconds),
            p50_ms: millis(histogram.quantile(500)),
            p99_ms: millis(histogram.quantile(990)),
            max_ms: millis(histogram.max()),
        }
    }
}

/// What a run found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// What was measured.
    pub workload: Workload,
    /// Bytes per object.
    pub size_bytes: u64,
    /// Length of the measured part.
    pub seconds: f64,
    /// Bytes of bodies moved by successful operations.
    pub bytes: u64,
    /// Millions of bytes per second.
    pub mb_per_second: f64,
    /// All operations.
    pub all: Latency,
    /// The same per kind.
    pub by_operation: BTreeMap<Operation, Latency>,
    /// Failed operations.
    pub errors: u64,
    /// The same by S3 code, status or kind.
    pub errors_by_kind: BTreeMap<String, u64>,
    /// Longest time in which no operation succeeded, in milliseconds.
    pub longest_stall_ms: f64,
    /// What became of what the run made; absent if it was to stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cleanup: Option<Cleanup>,
}

/// What a run deleted at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cleanup {
    /// Objects deleted.
    pub deleted: u64,
    /// Objects that could not be deleted.
    pub failed: u64,
    /// The first reason why something is left; absent if nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Cleanup {
    /// Notes why something is left; the first reason stays.
    pub fn blame(&mut self, problem: String) {
        self.problem.get_or_insert(problem);
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{:>8}  {:>10} {:>11} {:>9} {:>9} {:>9}", "", "ops", "ops/s", "p50 ms", "p99 ms", "max ms")?;
        let rows = self.by_operation.iter().map(|(name, row)| (format!("{name:?}").to_lowercase(), row));
        for (name, row) in rows.chain((self.by_operation.len() > 1).then_some(("all".to_owned(), &self.all))) {
            let Latency { operations, per_second, p50_ms, p99_ms, max_ms } = row;
            writeln!(f, "{name:>8}  {operations:>10} {per_second:>11.1} {p50_ms:>9.3} {p99_ms:>9.3} {max_ms:>9.3}")?;
        }
        write!(
            f,
            "{:.1} MB/s over {:.1} s; {} errors; longest stall {:.1} ms",
            self.mb_per_second, self.seconds, self.errors, self.longest_stall_ms
        )?;
        self.errors_by_kind.iter().try_for_each(|(kind, count)| write!(f, "\n  {count} × {kind}"))?;
        let Some(Cleanup { deleted, failed, problem: Some(problem) }) = &self.cleanup else { return Ok(()) };
        write!(f, "\nnot cleaned up: {deleted} objects deleted, {failed} left at least: {problem}")
    }
}

#[expect(clippy::cast_precision_loss, reason = "rates for people; 2^53 operations or bytes are out of reach")]
fn lossy(count: u64) -> f64 {
    count as f64
}

fn millis(duration: Duration) -> f64 {
    rounded(duration.as_secs_f64() * 1e3)
}

/// Three decimals are more than the measurement is good for.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_adds_workers_and_divides_by_the_time() {
        let mut tally = Tally::default();
        for (worker, ms) in [(0, 1), (1, 3)] {
            let mut one = Tally::default();
            for _ in 0..100 {
                one.succeed(Operation::Put, Duration::from_millis(ms), 1_000_000);
            }
            one.succeed(Operation::Get, Duration::from_millis(50), 0);
            if worker == 1 {
                one.fail("SlowDown".into());
                one.fail("SlowDown".into());
            }
            tally.add(&one);
        }
        let summary = tally.summary(Workload::Mixed, 7, Duration::from_secs(2), Duration::from_millis(12));
        assert_eq!(summary.all.operations, 202);
        assert!((summary.all.per_second - 101.0).abs() < 1e-9);
        assert!((summary.mb_per_second - 100.0).abs() < 1e-9);
        assert!((summary.all.max_ms - 50.0).abs() < 1e-9 && (summary.longest_stall_ms - 12.0).abs() < 1e-9);
        let put = &summary.by_operation[&Operation::Put];
        assert_eq!(put.operations, 200);
        assert!((1.0..1.04).contains(&put.p50_ms) && (3.0..3.1).contains(&put.p99_ms), "{put:?}");
        assert_eq!((summary.errors, summary.errors_by_kind["SlowDown"]), (2, 2));
        assert!(summary.to_string().contains("2 × SlowDown"), "{summary}");
    }

    #[test]
    fn a_run_without_a_success_has_zero_rates() {
        let summary = Tally::default().summary(Workload::Get, 0, Duration::ZERO, Duration::ZERO);
        assert_eq!((summary.all.operations, summary.errors), (0, 0));
        assert!(summary.all.per_second.abs() < 1e-9 && summary.mb_per_second.abs() < 1e-9);
    }
}
