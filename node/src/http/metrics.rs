//! What the accept loop counts.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Counters of the client port, one set per node.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    /// Connections open now.
    pub open: IntGauge,
    /// Connections accepted.
    pub accepted: IntCounter,
    pub(super) ended: IntCounterVec,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// Closed in order, by either side.
    Closed,
    /// The TLS handshake failed or took too long.
    Tls,
    /// No complete request head in time.
    Idle,
    /// Broken: reset, malformed, stalled.
    Broken,
    /// Cut because a drain ran out of time.
    Cut,
}

impl HttpMetrics {
    /// Registers the counters.
    ///
    /// # Errors
    /// The registry holds metrics of these names already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            open: IntGauge::new("drystone_http_connections_open", "Client connections open now.")?,
            accepted: IntCounter::new("drystone_http_connections_accepted_total", "Client connections accepted.")?,
            ended: IntCounterVec::new(
                Opts::new(
                    "drystone_http_connections_ended_total",
                    "Client connections ended, by how: closed, tls, idle, broken, cut.",
                ),
                &["how"],
            )?,
        };
        registry.register(Box::new(metrics.open.clone()))?;
        registry.register(Box::new(metrics.accepted.clone()))?;
        registry.register(Box::new(metrics.ended.clone()))?;
        Ok(metrics)
    }

    pub(super) fn end(&self, how: End) {
        let label = match how {
            End::Closed => "closed",
            End::Tls => "tls",
            End::Idle => "idle",
            End::Broken => "broken",
            End::Cut => "cut",
        };
        self.ended.with_label_values(&[label]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_of_the_client_port_is_documented() {
        let registry = Registry::new();
        let metrics = HttpMetrics::new(&registry).unwrap();
        metrics.end(End::Closed);
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        let page = std::fs::read_to_string(path).unwrap();
        let families = registry.gather();
        assert_eq!(families.len(), 3);
        for family in families {
            assert!(page.contains(family.name()), "{} is not in docs/metrics.md", family.name());
        }
    }
}
