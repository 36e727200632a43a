//! A group in one process, and the faults to put it through.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use drystone_certs::NodeId;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::beat::Beat;
use crate::consensus::{
    BoxFuture, CommandId, ConsensusNetwork, Group, GroupConfig, GroupId, GroupParts, MemberRole, Members, NetworkError,
    Position, ProposeError, ReadError, ReplicaId, ReplicaRole, StartError, StartMode, StateMachine, Transaction,
};
use crate::kv::{CrashLoss, Executor, KeyRange, Kv, LogMetrics, LogWriter, MemoryKv};

pub const GROUP: GroupId = GroupId(3);
const LATENCY: Duration = Duration::from_millis(1);

/// A map that counts how many commands it has applied. A command is `key=value`; the answer is the count.
pub struct CountingMap;

impl StateMachine for CountingMap {
    fn apply(&self, transaction: &mut Transaction<'_>, _position: Position, command: &[u8]) -> Vec<u8> {
        let count = transaction.get(b"count").map_or(0, |count| parse(&count)) + 1;
        transaction.put(b"count".to_vec(), count.to_string());
        if let Some(split) = command.iter().position(|byte| *byte == b'=') {
            let key = [b"key/", &command[..split]].concat();
            transaction.put(key, command[split + 1..].to_vec());
        }
        count.to_string().into_bytes()
    }
}

pub fn parse(bytes: &[u8]) -> u64 {
    std::str::from_utf8(bytes).unwrap().parse().unwrap()
}

pub fn node_id(index: usize) -> NodeId {
    NodeId::from_bytes([u8::try_from(index).unwrap() + 1; 8])
}

pub fn replica(index: usize) -> ReplicaId {
    ReplicaId(u64::try_from(index).unwrap() + 1)
}

pub fn voters(count: usize) -> Members {
    (0..count).map(|index| (replica(index), (node_id(index), MemberRole::Voter))).collect()
}

#[derive(Default)]
struct Wires {
    groups: BTreeMap<(NodeId, GroupId), (Group, Arc<AtomicBool>)>,
    /// Pairs that cannot speak, in that direction.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Chunks of a snapshot that arrive before its stream breaks; none: all do.
    snapshot_chunks_max: Option<u64>,
    snapshots_sent: u64,
    calls: u64,
}

/// The network between all nodes.
#[derive(Clone, Default)]
pub struct Hub {
    wires: Arc<Mutex<Wires>>,
}

impl Hub {
    pub fn port(&self, from: NodeId) -> Arc<Port> {
        Arc::new(Port { hub: self.clone(), from, latency: LATENCY, alive: Arc::new(AtomicBool::new(true)) })
    }

    pub fn fast_port(&self, from: NodeId) -> Arc<Port> {
        Arc::new(Port { hub: self.clone(), from, latency: Duration::ZERO, alive: Arc::new(AtomicBool::new(true)) })
    }

    pub fn plug(&self, port: &Port, id: GroupId, group: Group) {
        self.wires.lock().unwrap().groups.insert((port.from, id), (group, Arc::clone(&port.alive)));
    }

    /// From here on nothing that the node still does is heard of.
    pub fn unplug(&self, node: NodeId, id: GroupId) {
        if let Some((_, alive)) = self.wires.lock().unwrap().groups.remove(&(node, id)) {
            alive.store(false, Ordering::Release);
        }
    }

    pub fn cut_off(&self, some: &[usize], others: &[usize]) {
        let mut wires = self.wires.lock().unwrap();
        for one in some {
            for other in others {
                wires.cut.insert((node_id(*one), node_id(*other)));
                wires.cut.insert((node_id(*other), node_id(*one)));
            }
        }
    }

    pub fn heal(&self) {
        self.wires.lock().unwrap().cut.clear();
    }

    pub fn break_snapshots_after(&self, chunks: Option<u64>) {
        self.wires.lock().unwrap().snapshot_chunks_max = chunks;
    }

    pub fn snapshots_sent(&self) -> u64 {
        self.wires.lock().unwrap().snapshots_sent
    }

    pub fn calls(&self) -> u64 {
        self.wires.lock().unwrap().calls
    }

    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.wires.lock().unwrap().cut.contains(&(from, to))
    }

    fn target(&self, from: NodeId, to: NodeId, group: GroupId) -> Option<(Group, Arc<AtomicBool>)> {
        let mut wires = self.wires.lock().unwrap();
        wires.calls += 1;
        if wires.cut.contains(&(from, to)) { None } else { wires.groups.get(&(to, group)).cloned() }
    }
}

/// The network as one node sees it.
pub struct Port {
    hub: Hub,
    from: NodeId,
    latency: Duration,
    alive: Arc<AtomicBool>,
}

impl Port {
    async fn travel(&self) {
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
    }

    fn target(&self, to: NodeId, group: GroupId) -> Result<(Group, Arc<AtomicBool>), NetworkError> {
        if !self.alive.load(Ordering::Acquire) {
            return Err(NetworkError::Unreachable);
        }
        self.hub.target(self.from, to, group).ok_or(NetworkError::Unreachable)
    }

    /// Whether an answer still finds its way: neither end has crashed and the way back is not cut.
    fn check_way_back(&self, to: NodeId, there: &AtomicBool) -> Result<(), NetworkError> {
        let alive = there.load(Ordering::Acquire) && self.alive.load(Ordering::Acquire);
        if alive && !self.hub.is_cut(to, self.from) { Ok(()) } else { Err(NetworkError::TimedOut) }
    }
}

impl ConsensusNetwork for Port {
    fn call(
        &self,
        to: NodeId,
        group: GroupId,
        message: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Bytes, NetworkError>> {
        Box::pin(async move {
            let exchange = async {
                self.travel().await;
                let (target, there) = self.target(to, group)?;
                let reply = target.handle(message).await.map_err(|_| NetworkError::Refused)?;
                self.check_way_back(to, &there)?;
                self.travel().await;
                self.check_way_back(to, &there)?;
                Ok(reply)
            };
            tokio::time::timeout(deadline, exchange).await.unwrap_or(Err(NetworkError::TimedOut))
        })
    }

    fn send_snapshot(
        &self,
        to: NodeId,
        group: GroupId,
        head: Bytes,
        mut chunks: mpsc::Receiver<Bytes>,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Bytes, NetworkError>> {
        Box::pin(async move {
            let exchange = async {
                let (target, there) = self.target(to, group)?;
                let (sender, receiver) = mpsc::channel(1);
                let forward = async move {
                    let mut left = {
                        let mut wires = self.hub.wires.lock().unwrap();
                        wires.snapshots_sent += 1;
                        wires.snapshot_chunks_max
                    };
                    while let Some(chunk) = chunks.recv().await {
                        self.travel().await;
                        if left == Some(0) || self.target(to, group).is_err() {
                            return;
                        }
                        left = left.map(|left| left - 1);
                        if sender.send(chunk).await.is_err() {
                            return;
                        }
                    }
                };
                let ((), reply) = futures_util::future::join(forward, target.install_snapshot(head, receiver)).await;
                self.check_way_back(to, &there)?;
                reply.map_err(|_| NetworkError::Refused)
            };
            tokio::time::timeout(deadline, exchange).await.unwrap_or(Err(NetworkError::TimedOut))
        })
    }
}

pub struct TestNode {
    pub kv: MemoryKv,
    pub writer: Option<LogWriter>,
    pub group: Option<Group>,
}

/// A group and its nodes.
pub struct TestCluster {
    pub hub: Hub,
    pub nodes: Vec<TestNode>,
    pub members: Members,
    pub preferred: Option<ReplicaId>,
    pub tune: fn(&mut GroupConfig),
    seed: u64,
    commands: u64,
}

impl TestCluster {
    /// `count` voters on empty storage, not started.
    pub fn new(count: usize, seed: u64) -> Self {
        let nodes = (0..count).map(|_| TestNode { kv: MemoryKv::new(), writer: None, group: None }).collect();
        Self {
            hub: Hub::default(),
            nodes,
            members: voters(count),
            preferred: Some(ReplicaId(1)),
            tune: |_| {},
            seed,
            commands: 0,
        }
    }

    pub async fn started(count: usize, seed: u64) -> Self {
        let mut cluster = Self::new(count, seed);
        cluster.start_all(StartMode::Create).await;
        cluster
    }

    pub async fn start_all(&mut self, mode: StartMode) {
        for index in 0..self.nodes.len() {
            self.start(index, mode).await.unwrap();
        }
    }

    pub async fn start(&mut self, index: usize, mode: StartMode) -> Result<(), StartError> {
        let kv = self.nodes[index].kv.clone();
        let executor = Executor::Tasks { sync_delay: Duration::from_millis(2) };
        let writer = LogWriter::start(Arc::new(kv.clone()), executor, LogMetrics::unregistered()).unwrap();
        let mut config = GroupConfig::new(GROUP, replica(index), self.members.clone(), mode);
        config.preferred_leader = self.preferred;
        (self.tune)(&mut config);
        self.seed += 1;
        let port = self.hub.port(node_id(index));
        let parts = GroupParts {
            kv: Arc::new(kv),
            log_writer: writer.clone(),
            state_machine: Arc::new(CountingMap),
            network: Arc::clone(&port) as Arc<dyn ConsensusNetwork>,
            rng_seed: self.seed * 1000 + u64::try_from(index).unwrap(),
            beat: Beat::new(Instant::now(), Duration::ZERO),
        };
        let group = Group::start(config, parts).await?;
        self.hub.plug(&port, GROUP, group.clone());
        self.nodes[index].writer = Some(writer);
        self.nodes[index].group = Some(group);
        Ok(())
    }

    /// Cuts the power of a node.
    pub async fn crash(&mut self, index: usize, loss: CrashLoss) {
        self.hub.unplug(node_id(index), GROUP);
        let node = &mut self.nodes[index];
        node.kv = node.kv.crash(loss);
        if let Some(group) = node.group.take() {
            group.shutdown().await;
        }
        if let Some(writer) = node.writer.take() {
            writer.shutdown().await;
        }
    }

    pub fn group(&self, index: usize) -> &Group {
        self.nodes[index].group.as_ref().unwrap()
    }

    pub fn running(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|index| self.nodes[*index].group.is_some())
    }

    /// Waits for a leader that can serve, among `among`.
    pub async fn leader_among(&self, among: &[usize]) -> usize {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            for index in among {
                if self.group(*index).status().role == ReplicaRole::Leader
                    && self.group(*index).read_barrier(within(1)).await.is_ok()
                {
                    return *index;
                }
            }
            assert!(Instant::now() < end, "no leader: {:?}", self.statuses());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn statuses(&self) -> Vec<crate::consensus::GroupStatus> {
        self.running().map(|index| self.group(index).status()).collect()
    }

    pub async fn leader(&self) -> usize {
        let running: Vec<_> = self.running().collect();
        self.leader_among(&running).await
    }

    pub fn command_id(&mut self) -> CommandId {
        self.commands += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.commands.to_be_bytes());
        CommandId(id)
    }

    /// Proposes through whoever leads among the running nodes, until it is answered.
    pub async fn put(&mut self, key: &str, value: &str) -> u64 {
        let id = self.command_id();
        self.put_as(id, key, value).await
    }

    pub async fn put_as(&self, id: CommandId, key: &str, value: &str) -> u64 {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let leader = self.leader().await;
            let body = Bytes::from(format!("{key}={value}"));
            match self.group(leader).propose(id, body, within(3)).await {
                Ok(answer) => return parse(&answer),
                Err(ProposeError::Stopped) => unreachable!("nobody stopped it"),
                Err(_) => assert!(Instant::now() < end, "no progress: {:?}", self.statuses()),
            }
        }
    }

    /// A linearizable read at the leader.
    pub async fn get(&self, key: &str) -> Option<String> {
        let leader = self.leader().await;
        self.group(leader).read_barrier(within(5)).await.unwrap();
        self.peek(leader, key)
    }

    /// What one replica has applied.
    pub fn peek(&self, index: usize, key: &str) -> Option<String> {
        let value = self.group(index).view().get(format!("key/{key}").as_bytes()).unwrap();
        value.map(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    /// The whole state of a replica.
    pub fn dump(&self, index: usize) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut state = BTreeMap::new();
        let view = self.group(index).frozen_view();
        view.scan(&KeyRange::prefix(b""), &mut |key, value| {
            state.insert(key.to_vec(), value.to_vec());
            ControlFlow::Continue(())
        })
        .unwrap();
        state
    }

    /// Waits until every running replica has applied what the leader has.
    pub async fn settle(&self) {
        let leader = self.leader().await;
        let wanted = self.group(leader).status().applied;
        let end = Instant::now() + Duration::from_secs(60);
        while !self.running().all(|index| self.group(index).status().applied >= wanted) {
            assert!(Instant::now() < end, "not settled: {:?}", self.statuses());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn stop(mut self) {
        for node in &mut self.nodes {
            if let Some(group) = node.group.take() {
                group.shutdown().await;
            }
            if let Some(writer) = node.writer.take() {
                writer.shutdown().await;
            }
        }
    }
}

pub fn within(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

pub fn is_refused(result: &Result<(), ReadError>) -> bool {
    matches!(result, Err(ReadError::NotLeader { .. } | ReadError::Unavailable { .. }))
}

pub fn kv_of(node: &TestNode) -> Arc<dyn Kv> {
    Arc::new(node.kv.clone())
}
