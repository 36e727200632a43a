//! Both forms of the port against a plain map, crashes of the simulated one, and the group commit.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{
    Batch, CrashLoss, Executor, FjallConfig, FjallKv, KeyRange, Kv, KvError, KvView, LogMetrics, LogWriter, MemoryKv,
    Space, successor_of_prefix,
};

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn scan(view: &dyn KvView, space: Space, range: &KeyRange, count_max: usize) -> Pairs {
    let mut found = Vec::new();
    view.scan(space, range, &mut |key, value| {
        found.push((key.to_vec(), value.to_vec()));
        if found.len() >= count_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap();
    found
}

fn all() -> KeyRange {
    KeyRange::prefix(b"")
}

fn put(kv: &dyn Kv, space: Space, key: &str, value: &str) {
    let mut batch = Batch::new();
    batch.put(space, key.as_bytes().to_vec(), value.as_bytes().to_vec());
    kv.write(batch).unwrap();
}

type Step = Vec<(bool, u8, Option<u8>)>;

/// Applies random batches to a store and to plain maps, and compares reads, scans and an old snapshot.
fn check_against_maps(kv: &dyn Kv, steps: &[Step], low: u8, high: u8) -> Result<(), TestCaseError> {
    let mut maps: BTreeMap<Space, BTreeMap<Vec<u8>, Vec<u8>>> = BTreeMap::new();
    let mut frozen = None;
    for (number, step) in steps.iter().enumerate() {
        if number == steps.len() / 2 {
            frozen = Some((kv.snapshot(), maps.clone()));
        }
        let mut batch = Batch::new();
        for (is_log, key, value) in step {
            let space = if *is_log { Space::Log } else { Space::State };
            match value {
                Some(value) => {
                    batch.put(space, vec![*key], vec![*value]);
                    maps.entry(space).or_default().insert(vec![*key], vec![*value]);
                }
                None => {
                    batch.delete(space, vec![*key]);
                    maps.entry(space).or_default().remove(&vec![*key]);
                }
            }
        }
        kv.write(batch).unwrap();
    }
    let ranges = [
        all(),
        KeyRange::half_open(vec![low], vec![high]),
        KeyRange { start: Bound::Excluded(vec![low]), end: Bound::Included(vec![high]) },
        KeyRange { start: Bound::Excluded(vec![low]), end: Bound::Excluded(vec![low]) },
    ];
    let (snapshot, old_maps) = frozen.unwrap();
    let views: [(&dyn KvView, _); 2] = [(kv, &maps), (&*snapshot, &old_maps)];
    for (view, maps) in views {
        for space in [Space::Log, Space::State] {
            let map = maps.get(&space).cloned().unwrap_or_default();
            for range in &ranges {
                let expected: Pairs = if range.is_empty() {
                    Vec::new()
                } else {
                    map.range::<[u8], _>(range.bounds()).map(|(key, value)| (key.clone(), value.clone())).collect()
                };
                prop_assert_eq!(&scan(view, space, range, usize::MAX), &expected);
                prop_assert_eq!(&scan(view, space, range, 1)[..], &expected[..expected.len().min(1)]);
            }
            let value = view.get(space, &[low]).unwrap();
            prop_assert_eq!(value.as_deref(), map.get(&vec![low]).map(Vec::as_slice));
        }
    }
    Ok(())
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(vec((any::<bool>(), any::<u8>(), proptest::option::of(any::<u8>())), 0..10), 1..10)
}

proptest! {
    #[test]
    fn the_simulated_store_is_an_ordered_map(steps in steps(), low: u8, high: u8) {
        check_against_maps(&MemoryKv::new(), &steps, low, high)?;
    }

    #[test]
    fn a_crash_keeps_a_prefix_of_the_batches(written in 1usize..20, synced in 0usize..20, seed: u64) {
        let kv = MemoryKv::new();
        let synced = synced.min(written);
        for number in 0..written {
            let mut batch = Batch::new();
            batch.put(Space::Log, format!("{number:03}").into_bytes(), "");
            batch.put(Space::State, format!("{number:03}").into_bytes(), "");
            kv.write(batch).unwrap();
            if number + 1 == synced {
                kv.sync().unwrap();
            }
        }
        for (loss, exact) in [(CrashLoss::AllUnsynced, true), (CrashLoss::SomeUnsynced { seed }, false)] {
            let after = kv.crash(loss);
            let log = scan(&after, Space::Log, &all(), usize::MAX);
            prop_assert!(log.len() >= synced && log.len() <= written);
            prop_assert!(!exact || log.len() == synced);
            let expected: Vec<_> = (0..log.len()).map(|number| format!("{number:03}").into_bytes()).collect();
            prop_assert_eq!(&log.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), &expected);
            prop_assert_eq!(scan(&after, Space::State, &all(), usize::MAX), log);
        }
    }

    #[test]
    fn the_successor_of_a_prefix_bounds_exactly_its_keys(prefix: Vec<u8>, key: Vec<u8>) {
        let range = KeyRange::prefix(&prefix);
        let map = BTreeMap::from([(key.clone(), ()), ([&prefix[..], &key].concat(), ())]);
        for found in map.keys() {
            let is_in = map.range::<[u8], _>(range.bounds()).any(|(inside, ())| inside == found);
            prop_assert_eq!(is_in, found.starts_with(&prefix));
        }
        prop_assert!(successor_of_prefix(&prefix).is_none_or(|end| end > prefix));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn the_production_store_is_an_ordered_map(steps in steps(), low: u8, high: u8) {
        let directory = tempfile::tempdir().unwrap();
        let kv = FjallKv::open(directory.path(), &FjallConfig::default()).unwrap();
        check_against_maps(&kv, &steps, low, high)?;
    }
}

#[test]
fn the_production_store_keeps_its_content_when_reopened() {
    let directory = tempfile::tempdir().unwrap();
    {
        let kv = FjallKv::open(directory.path(), &FjallConfig::default()).unwrap();
        put(&kv, Space::Log, "a", "1");
        put(&kv, Space::State, "a", "2");
        kv.sync().unwrap();
        assert!(kv.usage().disk_bytes > 0);
    }
    let kv = FjallKv::open(directory.path(), &FjallConfig::default()).unwrap();
    assert_eq!(kv.get(Space::Log, b"a").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(kv.get(Space::State, b"a").unwrap().as_deref(), Some(&b"2"[..]));
}

#[test]
fn a_directory_in_use_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let _kv = FjallKv::open(directory.path(), &FjallConfig::default()).unwrap();
    let second = FjallKv::open(directory.path(), &FjallConfig::default());
    assert!(matches!(second, Err(KvError::Open { .. })));
}

fn numbered(number: u32) -> Batch {
    let mut batch = Batch::new();
    batch.put(Space::Log, number.to_be_bytes().to_vec(), "");
    batch
}

#[test]
fn the_writers_thread_answers_in_order_after_the_sync() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let kv = MemoryKv::new();
        let writer = LogWriter::start(Arc::new(kv.clone()), Executor::Threads, LogMetrics::unregistered()).unwrap();
        let answered = Arc::new(Mutex::new(Vec::new()));
        for number in 0..1_000 {
            let (answered, kv) = (Arc::clone(&answered), kv.clone());
            writer.submit(numbered(number), move |result| {
                assert_eq!(kv.unsynced_count(), 0, "answered before the sync");
                answered.lock().unwrap().push((number, result));
            });
        }
        writer.shutdown().await;
        let expected: Vec<_> = (0..1_000).map(|number| (number, Ok(()))).collect();
        assert_eq!(*answered.lock().unwrap(), expected);
        assert_eq!(scan(&kv, Space::Log, &all(), usize::MAX).len(), 1_000);
        assert_eq!(writer.write_durably(numbered(1_000)).await, Err(KvError::Closed));
    });
}

#[tokio::test(start_paused = true)]
async fn submissions_during_a_sync_share_the_next_one() {
    let kv = MemoryKv::new();
    let executor = Executor::Tasks { sync_delay: Duration::from_millis(5) };
    let writer = LogWriter::start(Arc::new(kv.clone()), executor, LogMetrics::unregistered()).unwrap();
    let first = writer.write_durably(numbered(0));
    let others = async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let others = (1..100).map(|number| writer.write_durably(numbered(number)));
        futures_util::future::join_all(others).await
    };
    let (first, others) = futures_util::future::join(first, others).await;
    assert!(first.is_ok() && others.iter().all(Result::is_ok));
    assert_eq!(kv.sync_count(), 2);
    writer.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_first_error_ends_the_writer_and_is_never_retried() {
    let kv = MemoryKv::new();
    let writer = LogWriter::start(
        Arc::new(kv.clone()),
        Executor::Tasks { sync_delay: Duration::ZERO },
        LogMetrics::unregistered(),
    )
    .unwrap();
    writer.write_durably(numbered(0)).await.unwrap();
    kv.fail_syncs_after(0);
    let failure = KvError::Sync { reason: "injected".to_owned() };
    assert_eq!(writer.write_durably(numbered(1)).await, Err(failure.clone()));
    assert_eq!(writer.write_durably(numbered(2)).await, Err(failure.clone()));
    assert_eq!(writer.failure(), Some(failure));
    assert_eq!(kv.sync_count(), 1);
    assert_eq!(scan(&kv.crash(CrashLoss::AllUnsynced), Space::Log, &all(), usize::MAX).len(), 1);
    writer.shutdown().await;
}

/// A store whose syncs wait until they are let go.
struct HangingKv {
    kv: MemoryKv,
    began: std::sync::mpsc::SyncSender<()>,
    go_on: Mutex<std::sync::mpsc::Receiver<()>>,
}

impl KvView for HangingKv {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<bytes::Bytes>, KvError> {
        self.kv.get(space, key)
    }

    fn scan(&self, space: Space, range: &KeyRange, visit: &mut super::Visit<'_>) -> Result<(), KvError> {
        self.kv.scan(space, range, visit)
    }
}

impl Kv for HangingKv {
    fn write(&self, batch: Batch) -> Result<(), KvError> {
        self.kv.write(batch)
    }

    fn sync(&self) -> Result<(), KvError> {
        self.began.send(()).unwrap();
        self.go_on.lock().unwrap().recv().unwrap();
        self.kv.sync()
    }

    fn snapshot(&self) -> Arc<dyn KvView> {
        self.kv.snapshot()
    }

    fn usage(&self) -> super::KvUsage {
        self.kv.usage()
    }
}

#[tokio::test]
async fn who_waits_for_a_drive_that_never_answers_is_answered_when_it_is_given_up() {
    let (began, begins) = std::sync::mpsc::sync_channel(1);
    let (let_go, go_on) = std::sync::mpsc::sync_channel(1);
    let kv = Arc::new(HangingKv { kv: MemoryKv::new(), began, go_on: Mutex::new(go_on) });
    let writer = LogWriter::start(kv, Executor::Threads, LogMetrics::unregistered()).unwrap();
    let one = |key: u8| {
        let mut batch = Batch::new();
        batch.put(Space::Log, vec![key], vec![key]);
        batch
    };
    let waits = |batch| {
        let writer = writer.clone();
        tokio::spawn(async move { writer.write_durably(batch).await })
    };
    let in_turn = waits(one(1));
    tokio::task::spawn_blocking(move || begins.recv().unwrap()).await.unwrap();
    writer.fail_if_stuck(Duration::from_secs(3_600));
    assert_eq!(writer.failure(), None);
    let in_queue = waits(one(2));
    writer.fail_if_stuck(Duration::ZERO);
    let stuck = Err(KvError::Stuck { seconds: 0 });
    assert_eq!((in_turn.await.unwrap(), in_queue.await.unwrap()), (stuck.clone(), stuck.clone()));
    assert_eq!(writer.write(one(3)).await, stuck);
    // Left behind, not waited for.
    writer.shutdown().await;
    let_go.send(()).unwrap();
}
