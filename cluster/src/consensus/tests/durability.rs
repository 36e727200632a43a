//! What a crash leaves, and what a failing drive does to its replicas.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use super::harness::{
    CountingMap, GROUP, Hub, TestCluster, is_refused, kv_of, node_id, parse, replica, voters, within,
};
use crate::beat::Beat;
use crate::consensus::{
    CommandId, Group, GroupConfig, GroupFailure, GroupParts, ProposeError, ReplicaRole, StartError, StartMode,
};
use crate::kv::{CrashLoss, Executor, FjallConfig, FjallKv, Kv, KvError, LogMetrics, LogWriter};

/// Proposes from many tasks, cuts the power of all nodes at a random instant, and returns what was acknowledged.
async fn load_until_all_crash(cluster: &mut TestCluster, rng: &mut SmallRng) -> BTreeMap<String, u64> {
    let leader = cluster.leader().await;
    let mut proposals = Vec::new();
    for number in 0..200u64 {
        let (id, group) = (cluster.command_id(), cluster.group(leader).clone());
        let pause = std::time::Duration::from_micros(rng.random_range(0..60_000));
        proposals.push(tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let key = format!("{:?}", id);
            let answer = group.propose(id, Bytes::from(format!("{key}={number}")), within(5)).await;
            answer.ok().map(|_| (key, number))
        }));
    }
    tokio::time::sleep(std::time::Duration::from_micros(rng.random_range(1_000..60_000))).await;
    // Whoever is done now was acknowledged before the power failed.
    let mut acknowledged = BTreeMap::new();
    let mut pending = Vec::new();
    for proposal in proposals {
        if proposal.is_finished() {
            acknowledged.extend(proposal.await.unwrap());
        } else {
            pending.push(proposal);
        }
    }
    for index in 0..cluster.nodes.len() {
        let loss = if rng.random() { CrashLoss::AllUnsynced } else { CrashLoss::SomeUnsynced { seed: rng.random() } };
        cluster.crash(index, loss).await;
    }
    for proposal in pending {
        proposal.abort();
    }
    acknowledged
}

#[tokio::test(start_paused = true)]
async fn every_acknowledged_command_survives_the_loss_of_power_on_all_nodes() {
    let mut acknowledged_count = 0;
    let mut lost_count = 0;
    for seed in 0..20 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut cluster = TestCluster::started(3, seed + 100).await;
        let mut acknowledged = BTreeMap::new();
        for _ in 0..3 {
            acknowledged.append(&mut load_until_all_crash(&mut cluster, &mut rng).await);
            cluster.start_all(StartMode::Resume).await;
            let leader = cluster.leader().await;
            for (key, value) in &acknowledged {
                assert_eq!(cluster.peek(leader, key), Some(value.to_string()), "seed {seed}");
            }
        }
        cluster.settle().await;
        let dumps: Vec<_> = (0..3).map(|index| cluster.dump(index)).collect();
        assert!(dumps.iter().all(|dump| *dump == dumps[0]), "seed {seed}");
        // Each command changes its own key once: keys and count must agree, or one was applied twice or torn.
        let count = parse(&dumps[0][&b"count"[..]]);
        assert_eq!(count, u64::try_from(dumps[0].len() - 1).unwrap(), "seed {seed}");
        acknowledged_count += acknowledged.len();
        lost_count += 600 - (dumps[0].len() - 1);
        cluster.stop().await;
    }
    assert!(acknowledged_count > 1_000 && lost_count > 1_000, "{acknowledged_count} {lost_count}: tests too little");
}

#[tokio::test(start_paused = true)]
async fn a_failed_sync_stops_the_replica_and_the_others_go_on() {
    let mut cluster = TestCluster::started(3, 1).await;
    cluster.put("a", "1").await;
    let leader = cluster.leader().await;
    cluster.nodes[leader].kv.fail_syncs_after(0);
    let id = cluster.command_id();
    let answer = cluster.group(leader).propose(id, Bytes::from("a=2"), within(5)).await;
    assert!(matches!(answer, Err(ProposeError::Unknown | ProposeError::Stopped)), "{answer:?}");
    let stopped = cluster.group(leader).clone();
    while stopped.status().role != ReplicaRole::Stopped {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(stopped.failure(), Some(GroupFailure::Kv(KvError::Sync { reason: "injected".to_owned() })));
    let others: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
    let new_leader = cluster.leader_among(&others).await;
    let id = cluster.command_id();
    assert!(cluster.group(new_leader).propose(id, Bytes::from("b=1"), within(5)).await.is_ok());
    let read = stopped.read_barrier(within(1)).await;
    assert!(read.is_err());
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_of_state_stops_the_replica() {
    let mut cluster = TestCluster::started(3, 2).await;
    cluster.put("a", "1").await;
    cluster.settle().await;
    let follower = (cluster.leader().await + 1) % 3;
    // The next write is that of the log, the one after it that of the state.
    cluster.nodes[follower].kv.fail_writes_after(1);
    cluster.put("a", "2").await;
    let group = cluster.group(follower).clone();
    while group.failure().is_none() || group.status().role != ReplicaRole::Stopped {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(group.failure(), Some(GroupFailure::Kv(KvError::Write { reason: "injected".to_owned() })));
    cluster.put("a", "3").await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_wiped_replica_does_not_pretend() {
    let mut cluster = TestCluster::started(3, 3).await;
    cluster.put("a", "1").await;
    cluster.crash(2, CrashLoss::AllUnsynced).await;
    cluster.nodes[2].kv = crate::kv::MemoryKv::new();
    let refused = cluster.start(2, StartMode::Resume).await;
    assert!(matches!(refused, Err(StartError::ReplicaStateMissing { group: GROUP, .. })), "{refused:?}");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn storage_of_another_replica_is_refused() {
    let mut cluster = TestCluster::started(3, 4).await;
    cluster.put("a", "1").await;
    cluster.crash(1, CrashLoss::AllUnsynced).await;
    cluster.crash(2, CrashLoss::AllUnsynced).await;
    let other = cluster.nodes[1].kv.clone();
    cluster.nodes[2].kv = other;
    match cluster.start(2, StartMode::Create).await {
        Err(StartError::OtherReplica { stored, wanted, .. }) => {
            assert_eq!((stored, wanted), (replica(1), replica(2)));
        }
        started => unreachable!("{started:?}"),
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_before_anything_was_agreed_does_not_found_a_second_group() {
    for seed in 0..10 {
        let mut cluster = TestCluster::started(3, seed).await;
        let mut rng = SmallRng::seed_from_u64(seed);
        tokio::time::sleep(std::time::Duration::from_millis(rng.random_range(0..400))).await;
        for index in 0..3 {
            cluster.crash(index, CrashLoss::SomeUnsynced { seed: rng.random() }).await;
        }
        // Create resumes what is there.
        cluster.start_all(StartMode::Create).await;
        cluster.put("a", "1").await;
        cluster.settle().await;
        assert_eq!(cluster.dump(0), cluster.dump(1));
        assert_eq!(cluster.dump(1), cluster.dump(2));
        cluster.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_of_three_without_the_third_go_on_and_one_alone_refuses() {
    let mut cluster = TestCluster::started(3, 5).await;
    cluster.put("a", "1").await;
    cluster.crash(0, CrashLoss::AllUnsynced).await;
    cluster.put("a", "2").await;
    cluster.crash(1, CrashLoss::AllUnsynced).await;
    let read = cluster.group(2).read_barrier(within(5)).await;
    assert!(is_refused(&read), "{read:?}");
    cluster.start(1, StartMode::Resume).await.unwrap();
    assert_eq!(cluster.get("a").await.as_deref(), Some("2"));
    assert!(kv_of(&cluster.nodes[1]).usage().disk_bytes > 0);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_cannot_work_is_refused() {
    let mut cluster = TestCluster::new(1, 6);
    cluster.tune = |config| config.timing.heartbeat = config.timing.election_min;
    let refused = cluster.start(0, StartMode::Create).await;
    assert!(matches!(refused, Err(StartError::Config { .. })), "{refused:?}");
    cluster.stop().await;
}

/// Starts a single replica as production does: on a drive, with the writer on a thread of its own.
async fn start_on_drive(path: &std::path::Path, mode: StartMode) -> (Group, LogWriter) {
    let kv: Arc<dyn Kv> = Arc::new(FjallKv::open(path, &FjallConfig::default()).unwrap());
    let log_writer = LogWriter::start(Arc::clone(&kv), Executor::Threads, LogMetrics::unregistered()).unwrap();
    let parts = GroupParts {
        kv,
        log_writer: log_writer.clone(),
        state_machine: Arc::new(CountingMap),
        network: Hub::default().port(node_id(0)),
        rng_seed: 1,
        beat: Beat::new(Instant::now(), std::time::Duration::ZERO),
    };
    let group = Group::start(GroupConfig::new(GROUP, replica(0), voters(1), mode), parts).await.unwrap();
    group.wait_leader(within(20)).await.unwrap();
    (group, log_writer)
}

#[test]
fn the_production_store_carries_a_group_over_a_restart_and_serves_other_threads() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    for (mode, first) in [(StartMode::Create, 1), (StartMode::Resume, 101)] {
        runtime().block_on(async {
            let (group, log_writer) = start_on_drive(directory.path(), mode).await;
            let remote = group.clone();
            let (done, finished) = tokio::sync::oneshot::channel();
            let client = std::thread::spawn(move || {
                runtime().block_on(async {
                    for number in first..first + 100 {
                        let id = CommandId([u8::try_from(number).unwrap(); 16]);
                        let body = Bytes::from(format!("{number}=x"));
                        let answer = remote.propose(id, body.clone(), within(20)).await.unwrap();
                        assert_eq!(parse(&answer), number);
                        remote.read_barrier(within(20)).await.unwrap();
                        let seen = remote.view().get(format!("key/{number}").as_bytes()).unwrap();
                        assert_eq!(seen.as_deref(), Some(&b"x"[..]));
                        // A retry, also of what was answered before the restart.
                        let id = CommandId([1; 16]);
                        assert_eq!(parse(&remote.propose(id, body, within(20)).await.unwrap()), 1);
                    }
                });
                done.send(()).unwrap();
            });
            finished.await.unwrap();
            client.join().unwrap();
            group.shutdown().await;
            log_writer.shutdown().await;
        });
    }
}
