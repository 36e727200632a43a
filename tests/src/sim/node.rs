//! One simulated node: the real member on simulated seams, started again after each crash.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use drystone_certs::Identity;
use drystone_cluster::member::{self, Executor, MemberConfig, Running, Seams, Start};
use drystone_cluster::seams::{Randomness, WallClock};
use drystone_cluster::store::{BucketName, StoreError};
use drystone_transport::sim::{WeatherControl, bind};
use drystone_transport::{Runtimes, TransportConfig};
use prometheus::Registry;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::disk::Disk;
use super::service::{Ask, Job, Reply, answer};
use super::trace::Trace;

/// Where every node listens for peers.
pub(super) const PEER_PORT: u16 = 7_000;
/// When simulations begin, in milliseconds since the Unix epoch.
pub(super) const EPOCH_MS: u64 = 1_800_000_000_000;

/// What a node is made of; survives its crashes.
pub struct Node {
    pub(super) name: String,
    pub(super) identity: Arc<Identity>,
    pub(super) config: MemberConfig,
    pub(super) disk: Disk,
    pub(super) weather: WeatherControl,
    pub(super) trace: Trace,
    pub(super) bucket: BucketName,
    pub(super) seed: u64,
    /// How often it was started.
    lives: AtomicU64,
    /// How far its clock is off, in milliseconds.
    skew_ms: Arc<AtomicI64>,
    mailbox: Mutex<Option<mpsc::UnboundedSender<Job>>>,
    /// The metrics of this life.
    registry: Mutex<Registry>,
}

/// What a [`Node`] is made from.
pub(super) struct NodeParts {
    pub(super) name: String,
    pub(super) identity: Arc<Identity>,
    pub(super) config: MemberConfig,
    pub(super) disk: Disk,
    pub(super) weather: WeatherControl,
    pub(super) trace: Trace,
    pub(super) bucket: BucketName,
    pub(super) seed: u64,
}

impl Node {
    pub(super) fn new(parts: NodeParts) -> Self {
        let NodeParts { name, identity, config, disk, weather, trace, bucket, seed } = parts;
        Self {
            name,
            identity,
            config,
            disk,
            weather,
            trace,
            bucket,
            seed,
            lives: AtomicU64::new(0),
            skew_ms: Arc::default(),
            mailbox: Mutex::default(),
            registry: Mutex::default(),
        }
    }

    /// Hands a question to the node. Refused at once if the node does not serve; never answered if it goes away.
    pub fn ask(&self, ask: Ask) -> Option<oneshot::Receiver<Result<Reply, StoreError>>> {
        let (reply, answered) = oneshot::channel();
        let mailbox = self.mailbox.lock().unwrap_or_else(PoisonError::into_inner);
        mailbox.as_ref()?.send(Job { ask, reply }).ok()?;
        Some(answered)
    }

    /// Whether anybody reaches the node.
    pub(super) fn serves(&self) -> bool {
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Puts the node's clock so far off.
    pub(super) fn skew_clock(&self, skew_ms: i64) {
        self.skew_ms.store(skew_ms, Ordering::Relaxed);
    }

    /// From now on nobody reaches the node.
    pub(super) fn close_mailbox(&self) {
        *self.mailbox.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The software of its turmoil host.
    pub(super) async fn live(self: Arc<Self>) -> turmoil::Result {
        let life = self.lives.fetch_add(1, Ordering::Relaxed);
        self.trace.event(&format!("{} starts its life {life}", self.name));
        let randomness = Randomness::from_seed(self.seed ^ (life + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let running = match self.start(&randomness).await {
            Ok(running) => Arc::new(running),
            // As a process that exits; if there was no reason to, the cluster never recovers and the run is red.
            Err(error) => {
                self.trace.event(&format!("{} does not start: {error}", self.name));
                return Ok(());
            }
        };
        let (sender, mut jobs) = mpsc::unbounded_channel();
        let store = running.worker_store()?;
        *self.mailbox.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        self.trace.event(&format!("{} serves", self.name));
        while let Some(Job { ask, reply }) = jobs.recv().await {
            if matches!(ask, Ask::Stop) {
                self.close_mailbox();
                return self.stop(&running).await;
            }
            let (store, node) = (store.clone(), Arc::clone(&self));
            tokio::spawn(async move {
                let now_ms = EPOCH_MS + node.trace.now_ms();
                let answered = answer(&store, &node.bucket, now_ms, ask).await;
                // A client that gave up does not want to know.
                drop(reply.send(answered));
            });
        }
        Ok(())
    }

    /// Adds what the present life has counted to what has happened, and begins to count anew.
    pub(super) fn settle_metrics(&self) -> Registry {
        let next = Registry::new();
        let ended = std::mem::replace(&mut *self.registry.lock().unwrap_or_else(PoisonError::into_inner), next.clone());
        for family in
            ended.gather().iter().filter(|family| family.name() == "drystone_cluster_snapshots_installed_total")
        {
            let installed: f64 = family.get_metric().iter().map(|metric| metric.get_counter().get_value()).sum();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
            self.trace.fired_times("whole state taken over", installed as u64);
        }
        next
    }

    async fn start(&self, randomness: &Randomness) -> Result<Running, member::StartError> {
        let seed = randomness.with(rand::RngCore::next_u64);
        let (weather, sockets) = (self.weather.clone(), randomness.split());
        let bind_client = move |address| bind(address, sockets.with(rand::RngCore::next_u64), weather.clone());
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PEER_PORT));
        let socket = bind_client(address).map_err(|cause| drystone_transport::SetupError::Socket { address, cause })?;
        let (stores, indexes) = (self.disk.clone(), self.disk.clone());
        let seams = Seams {
            files: Arc::new(self.disk.files().mount()),
            open_kv: Arc::new(move |dir: &Path| stores.open_kv(dir)),
            chunk_index: Arc::new(move |drive: &Path| indexes.chunk_index(drive)),
            executor: Executor::Tasks,
            bind_client: Arc::new(bind_client),
            clock: Arc::new(SkewedClock { trace: self.trace.clone(), skew_ms: Arc::clone(&self.skew_ms) }),
            randomness: randomness.clone(),
            quic_seed: Some(seed),
        };
        let start = Start {
            config: self.config.clone(),
            transport: TransportConfig::default(),
            identity: Arc::clone(&self.identity),
            socket,
            runtimes: Runtimes::single(Handle::current()),
            registry: self.settle_metrics(),
            stop: CancellationToken::new(),
        };
        member::start(start, seams).await
    }

    async fn stop(&self, running: &Running) -> turmoil::Result {
        self.trace.event(&format!("{} stops", self.name));
        running.hand_over_leadership().await;
        running.stop_workers().await;
        running.close_drives().await;
        running.close_peers().await;
        self.trace.event(&format!("{} has stopped", self.name));
        Ok(())
    }
}

/// The simulation's time of day, as a clock that is off tells it.
struct SkewedClock {
    trace: Trace,
    skew_ms: Arc<AtomicI64>,
}

impl WallClock for SkewedClock {
    fn now_ms(&self) -> u64 {
        (EPOCH_MS + self.trace.now_ms()).saturating_add_signed(self.skew_ms.load(Ordering::Relaxed))
    }
}
