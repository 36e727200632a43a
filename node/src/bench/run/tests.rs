//! Runs against a store in memory over real sockets.

use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use super::*;
use crate::bench::client::Hashing;
use crate::bench::summary::Operation;
use crate::running::RunningNode;
use crate::testing::{FakeAssembly, config, credentials};

async fn bench(assembly: &FakeAssembly, change: impl FnOnce(&mut BenchPlan)) -> Result<Summary, BenchError> {
    let dir = tempfile::tempdir().unwrap();
    let node = RunningNode::start("t", &config(dir.path(), ""), assembly).await.unwrap();
    let mut plan = BenchPlan {
        workload: Workload::Put,
        endpoints: vec![node.s3_address().into(), node.s3_address().into()],
        credentials: Some(credentials()),
        bucket: "b".into(),
        size: 5000,
        concurrency: 4,
        duration: Duration::from_secs(60),
        operations_max: Some(200),
        keys: None,
        verify: true,
        hashing: Hashing::Signed,
        cleanup: true,
        run: 7,
        clock: SystemTime::now,
    };
    change(&mut plan);
    let summary = run(plan, |_| {}).await;
    node.stop().await;
    summary
}

#[tokio::test]
async fn every_workload_does_its_operations_and_cleans_up() {
    for workload in [Workload::Put, Workload::Get, Workload::Delete, Workload::List, Workload::Mixed] {
        for hashing in [Hashing::Signed, Hashing::Unsigned] {
            let assembly = FakeAssembly::default();
            let summary = bench(&assembly, |plan| {
                (plan.workload, plan.hashing) = (workload, hashing);
                plan.keys = (workload != Workload::Put).then_some(1500);
            });
            let summary = summary.await.unwrap();
            assert_eq!((summary.all.operations, summary.errors), (200, 0), "{workload:?} {summary}");
            assert!(summary.all.max_ms >= summary.all.p99_ms && summary.all.p99_ms >= summary.all.p50_ms);
            assert!(summary.longest_stall_ms > 0.0 && summary.all.per_second > 0.0);
            if workload == Workload::Mixed {
                assert_eq!(summary.by_operation.len(), 4, "{summary}");
            }
            assert!(assembly.s3.objects.lock().unwrap().is_empty(), "{workload:?} left objects");
            let cleanup = summary.cleanup.as_ref().unwrap();
            assert_eq!((cleanup.failed, &cleanup.problem), (0, &None), "{workload:?}");
            assert!(!summary.to_string().contains("not cleaned up"), "{summary}");
        }
    }
}

#[tokio::test]
async fn deletes_end_when_nothing_is_left() {
    let assembly = FakeAssembly::default();
    let summary = bench(&assembly, |plan| {
        (plan.workload, plan.keys, plan.operations_max) = (Workload::Delete, Some(50), None);
    });
    assert_eq!(summary.await.unwrap().all.operations, 50);
}

#[tokio::test]
async fn a_run_ends_at_its_time_and_keeps_what_it_was_told_to_keep() {
    let assembly = FakeAssembly::default();
    let summary = bench(&assembly, |plan| {
        (plan.operations_max, plan.duration) = (None, Duration::from_millis(200));
        (plan.cleanup, plan.verify) = (false, false);
    });
    let summary = summary.await.unwrap();
    assert!(summary.seconds >= 0.2 && summary.all.operations > 0, "{summary}");
    assert_eq!(assembly.s3.objects.lock().unwrap().len() as u64, summary.all.operations);
    assert_eq!(summary.bytes, summary.all.operations * 5000);
}

#[tokio::test]
async fn what_could_not_be_cleaned_up_is_part_of_the_result() {
    let assembly = FakeAssembly::default();
    assembly.s3.faults.refuse_deletes.store(true, Relaxed);
    let summary = bench(&assembly, |plan| plan.operations_max = Some(20)).await.unwrap();
    let cleanup = summary.cleanup.clone().unwrap();
    assert_eq!((cleanup.deleted, cleanup.failed), (0, 20));
    assert!(cleanup.problem.unwrap().contains("503"), "{summary}");
    assert!(summary.to_string().contains("not cleaned up: 0 objects deleted, 20 left at least: "), "{summary}");
    assert_eq!(assembly.s3.objects.lock().unwrap().len(), 20);
}

#[tokio::test]
async fn wrong_bytes_and_refusals_are_counted_by_kind() {
    let assembly = FakeAssembly::default();
    assembly.s3.faults.corrupt.store(true, Relaxed);
    let get = bench(&assembly, |plan| (plan.workload, plan.keys) = (Workload::Get, Some(10))).await.unwrap();
    assert_eq!((get.all.operations, get.errors_by_kind["wrong-bytes"]), (0, 200), "{get}");

    let assembly = FakeAssembly::default();
    assembly.s3.faults.refuse_every.store(10, Relaxed);
    let put = bench(&assembly, |_| {}).await.unwrap();
    assert_eq!((put.by_operation[&Operation::Put].operations, put.errors_by_kind["SlowDown"]), (180, 20), "{put}");
}

#[tokio::test]
async fn a_fill_that_is_refused_forever_is_an_error_not_a_result() {
    let assembly = FakeAssembly::default();
    assembly.s3.faults.refuse_every.store(1, Relaxed);
    let refused = bench(&assembly, |plan| plan.workload = Workload::Get).await.unwrap_err();
    assert!(matches!(refused, BenchError::Fill { .. }), "{refused}");
}
