//! Leaders, proposals and reads under crashes and partitions.

use std::time::Duration;

use bytes::Bytes;

use super::harness::{TestCluster, is_refused, node_id, replica, within};
use crate::consensus::{MemberRole, ProposeError, ReadError, ReplicaId, ReplicaRole, TransferError, UnavailableReason};
use crate::kv::CrashLoss;

#[tokio::test(start_paused = true)]
async fn one_leader_is_elected_and_it_is_the_preferred_one() {
    for preferred in 1..=3 {
        let mut cluster = TestCluster::new(3, preferred);
        cluster.preferred = Some(ReplicaId(preferred));
        let started = tokio::time::Instant::now();
        cluster.start_all(crate::consensus::StartMode::Create).await;
        let leader = cluster.leader().await;
        assert_eq!(replica(leader), ReplicaId(preferred));
        assert!(started.elapsed() < Duration::from_millis(1500), "{:?}", started.elapsed());
        tokio::time::sleep(Duration::from_secs(5)).await;
        let leaders = cluster.statuses().iter().filter(|status| status.role == ReplicaRole::Leader).count();
        assert_eq!(leaders, 1);
        for status in cluster.statuses() {
            assert_eq!(status.leader, Some((replica(leader), node_id(leader))));
            assert_eq!(status.members.len(), 3);
        }
        cluster.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_without_a_preferred_replica_elects_a_leader() {
    let mut cluster = TestCluster::new(5, 77);
    cluster.preferred = None;
    cluster.start_all(crate::consensus::StartMode::Create).await;
    cluster.put("a", "1").await;
    assert_eq!(cluster.get("a").await.as_deref(), Some("1"));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_proposal_survives_the_leaders_crash() {
    let mut cluster = TestCluster::started(3, 1).await;
    cluster.put("a", "1").await;
    let leader = cluster.leader().await;
    let crashed = tokio::time::Instant::now();
    cluster.crash(leader, CrashLoss::AllUnsynced).await;
    assert_eq!(cluster.get("a").await.as_deref(), Some("1"));
    assert!(crashed.elapsed() < Duration::from_secs(6), "failover took {:?}", crashed.elapsed());
    cluster.put("b", "2").await;
    cluster.start(leader, crate::consensus::StartMode::Resume).await.unwrap();
    cluster.settle().await;
    assert_eq!(cluster.peek(leader, "b").as_deref(), Some("2"));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_retried_command_is_applied_once_and_gets_the_first_answer_also_from_a_new_leader() {
    let mut cluster = TestCluster::started(3, 2).await;
    let id = cluster.command_id();
    let first = cluster.put_as(id, "a", "1").await;
    cluster.put("b", "1").await;
    assert_eq!(cluster.put_as(id, "a", "1").await, first);
    let leader = cluster.leader().await;
    cluster.crash(leader, CrashLoss::AllUnsynced).await;
    assert_eq!(cluster.put_as(id, "a", "1").await, first);
    cluster.start(leader, crate::consensus::StartMode::Resume).await.unwrap();
    let next = cluster.put("c", "1").await;
    assert_eq!(next, first + 2, "the retries must not have been counted");
    cluster.settle().await;
    let dumps: Vec<_> = (0..3).map(|index| cluster.dump(index)).collect();
    assert_eq!(dumps[0], dumps[1]);
    assert_eq!(dumps[1], dumps[2]);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn retries_of_one_command_in_flight_together_are_applied_once() {
    let mut cluster = TestCluster::started(3, 3).await;
    let leader = cluster.leader().await;
    let id = cluster.command_id();
    let proposals = (0..20).map(|_| cluster.group(leader).propose(id, Bytes::from("a=1"), within(5)));
    let answers = futures_util::future::join_all(proposals).await;
    assert!(answers.iter().all(|answer| answer.as_deref() == Ok(b"1")), "{answers:?}");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_minority_refuses_reads_and_proposals_and_the_majority_goes_on() {
    let mut cluster = TestCluster::started(5, 4).await;
    cluster.put("a", "old").await;
    let leader = cluster.leader().await;
    let follower = (0..5).find(|index| *index != leader).unwrap();
    let minority = [leader, follower];
    let majority: Vec<usize> = (0..5).filter(|index| !minority.contains(index)).collect();
    cluster.hub.cut_off(&minority, &majority);

    let id = cluster.command_id();
    let cut_off = cluster.group(leader).propose(id, Bytes::from("a=lost"), within(3)).await;
    assert!(
        matches!(cut_off, Err(ProposeError::Unknown | ProposeError::Unavailable { .. })),
        "a cut-off leader answered {cut_off:?}"
    );
    let read = cluster.group(leader).read_barrier(within(3)).await;
    assert!(is_refused(&read), "a cut-off leader read: {read:?}");
    let read = cluster.group(follower).read_barrier(within(3)).await;
    assert!(is_refused(&read), "a cut-off follower read: {read:?}");

    let new_leader = cluster.leader_among(&majority).await;
    let id = cluster.command_id();
    let answer = cluster.group(new_leader).propose(id, Bytes::from("a=new"), within(5)).await;
    assert!(answer.is_ok(), "{answer:?}");

    // By now the old leader knows, and says so at once rather than at the deadline.
    let asked = tokio::time::Instant::now();
    let id = cluster.command_id();
    let cut_off = cluster.group(leader).propose(id, Bytes::from("a=lost"), within(30)).await;
    assert!(matches!(cut_off, Err(ProposeError::Unavailable { reason: UnavailableReason::NoQuorum })), "{cut_off:?}");
    assert!(asked.elapsed() < Duration::from_secs(1));

    cluster.hub.heal();
    let wanted = cluster.get("a").await;
    assert_eq!(wanted.as_deref(), Some("new"));
    cluster.settle().await;
    let dumps: Vec<_> = (0..5).map(|index| cluster.dump(index)).collect();
    assert!(dumps.iter().all(|dump| *dump == dumps[0]));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_deposed_leader_never_reads_what_was_overwritten() {
    let mut cluster = TestCluster::started(3, 5).await;
    cluster.put("a", "old").await;
    let old_leader = cluster.leader().await;
    let others: Vec<usize> = (0..3).filter(|index| *index != old_leader).collect();
    cluster.hub.cut_off(&[old_leader], &others);
    let new_leader = cluster.leader_among(&others).await;
    let id = cluster.command_id();
    cluster.group(new_leader).propose(id, Bytes::from("a=new"), within(5)).await.unwrap();

    // The barrier begins while the old leader still takes itself for one; the network heals under it.
    let group = cluster.group(old_leader).clone();
    let barrier = tokio::spawn(async move { group.read_barrier(within(10)).await });
    tokio::time::sleep(Duration::from_millis(1)).await;
    cluster.hub.heal();
    match barrier.await.unwrap() {
        Ok(()) => assert_eq!(cluster.peek(old_leader, "a").as_deref(), Some("new")),
        Err(refused) => {
            assert!(matches!(refused, ReadError::NotLeader { .. } | ReadError::Unavailable { .. }), "{refused:?}");
        }
    }
    assert_eq!(cluster.get("a").await.as_deref(), Some("new"));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn concurrent_readers_share_rounds_and_see_every_answered_write() {
    let mut cluster = TestCluster::started(3, 6).await;
    let leader = cluster.leader().await;
    for round in 0..50 {
        let value = round.to_string();
        cluster.put("a", &value).await;
        let group = cluster.group(leader);
        let calls = cluster.hub.calls();
        let reads = (0..100).map(|_| group.read_barrier(within(5)));
        assert!(futures_util::future::join_all(reads).await.iter().all(Result::is_ok));
        assert!(cluster.hub.calls() - calls < 40, "{} calls for 100 readers", cluster.hub.calls() - calls);
        assert_eq!(cluster.peek(leader, "a"), Some(value));
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_follower_names_the_leader() {
    let mut cluster = TestCluster::started(3, 7).await;
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    let named = Some((replica(leader), node_id(leader)));
    assert_eq!(cluster.group(follower).wait_leader(within(5)).await.ok(), named);
    let id = cluster.command_id();
    let answer = cluster.group(follower).propose(id, Bytes::from("a=1"), within(1)).await;
    assert_eq!(answer, Err(ProposeError::NotLeader { leader: named }));
    let answer = cluster.group(follower).read_barrier(within(1)).await;
    assert_eq!(answer, Err(ReadError::NotLeader { leader: named }));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn leadership_is_handed_over_without_waiting_for_an_election() {
    let mut cluster = TestCluster::started(3, 8).await;
    cluster.put("a", "1").await;
    let leader = cluster.leader().await;
    cluster.settle().await;
    let successor = (leader + 2) % 3;
    let asked = tokio::time::Instant::now();
    cluster.group(leader).transfer_leadership(Some(replica(successor)), within(5)).await.unwrap();
    assert_eq!(cluster.leader().await, successor);
    assert!(asked.elapsed() < Duration::from_millis(700), "took {:?}", asked.elapsed());
    assert_eq!(cluster.get("a").await.as_deref(), Some("1"));
    let refused = cluster.group(leader).transfer_leadership(None, within(5)).await;
    assert!(matches!(refused, Err(TransferError::NotLeader { .. })), "{refused:?}");
    cluster.group(successor).transfer_leadership(None, within(5)).await.unwrap();
    assert_ne!(cluster.leader().await, successor);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn leadership_returns_to_the_preferred_replica() {
    let mut cluster = TestCluster::started(3, 9).await;
    assert_eq!(cluster.leader().await, 0);
    cluster.crash(0, CrashLoss::AllUnsynced).await;
    assert_ne!(cluster.leader().await, 0);
    cluster.put("a", "1").await;
    cluster.start(0, crate::consensus::StartMode::Resume).await.unwrap();
    cluster.settle().await;
    assert_ne!(cluster.leader().await, 0, "a replica that comes back must not depose a healthy leader at once");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.leader().await, 0);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_single_voter_serves_at_once() {
    let mut cluster = TestCluster::started(1, 10).await;
    let started = tokio::time::Instant::now();
    cluster.put("a", "1").await;
    assert_eq!(cluster.get("a").await.as_deref(), Some("1"));
    assert!(started.elapsed() < Duration::from_millis(300), "{:?}", started.elapsed());
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn founding_learners_receive_everything_and_decide_nothing() {
    let mut cluster = TestCluster::new(4, 11);
    cluster.members.insert(replica(3), (node_id(3), MemberRole::Learner));
    cluster.start_all(crate::consensus::StartMode::Create).await;
    cluster.put("a", "1").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    cluster.settle().await;
    assert_eq!(cluster.peek(3, "a").as_deref(), Some("1"));
    assert_eq!(cluster.group(3).status().role, ReplicaRole::Learner);
    assert_eq!(cluster.group(0).status().voters().count(), 3);
    cluster.crash(0, CrashLoss::AllUnsynced).await;
    cluster.crash(1, CrashLoss::AllUnsynced).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let read = cluster.group(2).read_barrier(within(2)).await;
    assert!(is_refused(&read), "one of three voters and a learner are no majority: {read:?}");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_replica_refuses() {
    let mut cluster = TestCluster::started(3, 12).await;
    let leader = cluster.leader().await;
    let group = cluster.group(leader).clone();
    group.shutdown().await;
    group.shutdown().await;
    let id = cluster.command_id();
    assert_eq!(group.propose(id, Bytes::from("a=1"), within(1)).await, Err(ProposeError::Stopped));
    assert_eq!(group.read_barrier(within(1)).await, Err(ReadError::Stopped));
    assert_eq!(group.status().role, ReplicaRole::Stopped);
    assert_eq!(group.failure(), None);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_oversized_command_is_refused() {
    let mut cluster = TestCluster::new(1, 13);
    cluster.tune = |config| config.command_bytes_max = 10;
    cluster.start_all(crate::consensus::StartMode::Create).await;
    let leader = cluster.leader().await;
    let id = cluster.command_id();
    let answer = cluster.group(leader).propose(id, Bytes::from(vec![b'x'; 11]), within(1)).await;
    assert_eq!(answer, Err(ProposeError::Unavailable { reason: UnavailableReason::TooLarge }));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn messages_that_came_to_the_wrong_place_or_are_garbage_are_refused() {
    use crate::consensus::HandleError;
    let cluster = TestCluster::started(1, 14).await;
    let group = cluster.group(0);
    assert_eq!(group.handle(Bytes::from("hello")).await, Err(HandleError::Malformed));
    let (_sender, receiver) = tokio::sync::mpsc::channel(1);
    assert_eq!(group.install_snapshot(Bytes::from("hello"), receiver).await, Err(HandleError::Malformed));
    cluster.stop().await;
}

/// One run under crashes; everything that could differ between two runs goes into the trace.
async fn trace(seed: u64) -> Vec<String> {
    let mut cluster = TestCluster::started(3, seed).await;
    let begun = tokio::time::Instant::now();
    let mut trace = Vec::new();
    for round in 0..5 {
        let answer = cluster.put("a", &round.to_string()).await;
        let leader = cluster.leader().await;
        trace.push(format!("{:?} {answer} {leader} {}", begun.elapsed(), cluster.hub.calls()));
        cluster.crash(leader, CrashLoss::AllUnsynced).await;
        cluster.put("b", &round.to_string()).await;
        cluster.start(leader, crate::consensus::StartMode::Resume).await.unwrap();
        cluster.settle().await;
        trace.push(format!("{:?} {:?} {}", begun.elapsed(), cluster.statuses(), cluster.hub.calls()));
    }
    cluster.stop().await;
    trace
}

fn trace_in_a_fresh_runtime(seed: u64) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(trace(seed))
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let first = trace_in_a_fresh_runtime(42);
    assert_eq!(first, trace_in_a_fresh_runtime(42));
    assert_ne!(first, trace_in_a_fresh_runtime(4300));
}
