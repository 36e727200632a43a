//! What the group commits of a node count: how many batches share a sync shows how well they do.

use prometheus::{IntCounter, Registry};

/// Counters of all [`super::LogWriter`]s of a node. Clones count together.
#[derive(Clone, Debug)]
pub struct LogMetrics {
    pub(super) syncs: IntCounter,
    pub(super) batches: IntCounter,
    pub(crate) bytes: IntCounter,
}

impl LogMetrics {
    /// Counters that nobody reads.
    #[cfg(test)]
    pub(crate) fn unregistered() -> Self {
        Self::new().unwrap()
    }

    fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            syncs: IntCounter::new("drystone_log_fdatasync_total", "Syncs of consensus logs and index states")?,
            batches: IntCounter::new(
                "drystone_log_batches_total",
                "Batches written to them: those in a sync share it",
            )?,
            bytes: IntCounter::new("drystone_log_bytes_total", "Bytes of keys and values in these batches")?,
        })
    }

    /// Counters of `registry`.
    ///
    /// # Errors
    /// A name is taken already: two members share one registry.
    pub fn registered(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self::new()?;
        for counter in [&metrics.syncs, &metrics.batches, &metrics.bytes] {
            registry.register(Box::new(counter.clone()))?;
        }
        Ok(metrics)
    }
}
