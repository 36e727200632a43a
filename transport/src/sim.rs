//! The simulated network: a UDP socket of turmoil with seeded weather.
//!
//! Latency, partitions and crashes are turmoil's; loss, duplication and corruption of single datagrams happen here,
//! because turmoil breaks whole links. Deterministic if the endpoint has a seed too. Not simulated: segmentation
//! offload, ECN, path MTU (it may fragment, so quinn does not probe).

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use futures_util::FutureExt as _;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::AbortHandle;

use crate::endpoint::lock;
use crate::socket::{BoundSocket, DatagramSocket};

/// Datagrams that wait to be read; more are lost, as in a kernel.
const QUEUE_MAX: usize = 8_192;
/// The packet size of simulated links.
const PACKET_BYTES: u16 = 1_452;

/// What happens to datagrams on their way out, each with a probability between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Weather {
    /// Lost.
    pub loss: f64,
    /// Delivered twice.
    pub duplication: f64,
    /// Delivered with one bit flipped.
    pub corruption: f64,
}

/// What has become of datagrams so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Handed to the network by endpoints.
    pub sent: u64,
    /// Lost to the weather.
    pub lost: u64,
    /// Sent a second time by the weather.
    pub duplicated: u64,
    /// Damaged by the weather.
    pub corrupted: u64,
    /// Arrived at a socket.
    pub received: u64,
    /// Bytes of those that arrived.
    pub received_bytes: u64,
}

/// Changes the weather of sockets while the simulation runs, and counts their datagrams. A handle.
#[derive(Debug, Clone, Default)]
pub struct WeatherControl(Arc<Sky>);

#[derive(Debug, Default)]
struct Sky {
    weather: Mutex<Weather>,
    sent: AtomicU64,
    lost: AtomicU64,
    duplicated: AtomicU64,
    corrupted: AtomicU64,
    received: AtomicU64,
    received_bytes: AtomicU64,
}

impl WeatherControl {
    /// From now on datagrams meet this weather.
    pub fn set(&self, weather: Weather) {
        *lock(&self.0.weather) = weather;
    }

    /// The datagrams of all sockets bound with this control.
    pub fn traffic(&self) -> Traffic {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic {
            sent: read(&self.0.sent),
            lost: read(&self.0.lost),
            duplicated: read(&self.0.duplicated),
            corrupted: read(&self.0.corrupted),
            received: read(&self.0.received),
            received_bytes: read(&self.0.received_bytes),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Binds a simulated UDP port on the current turmoil host.
///
/// # Errors
///
/// turmoil's, for instance that the port is taken.
pub fn bind(address: SocketAddr, seed: u64, weather: WeatherControl) -> io::Result<BoundSocket> {
    // turmoil's signature is that of a real network, but its sockets are there at once.
    let bound = turmoil::net::UdpSocket::bind(address).now_or_never();
    let socket = bound.ok_or(io::ErrorKind::WouldBlock)??;
    let mut address = socket.local_addr()?;
    if address.ip().is_unspecified() {
        // quinn compares only its own addresses with each other, so the wildcard is as good as the host's.
        address = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), address.port());
    }
    let rng = StdRng::seed_from_u64(seed);
    Ok(BoundSocket { address, packet_bytes_max: PACKET_BYTES, socket: Box::new(Unregistered { socket, rng, weather }) })
}

struct Unregistered {
    socket: turmoil::net::UdpSocket,
    rng: StdRng,
    weather: WeatherControl,
}

impl DatagramSocket for Unregistered {
    fn register(self: Box<Self>) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let local = self.socket.local_addr()?;
        let socket = Arc::new(self.socket);
        let inbox = Arc::new(Mutex::new(Inbox::default()));
        let pump = tokio::spawn(pump(socket.clone(), inbox.clone(), self.weather.clone()));
        Ok(Arc::new(SimSocket {
            socket,
            local,
            inbox,
            rng: Mutex::new(self.rng),
            weather: self.weather,
            pump: pump.abort_handle(),
        }))
    }
}

#[derive(Debug, Default)]
struct Inbox {
    datagrams: VecDeque<(Vec<u8>, SocketAddr)>,
    reader: Option<Waker>,
    error: Option<io::ErrorKind>,
}

/// A UDP socket of the simulation. Its reading task ends with it.
struct SimSocket {
    socket: Arc<turmoil::net::UdpSocket>,
    local: SocketAddr,
    inbox: Arc<Mutex<Inbox>>,
    rng: Mutex<StdRng>,
    weather: WeatherControl,
    pump: AbortHandle,
}

impl std::fmt::Debug for SimSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimSocket").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

async fn pump(socket: Arc<turmoil::net::UdpSocket>, inbox: Arc<Mutex<Inbox>>, weather: WeatherControl) {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let received = socket.recv_from(&mut buffer).await;
        let mut inbox = lock(&inbox);
        let ended = received.is_err();
        match received {
            Ok((len, from)) if inbox.datagrams.len() < QUEUE_MAX => {
                inbox.datagrams.push_back((buffer[..len].to_vec(), from));
                count(&weather.0.received);
                let len = u64::try_from(len).unwrap_or(u64::MAX);
                weather.0.received_bytes.fetch_add(len, Ordering::Relaxed);
            }
            Ok(_full) => {}
            Err(error) => inbox.error = Some(error.kind()),
        }
        if let Some(reader) = inbox.reader.take() {
            reader.wake();
        }
        if ended {
            break;
        }
    }
}

/// Always writable: the simulated network has no back pressure.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl SimSocket {
    fn send_through_weather(&self, contents: &[u8], to: SocketAddr) -> io::Result<()> {
        let sky = &self.weather.0;
        let weather = *lock(&sky.weather);
        let mut rng = lock(&self.rng);
        count(&sky.sent);
        if rng.random_bool(weather.loss.clamp(0.0, 1.0)) {
            count(&sky.lost);
            return Ok(());
        }
        let mut damaged = contents.to_vec();
        if !damaged.is_empty() && rng.random_bool(weather.corruption.clamp(0.0, 1.0)) {
            let at = rng.random_range(0..damaged.len());
            damaged[at] ^= 1 << rng.random_range(0..8u8);
            count(&sky.corrupted);
        }
        let times = if rng.random_bool(weather.duplication.clamp(0.0, 1.0)) {
            count(&sky.duplicated);
            2
        } else {
            1
        };
        for _ in 0..times {
            self.socket.try_send_to(&damaged, to)?;
        }
        Ok(())
    }
}

impl AsyncUdpSocket for SimSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for contents in transmit.contents.chunks(segment) {
            match self.send_through_weather(contents, transmit.destination) {
                // A full or absent destination loses the datagram, as a network does.
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut inbox = lock(&self.inbox);
        let mut count = 0;
        for (buffer, meta) in bufs.iter_mut().zip(meta.iter_mut()) {
            let Some((datagram, from)) = inbox.datagrams.pop_front() else {
                break;
            };
            let len = datagram.len().min(buffer.len());
            buffer[..len].copy_from_slice(&datagram[..len]);
            *meta = RecvMeta { addr: from, len, stride: len.max(1), ecn: None, dst_ip: None };
            count += 1;
        }
        if count > 0 {
            return Poll::Ready(Ok(count));
        }
        if let Some(kind) = inbox.error {
            return Poll::Ready(Err(kind.into()));
        }
        inbox.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn may_fragment(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use bytes::Bytes;
    use drystone_certs::{ClusterAuthority, ClusterId, FOUNDING_LIFETIME, Identity, InstanceId, NodeId};
    use tokio::runtime::Handle;
    use tokio::time::Instant;

    use super::*;
    use crate::{
        BoxFuture, Class, Directory, Endpoint, EndpointSetup, Hello, IncomingCall, PeerPolicy, Peers, Refusal,
        Runtimes, Service, TransportConfig, TransportMetrics, WallClock,
    };

    const PORT: u16 = 7_000;
    const START: Duration = Duration::from_secs(1_800_000_000);

    /// The wall clock of the simulation: a fixed start plus tokio's time.
    #[derive(Debug)]
    struct SimClock(Instant);

    impl WallClock for SimClock {
        fn now(&self) -> SystemTime {
            UNIX_EPOCH + START + self.0.elapsed()
        }
    }

    struct AdmitAll;

    impl PeerPolicy for AdmitAll {
        fn epoch(&self) -> u64 {
            1
        }

        fn admit(&self, _hello: &Hello) -> Result<(), Refusal> {
            Ok(())
        }
    }

    struct Reverse;

    impl Service for Reverse {
        fn call(&self, mut call: IncomingCall) -> BoxFuture<'static, ()> {
            Box::pin(async move {
                let mut body = call.body.to_vec();
                while let Ok(Some(bytes)) = call.recv_bulk(1 << 16).await {
                    body.extend_from_slice(&bytes);
                }
                body.reverse();
                call.respond(Ok(Bytes::from(body))).await;
            })
        }
    }

    struct Fixed(BTreeMap<NodeId, String>);

    impl Directory for Fixed {
        fn address(&self, node: NodeId) -> Option<String> {
            self.0.get(&node).cloned()
        }
    }

    fn identities(seed: u64) -> [Arc<Identity>; 2] {
        let mut rng = StdRng::seed_from_u64(seed);
        let now = UNIX_EPOCH + START;
        let cluster = ClusterId::random(&mut rng);
        let authority = ClusterAuthority::create(cluster, now, &mut rng).unwrap();
        [(); 2].map(|()| {
            let node = NodeId::random(&mut rng);
            let made = Identity::founding(&authority, node, [0; 32], now, FOUNDING_LIFETIME, &mut rng);
            Arc::new(made.unwrap())
        })
    }

    async fn endpoint(identity: Arc<Identity>, seed: u8, weather: WeatherControl) -> Endpoint {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
        Endpoint::bind(EndpointSetup {
            config: TransportConfig::default(),
            identity,
            instance: InstanceId::from_bytes([seed; 16]),
            socket: bind(address, u64::from(seed), weather).unwrap(),
            runtimes: Runtimes::single(Handle::current()),
            rng_seed: Some([seed; 32]),
            peers: Arc::new(AdmitAll),
            service: Some(Arc::new(Reverse)),
            clock: Arc::new(SimClock(Instant::now())),
            metrics: TransportMetrics::new(&prometheus::Registry::new()).unwrap(),
        })
        .unwrap()
    }

    /// Two nodes, one calling the other through bad weather; returns what happened when.
    fn run(seed: u64, weather: Weather, latency_max_ms: u64) -> Vec<(Duration, String)> {
        let trace = Arc::new(Mutex::new(Vec::new()));
        let [one, two] = identities(seed);
        let two_id = two.node();
        let mut sim = turmoil::Builder::new()
            .simulation_duration(Duration::from_secs(120))
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(latency_max_ms))
            .udp_capacity(4_096)
            .rng_seed(seed)
            .build();
        let control = WeatherControl::default();
        control.set(weather);
        let two_weather = control.clone();
        sim.host("two", move || {
            let (two, weather) = (two.clone(), two_weather.clone());
            async move {
                let _endpoint = endpoint(two, 2, weather).await;
                std::future::pending::<()>().await;
                Ok(())
            }
        });
        let noted = trace.clone();
        sim.client("one", async move {
            let endpoint = endpoint(one, 1, control).await;
            let address = SocketAddr::new(turmoil::lookup("two"), PORT).to_string();
            let directory = Arc::new(Fixed(BTreeMap::from([(two_id, address)])));
            let peers = Peers::new(&endpoint, directory, StdRng::seed_from_u64(seed));
            let start = Instant::now();
            for round in 0..12u8 {
                let outcome = exchange(&peers, two_id, round).await;
                let outcome = format!("{round} {outcome}");
                noted.lock().unwrap().push((start.elapsed(), outcome));
            }
            for report in peers.connections() {
                let packets = format!("{} sent {} lost {}", report.class, report.sent_packets, report.lost_packets);
                noted.lock().unwrap().push((report.rtt, packets));
            }
            Ok(())
        });
        sim.run().unwrap();
        let trace = trace.lock().unwrap();
        trace.clone()
    }

    async fn exchange(peers: &Peers, to: NodeId, round: u8) -> String {
        let class = if round.is_multiple_of(2) { Class::Control } else { Class::Data };
        let body = Bytes::from(vec![round; 3]);
        let limit = Duration::from_secs(5);
        let mut call = match peers.open(to, class, 1, body, limit).await {
            Ok(call) => call,
            Err(error) => return error.kind().to_owned(),
        };
        for _ in 0..8 {
            if let Err(error) = call.send(Bytes::from(vec![round.wrapping_add(1); 20_000])).await {
                return error.kind().to_owned();
            }
        }
        call.finish();
        match call.reply().await {
            Ok(answer) => {
                assert_eq!(answer.len(), 160_003);
                assert!(answer.ends_with(&[round; 3]) && answer.starts_with(&[round.wrapping_add(1); 9]));
                "ok".to_owned()
            }
            Err(error) => error.kind().to_owned(),
        }
    }

    const STORM: Weather = Weather { loss: 0.1, duplication: 0.05, corruption: 0.02 };

    #[test]
    fn one_seed_gives_one_trace_and_every_call_ends_right() {
        let first = run(7, STORM, 5);
        assert_eq!(first, run(7, STORM, 5));
        assert!(first.iter().filter(|(_, what)| what.ends_with("ok")).count() >= 10, "{first:?}");
        assert!(first.iter().any(|(_, what)| what.contains("lost") && !what.contains("lost 0")), "{first:?}");
        assert_ne!(first, run(8, STORM, 5));
    }

    #[test]
    fn fair_weather_loses_nothing() {
        // One latency for all: with several, datagrams overtake each other and count as lost.
        let trace = run(3, Weather::default(), 1);
        assert!(trace.iter().all(|(_, what)| what.ends_with("ok") || what.ends_with("lost 0")), "{trace:?}");
    }
}
