//! Replicas that are too far behind for the log, new members, and snapshots that break.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use super::harness::{GROUP, TestCluster, TestNode, node_id, replica, within};
use crate::consensus::{GroupConfig, MemberRole, ReplicaId, StartMode};
use crate::kv::{CrashLoss, KeyRange, Kv, KvView, MemoryKv, Space};

fn short_log(config: &mut GroupConfig) {
    config.snapshot_every = 50;
    config.log_keep = 10;
    config.log_cache_bytes = 4 << 10;
}

async fn short_log_cluster(seed: u64) -> TestCluster {
    let mut cluster = TestCluster::new(3, seed);
    cluster.tune = short_log;
    cluster.start_all(StartMode::Create).await;
    cluster
}

async fn fill(cluster: &mut TestCluster, count: usize, value_len: usize) {
    let leader = cluster.leader().await;
    for number in 0..count {
        let id = cluster.command_id();
        let body = format!("{number:05}={}", "v".repeat(value_len));
        cluster.group(leader).propose(id, body.into(), within(10)).await.unwrap();
    }
}

/// The generations a store holds state of.
fn generations(kv: &MemoryKv) -> BTreeSet<Vec<u8>> {
    let mut found = BTreeSet::new();
    kv.scan(Space::State, &KeyRange::prefix(&GROUP.0.to_be_bytes()), &mut |key, _| {
        found.insert(key[2..6].to_vec());
        ControlFlow::Continue(())
    })
    .unwrap();
    found
}

fn log_entry_count(kv: &MemoryKv) -> usize {
    let mut count = 0;
    kv.scan(Space::Log, &KeyRange::prefix(&[GROUP.0.to_be_bytes().as_slice(), &[3]].concat()), &mut |_, _| {
        count += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    count
}

#[tokio::test(start_paused = true)]
async fn old_log_entries_go_and_the_state_stays() {
    let mut cluster = short_log_cluster(1).await;
    fill(&mut cluster, 500, 10).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    for node in &cluster.nodes {
        let count = log_entry_count(&node.kv);
        assert!(count < 350, "{count} entries are left");
    }
    for index in 0..3 {
        cluster.crash(index, CrashLoss::AllUnsynced).await;
    }
    cluster.start_all(StartMode::Resume).await;
    cluster.put("x", "1").await;
    cluster.settle().await;
    assert_eq!(cluster.dump(0).len(), 502);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_was_away_too_long_gets_a_snapshot() {
    let mut cluster = short_log_cluster(2).await;
    let id = cluster.command_id();
    let first = cluster.put_as(id, "first", "1").await;
    cluster.crash(2, CrashLoss::AllUnsynced).await;
    fill(&mut cluster, 800, 2_000).await;
    cluster.start(2, StartMode::Resume).await.unwrap();
    cluster.settle().await;
    assert!(cluster.hub.snapshots_sent() >= 1);
    assert_eq!(cluster.dump(2), cluster.dump(0));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(generations(&cluster.nodes[2].kv).len(), 2, "the records, and one state");

    // What it got includes the answers of recent commands.
    cluster.group(0).transfer_leadership(Some(replica(2)), within(5)).await.unwrap();
    assert_eq!(cluster.leader().await, 2);
    assert_eq!(cluster.put_as(id, "first", "1").await, first);

    // And it is durable.
    cluster.crash(2, CrashLoss::AllUnsynced).await;
    cluster.start(2, StartMode::Resume).await.unwrap();
    cluster.put("last", "1").await;
    cluster.settle().await;
    assert_eq!(cluster.dump(2), cluster.dump(0));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_breaks_leaves_the_old_state_and_is_sent_again() {
    let mut cluster = short_log_cluster(3).await;
    cluster.put("first", "1").await;
    cluster.settle().await;
    let old = cluster.dump(2);
    cluster.nodes[2].kv.sync().unwrap();
    cluster.crash(2, CrashLoss::AllUnsynced).await;
    fill(&mut cluster, 800, 2_000).await;
    cluster.hub.break_snapshots_after(Some(2));
    cluster.start(2, StartMode::Resume).await.unwrap();
    while cluster.hub.snapshots_sent() < 3 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(cluster.dump(2), old);
    cluster.hub.break_snapshots_after(None);
    cluster.settle().await;
    assert_eq!(cluster.dump(2), cluster.dump(0));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(generations(&cluster.nodes[2].kv).len(), 2, "broken attempts are swept");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_point_of_an_installation_leaves_the_old_state_or_the_new_one() {
    let mut old_count = 0;
    let mut new_count = 0;
    for step in 0..25u64 {
        let mut cluster = short_log_cluster(1_000 + step).await;
        cluster.put("first", "1").await;
        cluster.settle().await;
        let old = cluster.dump(2);
        cluster.nodes[2].kv.sync().unwrap();
        cluster.crash(2, CrashLoss::AllUnsynced).await;
        fill(&mut cluster, 400, 3_000).await;
        let new = cluster.dump(0);
        cluster.start(2, StartMode::Resume).await.unwrap();
        while cluster.hub.snapshots_sent() == 0 {
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
        tokio::time::sleep(Duration::from_micros(step * 700)).await;
        cluster.crash(2, CrashLoss::SomeUnsynced { seed: step }).await;
        // Alone, it can only have what it had.
        cluster.hub.cut_off(&[2], &[0, 1]);
        cluster.start(2, StartMode::Resume).await.unwrap();
        let found = cluster.dump(2);
        if found == old {
            old_count += 1;
        } else {
            assert_eq!(found.len(), new.len(), "step {step}: neither old nor new");
            assert_eq!(found, new, "step {step}: neither old nor new");
            new_count += 1;
        }
        cluster.hub.heal();
        cluster.settle().await;
        assert_eq!(cluster.dump(2), cluster.dump(0));
        cluster.stop().await;
    }
    assert!(old_count > 0 && new_count > 0, "{old_count} {new_count}: the crashes all hit the same side");
}

#[tokio::test(start_paused = true)]
async fn a_view_taken_before_an_installation_stays_whole() {
    let mut cluster = short_log_cluster(4).await;
    cluster.put("first", "1").await;
    cluster.settle().await;
    // Away, but running: its view must survive the new state.
    cluster.hub.cut_off(&[2], &[0, 1]);
    let view = cluster.group(2).view();
    fill(&mut cluster, 400, 2_000).await;
    cluster.hub.heal();
    cluster.settle().await;
    assert!(cluster.hub.snapshots_sent() >= 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(view.get(b"key/first").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(view.get(b"key/00000").unwrap(), None, "the old state is not mixed with the new one");
    assert_eq!(generations(&cluster.nodes[2].kv).len(), 3);
    drop(view);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(generations(&cluster.nodes[2].kv).len(), 2);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_replica_replaces_a_lost_one() {
    let mut cluster = short_log_cluster(5).await;
    fill(&mut cluster, 300, 500).await;
    cluster.crash(2, CrashLoss::AllUnsynced).await;
    cluster.nodes.push(TestNode { kv: MemoryKv::new(), writer: None, group: None });
    cluster.start(3, StartMode::Join).await.unwrap();
    let leader = cluster.leader_among(&[0, 1]).await;
    let mut members = cluster.group(leader).status().members;
    members.remove(&replica(2));
    members.insert(replica(3), (node_id(3), MemberRole::Voter));
    cluster.group(leader).change_members(&members, within(30)).await.unwrap();
    cluster.group(leader).change_members(&members, within(30)).await.unwrap();
    assert_eq!(cluster.group(leader).status().members, members);
    cluster.settle().await;
    assert_eq!(cluster.dump(3), cluster.dump(leader));
    // The new one counts: with it, one of the old two may go.
    let other = 1 - leader;
    cluster.crash(other, CrashLoss::AllUnsynced).await;
    cluster.put("a", "1").await;
    assert_eq!(cluster.get("a").await.as_deref(), Some("1"));
    assert!(!cluster.group(leader).status().members.contains_key(&ReplicaId(3)));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_joins_never_founds_a_group() {
    let mut cluster = TestCluster::new(1, 6);
    cluster.start(0, StartMode::Join).await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(cluster.group(0).status().leader, None);
    assert!(cluster.group(0).wait_leader(within(1)).await.is_err());
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_lost_acknowledged_entries_does_not_stop_the_leader() {
    let mut cluster = TestCluster::started(3, 7).await;
    let leader = cluster.leader().await;
    let liar = (leader + 1) % 3;
    cluster.settle().await;
    let before = cluster.nodes[liar].kv.crash(CrashLoss::AllUnsynced);
    fill(&mut cluster, 20, 10).await;
    cluster.settle().await;
    // As if its drive had lied about every sync since.
    cluster.crash(liar, CrashLoss::AllUnsynced).await;
    cluster.nodes[liar].kv = before;
    cluster.start(liar, StartMode::Resume).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    cluster.put("a", "1").await;
    assert_eq!(cluster.get("a").await.as_deref(), Some("1"));
    assert!(cluster.statuses().iter().all(|status| status.role != crate::consensus::ReplicaRole::Stopped));
    cluster.stop().await;
}
