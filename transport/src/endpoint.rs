//! A node's peer port: the QUIC endpoint, what is common to all its connections, and its orderly end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use drystone_certs::{Identity, InstanceId, NodeId};
use quinn::congestion::CubicConfig;
use quinn::crypto::{AeadKey, CryptoError, HandshakeTokenKey, HmacKey};
use quinn::{AckFrequencyConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TokioRuntime, VarInt};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cid::{SeededIds, class_of_first_id};
use crate::class::Class;
use crate::codes::{CLOSE_EVICTED, CLOSE_SHUTDOWN};
use crate::config::{ClassLimits, TransportConfig};
use crate::error::{ConnectError, SetupError};
use crate::hello::{Hello, PROTOCOL_MAX, PROTOCOL_MIN};
use crate::log_limit::LogLimit;
use crate::metrics::{ConnectionReport, Side, TransportMetrics};
use crate::policy::{PeerPolicy, WallClock};
use crate::serve::serve_connection;
use crate::service::Service;
use crate::socket::BoundSocket;
use crate::tls::{Tls, Verdict};

/// From this packet size on (loopback) fewer acknowledgements pay: one in ten packets.
const SPARSE_ACKS_FROM: u16 = 16 << 10;
/// First congestion window in bytes. It must hold several of the largest packets: a probe of the path MTU counts as in
/// flight, and with quinn's 14,720 bytes a single probe on loopback holds up everything behind it, even the frame that
/// closes the connection. A LAN takes this much at once.
const INITIAL_WINDOW: u64 = 256 << 10;

/// Where the connections of an endpoint live. Each handle is of a single-threaded runtime, in simulation all the same.
#[derive(Debug, Clone)]
pub struct Runtimes {
    /// Receives all datagrams and serves control connections.
    pub control: Handle,
    /// Serve accepted data connections in turn; if empty, `control` does.
    pub data: Vec<Handle>,
}

impl Runtimes {
    /// Everything on one runtime.
    pub fn single(runtime: Handle) -> Self {
        Self { control: runtime, data: Vec::new() }
    }
}

/// What an endpoint is made of.
pub struct EndpointSetup {
    /// Limits and times.
    pub config: TransportConfig,
    /// Who this node is.
    pub identity: Arc<Identity>,
    /// The life of its state directory.
    pub instance: InstanceId,
    /// Its socket.
    pub socket: BoundSocket,
    /// Where its connections live.
    pub runtimes: Runtimes,
    /// Randomness of connection ids and packet numbers; `None` takes the operating system's. Simulations need one.
    pub rng_seed: Option<[u8; 32]>,
    /// Who may connect.
    pub peers: Arc<dyn PeerPolicy>,
    /// What is offered to peers; `None` accepts no connections (an endpoint that only dials).
    pub service: Option<Arc<dyn Service>>,
    /// The clock certificates are judged by.
    pub clock: Arc<dyn WallClock>,
    /// Where it counts.
    pub metrics: TransportMetrics,
}

/// A node's peer port. A handle; the port closes with [`Endpoint::close`].
#[derive(Clone)]
pub struct Endpoint {
    pub(crate) shared: Arc<Shared>,
}

/// What the connections of an endpoint share.
pub(crate) struct Shared {
    pub(crate) config: TransportConfig,
    pub(crate) identity: Arc<Identity>,
    pub(crate) policy: Arc<dyn PeerPolicy>,
    pub(crate) metrics: TransportMetrics,
    pub(crate) tls: Tls,
    pub(crate) quinn: quinn::Endpoint,
    pub(crate) closing: CancellationToken,
    pub(crate) rng: Mutex<StdRng>,
    instance: InstanceId,
    address: SocketAddr,
    runtimes: Runtimes,
    clock: Arc<dyn WallClock>,
    transports: [Arc<quinn::TransportConfig>; 2],
    tasks: TaskTracker,
    accepted: Mutex<BTreeMap<u64, Accepted>>,
    accepted_count: AtomicUsize,
    accepted_next: AtomicU64,
}

struct Accepted {
    peer: NodeId,
    class: Class,
    connection: quinn::Connection,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("node", &self.shared.identity.node())
            .field("address", &self.shared.address)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Opens the endpoint on its socket and begins to accept peers.
    ///
    /// # Errors
    ///
    /// [`SetupError`] for contradictory configuration, an unusable identity or a refused socket.
    pub fn bind(setup: EndpointSetup) -> Result<Self, SetupError> {
        let EndpointSetup { config, identity, instance, socket, runtimes, peers, clock, .. } = setup;
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(SetupError::Config(problems));
        }
        let tls = Tls::new(&identity, clock.clone()).map_err(SetupError::Tls)?;
        let transports = Class::ALL.map(|class| Arc::new(transport(&config, class, socket.packet_bytes_max)));
        #[expect(clippy::disallowed_methods, reason = "the seam is the seed: without one the system is asked")]
        let mut rng = setup.rng_seed.map_or_else(StdRng::from_os_rng, StdRng::from_seed);
        let serves = match &setup.service {
            None => None,
            Some(_) => Some(server_config(&tls, &clock, &transports[0], Verdict::default())?),
        };
        let endpoint_config = endpoint_config(&identity, socket.packet_bytes_max, &mut rng);
        let address = socket.address;
        let quinn = {
            let _context = runtimes.control.enter();
            let opened = socket.socket.register().and_then(|socket| {
                quinn::Endpoint::new_with_abstract_socket(endpoint_config, serves, socket, Arc::new(TokioRuntime))
            });
            opened.map_err(|cause| SetupError::Socket { address, cause })?
        };
        let shared = Arc::new(Shared {
            config,
            identity,
            policy: peers,
            metrics: setup.metrics,
            tls,
            quinn,
            closing: CancellationToken::new(),
            rng: Mutex::new(rng),
            instance,
            address,
            runtimes,
            clock,
            transports,
            tasks: TaskTracker::new(),
            accepted: Mutex::default(),
            accepted_count: AtomicUsize::new(0),
            accepted_next: AtomicU64::new(0),
        });
        if let Some(service) = setup.service {
            let control = shared.runtimes.control.clone();
            shared.tasks.spawn_on(accept_loop(shared.clone(), service), &control);
        }
        Ok(Self { shared })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.address
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.shared.identity.node()
    }

    /// The accepted connections, as they are now.
    pub fn connections(&self) -> Vec<ConnectionReport> {
        lock(&self.shared.accepted)
            .values()
            .map(|accepted| ConnectionReport::of(&accepted.connection, accepted.peer, accepted.class, Side::Accepted))
            .collect()
    }

    /// Closes the accepted connections of a peer at once, for instance when it was evicted. The policy must already
    /// refuse it, else it comes back.
    pub fn evict(&self, peer: NodeId) {
        for accepted in lock(&self.shared.accepted).values().filter(|accepted| accepted.peer == peer) {
            accepted.connection.close(CLOSE_EVICTED, b"this node no longer accepts you as a peer");
        }
    }

    /// Ends the endpoint in order: accepts nothing new, refuses new calls as draining, lets calls in progress end for at
    /// most the drain timeout, then tells all peers and closes the port. Calls from several places end together.
    pub async fn close(&self) {
        let shared = &self.shared;
        shared.closing.cancel();
        shared.tasks.close();
        shared.tasks.wait().await;
        shared.quinn.close(CLOSE_SHUTDOWN, b"the node is shutting down");
        // Peers that are gone never acknowledge; three round trips are enough for the others.
        if timeout(shared.config.drain_timeout, shared.quinn.wait_idle()).await.is_err() {
            tracing::debug!("some connections did not close in time");
        }
    }
}

impl Shared {
    /// What this node says first on a connection.
    pub(crate) fn hello(&self, class: Class) -> Hello {
        Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            class,
            cluster: self.identity.cluster(),
            node: self.identity.node(),
            instance: self.instance,
            epoch: self.policy.epoch(),
            software: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    pub(crate) fn transport(&self, class: Class) -> Arc<quinn::TransportConfig> {
        self.transports[class.index()].clone()
    }

    pub(crate) fn server_config(&self, class: Class, verdict: Verdict) -> Result<quinn::ServerConfig, SetupError> {
        server_config(&self.tls, &self.clock, &self.transports[class.index()], verdict)
    }

    /// Counts and reports a connection that was refused at either end, or went wrong before it began.
    pub(crate) fn refused(&self, address: SocketAddr, why: &ConnectError) {
        self.metrics.refused();
        self.policy.refused(address, why);
    }

    /// Enters an established connection into the list of accepted ones; it is taken off when the guard is dropped.
    pub(crate) fn enlist(self: &Arc<Self>, peer: NodeId, class: Class, connection: quinn::Connection) -> Enlisted {
        let id = self.accepted_next.fetch_add(1, Ordering::Relaxed);
        lock(&self.accepted).insert(id, Accepted { peer, class, connection });
        Enlisted { shared: self.clone(), id }
    }
}

/// Keeps a connection in the list of accepted ones.
pub(crate) struct Enlisted {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Enlisted {
    fn drop(&mut self) {
        lock(&self.shared.accepted).remove(&self.id);
    }
}

/// Locks a mutex. Nothing here panics while it holds one, so a poisoned one is as good as another.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts a connection from its first packet to its end.
struct Slot(Arc<Shared>);

impl Slot {
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        let max = shared.config.inbound_connections_max;
        let taken = shared
            .accepted_count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < max).then_some(count + 1));
        let count = taken.ok()?;
        shared.metrics.accepted(count + 1);
        Some(Self(shared.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let count = self.0.accepted_count.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.accepted(count.saturating_sub(1));
    }
}

async fn accept_loop(shared: Arc<Shared>, service: Arc<dyn Service>) {
    let mut turn = 0;
    let log_limit = LogLimit::default();
    loop {
        let incoming = tokio::select! {
            biased;
            () = shared.closing.cancelled() => break,
            incoming = shared.quinn.accept() => incoming,
        };
        let Some(incoming) = incoming else { break };
        let Some(slot) = Slot::take(&shared) else {
            if let Some(unsaid) = log_limit.note(Instant::now()) {
                let max = shared.config.inbound_connections_max;
                tracing::warn!(
                    peer_address = %incoming.remote_address(), max, unsaid, "too many peer connections: one refused"
                );
            }
            incoming.refuse();
            continue;
        };
        let class = class_of_first_id(&incoming.orig_dst_cid());
        let runtimes = &shared.runtimes;
        let runtime = match class {
            Class::Data if !runtimes.data.is_empty() => {
                turn = (turn + 1) % runtimes.data.len();
                &runtimes.data[turn]
            }
            _ => &runtimes.control,
        };
        // The connection is accepted inside the task, because quinn drives it on the runtime where that happens.
        let served = serve_connection(shared.clone(), service.clone(), incoming, class);
        let task = async move {
            let _slot = slot;
            served.await;
        };
        shared.tasks.spawn_on(task, runtime);
    }
}

fn transport(config: &TransportConfig, class: Class, packet_bytes_max: u16) -> quinn::TransportConfig {
    let ClassLimits { streams_max, connection_window_bytes, stream_window_bytes, send_window_bytes, .. } =
        config.limits(class);
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(packet_bytes_max);
    let mut cubic = CubicConfig::default();
    cubic.initial_window(INITIAL_WINDOW);
    let mut transport = quinn::TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(*streams_max))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .receive_window(VarInt::from_u32(*connection_window_bytes))
        .stream_receive_window(VarInt::from_u32(*stream_window_bytes))
        .send_window(u64::from(*send_window_bytes))
        .max_idle_timeout(IdleTimeout::try_from(config.idle_timeout).ok())
        .keep_alive_interval(Some(config.keep_alive_interval))
        .initial_rtt(config.initial_rtt)
        .mtu_discovery_config(Some(mtu))
        .datagram_receive_buffer_size(None)
        // Never BBR: slower and dearer here.
        .congestion_controller_factory(Arc::new(cubic));
    if packet_bytes_max >= SPARSE_ACKS_FROM {
        let mut acks = AckFrequencyConfig::default();
        acks.ack_eliciting_threshold(VarInt::from_u32(10));
        transport.ack_frequency_config(Some(acks));
    }
    transport
}

fn endpoint_config(identity: &Identity, packet_bytes_max: u16, rng: &mut StdRng) -> EndpointConfig {
    let reset_key = identity.derive_key("drystone 2026 transport stateless reset");
    let mut config = EndpointConfig::new(Arc::new(ResetKey(reset_key)));
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    config.rng_seed(Some(seed));
    let ids = Mutex::new(StdRng::from_rng(rng));
    config.cid_generator(move || Box::new(SeededIds(StdRng::from_rng(&mut *lock(&ids)))));
    if let Err(error) = config.max_udp_payload_size(packet_bytes_max) {
        // Below 1,200 or above 65,527: the configuration check excludes it, and quinn's default of 1,472 works.
        tracing::warn!(packet_bytes_max, %error, "the packet size is out of range");
    }
    config
}

fn server_config(
    tls: &Tls,
    clock: &Arc<dyn WallClock>,
    transport: &Arc<quinn::TransportConfig>,
    verdict: Verdict,
) -> Result<quinn::ServerConfig, SetupError> {
    let crypto = tls.accept(verdict).map_err(SetupError::Tls)?;
    let mut config = quinn::ServerConfig::new(crypto, Arc::new(NoTokens));
    // Nodes do not move; without migration a stolen packet cannot redirect a connection.
    config.migration(false);
    config.transport_config(transport.clone());
    config.time_source(Arc::new(Wall(clock.clone())));
    let mut tokens = quinn::ValidationTokenConfig::default();
    tokens.sent(0);
    config.validation_token_config(tokens);
    Ok(config)
}

/// Stateless resets are signed with a key from the node's secret, so that a restarted node can still end the connections
/// of its former life.
struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        blake3::Hasher::new_keyed(&self.0).update(data).finalize_xof().fill(signature_out);
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let mut expected = [0; 32];
        self.sign(data, &mut expected);
        let given = <[u8; 32]>::try_from(signature).map_err(|_| CryptoError)?;
        // `Hash` compares in constant time.
        if blake3::Hash::from(expected) == blake3::Hash::from(given) { Ok(()) } else { Err(CryptoError) }
    }
}

/// Address tokens are neither issued nor accepted: peers authenticate in every handshake.
struct NoTokens;

impl HandshakeTokenKey for NoTokens {
    fn aead_from_hkdf(&self, _random_bytes: &[u8]) -> Box<dyn AeadKey> {
        Box::new(NoTokens)
    }
}

impl AeadKey for NoTokens {
    fn seal(&self, _data: &mut Vec<u8>, _additional_data: &[u8]) -> Result<(), CryptoError> {
        Err(CryptoError)
    }

    fn open<'a>(&self, _data: &'a mut [u8], _additional_data: &[u8]) -> Result<&'a mut [u8], CryptoError> {
        Err(CryptoError)
    }
}

struct Wall(Arc<dyn WallClock>);

impl quinn::TimeSource for Wall {
    fn now(&self) -> SystemTime {
        self.0.now()
    }
}
