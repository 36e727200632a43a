//! What a drive counts, for Prometheus. One struct per drive; the drive is a constant label.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Opts, Registry};

/// Buckets of latencies, in seconds: from a cached read to a drive that stalls.
const SECONDS: [f64; 12] = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0];
/// Buckets of records per commit.
const RECORDS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 256.0, 1024.0];

/// Counters of one drive. Cloning shares them.
#[derive(Clone)]
pub struct DriveMetrics {
    pub(super) append_seconds: Histogram,
    pub(super) read_seconds: Histogram,
    pub(super) commit_records: Histogram,
    pub(super) syncs: IntCounter,
    pub(super) append_bytes: IntCounter,
    pub(super) read_bytes: IntCounter,
    pub(super) tombstones: IntCounter,
    pub(super) write_errors: IntCounter,
    pub(super) read_errors: IntCounter,
    pub(super) corrupt_reads: IntCounter,
    pub(super) missing_reads: IntCounter,
    pub(super) refused_full: IntCounter,
    pub(super) compacted_bytes: IntCounter,
    pub(super) punched_bytes: IntCounter,
    pub(super) segments_freed: IntCounter,
    pub(super) checkpoints: IntCounter,
    pub(super) index_rebuilds: IntCounter,
    pub(super) corrupt_regions: IntCounter,
    pub(super) torn_records: IntCounter,
    pub(super) chunks: IntGauge,
    pub(super) used_bytes: IntGauge,
    pub(super) free_bytes: IntGauge,
}

fn counter(drive: &str, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    IntCounter::with_opts(Opts::new(format!("drystone_drive_{name}"), help).const_label("drive", drive))
}

fn gauge(drive: &str, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    IntGauge::with_opts(Opts::new(format!("drystone_drive_{name}"), help).const_label("drive", drive))
}

fn histogram(drive: &str, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, prometheus::Error> {
    let opts = HistogramOpts::new(format!("drystone_drive_{name}"), help).const_label("drive", drive);
    Histogram::with_opts(opts.buckets(buckets.to_vec()))
}

impl DriveMetrics {
    /// The metrics of the drive labelled `drive`, registered in `registry`.
    ///
    /// # Errors
    /// A drive of that label is registered already.
    pub fn new(registry: &Registry, drive: &str) -> Result<Self, prometheus::Error> {
        let metrics = Self::unregistered(drive)?;
        for histogram in [&metrics.append_seconds, &metrics.read_seconds, &metrics.commit_records] {
            registry.register(Box::new(histogram.clone()))?;
        }
        for counter in metrics.counters() {
            registry.register(Box::new(counter.clone()))?;
        }
        for gauge in [&metrics.chunks, &metrics.used_bytes, &metrics.free_bytes] {
            registry.register(Box::new(gauge.clone()))?;
        }
        Ok(metrics)
    }

    /// Metrics that nobody collects, for tests and tools.
    ///
    /// # Errors
    /// Only if a name were invalid.
    pub fn unregistered(drive: &str) -> Result<Self, prometheus::Error> {
        let (c, g) = (|name, help| counter(drive, name, help), |name, help| gauge(drive, name, help));
        Ok(Self {
            append_seconds: histogram(drive, "append_seconds", "Time from asking to durable.", &SECONDS)?,
            read_seconds: histogram(drive, "read_seconds", "Time from asking to verified bytes.", &SECONDS)?,
            commit_records: histogram(drive, "commit_records", "Chunks and tombstones per commit.", &RECORDS)?,
            syncs: c("fdatasync_total", "Calls of fdatasync on segments.")?,
            append_bytes: c("append_bytes_total", "Payload bytes made durable.")?,
            read_bytes: c("read_bytes_total", "Verified payload bytes read.")?,
            tombstones: c("tombstones_total", "Chunks deleted.")?,
            write_errors: c("write_errors_total", "Failed writes, syncs and name changes.")?,
            read_errors: c("read_errors_total", "Reads that the operating system failed.")?,
            corrupt_reads: c("corrupt_reads_total", "Reads that found damaged bytes.")?,
            missing_reads: c("missing_reads_total", "Reads of chunks that are not there.")?,
            refused_full: c("refused_full_total", "Appends refused because the drive is full.")?,
            compacted_bytes: c("compacted_bytes_total", "Bytes of live chunks moved to free a segment.")?,
            punched_bytes: c("punched_bytes_total", "Bytes given back by punching holes.")?,
            segments_freed: c("segments_freed_total", "Segments emptied.")?,
            checkpoints: c("checkpoints_total", "Index checkpoints.")?,
            index_rebuilds: c("index_rebuilds_total", "Rebuilds of the chunk index from segments.")?,
            corrupt_regions: c("corrupt_regions_total", "Damaged regions found in segments while replaying.")?,
            torn_records: c("torn_records_total", "Records of an unfinished last commit cut after a crash.")?,
            chunks: g("chunks", "Chunks held.")?,
            used_bytes: g("used_bytes", "Bytes of live chunks.")?,
            free_bytes: g("free_bytes", "Bytes that ordinary appends may still take.")?,
        })
    }

    fn counters(&self) -> [&IntCounter; 16] {
        [
            &self.syncs,
            &self.append_bytes,
            &self.read_bytes,
            &self.tombstones,
            &self.write_errors,
            &self.read_errors,
            &self.corrupt_reads,
            &self.missing_reads,
            &self.refused_full,
            &self.compacted_bytes,
            &self.punched_bytes,
            &self.segments_freed,
            &self.checkpoints,
            &self.index_rebuilds,
            &self.corrupt_regions,
            &self.torn_records,
        ]
    }

    /// Calls of `fdatasync` on segments so far.
    pub fn sync_count(&self) -> u64 {
        self.syncs.get()
    }

    /// Commits so far: each one frame and one sync.
    pub fn commit_count(&self) -> u64 {
        self.commit_records.get_sample_count()
    }
}
