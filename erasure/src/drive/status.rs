//! How a drive is doing, readable at any time without a lock or a system call.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::error::{DriveError, FailReason};
use super::metrics::DriveMetrics;
use crate::ids::DriveId;

/// I/O errors and damaged reads after which a drive counts as failing.
const FAILING_ERRORS: u64 = 8;

/// What a drive is fit for, worst last but one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriveState {
    /// Takes everything.
    Healthy,
    /// Works, but far slower than it should: steer new work elsewhere.
    Slow,
    /// Reads fail or find damage more than now and then.
    Failing,
    /// Takes no more changes until an operator acts; reads are still answered where possible.
    Failed {
        /// What went wrong first.
        reason: FailReason,
    },
    /// Takes only deletions and healing.
    Full,
}

/// A snapshot of a drive's condition.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DriveStatus {
    /// What it is fit for.
    pub state: DriveState,
    /// Bytes that the drive may use in all.
    pub capacity_bytes: u64,
    /// Bytes that ordinary appends may still take.
    pub free_bytes: u64,
    /// Bytes of live chunks, heads included.
    pub used_bytes: u64,
    /// Live chunks.
    pub chunk_count: u64,
    /// Failed writes, syncs and name changes since the drive was opened.
    pub write_errors: u64,
    /// Reads that the operating system failed since the drive was opened.
    pub read_errors: u64,
    /// Reads that found damaged bytes since the drive was opened.
    pub corrupt_reads: u64,
    /// Usual time of an append, asking to durable: moving average.
    pub append_latency: Duration,
    /// Usual time of a read: moving average.
    pub read_latency: Duration,
    /// The operating system's number of the error that failed the drive, if it has failed and there was one.
    pub failed_errno: Option<i32>,
}

impl DriveStatus {
    /// Why the drive takes no changes, in words for an operator; `None` while it does.
    pub fn problem(&self) -> Option<String> {
        let DriveState::Failed { reason } = self.state else { return None };
        Some(match self.failed_errno {
            Some(errno) => format!("{}: {}", reason.operation(), io::Error::from_raw_os_error(errno)),
            None => reason.to_string(),
        })
    }
}

/// What failed a drive, kept for as long as it is open.
#[derive(Clone, Copy)]
struct Failure {
    reason: FailReason,
    errno: Option<i32>,
}

/// The live numbers behind [`DriveStatus`].
pub(super) struct Vitals {
    drive: DriveId,
    dir: PathBuf,
    slow_after: Duration,
    born: Instant,
    metrics: DriveMetrics,
    failed: Mutex<Option<Failure>>,
    has_failed: AtomicU64,
    pub(super) capacity_bytes: AtomicU64,
    pub(super) free_bytes: AtomicU64,
    pub(super) used_bytes: AtomicU64,
    pub(super) chunk_count: AtomicU64,
    /// Shortest append refused for lack of room; the drive is full while there is less free.
    refused_len: AtomicU64,
    write_errors: AtomicU64,
    read_errors: AtomicU64,
    corrupt_reads: AtomicU64,
    append_us: AtomicU64,
    read_us: AtomicU64,
    /// Since when the writer has been busy with one commit, in µs since `born` plus 1; 0 when idle.
    busy_since_us: AtomicU64,
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Moving average over about eight samples.
fn average(cell: &AtomicU64, sample: Duration) {
    let sample = micros(sample);
    let old = cell.load(Ordering::Relaxed);
    let new = if old == 0 { sample } else { old - old / 8 + sample / 8 };
    // Two samples at once may lose one; it is an average.
    cell.store(new.max(1), Ordering::Relaxed);
}

impl Vitals {
    pub(super) fn new(drive: DriveId, dir: &Path, slow_after: Duration, metrics: DriveMetrics) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            drive,
            dir: dir.to_owned(),
            slow_after,
            born: Instant::now(),
            metrics,
            failed: Mutex::new(None),
            has_failed: zero(),
            capacity_bytes: zero(),
            free_bytes: zero(),
            used_bytes: zero(),
            chunk_count: zero(),
            refused_len: zero(),
            write_errors: zero(),
            read_errors: zero(),
            corrupt_reads: zero(),
            append_us: zero(),
            read_us: zero(),
            busy_since_us: zero(),
        }
    }

    /// Fails the drive for good. The first reason stays.
    pub(super) fn fail(&self, reason: FailReason) -> DriveError {
        self.fail_for(reason, None)
    }

    /// The same where the operating system said why.
    pub(super) fn fail_io(&self, reason: fn(io::ErrorKind) -> FailReason, error: &io::Error) -> DriveError {
        self.fail_for(reason(error.kind()), Some(error))
    }

    fn fail_for(&self, reason: FailReason, error: Option<&io::Error>) -> DriveError {
        self.write_errors.fetch_add(1, Ordering::Relaxed);
        self.metrics.write_errors.inc();
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = failed.is_none();
        let first = *failed.get_or_insert(Failure { reason, errno: error.and_then(io::Error::raw_os_error) });
        self.has_failed.store(1, Ordering::Release);
        drop(failed);
        if is_first {
            self.say_failed(reason, error);
        }
        DriveError::Failed { drive: self.drive, reason: first.reason }
    }

    /// Once in the life of an open drive, so it needs no limit.
    fn say_failed(&self, reason: FailReason, error: Option<&io::Error>) {
        let cause = error.map_or_else(|| reason.to_string(), io::Error::to_string);
        tracing::error!(
            drive = %self.drive, path = %self.dir.display(), operation = reason.operation(), %cause,
            "a drive has failed and takes no more changes: replace or check the drive, then restart the node"
        );
    }

    pub(super) fn failure(&self) -> Option<FailReason> {
        if self.has_failed.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.first_failure().map(|failure| failure.reason)
    }

    fn first_failure(&self) -> Option<Failure> {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn check_writable(&self) -> Result<(), DriveError> {
        match self.failure() {
            Some(reason) => Err(DriveError::Failed { drive: self.drive, reason }),
            None => Ok(()),
        }
    }

    pub(super) fn refuse(&self, len: u64) -> DriveError {
        self.metrics.refused_full.inc();
        let old = self.refused_len.load(Ordering::Relaxed);
        self.refused_len.store(if old == 0 { len } else { old.min(len) }, Ordering::Relaxed);
        DriveError::Full(self.drive)
    }

    pub(super) fn count_read_error(&self) {
        self.read_errors.fetch_add(1, Ordering::Relaxed);
        self.metrics.read_errors.inc();
    }

    pub(super) fn count_corrupt_read(&self) {
        self.corrupt_reads.fetch_add(1, Ordering::Relaxed);
        self.metrics.corrupt_reads.inc();
    }

    pub(super) fn record_append(&self, took: Duration) {
        average(&self.append_us, took);
        self.metrics.append_seconds.observe(took.as_secs_f64());
    }

    pub(super) fn record_read(&self, took: Duration) {
        average(&self.read_us, took);
        self.metrics.read_seconds.observe(took.as_secs_f64());
    }

    pub(super) fn set_busy(&self) {
        self.busy_since_us.store(micros(self.born.elapsed()).saturating_add(1), Ordering::Relaxed);
    }

    pub(super) fn set_idle(&self) {
        self.busy_since_us.store(0, Ordering::Relaxed);
    }

    pub(super) fn publish(&self, capacity: u64, free: u64, used: u64, chunks: u64) {
        self.capacity_bytes.store(capacity, Ordering::Relaxed);
        self.free_bytes.store(free, Ordering::Relaxed);
        self.used_bytes.store(used, Ordering::Relaxed);
        self.chunk_count.store(chunks, Ordering::Relaxed);
        if free >= self.refused_len.load(Ordering::Relaxed) {
            self.refused_len.store(0, Ordering::Relaxed);
        }
        let gauge = |value| i64::try_from(value).unwrap_or(i64::MAX);
        self.metrics.free_bytes.set(gauge(free));
        self.metrics.used_bytes.set(gauge(used));
        self.metrics.chunks.set(gauge(chunks));
    }

    pub(super) fn status(&self) -> DriveStatus {
        let load = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        DriveStatus {
            state: self.state(),
            capacity_bytes: load(&self.capacity_bytes),
            free_bytes: load(&self.free_bytes),
            used_bytes: load(&self.used_bytes),
            chunk_count: load(&self.chunk_count),
            write_errors: load(&self.write_errors),
            read_errors: load(&self.read_errors),
            corrupt_reads: load(&self.corrupt_reads),
            append_latency: Duration::from_micros(load(&self.append_us)),
            read_latency: Duration::from_micros(load(&self.read_us)),
            failed_errno: self.failure().and_then(|_| self.first_failure()?.errno),
        }
    }

    fn state(&self) -> DriveState {
        let load = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        if let Some(reason) = self.failure() {
            return DriveState::Failed { reason };
        }
        if load(&self.read_errors) + load(&self.corrupt_reads) >= FAILING_ERRORS {
            return DriveState::Failing;
        }
        let free = load(&self.free_bytes);
        if free == 0 || free < load(&self.refused_len) {
            return DriveState::Full;
        }
        let busy = match load(&self.busy_since_us) {
            0 => 0,
            since => micros(self.born.elapsed()).saturating_sub(since - 1),
        };
        let slowest = load(&self.append_us).max(load(&self.read_us)).max(busy);
        if slowest > micros(self.slow_after) { DriveState::Slow } else { DriveState::Healthy }
    }
}
