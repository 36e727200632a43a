//! A few nodes of one cluster in this process, with a service whose methods do one simple thing each.
#![expect(clippy::unwrap_used, reason = "a failed set-up should fail the test at once")]
#![expect(dead_code, reason = "each test target uses a part of it")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use drystone_certs::{ClusterAuthority, ClusterId, FOUNDING_LIFETIME, Identity, InstanceId, NodeId};
use drystone_transport::{
    BoxFuture, ConnectError, Directory, Endpoint, EndpointSetup, Hello, IncomingCall, PeerPolicy, Peers, Refusal,
    RpcFailure, Runtimes, Service, SystemClock, TransportConfig, TransportMetrics, bind,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};

pub const ECHO: u16 = 1;
pub const BULK_ECHO: u16 = 2;
pub const FAIL: u16 = 3;
pub const HOLD: u16 = 4;
pub const FORGET: u16 = 5;
pub const HALF: u16 = 6;
pub const SECOND: Duration = Duration::from_secs(1);
pub const LONG: Duration = Duration::from_secs(20);

/// A cluster's authority and a source of nodes.
pub struct World {
    pub authority: ClusterAuthority,
    pub now: SystemTime,
    rng: StdRng,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "certificates are checked against the clock of the system")]
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let now = SystemTime::now();
        let cluster = ClusterId::random(&mut rng);
        let authority = ClusterAuthority::create(cluster, now, &mut rng).unwrap();
        Self { authority, now, rng }
    }

    pub fn identity(&mut self) -> Arc<Identity> {
        self.identity_at(self.now)
    }

    pub fn identity_at(&mut self, now: SystemTime) -> Arc<Identity> {
        let node = NodeId::random(&mut self.rng);
        let made = Identity::founding(&self.authority, node, [0; 32], now, FOUNDING_LIFETIME, &mut self.rng);
        Arc::new(made.unwrap())
    }
}

/// Admits all but a few, and tells a test what was refused.
pub struct Policy {
    pub unknown: Mutex<Vec<NodeId>>,
    refusals: mpsc::UnboundedSender<String>,
}

impl PeerPolicy for Policy {
    fn epoch(&self) -> u64 {
        7
    }

    fn admit(&self, hello: &Hello) -> Result<(), Refusal> {
        if self.unknown.lock().unwrap().contains(&hello.node) {
            return Err(Refusal::UnknownNode(hello.node));
        }
        Ok(())
    }

    fn unresolved(&self, node: NodeId, why: &ConnectError) {
        self.refusals.send(format!("{node}: {why}")).ok();
    }

    fn refused(&self, _address: SocketAddr, why: &ConnectError) {
        self.refusals.send(why.to_string()).ok();
    }
}

#[derive(Clone, Default)]
pub struct Addresses(pub Arc<Mutex<BTreeMap<NodeId, String>>>);

impl Directory for Addresses {
    fn address(&self, node: NodeId) -> Option<String> {
        self.0.lock().unwrap().get(&node).cloned()
    }
}

/// The service of the tests.
#[derive(Default)]
pub struct Bench {
    pub held: Notify,
    pub release: Notify,
    pub abandoned: Notify,
    pub threads: Mutex<Vec<std::thread::ThreadId>>,
}

pub struct BenchService(pub Arc<Bench>);

impl Service for BenchService {
    fn call(&self, call: IncomingCall) -> BoxFuture<'static, ()> {
        let bench = self.0.clone();
        Box::pin(handle(bench, call))
    }
}

async fn handle(bench: Arc<Bench>, mut call: IncomingCall) {
    match call.method {
        ECHO => {
            bench.threads.lock().unwrap().push(std::thread::current().id());
            let body = call.body.clone();
            call.respond(Ok(body)).await;
        }
        BULK_ECHO => {
            let mut received = Vec::new();
            while let Some(bytes) = call.recv_bulk(1 << 20).await.unwrap() {
                received.push(bytes);
            }
            let len: usize = received.iter().map(Bytes::len).sum();
            call.reply(Ok(Bytes::from(len.to_le_bytes().to_vec()))).await.unwrap();
            for bytes in received {
                call.send_bulk(bytes).await.unwrap();
            }
            call.finish();
        }
        FAIL => {
            let failure = RpcFailure { code: 42, detail: call.body.clone() };
            call.respond(Err(failure)).await;
        }
        HOLD => {
            let abandoned = call.abandoned();
            bench.held.notify_one();
            tokio::select! {
                biased;
                () = abandoned => bench.abandoned.notify_one(),
                () = bench.release.notified() => call.respond(Ok(Bytes::new())).await,
            }
        }
        HALF => {
            call.reply(Ok(Bytes::new())).await.unwrap();
            call.send_bulk(Bytes::from_static(b"half")).await.unwrap();
        }
        _ => {}
    }
}

pub struct Node {
    pub identity: Arc<Identity>,
    pub endpoint: Endpoint,
    pub peers: Peers,
    pub bench: Arc<Bench>,
    pub policy: Arc<Policy>,
    pub addresses: Addresses,
    pub refusals: mpsc::UnboundedReceiver<String>,
}

impl Node {
    pub fn start(identity: Arc<Identity>, config: TransportConfig) -> Self {
        Self::start_at(identity, config, 0, Runtimes::single(Handle::current()))
    }

    pub fn start_at(identity: Arc<Identity>, config: TransportConfig, port: u16, runtimes: Runtimes) -> Self {
        let (sender, refusals) = mpsc::unbounded_channel();
        let policy = Arc::new(Policy { unknown: Mutex::default(), refusals: sender });
        let bench = Arc::new(Bench::default());
        let socket = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), &config).unwrap();
        let endpoint = Endpoint::bind(EndpointSetup {
            config,
            identity: identity.clone(),
            instance: InstanceId::from_bytes([1; 16]),
            socket,
            runtimes,
            rng_seed: None,
            peers: policy.clone(),
            service: Some(Arc::new(BenchService(bench.clone()))),
            clock: Arc::new(SystemClock),
            metrics: TransportMetrics::new(&prometheus::Registry::new()).unwrap(),
        })
        .unwrap();
        let addresses = Addresses::default();
        let peers = Peers::new(&endpoint, Arc::new(addresses.clone()), StdRng::seed_from_u64(1));
        Self { identity, endpoint, peers, bench, policy, addresses, refusals }
    }

    pub fn id(&self) -> NodeId {
        self.identity.node()
    }

    pub fn knows(&self, other: &Node) {
        self.knows_as(other.id(), other.endpoint.local_addr());
    }

    pub fn knows_as(&self, id: NodeId, address: SocketAddr) {
        self.addresses.0.lock().unwrap().insert(id, address.to_string());
    }

    pub async fn stop(&self) {
        self.peers.close().await;
        self.endpoint.close().await;
    }
}

/// Two nodes of one cluster, the first of which knows where the second is.
pub fn pair(config: TransportConfig) -> (Node, Node) {
    let mut world = World::new(1);
    let (one, two) = (Node::start(world.identity(), config.clone()), Node::start(world.identity(), config));
    one.knows(&two);
    (one, two)
}
