//! UDP sockets: how a node's peer port is opened, how large its packets are, and the seam for other networks.
//!
//! quinn sends up to ten packets in one system call (segmentation offload), without regard to the 65,507 bytes that UDP
//! allows; larger batches vanish in the kernel and the path MTU collapses to 1,200. A wrapper around the socket keeps batches within it.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use rustix::net::sockopt;
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::TransportConfig;

/// The largest UDP payload over IPv4.
const UDP_PAYLOAD_MAX: u16 = 65_507;
/// IPv6 and UDP headers; IPv4 has 20 bytes fewer, which is not worth a second number.
const HEADERS_LEN: u16 = 48;
/// What Ethernet carries.
const ETHERNET_PACKET: u16 = 1_452;

/// A socket not yet registered with a runtime: the seam between this crate and the network.
pub trait DatagramSocket: Send {
    /// Registers it with the runtime in whose context this is called.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    fn register(self: Box<Self>) -> io::Result<Arc<dyn AsyncUdpSocket>>;
}

/// An opened port, ready for [`crate::Endpoint::bind`].
pub struct BoundSocket {
    /// Where it listens, with the real port.
    pub address: SocketAddr,
    /// The largest UDP payload to send and to accept.
    pub packet_bytes_max: u16,
    /// The socket.
    pub socket: Box<dyn DatagramSocket>,
}

impl fmt::Debug for BoundSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundSocket")
            .field("address", &self.address)
            .field("packet_bytes_max", &self.packet_bytes_max)
            .finish_non_exhaustive()
    }
}

/// Opens a UDP port of the operating system. Port 0 takes a free one. An IPv6 wildcard also serves IPv4. The packet
/// size is that of the address's link, unless the configuration says otherwise.
///
/// # Errors
///
/// What the operating system says, for instance that the port is taken.
pub fn bind(address: SocketAddr, config: &TransportConfig) -> io::Result<BoundSocket> {
    let packet_bytes_max = config.packet_bytes_max.unwrap_or_else(|| packet_bytes(address.ip()));
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    size_buffers(&socket, config.socket_buffer_bytes);
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    let socket = std::net::UdpSocket::from(socket);
    Ok(BoundSocket {
        address: socket.local_addr()?,
        packet_bytes_max,
        socket: Box::new(Udp { socket, packet_bytes_max }),
    })
}

/// Asks for large kernel buffers: past the administrator's limit if allowed, else up to it.
fn size_buffers(socket: &Socket, wanted: usize) {
    let received = sockopt::set_socket_recv_buffer_size_force(socket.as_fd(), wanted).is_ok()
        || socket.set_recv_buffer_size(wanted).is_ok();
    let sent = sockopt::set_socket_send_buffer_size_force(socket.as_fd(), wanted).is_ok()
        || socket.set_send_buffer_size(wanted).is_ok();
    // Linux reports twice what it grants.
    let got = socket.recv_buffer_size().unwrap_or(0) / 2;
    if !received || !sent || got < wanted {
        tracing::warn!(
            wanted_bytes = wanted,
            got_bytes = got,
            "the receive buffer of the peer port is smaller than wanted and may lose packets under load: raise \
             net.core.rmem_max and net.core.wmem_max"
        );
    }
}

/// The largest UDP payload of the link behind a local address.
fn packet_bytes(address: IpAddr) -> u16 {
    if address.is_loopback() {
        return UDP_PAYLOAD_MAX;
    }
    link_mtu(address).map_or(ETHERNET_PACKET, |mtu| mtu.saturating_sub(HEADERS_LEN)).clamp(1_200, UDP_PAYLOAD_MAX)
}

/// The MTU of the interface that has the address; for a wildcard, the largest of all but loopback.
fn link_mtu(address: IpAddr) -> Option<u16> {
    if address.is_unspecified() {
        return interfaces().into_iter().filter(|name| name != "lo").filter_map(|name| mtu_of(&name)).max();
    }
    let name = match address {
        IpAddr::V4(address) => interface_of_v4(address, &std::fs::read_to_string("/proc/net/route").ok()?)?,
        IpAddr::V6(address) => interface_of_v6(address, &std::fs::read_to_string("/proc/net/if_inet6").ok()?)?,
    };
    mtu_of(&name)
}

fn interfaces() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn mtu_of(interface: &str) -> Option<u16> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{interface}/mtu")).ok()?;
    let mtu: u32 = text.trim().parse().ok()?;
    Some(u16::try_from(mtu).unwrap_or(u16::MAX))
}

/// The interface of the most specific route that covers the address: the one it is configured on.
fn interface_of_v4(address: Ipv4Addr, routes: &str) -> Option<String> {
    let mut best: Option<(u32, String)> = None;
    for line in routes.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (Some(name), Some(network), Some(mask)) = (fields.first(), fields.get(1), fields.get(7)) else {
            continue;
        };
        // The kernel prints network-order words as native integers.
        let parse = |hex: &str| u32::from_str_radix(hex, 16).ok().map(|word| u32::from_be_bytes(word.to_ne_bytes()));
        let (Some(network), Some(mask)) = (parse(network), parse(mask)) else {
            continue;
        };
        let covers = mask != 0 && u32::from(address) & mask == network & mask;
        if covers && best.as_ref().is_none_or(|(known, _)| mask > *known) {
            best = Some((mask, (*name).to_owned()));
        }
    }
    best.map(|(_, name)| name)
}

fn interface_of_v6(address: Ipv6Addr, table: &str) -> Option<String> {
    let wanted: String = address.octets().iter().map(|byte| format!("{byte:02x}")).collect();
    table.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        (fields.next() == Some(wanted.as_str())).then(|| fields.last().map(str::to_owned)).flatten()
    })
}

/// A socket of the operating system.
struct Udp {
    socket: std::net::UdpSocket,
    packet_bytes_max: u16,
}

impl DatagramSocket for Udp {
    fn register(self: Box<Self>) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let inner = TokioRuntime.wrap_udp_socket(self.socket)?;
        Ok(Arc::new(Capped::new(inner, self.packet_bytes_max)))
    }
}

/// A socket whose send batches fit into one UDP datagram of the kernel.
#[derive(Debug)]
struct Capped {
    inner: Arc<dyn AsyncUdpSocket>,
    send_segments: usize,
    receive_segments: usize,
}

impl Capped {
    fn new(inner: Arc<dyn AsyncUdpSocket>, packet_bytes_max: u16) -> Self {
        let packet = usize::from(packet_bytes_max);
        let fit = (usize::from(UDP_PAYLOAD_MAX) / packet).max(1);
        Self {
            send_segments: inner.max_transmit_segments().min(fit),
            // What the kernel merges never exceeds one datagram of 64 KiB, so a buffer for that is enough; quinn would
            // otherwise reserve 64 packets' worth, 134 MB on loopback.
            receive_segments: inner.max_receive_segments().min(65_536usize.div_ceil(packet)),
            inner,
        }
    }
}

impl AsyncUdpSocket for Capped {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.send_segments
    }

    fn max_receive_segments(&self) -> usize {
        self.receive_segments
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Offloading;

    impl AsyncUdpSocket for Offloading {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            unreachable!("not polled")
        }

        fn try_send(&self, _transmit: &Transmit<'_>) -> io::Result<()> {
            Ok(())
        }

        fn poll_recv(
            &self,
            _cx: &mut Context<'_>,
            _bufs: &mut [IoSliceMut<'_>],
            _meta: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)))
        }

        fn max_transmit_segments(&self) -> usize {
            64
        }

        fn max_receive_segments(&self) -> usize {
            64
        }
    }

    #[test]
    fn batches_never_exceed_a_datagram_of_the_kernel() {
        for packet in [1_200u16, 1_452, 6_500, 8_952, 32_700, 65_507] {
            let capped = Capped::new(Arc::new(Offloading), packet);
            let packet = usize::from(packet);
            assert!(capped.max_transmit_segments() * packet <= 65_507);
            assert!(capped.max_transmit_segments() >= 1);
            assert!(capped.max_receive_segments() * packet >= 65_507);
            assert!(capped.max_receive_segments() <= 64);
        }
    }

    #[test]
    fn the_link_of_an_address_is_found() {
        let routes = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
             eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
             eth0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n\
             eth1\t0001000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let find = |text: &str| interface_of_v4(text.parse().unwrap(), routes);
        if cfg!(target_endian = "little") {
            assert_eq!(find("10.0.1.7").as_deref(), Some("eth1"));
            assert_eq!(find("10.9.1.7").as_deref(), Some("eth0"));
            assert_eq!(find("192.168.0.1"), None);
        }
        let table = "fe80000000000000000000000000abcd 02 40 20 80     eth0\n";
        assert_eq!(interface_of_v6("fe80::abcd".parse().unwrap(), table).as_deref(), Some("eth0"));
        assert_eq!(interface_of_v6("fe80::1".parse().unwrap(), table), None);
    }

    #[test]
    fn loopback_has_the_largest_packets() {
        assert_eq!(packet_bytes(IpAddr::V4(Ipv4Addr::LOCALHOST)), 65_507);
        assert_eq!(packet_bytes(IpAddr::V6(Ipv6Addr::LOCALHOST)), 65_507);
        let wildcard = packet_bytes(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        assert!((1_200..=65_507).contains(&wildcard));
    }
}
