//! What can be set about the transport. Every value has a bound; the defaults fit nodes on one LAN.

use std::time::Duration;

/// Limits of the connections of one class, applied to each connection at both ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassLimits {
    /// Streams a peer may have open at once: 4,096 control, 1,024 data. Further calls wait at the caller, within their
    /// deadline.
    pub streams_max: u32,
    /// Calls a peer may have in progress here at once: 2,048 control, 512 data. Further ones are refused as busy.
    pub calls_inflight_max: usize,
    /// Bytes of request bodies (not bulk) a connection may have in memory here: 64 MiB. Further bodies are read when
    /// earlier calls end. At least `body_bytes_max`.
    pub body_bytes_inflight_max: usize,
    /// Received but unread bytes per connection: 4 MiB. Worst case of memory per connection; more than half of the
    /// socket buffer loses packets.
    pub connection_window_bytes: u32,
    /// Received but unread bytes per stream: 1 MiB control, 2 MiB data. 25 Gbit/s × 0.5 ms needs 1.5 MB.
    pub stream_window_bytes: u32,
    /// Sent but unacknowledged bytes per connection: 8 MiB. Worst case of memory per connection.
    pub send_window_bytes: u32,
}

impl ClassLimits {
    fn control() -> Self {
        Self {
            streams_max: 4_096,
            calls_inflight_max: 2_048,
            body_bytes_inflight_max: 64 << 20,
            connection_window_bytes: 4 << 20,
            stream_window_bytes: 1 << 20,
            send_window_bytes: 8 << 20,
        }
    }

    fn data() -> Self {
        Self { streams_max: 1_024, calls_inflight_max: 512, stream_window_bytes: 2 << 20, ..Self::control() }
    }
}

/// Everything that can be set about an endpoint and the peers dialled from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportConfig {
    /// How long a dial may take, name lookup, handshake and hello together: 3 s.
    pub connect_timeout: Duration,
    /// How long an accepted connection may take to finish the handshake and say hello: 3 s.
    pub hello_timeout: Duration,
    /// A connection without a packet for this long is lost: 5 s.
    pub idle_timeout: Duration,
    /// How often an otherwise silent connection sends a packet: 1 s. Also the longest time until a restarted peer is
    /// noticed on a silent connection.
    pub keep_alive_interval: Duration,
    /// How long bulk bytes may make no progress before the call fails: 10 s.
    pub stall_timeout: Duration,
    /// How long calls in progress may take to end when the endpoint closes, or after their connection is lost: 5 s.
    /// Then their handlers are dropped.
    pub drain_timeout: Duration,
    /// The wait after a first failed dial: 50 ms, doubled each time up to `backoff_max`, each with a jitter of ± 50 %.
    pub backoff_min: Duration,
    /// The longest wait between dials of a peer that does not answer: 1 s.
    pub backoff_max: Duration,
    /// The longest body of a request or reply (bulk bytes are not counted): 16 MiB.
    pub body_bytes_max: u32,
    /// Connections accepted at once, handshakes included: 4,096. Further ones are refused.
    pub inbound_connections_max: usize,
    /// Limits of control connections.
    pub control: ClassLimits,
    /// Limits of data connections.
    pub data: ClassLimits,
    /// The largest UDP payload sent or received: by default what the link of the listening address carries (1452 on
    /// Ethernet, 8952 with jumbo frames, 65507 on loopback). Path MTU discovery finds what really passes.
    pub packet_bytes_max: Option<u16>,
    /// Kernel buffer of each socket and direction: 8 MiB. Needs CAP_NET_ADMIN or `net.core.rmem_max`/`wmem_max`; a
    /// smaller one is used with a warning, and loses packets under load.
    pub socket_buffer_bytes: usize,
    /// Round trip assumed before the first is measured: 20 ms. A lost first packet is sent again after three of these.
    pub initial_rtt: Duration,
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            hello_timeout: Duration::from_secs(3),
            idle_timeout: Duration::from_secs(5),
            keep_alive_interval: Duration::from_secs(1),
            stall_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(5),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            body_bytes_max: 16 << 20,
            inbound_connections_max: 4_096,
            control: ClassLimits::control(),
            data: ClassLimits::data(),
            packet_bytes_max: None,
            socket_buffer_bytes: 8 << 20,
            initial_rtt: Duration::from_millis(20),
        }
    }
}

impl TransportConfig {
    /// The limits of a class.
    pub fn limits(&self, class: crate::Class) -> &ClassLimits {
        match class {
            crate::Class::Control => &self.control,
            crate::Class::Data => &self.data,
        }
    }

    /// What is wrong with the values, as texts for the operator; empty if nothing.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |fine: bool, problem: &str| {
            if !fine {
                problems.push(problem.to_owned());
            }
        };
        check(
            self.keep_alive_interval * 2 <= self.idle_timeout,
            "keep_alive_interval must be at most half of idle_timeout",
        );
        check(
            self.packet_bytes_max.is_none_or(|bytes| (1_200..=65_507).contains(&bytes)),
            "packet_bytes_max must be between 1200 and 65507",
        );
        check(self.idle_timeout <= Duration::from_secs(3_600), "idle_timeout must be at most an hour");
        check(self.backoff_min <= self.backoff_max, "backoff_min must not exceed backoff_max");
        check(self.inbound_connections_max > 0, "inbound_connections_max must not be 0");
        for limits in [&self.control, &self.data] {
            check(
                limits.body_bytes_inflight_max >= usize::try_from(self.body_bytes_max).unwrap_or(usize::MAX),
                "body_bytes_inflight_max must be at least body_bytes_max",
            );
            check(
                limits.streams_max > 0 && limits.calls_inflight_max > 0,
                "streams_max and calls_inflight_max must not be 0",
            );
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_problems_and_bad_values_are_all_named() {
        assert_eq!(TransportConfig::default().problems(), Vec::<String>::new());
        let bad = TransportConfig {
            packet_bytes_max: Some(100),
            idle_timeout: Duration::from_secs(1),
            ..TransportConfig::default()
        };
        assert_eq!(bad.problems().len(), 2);
    }
}
