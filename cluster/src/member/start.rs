//! Starts and stops a member, in order.
//!
//! Start: state directory → drives → endpoint (peers can reach us) → the first-start round with the founding peers →
//! replicas → background workers. Stop is the same list backwards, with leaderships handed over first.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use drystone_certs::Identity;
use drystone_erasure::{BufferPool, Codecs};
use drystone_transport::{
    BoundSocket, Class, ConnectionReport, Endpoint, EndpointSetup, Peers, Runtimes, SetupError, TransportConfig,
    TransportMetrics,
};
use futures_util::future::join_all;
use prometheus::Registry;
use rand::RngCore as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::BodyMemory;
use super::certificate::watch_certificate;
use super::drives::{DrivesError, OpenedDrives, Opening, open_drives};
use super::garbage::{GarbageWorker, abandoned_queue};
use super::heartbeat::probe_peers;
use super::metrics::ClusterMetrics;
use super::peers::{Addresses, Admission};
use super::readiness::{Phase, watch_readiness};
use super::replicas::{ReplicasError, Stores};
use super::seams::{Seams, TransportClock};
use super::service::PeerService;
use super::state_dir::{MemberRecord, StateDir, StateDirError};
use super::store_watch::watch_store;
use super::{Member, MemberConfig, NotReady, replicas};
use crate::beat::Beat;
use crate::consensus::ReplicaRole;
use crate::detector::{Detector, DetectorConfig};
use crate::engine::{ChunkClient, ClusterStore, GroupClient, finish_interrupted_deletions};
use crate::ids::{InstanceId, NodeId};
use crate::placement::Health;

/// Memory of returned body buffers that is kept for the next body.
const BUFFER_POOL_BYTES: usize = 64 << 20;
/// How long a stopping leader waits for another replica to take over one group.
const HAND_OVER_DEADLINE: Duration = Duration::from_secs(3);
/// How often a node that starts for the first time asks the founding peers again.
const FIRST_START_RETRY: Duration = Duration::from_millis(250);
/// How often it says for whom it still waits.
const FIRST_START_NOTICE: Duration = Duration::from_secs(10);

/// A member that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateDirError),
    /// The drives.
    #[error(transparent)]
    Drives(#[from] DrivesError),
    /// The node is not in its own topology.
    #[error(
        "node {0} is not in the topology of its state directory: the directory is another node's, or it was removed"
    )]
    NotInTopology(crate::ids::NodeId),
    /// The peer port.
    #[error(transparent)]
    Endpoint(#[from] SetupError),
    /// The replicas.
    #[error(transparent)]
    Replicas(#[from] ReplicasError),
    /// Metrics of another member are registered already.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The CPU lacks what the parity code was compiled for.
    #[error(transparent)]
    Cpu(#[from] drystone_erasure::UnsupportedCpu),
    /// A stop was asked for while starting.
    #[error("stopped while starting")]
    Stopped,
}

/// A running member. Must be stopped with [`Running::stop`]; dropping it leaves unsynced nothing, but peers must notice.
pub struct Running {
    member: Arc<Member>,
    identity: Arc<Identity>,
    instance: InstanceId,
    seams: Seams,
    transport: TransportConfig,
    transport_metrics: TransportMetrics,
    admission: Arc<OnceLock<std::sync::Weak<Member>>>,
    endpoint: Endpoint,
    peers: Peers,
    clients: Mutex<Vec<(Endpoint, Peers)>>,
    stores: Stores,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What a member is started with, besides its seams.
pub struct Start {
    /// Settings.
    pub config: MemberConfig,
    /// Settings of the transport.
    pub transport: TransportConfig,
    /// Who the node is.
    pub identity: Arc<Identity>,
    /// The node's UDP port.
    pub socket: BoundSocket,
    /// Where peers are served.
    pub runtimes: Runtimes,
    /// Where metrics are registered.
    pub registry: Registry,
    /// Ends the start when cancelled.
    pub stop: CancellationToken,
}

/// Starts this node as a member of its cluster. Returns when its replicas run; whether it is ready is another question,
/// which [`Member::ready`] answers. On its first start it waits here for a majority of the other founding nodes.
///
/// # Errors
/// [`StartError`]; nothing keeps running.
pub async fn start(start: Start, seams: Seams) -> Result<Running, StartError> {
    drystone_erasure::check_cpu()?;
    let Start { config, transport, identity, socket, runtimes, registry, stop } = start;
    let Opened { member, instance, abandoned } = open_member(config, &identity, &registry, &seams)?;
    let transport_metrics = TransportMetrics::new(&registry)?;

    let admission = Arc::new(OnceLock::from(Arc::downgrade(&member)));
    let endpoint = Endpoint::bind(EndpointSetup {
        config: transport.clone(),
        identity: Arc::clone(&identity),
        instance,
        socket,
        runtimes,
        rng_seed: quic_seed(&seams),
        peers: Arc::new(Admission::new(Arc::clone(&admission))),
        service: Some(Arc::new(PeerService::new(Arc::clone(&member)))),
        clock: Arc::new(TransportClock(Arc::clone(&seams.clock))),
        metrics: transport_metrics.clone(),
    })?;
    let peers = Peers::new(&endpoint, Arc::new(Addresses(Arc::clone(&member))), std_rng(&seams));
    let tasks = TaskTracker::new();
    tasks.spawn(probe_peers(Arc::clone(&member), peers.clone(), stop.clone()));
    tasks.spawn(watch_certificate(Arc::clone(&member), stop.clone()));

    let running = Running {
        member,
        identity,
        instance,
        seams,
        transport,
        transport_metrics,
        admission,
        endpoint,
        peers,
        clients: Mutex::default(),
        stores: Stores::default(),
        stop,
        tasks,
    };
    match running.start_groups().await {
        Ok(()) => {
            running.start_workers(abandoned);
            Ok(running)
        }
        Err(error) => {
            running.stop().await;
            Err(error)
        }
    }
}

/// A member that nobody can reach yet.
struct Opened {
    member: Arc<Member>,
    instance: InstanceId,
    abandoned: mpsc::Receiver<crate::index::GarbageExtent>,
}

/// Reads the state directory and opens the drives.
fn open_member(
    config: MemberConfig,
    identity: &Arc<Identity>,
    registry: &Registry,
    seams: &Seams,
) -> Result<Opened, StartError> {
    let node = identity.node();
    let state_dir = StateDir::new(Arc::clone(&seams.files), &config.state_dir);
    let topology = state_dir.read_topology(identity.cluster())?;
    if !topology.nodes.contains_key(&node) {
        return Err(StartError::NotInTopology(node));
    }
    let mut record = state_dir.read_member()?;
    let instance = own_instance(&state_dir, &mut record, seams)?;
    let metrics = ClusterMetrics::new(registry)?;
    metrics.epoch.set(i64::try_from(topology.epoch).unwrap_or(i64::MAX));
    let buffers = BufferPool::new(BUFFER_POOL_BYTES);
    let opening = Opening {
        config: &config,
        seams,
        buffers: &buffers,
        registry,
        topology: &topology,
        node,
        state_dir: &state_dir,
    };
    let drives = open_drives(&opening, &mut record)?;
    let (abandoned, abandoned_receiver) = abandoned_queue();
    let identity = Arc::clone(identity);
    let new = NewMember { config, identity, seams, topology, drives, buffers, metrics, abandoned, state_dir, record };
    Ok(Opened { member: Arc::new(new_member(new)), instance, abandoned: abandoned_receiver })
}

/// How many of the `others` must have remembered a node before it may vote: more than half of them.
fn others_needed(others: usize) -> usize {
    if others == 0 { 0 } else { others / 2 + 1 }
}

fn own_instance(state_dir: &StateDir, record: &mut MemberRecord, seams: &Seams) -> Result<InstanceId, StateDirError> {
    if let Some(instance) = record.instance {
        return Ok(instance);
    }
    let instance = seams.randomness.with(InstanceId::random);
    record.instance = Some(instance);
    state_dir.write_member(record)?;
    Ok(instance)
}

struct NewMember<'a> {
    config: MemberConfig,
    identity: Arc<Identity>,
    seams: &'a Seams,
    topology: crate::topology::Topology,
    drives: OpenedDrives,
    buffers: BufferPool,
    metrics: ClusterMetrics,
    abandoned: mpsc::Sender<crate::index::GarbageExtent>,
    state_dir: StateDir,
    record: MemberRecord,
}

fn new_member(new: NewMember<'_>) -> Member {
    let mut detector = Detector::new(DetectorConfig::default());
    let node = new.identity.node();
    let started_at = tokio::time::Instant::now();
    let phase_ms = new.seams.randomness.with(|rng| rng.next_u64() % 60_000);
    detector.track(new.topology.nodes.keys().copied().filter(|peer| *peer != node), Duration::ZERO);
    Member {
        body_memory: BodyMemory::new(new.config.inflight_bytes_max, new.metrics.inflight_bytes.clone()),
        config: new.config,
        identity: new.identity,
        clock: Arc::clone(&new.seams.clock),
        randomness: new.seams.randomness.clone(),
        topology: ArcSwap::from_pointee(new.topology),
        health: ArcSwap::from_pointee(Health::default()),
        is_full: AtomicBool::new(false),
        detector: Mutex::new(detector),
        reports: RwLock::default(),
        peer_epochs: RwLock::default(),
        drives: new.drives.open,
        drive_paths: new.drives.paths,
        lost_drives: new.drives.lost,
        groups: RwLock::default(),
        lost_groups: RwLock::default(),
        leaders: super::leaders::Leaders::default(),
        buffers: new.buffers,
        codecs: Codecs::new(),
        metrics: new.metrics,
        abandoned: new.abandoned,
        state_dir: new.state_dir,
        record: Mutex::new(new.record),
        started_at,
        beat: Beat::new(started_at, Duration::from_millis(phase_ms)),
        phase: Phase::starting("waiting for peers"),
    }
}

fn quic_seed(seams: &Seams) -> Option<[u8; 32]> {
    seams.quic_seed.map(|seed| {
        let mut bytes = [0; 32];
        StdRng::seed_from_u64(seed ^ seams.randomness.with(rand::RngCore::next_u64)).fill_bytes(&mut bytes);
        bytes
    })
}

fn std_rng(seams: &Seams) -> StdRng {
    StdRng::seed_from_u64(seams.randomness.with(rand::RngCore::next_u64))
}

impl Running {
    async fn start_groups(&self) -> Result<(), StartError> {
        if !self.member.record().founded {
            self.meet_founding_majority().await?;
        }
        replicas::start(&self.member, &self.seams, &self.peers, &self.stores).await?;
        self.member.mark_founded()?;
        Ok(())
    }

    /// On the first start: replicas may vote only once a majority of the *other* founding nodes has
    /// remembered this life of the node. Any two such sets of peers share one, so a node whose state was wiped
    /// meets a peer that remembers its earlier life and is refused: it never votes a second time. The price is that the
    /// very first start needs more nodes than going on does: all of three, four of five.
    async fn meet_founding_majority(&self) -> Result<(), StartError> {
        let others = self.member.peer_nodes();
        let needed = others_needed(others.len());
        let mut said = None;
        loop {
            let met = |node: &&NodeId| self.peers.is_connected(**node, Class::Control);
            let missing: Vec<NodeId> = others.iter().filter(|node| !met(node)).copied().collect();
            if others.len() - missing.len() >= needed {
                return Ok(());
            }
            if said.is_none_or(|at: Instant| at.elapsed() >= FIRST_START_NOTICE) {
                said = Some(Instant::now());
                self.say_missing(&missing, needed, others.len());
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(StartError::Stopped),
                () = tokio::time::sleep(FIRST_START_RETRY) => {}
            }
        }
    }

    /// For whom the first start waits, with the last reason where one is known.
    fn say_missing(&self, missing: &[NodeId], needed: usize, others: usize) {
        let topology = self.member.topology();
        let described = missing.iter().map(|node| {
            let name = topology.nodes.get(node).map_or("?", |record| &record.name);
            match self.peers.last_failure(*node, Class::Control) {
                Some(cause) => format!("{name} ({cause})"),
                None => name.to_owned(),
            }
        });
        let missing = described.collect::<Vec<_>>().join(", ");
        tracing::info!(needed, others, missing, "first start: waiting for a majority of the other founding nodes");
    }

    fn start_workers(&self, abandoned: mpsc::Receiver<crate::index::GarbageExtent>) {
        let groups = GroupClient::new(Arc::clone(&self.member), self.peers.clone());
        let worker = GarbageWorker {
            member: Arc::clone(&self.member),
            chunks: ChunkClient::new(Arc::clone(&self.member), self.peers.clone()),
            groups: groups.clone(),
            abandoned,
            pending: Vec::new(),
        };
        let store = ClusterStore::new(Arc::clone(&self.member), self.peers.clone());
        self.tasks.spawn(worker.run(self.stop.clone()));
        self.tasks.spawn(finish_interrupted_deletions(store, self.stop.clone()));
        self.tasks.spawn(watch_readiness(Arc::clone(&self.member), groups.clone(), self.stop.clone()));
        self.tasks.spawn(super::first_key::install_first_key(Arc::clone(&self.member), groups, self.stop.clone()));
        for (dir, writer) in self.stores.all() {
            self.tasks.spawn(watch_store(dir.display().to_string(), writer, self.stop.clone()));
        }
        self.tasks.close();
    }

    /// The member.
    pub fn member(&self) -> &Arc<Member> {
        &self.member
    }

    /// Where peers reach this node.
    pub fn peer_address(&self) -> std::net::SocketAddr {
        self.endpoint.local_addr()
    }

    /// A store for one worker: dials peers from a socket of its own, driven by the runtime this is called on.
    ///
    /// # Errors
    /// The socket cannot be bound or set up.
    pub fn worker_store(&self) -> Result<ClusterStore, SetupError> {
        let mut address = self.endpoint.local_addr();
        address.set_port(0);
        let socket = (self.seams.bind_client)(address).map_err(|cause| SetupError::Socket { address, cause })?;
        let endpoint = Endpoint::bind(EndpointSetup {
            config: self.transport.clone(),
            identity: Arc::clone(&self.identity),
            instance: self.instance,
            socket,
            runtimes: Runtimes::single(tokio::runtime::Handle::current()),
            rng_seed: quic_seed(&self.seams),
            peers: Arc::new(Admission::new(Arc::clone(&self.admission))),
            service: None,
            clock: Arc::new(TransportClock(Arc::clone(&self.seams.clock))),
            metrics: self.transport_metrics.clone(),
        })?;
        let peers = Peers::new(&endpoint, Arc::new(Addresses(Arc::clone(&self.member))), std_rng(&self.seams));
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).push((endpoint, peers.clone()));
        Ok(ClusterStore::new(Arc::clone(&self.member), peers))
    }

    /// The live connections to and from peers; also refreshes their metrics.
    pub fn connections(&self) -> Vec<ConnectionReport> {
        let mut reports = self.peers.connections();
        for (_, peers) in self.clients.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            reports.extend(peers.connections());
        }
        self.transport_metrics.observe(&reports);
        reports
    }

    /// Stops: the steps below, in order. Everything acknowledged is durable before and after. Cancelled, it leaves what
    /// a crash would.
    pub async fn stop(self) {
        self.hand_over_leadership().await;
        self.stop_workers().await;
        self.close_drives().await;
        self.close_peers().await;
    }

    /// From now on the node is not ready. Gives the leadership of every group it leads to another replica, so that no
    /// election is needed; what is not taken over in time is elected.
    pub async fn hand_over_leadership(&self) {
        self.member.phase.set(Err(NotReady::Stopping));
        let groups = self.member.replicas();
        let led = groups.iter().map(|(_, group)| group).filter(|group| group.status().role == ReplicaRole::Leader);
        let deadline = tokio::time::Instant::now() + HAND_OVER_DEADLINE;
        let handed = join_all(led.map(|group| group.transfer_leadership(None, deadline))).await;
        let failed = handed.iter().filter(|result| result.is_err()).count();
        if failed > 0 {
            tracing::info!(failed, of = handed.len(), "some leaderships were not taken over; they will be elected");
        }
    }

    /// Ends the background workers at their next safe point.
    pub async fn stop_workers(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Ends the replicas, their logs and the drives.
    pub async fn close_drives(&self) {
        let groups = std::mem::take(&mut *self.member.groups.write().unwrap_or_else(PoisonError::into_inner));
        join_all(groups.values().map(|group| group.shutdown())).await;
        drop(groups);
        self.stores.close().await;
        for (id, closed) in
            join_all(self.member.drives.iter().map(|(id, drive)| async move { (id, drive.close().await) })).await
        {
            if let Err(error) = closed {
                tracing::warn!(drive = %id, %error, "a drive did not close in order");
            }
        }
    }

    /// Says goodbye to peers and closes the endpoints.
    pub async fn close_peers(&self) {
        let clients = std::mem::take(&mut *self.clients.lock().unwrap_or_else(PoisonError::into_inner));
        for (endpoint, peers) in clients {
            peers.close().await;
            endpoint.close().await;
        }
        self.peers.close().await;
        self.endpoint.close().await;
    }
}

impl Member {
    pub(super) fn record(&self) -> MemberRecord {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn mark_founded(&self) -> Result<(), StateDirError> {
        self.change_record(|record| record.founded = true)
    }

    /// Changes the member file, durably.
    pub(super) fn change_record(&self, change: impl FnOnce(&mut MemberRecord)) -> Result<(), StateDirError> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = record.clone();
        change(&mut next);
        if next != *record {
            self.state_dir.write_member(&next)?;
            *record = next;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_majorities_of_the_others_always_share_a_node() {
        assert_eq!([0, 1, 2, 3, 4, 6, 8].map(others_needed), [0, 1, 2, 2, 3, 4, 5]);
        for others in 1..200 {
            assert!(2 * others_needed(others) > others && others_needed(others) <= others, "{others}");
        }
    }
}
