//! What the transport counts. Registered once per node; peers appear by node id, nothing else is unbounded.

use std::net::SocketAddr;
use std::time::Duration;

use drystone_certs::NodeId;
use prometheus::{GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::class::Class;

/// Which end of a connection this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// This node dialled.
    Dialled,
    /// The peer dialled.
    Accepted,
}

/// One connection, as QUIC sees it now.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnectionReport {
    /// The other end.
    pub peer: NodeId,
    /// What it carries.
    pub class: Class,
    /// Who dialled.
    pub side: Side,
    /// Where the other end is.
    pub address: SocketAddr,
    /// Smoothed round trip.
    pub rtt: Duration,
    /// Packet size in use, in bytes of UDP payload.
    pub mtu: u16,
    /// Congestion window in bytes.
    pub congestion_window: u64,
    /// Packets sent since the connection began.
    pub sent_packets: u64,
    /// Packets of these that were lost (MTU probes not counted).
    pub lost_packets: u64,
    /// Times that the path MTU had to fall back to 1,200.
    pub black_holes: u64,
    /// Bytes of UDP payload sent.
    pub sent_bytes: u64,
    /// Bytes of UDP payload received.
    pub received_bytes: u64,
}

impl ConnectionReport {
    pub(crate) fn of(connection: &quinn::Connection, peer: NodeId, class: Class, side: Side) -> Self {
        let stats = connection.stats();
        Self {
            peer,
            class,
            side,
            address: connection.remote_address(),
            rtt: stats.path.rtt,
            mtu: stats.path.current_mtu,
            congestion_window: stats.path.cwnd,
            sent_packets: stats.path.sent_packets,
            lost_packets: stats.path.lost_packets,
            black_holes: stats.path.black_holes_detected,
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
        }
    }
}

/// The labels of the gauges of connections.
const PER_CONNECTION: [&str; 3] = ["peer", "class", "side"];

fn register<C>(registry: &Registry, collector: C) -> prometheus::Result<C>
where
    C: prometheus::core::Collector + Clone + 'static,
{
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

/// The transport's metrics; a handle, cheap to clone.
#[derive(Debug, Clone)]
pub struct TransportMetrics {
    calls: IntCounterVec,
    served: IntCounterVec,
    /// The two outcomes of nearly all calls, looked up once.
    calls_ok: [IntCounter; 2],
    served_ok: [IntCounter; 2],
    bytes_sent: [IntCounter; 2],
    bytes_received: [IntCounter; 2],
    dials: IntCounterVec,
    refused: IntCounter,
    protocol_errors: IntCounter,
    accepted: IntGauge,
    rtt: GaugeVec,
    mtu: IntGaugeVec,
    lost: IntGaugeVec,
}

impl TransportMetrics {
    /// Registers the metrics. One per registry.
    ///
    /// # Errors
    ///
    /// If the registry already has metrics of these names.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let gauges =
            |name: &str, help: &str| register(registry, IntGaugeVec::new(Opts::new(name, help), &PER_CONNECTION)?);
        let counter = |name: &str, help: &str| register(registry, IntCounter::new(name, help)?);
        let calls = counters("drystone_peer_calls_total", "Calls made to peers, by outcome.", &["class", "outcome"])?;
        let served = counters("drystone_peer_served_total", "Calls of peers, by outcome.", &["class", "outcome"])?;
        let bytes = counters(
            "drystone_peer_bytes_total",
            "Bytes of bodies and bulk exchanged with peers.",
            &["class", "direction"],
        )?;
        let rtt = Opts::new("drystone_peer_rtt_seconds", "Smoothed round trip of a connection.");
        let rtt = register(registry, GaugeVec::new(rtt, &PER_CONNECTION)?)?;
        let accepted = IntGauge::new("drystone_peer_accepted_connections", "Connections of peers to this node.")?;
        let accepted = register(registry, accepted)?;
        let each = |counters: &IntCounterVec, last: &str| {
            Class::ALL.map(|class| counters.with_label_values(&[class.name(), last]))
        };
        Ok(Self {
            calls_ok: each(&calls, "ok"),
            served_ok: each(&served, "ok"),
            bytes_sent: each(&bytes, "sent"),
            bytes_received: each(&bytes, "received"),
            calls,
            served,
            dials: counters("drystone_peer_dials_total", "Dials of peers, by outcome.", &["outcome"])?,
            refused: counter(
                "drystone_peer_refused_total",
                "Connections that did not come about: refused at either end, or failed before the first call.",
            )?,
            protocol_errors: counter(
                "drystone_peer_protocol_errors_total",
                "Accepted connections closed because a request of the peer was no frame of the protocol.",
            )?,
            accepted,
            rtt,
            mtu: gauges("drystone_peer_mtu_bytes", "Packet size of a connection.")?,
            lost: gauges("drystone_peer_lost_packets", "Packets lost by a connection so far.")?,
        })
    }

    /// Shows these connections in the per-peer gauges, and forgets all others. Called before a scrape.
    pub fn observe(&self, connections: &[ConnectionReport]) {
        self.rtt.reset();
        self.mtu.reset();
        self.lost.reset();
        for report in connections {
            let peer = report.peer.to_string();
            let side = match report.side {
                Side::Dialled => "dialled",
                Side::Accepted => "accepted",
            };
            let labels = [peer.as_str(), report.class.name(), side];
            self.rtt.with_label_values(&labels).set(report.rtt.as_secs_f64());
            self.mtu.with_label_values(&labels).set(i64::from(report.mtu));
            let lost = i64::try_from(report.lost_packets).unwrap_or(i64::MAX);
            self.lost.with_label_values(&labels).set(lost);
        }
    }

    pub(crate) fn called(&self, class: Class, outcome: Option<&'static str>) {
        match outcome {
            None => self.calls_ok[class.index()].inc(),
            Some(outcome) => self.calls.with_label_values(&[class.name(), outcome]).inc(),
        }
    }

    pub(crate) fn served(&self, class: Class, outcome: Option<&'static str>) {
        match outcome {
            None => self.served_ok[class.index()].inc(),
            Some(outcome) => self.served.with_label_values(&[class.name(), outcome]).inc(),
        }
    }

    pub(crate) fn sent(&self, class: Class, len: usize) {
        self.bytes_sent[class.index()].inc_by(u64::try_from(len).unwrap_or(0));
    }

    pub(crate) fn received(&self, class: Class, len: usize) {
        self.bytes_received[class.index()].inc_by(u64::try_from(len).unwrap_or(0));
    }

    pub(crate) fn dialled(&self, outcome: &'static str) {
        self.dials.with_label_values(&[outcome]).inc();
    }

    pub(crate) fn refused(&self) {
        self.refused.inc();
    }

    pub(crate) fn protocol_error(&self) {
        self.protocol_errors.inc();
    }

    pub(crate) fn accepted(&self, connections: usize) {
        self.accepted.set(i64::try_from(connections).unwrap_or(i64::MAX));
    }
}
