//! Measurements, not tests: three nodes with 16 groups each on real stores, network in memory. Run one with
//! `cargo test --release -p drystone-cluster --lib -- --ignored --nocapture speed`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::harness::{CountingMap, Hub, node_id, replica, voters, within};
use crate::beat::Beat;
use crate::consensus::{CommandId, ConsensusNetwork, Group, GroupConfig, GroupId, GroupParts, ReplicaRole, StartMode};
use crate::kv::{Executor, FjallConfig, FjallKv, Kv, LogMetrics, LogWriter, MemoryKv};

const NODES: usize = 3;

/// CPU time of this process so far, user and system. `/proc` counts in hundredths of a second.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    Duration::from_millis((fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10)
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

struct Bench {
    groups: Vec<Group>,
    writers: Vec<LogWriter>,
    _directory: tempfile::TempDir,
}

async fn start(group_count: u16) -> Bench {
    start_on(group_count, |path| Arc::new(FjallKv::open(path, &FjallConfig::default()).unwrap())).await
}

async fn start_on(group_count: u16, open: fn(&Path) -> Arc<dyn Kv>) -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let hub = Hub::default();
    let mut groups = Vec::new();
    let mut writers = Vec::new();
    for node in 0..NODES {
        let path = directory.path().join(node.to_string());
        let kv = open(&path);
        let writer = LogWriter::start(Arc::clone(&kv), Executor::Threads, LogMetrics::unregistered()).unwrap();
        for number in 1..=group_count {
            let id = GroupId(number);
            let mut config = GroupConfig::new(id, replica(node), voters(NODES), StartMode::Create);
            config.preferred_leader = Some(replica(usize::from(number) % NODES));
            let port = hub.fast_port(node_id(node));
            let parts = GroupParts {
                kv: Arc::clone(&kv),
                log_writer: writer.clone(),
                state_machine: Arc::new(CountingMap),
                network: Arc::clone(&port) as Arc<dyn ConsensusNetwork>,
                rng_seed: u64::from(number) * 100 + u64::try_from(node).unwrap(),
                beat: Beat::new(Instant::now(), Duration::ZERO),
            };
            let group = Group::start(config, parts).await.unwrap();
            hub.plug(&port, id, group.clone());
            groups.push(group);
        }
        writers.push(writer);
    }
    for group in &groups {
        group.wait_leader(within(10)).await.unwrap();
    }
    Bench { groups, writers, _directory: directory }
}

impl Bench {
    fn leaders(&self) -> Vec<Group> {
        let leads = |group: &&Group| group.status().role == ReplicaRole::Leader;
        self.groups.iter().filter(leads).cloned().collect()
    }

    async fn stop(self) {
        for group in &self.groups {
            group.shutdown().await;
        }
        for writer in &self.writers {
            writer.shutdown().await;
        }
    }
}

/// `clients` per group propose commands of `len` bytes, one after the other, for `seconds`.
async fn propose_for(bench: &Bench, clients: u64, len: usize, seconds: u64) -> (u64, Duration) {
    let done = Arc::new(AtomicU64::new(0));
    let worst = Arc::new(AtomicU64::new(0));
    let end = within(seconds);
    let mut tasks = Vec::new();
    for (number, leader) in bench.leaders().into_iter().enumerate() {
        for client in 0..clients {
            let (leader, done, worst) = (leader.clone(), Arc::clone(&done), Arc::clone(&worst));
            tasks.push(tokio::spawn(async move {
                for round in 0u64.. {
                    if Instant::now() >= end {
                        return;
                    }
                    let mut id = [0; 16];
                    id[..8].copy_from_slice(&round.to_be_bytes());
                    id[8..12].copy_from_slice(&u32::try_from(client).unwrap().to_be_bytes());
                    id[12..].copy_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
                    let mut body = format!("{number}/{client}/{round}=").into_bytes();
                    body.resize(len, b'v');
                    let begun = Instant::now();
                    leader.propose(CommandId(id), Bytes::from(body), within(10)).await.unwrap();
                    let took = u64::try_from(begun.elapsed().as_micros()).unwrap();
                    worst.fetch_max(took, Ordering::Relaxed);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    (done.load(Ordering::Relaxed), Duration::from_micros(worst.load(Ordering::Relaxed)))
}

#[test]
#[ignore = "a measurement of several seconds"]
fn speed_of_commits() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let bench = start(16).await;
        assert_eq!(bench.leaders().len(), 16);
        for (clients, len) in [(1, 300), (4, 300), (16, 300), (4, 4096), (16, 4096)] {
            let cpu = cpu_time();
            let (count, worst) = propose_for(&bench, clients, len, 4).await;
            let cpu = cpu_time() - cpu;
            println!(
                "{clients:>3} clients x 16 groups, {len:>4} B: {:>6}/s, {:>5.0} us CPU each (3 nodes), worst {worst:?}",
                count / 4,
                cpu.as_secs_f64() * 1e6 / f64::from(u32::try_from(count).unwrap()),
            );
        }
        let group = bench.leaders().remove(0);
        let (begun, cpu) = (Instant::now(), cpu_time());
        for _ in 0..2_000 {
            group.read_barrier(within(5)).await.unwrap();
        }
        println!(
            "read barrier, one reader: {:?} each, {:.0} us CPU",
            begun.elapsed() / 2_000,
            (cpu_time() - cpu).as_secs_f64() * 1e6 / 2_000.0
        );
        println!("resident {} MB", resident_bytes() >> 20);
        bench.stop().await;
    });
}

#[test]
#[ignore = "a measurement of several seconds"]
fn speed_of_doing_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let bench = start(17).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let cpu = cpu_time();
        tokio::time::sleep(Duration::from_secs(20)).await;
        let per_node = (cpu_time() - cpu).as_secs_f64() / 20.0 / 3.0;
        println!(
            "idle, 17 groups: {:.2} % of a core per node, {} MB for 3 nodes",
            per_node * 100.0,
            resident_bytes() >> 20
        );
        bench.stop().await;
    });
}

#[test]
#[ignore = "a measurement of several seconds"]
fn size_of_a_group() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // What is made once, in the runtime and the allocator, is not counted.
        start_on(1, |_| Arc::new(MemoryKv::new())).await.stop().await;
        let before = resident_bytes();
        let bench = start_on(17, |_| Arc::new(MemoryKv::new())).await;
        let kib = |after: u64| after.saturating_sub(before) / 51 / 1024;
        println!("resident, each of 51 replicas: {} KiB when they have started", kib(resident_bytes()));
        tokio::time::sleep(Duration::from_secs(10)).await;
        println!("resident, each of 51 replicas: {} KiB after 10 s of doing nothing", kib(resident_bytes()));
        bench.stop().await;
    });
}
