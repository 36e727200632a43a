//! Counters of what a member does for its clients and in the background.

use prometheus::{IntCounter, IntGauge, Registry};

use crate::kv::LogMetrics;

/// One set per node, registered with the node's registry.
pub(crate) struct ClusterMetrics {
    pub(crate) logs: LogMetrics,
    pub(crate) chunk_write_failures: IntCounter,
    pub(crate) chunk_write_replacements: IntCounter,
    pub(crate) chunk_read_failures: IntCounter,
    pub(crate) degraded_reads: IntCounter,
    pub(crate) hedged_reads: IntCounter,
    pub(crate) abandoned_extents: IntCounter,
    pub(crate) abandoned_extents_dropped: IntCounter,
    pub(crate) garbage_extents_deleted: IntCounter,
    pub(crate) garbage_chunk_failures: IntCounter,
    pub(crate) inflight_bytes: IntGauge,
    pub(crate) epoch: IntGauge,
    pub(crate) certificate_expiry: IntGauge,
    pub(crate) snapshots_installed: IntCounter,
    pub(crate) snapshot_failures: IntCounter,
}

impl ClusterMetrics {
    /// Registers all of them.
    ///
    /// # Errors
    /// A name is taken already: two members share one registry.
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(format!("drystone_cluster_{name}"), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(format!("drystone_cluster_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        Ok(Self {
            logs: LogMetrics::registered(registry)?,
            chunk_write_failures: counter("chunk_write_failures_total", "Chunks a drive did not store when asked")?,
            chunk_write_replacements: counter(
                "chunk_write_replacements_total",
                "Chunks that were sent to another drive because the first one failed during the write",
            )?,
            chunk_read_failures: counter(
                "chunk_read_failures_total",
                "Chunk reads that failed: missing, corrupt, or the drive did not answer",
            )?,
            degraded_reads: counter("degraded_reads_total", "Pieces rebuilt from parity while they were read")?,
            hedged_reads: counter("hedged_reads_total", "Reads asked of a second drive because the first was slow")?,
            abandoned_extents: counter(
                "abandoned_extents_total",
                "Extents of writes that failed, handed to the garbage worker",
            )?,
            abandoned_extents_dropped: counter(
                "abandoned_extents_dropped_total",
                "Of these, not noted because too many waited for the garbage worker; their space stays used",
            )?,
            garbage_extents_deleted: counter(
                "garbage_extents_deleted_total",
                "Extents of replaced, deleted and abandoned bodies whose chunks were deleted",
            )?,
            garbage_chunk_failures: counter(
                "garbage_chunk_failures_total",
                "Chunks the garbage worker could not delete yet; it tries again",
            )?,
            snapshots_installed: counter(
                "snapshots_installed_total",
                "States of consensus groups that this node took over whole, because it was away for too long",
            )?,
            snapshot_failures: counter(
                "snapshot_failures_total",
                "Of these, transfers that broke off or arrived damaged; the leader sends them again",
            )?,
            inflight_bytes: gauge("inflight_bytes", "Bytes of bodies held in memory on their way to or from drives")?,
            certificate_expiry: gauge(
                "certificate_expiry_seconds",
                "When this node's certificate ends, in seconds since the Unix epoch; peers refuse it from then on",
            )?,
            epoch: gauge("topology_epoch", "Epoch of the topology this node follows")?,
        })
    }
}
