//! What the store promises when nothing is broken, and how it refuses.

use std::time::Duration;

use super::*;
use crate::files::{SimFault, SimOp};

#[tokio::test]
async fn stored_chunks_are_read_by_any_range_before_and_after_a_restart() {
    let rig = Rig::new(1);
    let drive = rig.open();
    let lens = [0, 1, 4096, 65_535, 65_536, 65_537, 200_000, 300_000];
    append_all(&drive, lens.iter().enumerate().map(|(n, len)| (n as u64, *len))).await;
    for round in 0..2 {
        let drive = if round == 0 { drive.clone() } else { rig.open() };
        for (n, len) in lens.iter().enumerate() {
            let whole = payload(n as u64, *len);
            let ranges =
                [0..*len, 0..len.min(&1).to_owned(), len / 2..*len, len / 3..len / 2, *len..*len, len / 2..len / 2];
            for range in ranges {
                let read = drive.read(chunk_id(n as u64), range.start as u32..range.end as u32).await.unwrap();
                assert_eq!(read.bytes, whole[range.clone()], "{range:?} of {len}");
                assert_eq!((read.payload_len as usize, read.extent_len as usize), (*len, 2 * len));
            }
            let beyond = drive.read(chunk_id(n as u64), 0..*len as u32 + 1).await.unwrap_err();
            assert!(matches!(beyond, DriveError::OutOfRange { .. }));
            let head = drive.head(chunk_id(n as u64)).await.unwrap().unwrap();
            assert_eq!(&head, sealed(n as u64, *len).header());
            drive.verify(chunk_id(n as u64)).await.unwrap();
        }
        assert!(matches!(drive.read(chunk_id(99), 0..1).await, Err(DriveError::NotFound { .. })));
        assert_eq!(drive.head(chunk_id(99)).await.unwrap(), None);
        drive.close().await.unwrap();
        assert!(matches!(drive.append(sealed(50, 1)).await, Err(DriveError::Closed(_))));
        assert!(matches!(drive.read(chunk_id(0), 0..0).await, Err(DriveError::Closed(_))));
    }
    let reopened = rig.open();
    assert!(reopened.recovery().clean);
    assert_eq!(reopened.recovery().frames_replayed, 0);
}

#[tokio::test]
async fn appends_and_deletions_are_idempotent() {
    let rig = Rig::new(2);
    let drive = rig.open();
    append_all(&drive, [(1, 1000), (1, 1000), (2, 70_000)]).await;
    assert_eq!(drive.status().chunk_count, 2);
    let ids = [chunk_id(1), chunk_id(1), chunk_id(7)];
    drive.delete(&ids).await.unwrap();
    drive.delete(&ids).await.unwrap();
    assert!(!drive.contains(chunk_id(1)).await.unwrap());
    append_all(&drive, [(1, 500)]).await;
    assert_eq!(drive.read(chunk_id(1), 0..500).await.unwrap().bytes, payload(1, 500));
    drive.delete(&[chunk_id(1), chunk_id(2)]).await.unwrap();
    let status = drive.status();
    assert_eq!((status.chunk_count, status.used_bytes), (0, 0));
}

#[tokio::test]
async fn sixty_four_concurrent_appends_share_few_syncs() {
    let rig = Rig::new(3);
    let metrics = DriveMetrics::unregistered("test").unwrap();
    let files = Arc::new(rig.files.clone());
    let config = DriveConfig { segment_len: 4 << 20, ..rig.config.clone() };
    let drive = Drive::open(config, files, Box::new(rig.index.clone()), Executor::Tasks, metrics.clone()).unwrap();
    let (syncs, commits) = (metrics.sync_count(), metrics.commit_count());
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..64 {
        let drive = drive.clone();
        tasks.spawn(async move { drive.append(sealed(n, 4096)).await });
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap().unwrap();
    }
    assert!(metrics.sync_count() - syncs <= 4, "{} syncs", metrics.sync_count() - syncs);
    assert_eq!(metrics.commit_count() - commits, metrics.sync_count() - syncs);
    assert_eq!(drive.scan(None, 100).await.unwrap().len(), 64);
}

#[tokio::test]
async fn opposite_changes_of_one_chunk_in_one_batch_keep_their_order() {
    let rig = Rig::new(4);
    let drive = rig.open();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let (a, b) = (drive.clone(), drive.clone());
        tasks.spawn(async move { a.append(sealed(1, 100)).await });
        tasks.spawn(async move { b.delete(&[chunk_id(1)]).await });
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap().unwrap();
    }
    assert!(!drive.contains(chunk_id(1)).await.unwrap());
    rig.crash();
    rig.lose_checkpoint();
    assert!(!rig.open().contains(chunk_id(1)).await.unwrap());
}

#[tokio::test]
async fn scans_merge_memory_and_index_in_pages() {
    let rig = Rig::new(5);
    let drive = rig.open();
    let mut model = Model::default();
    let mut rng = SmallRng::seed_from_u64(5);
    for round in 0..120u64 {
        let n = rng.random_range(0..60);
        if model.fates.get(&n) == Some(&Fate::Stored(10)) {
            drive.delete(&[chunk_id(n)]).await.unwrap();
            model.fates.insert(n, Fate::Deleted);
        } else {
            append_all(&drive, [(n, 10)]).await;
            model.fates.insert(n, Fate::Stored(10));
        }
        if round % 50 == 49 {
            drive.checkpoint().await.unwrap();
        }
        for page in [1, 3, 7, 100] {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let found = drive.scan(after, page).await.unwrap();
                assert!(found.len() <= page);
                after = found.last().map(|(id, _)| *id);
                seen.extend(found.iter().map(|(id, _)| *id));
                if found.len() < page {
                    break;
                }
            }
            assert_eq!(seen, model.stored().map(|(n, _)| chunk_id(n)).collect::<Vec<_>>());
        }
    }
}

#[tokio::test]
async fn a_full_drive_refuses_clients_but_heals_and_deletes_and_recovers() {
    let mut rig = Rig::new(6);
    rig.config.capacity_bytes = Some(4 << 20);
    rig.config.reserve = Reserve { percent: 25, bytes_min: 0 };
    let drive = rig.open();
    let mut stored = 0;
    let refused = loop {
        match drive.append(sealed(stored, 100_000)).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, DriveError::Full(_)), "{refused}");
    assert!((20..40).contains(&stored), "{stored} chunks of 100 kB in 3 MiB");
    assert_eq!(drive.status().state, DriveState::Full);
    drive.append_as(sealed(1000, 100_000), AppendClass::Heal).await.unwrap();
    let gone: Vec<ChunkId> = (0..stored).map(chunk_id).collect();
    drive.delete(&gone).await.unwrap();
    drive.compact().await.unwrap();
    assert_eq!(drive.status().state, DriveState::Healthy);
    append_all(&drive, [(2000, 100_000)]).await;
    drive.verify(chunk_id(1000)).await.unwrap();
}

#[tokio::test]
async fn running_out_of_room_in_the_middle_of_a_write_loses_nothing() {
    let rig = Rig::new(7);
    let drive = rig.open();
    append_all(&drive, (0..4).map(|n| (n, 50_000))).await;
    // Less room than the next segment needs.
    let used: u64 =
        rig.files.space(Path::new("/")).unwrap().total_bytes - rig.files.space(Path::new("/")).unwrap().available_bytes;
    rig.files.inject(SimFault::Capacity(used + 64 * 1024));
    let mut model = Model::default();
    model.fates.extend((0..4).map(|n| (n, Fate::Stored(50_000))));
    let mut refused = 0;
    for n in 4..20 {
        match drive.append(sealed(n, 90_000)).await {
            Ok(()) => drop(model.fates.insert(n, Fate::Stored(90_000))),
            Err(DriveError::Full(_)) => {
                refused += 1;
                model.fates.insert(n, Fate::Deleted);
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 0);
    drive.delete(&[chunk_id(1)]).await.unwrap();
    model.fates.insert(1, Fate::Deleted);
    rig.files.heal();
    append_all(&drive, [(30, 90_000)]).await;
    model.fates.insert(30, Fate::Stored(90_000));
    model.check(&drive, "after space returned").await;
    rig.crash();
    rig.lose_checkpoint();
    model.check(&rig.open(), "after a crash").await;
}

#[tokio::test]
async fn a_failed_sync_fails_the_drive_for_good() {
    let rig = Rig::new(8);
    let drive = rig.open();
    append_all(&drive, [(1, 5000)]).await;
    rig.files.inject(SimFault::FailOnce { op: SimOp::Sync, skip: 0 });
    let failed = drive.append(sealed(2, 5000)).await.unwrap_err();
    assert!(matches!(failed, DriveError::Failed { reason: FailReason::Sync(_), .. }), "{failed}");
    let (syncs, writes) = (rig.files.count(SimOp::Sync), rig.files.count(SimOp::Write));
    assert_eq!(drive.append(sealed(3, 10)).await, Err(failed.clone()));
    assert_eq!(drive.delete(&[chunk_id(1)]).await, Err(failed.clone()));
    assert!(drive.checkpoint().await.is_err() && drive.compact().await.is_err());
    assert_eq!((rig.files.count(SimOp::Sync), rig.files.count(SimOp::Write)), (syncs, writes), "nothing is retried");
    assert!(matches!(drive.status().state, DriveState::Failed { reason: FailReason::Sync(_) }));
    assert_eq!(drive.read(chunk_id(1), 0..5000).await.unwrap().bytes, payload(1, 5000));
    assert!(matches!(drive.read(chunk_id(2), 0..1).await, Err(DriveError::NotFound { .. })));
    assert_eq!(drive.close().await, Err(failed));
    drop(drive);
    // The operator restarts the node: what was acknowledged is there.
    let mut model = Model::default();
    model.fates.extend([(1, Fate::Stored(5000)), (2, Fate::Unknown(5000)), (3, Fate::Deleted)]);
    model.check(&rig.open(), "reopened").await;
}

/// Keeps the text of errors, fields included.
#[derive(Clone, Default)]
struct Errors(Arc<std::sync::Mutex<Vec<String>>>);

impl tracing::Subscriber for Errors {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR
    }
    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{field}={value:?}; ");
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn the_first_failure_is_logged_once_with_drive_directory_operation_and_error_number() {
    let errors = Errors::default();
    // Drives of this rig are tasks of this thread.
    let _guard = tracing::subscriber::set_default(errors.clone());
    let rig = Rig::new(88);
    let drive = rig.open();
    assert_eq!(drive.status().problem(), None);
    rig.files.inject(SimFault::FailOnce { op: SimOp::Sync, skip: 0 });
    drive.append(sealed(1, 10)).await.unwrap_err();
    drive.append(sealed(2, 10)).await.unwrap_err();
    let said = errors.0.lock().unwrap().clone();
    assert_eq!(said.len(), 1, "{said:?}");
    let id = identity().drive.to_string();
    for part in [&*id, "/drives/one", "a sync failed", "Input/output error (os error 5)", "restart the node"] {
        assert!(said[0].contains(part), "{part} not in {said:?}");
    }
    assert_eq!(drive.status().problem().unwrap(), "a sync failed: Input/output error (os error 5)");
}

#[tokio::test]
async fn a_failed_write_fails_the_drive_and_answers_the_whole_batch() {
    let rig = Rig::new(9);
    let drive = rig.open();
    rig.files.inject(SimFault::FailOnce { op: SimOp::Write, skip: 0 });
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..8 {
        let drive = drive.clone();
        tasks.spawn(async move { drive.append(sealed(n, 4096)).await });
    }
    while let Some(result) = tasks.join_next().await {
        assert!(matches!(result.unwrap(), Err(DriveError::Failed { reason: FailReason::Write(_), .. })));
    }
    assert_eq!(drive.status().write_errors, 1);
}

#[tokio::test]
async fn read_errors_are_counted_and_do_not_fail_the_drive() {
    let rig = Rig::new(10);
    let drive = rig.open();
    append_all(&drive, [(1, 5000)]).await;
    rig.files.inject(SimFault::FailOnce { op: SimOp::Read, skip: 0 });
    assert!(matches!(drive.read(chunk_id(1), 0..10).await, Err(DriveError::Read { .. })));
    assert_eq!(drive.read(chunk_id(1), 0..10).await.unwrap().bytes, payload(1, 5000)[..10]);
    assert_eq!((drive.status().read_errors, drive.status().state), (1, DriveState::Healthy));
    rig.files.inject(SimFault::FailAlways(SimOp::Read));
    for _ in 0..8 {
        drive.verify(chunk_id(1)).await.unwrap_err();
    }
    assert_eq!(drive.status().state, DriveState::Failing);
    append_all(&drive, [(2, 10)]).await;
}

#[tokio::test]
async fn a_slow_drive_is_seen_while_it_is_slow() {
    let mut rig = Rig::new(11);
    rig.config.slow_after = Duration::from_millis(2);
    let drive = rig.open();
    rig.files.inject(SimFault::Slow(Duration::from_millis(10)));
    append_all(&drive, [(1, 100)]).await;
    assert_eq!(drive.status().state, DriveState::Slow);
    assert!(drive.status().append_latency >= Duration::from_millis(10));
}

#[tokio::test]
async fn a_chunk_too_large_for_a_segment_is_refused() {
    let rig = Rig::new(12);
    let drive = rig.open();
    let refused = drive.append(sealed(1, 512 << 10)).await.unwrap_err();
    assert!(matches!(refused, DriveError::TooLarge { .. }));
    append_all(&drive, [(2, 490_000), (3, 490_000)]).await;
    drive.verify(chunk_id(2)).await.unwrap();
}

#[tokio::test]
async fn strangers_are_refused_by_name() {
    let rig = Rig::new(13);
    let refuse = |edit: fn(&mut DriveConfig)| {
        let mut rig = Rig { files: rig.files.clone(), index: rig.index.clone(), config: rig.config.clone() };
        edit(&mut rig.config);
        rig.try_open().err().unwrap()
    };
    let cluster = refuse(|config| config.identity.cluster = [9; 16]);
    assert!(
        cluster.to_string().contains(&"c1".repeat(16)) && cluster.to_string().contains(&"09".repeat(16)),
        "{cluster}"
    );
    assert!(matches!(refuse(|config| config.identity.node = [9; 8]), OpenError::ForeignNode { .. }));
    assert!(matches!(
        refuse(|config| config.identity.drive = DriveId::from_bytes([9; 8])),
        OpenError::ForeignDrive { .. }
    ));
    assert!(matches!(refuse(|config| config.dir = PathBuf::from("/blank")), OpenError::Blank(_)));
    assert!(matches!(refuse(|config| config.segment_len = 5000), OpenError::Config(_)));
    let again = Drive::format(&rig.files, &rig.config.dir, identity(), &mut SmallRng::seed_from_u64(1)).unwrap_err();
    assert!(matches!(again, OpenError::AlreadyFormatted { found, .. } if found == identity()));
    assert_eq!(Drive::identify(&rig.files, &rig.config.dir).unwrap(), identity());
}

#[tokio::test]
async fn big_dead_chunks_give_their_room_back_at_once() {
    let rig = Rig::new(14);
    let drive = rig.open();
    append_all(&drive, (0..3).map(|n| (n, 130_000))).await;
    let before = rig.files.space(Path::new("/")).unwrap().available_bytes;
    drive.delete(&[chunk_id(1)]).await.unwrap();
    // Housekeeping runs before the next command is answered.
    drive.checkpoint().await.unwrap();
    let after = rig.files.space(Path::new("/")).unwrap().available_bytes;
    assert!(after >= before + 120_000, "{before} {after}");
    drive.verify(chunk_id(0)).await.unwrap();
    drive.verify(chunk_id(2)).await.unwrap();
}

#[tokio::test]
async fn compaction_frees_segments_and_recycled_ones_never_resurrect() {
    let rig = Rig::new(15);
    let drive = rig.open();
    let mut model = Model::default();
    let mut rng = SmallRng::seed_from_u64(15);
    for n in 0..600u64 {
        let len = rng.random_range(2000..9000);
        append_all(&drive, [(n, len)]).await;
        model.fates.insert(n, Fate::Stored(len));
        // Old chunks die, nine of ten.
        if n >= 100 && !n.is_multiple_of(10) {
            drive.delete(&[chunk_id(n - 100)]).await.unwrap();
            model.fates.insert(n - 100, Fate::Deleted);
        }
        if n % 100 == 99 {
            drive.compact().await.unwrap();
            model.check(&drive, "in use").await;
        }
    }
    drive.compact().await.unwrap();
    let live: usize = model.stored().map(|(_, len)| len).sum();
    let segments = rig.segments().len();
    assert!(segments <= 2 + 3 * live / (512 << 10), "{segments} segments for {live} live bytes");
    let newest = rig.segments().last().unwrap().file_stem().unwrap().to_str().unwrap().to_owned();
    assert!(u64::from_str_radix(&newest, 16).unwrap() as usize > segments + 2, "segments were recycled");
    for lose_index in [false, true] {
        rig.crash();
        if lose_index {
            rig.lose_checkpoint();
        }
        let drive = rig.open();
        assert_eq!(drive.recovery().index_rebuilt.is_some(), lose_index);
        assert_eq!(drive.recovery().corrupt_regions, []);
        model.check(&drive, "after a crash").await;
        drop(drive);
    }
}

#[tokio::test]
async fn a_chunk_deleted_and_written_again_outlives_its_old_tombstone() {
    let rig = Rig::new(16);
    let drive = rig.open();
    append_all(&drive, [(1, 3000)]).await;
    drive.delete(&[chunk_id(1)]).await.unwrap();
    append_all(&drive, [(1, 4000)]).await;
    // Enough traffic to move both the tombstone and the new record.
    for n in 100..400 {
        append_all(&drive, [(n, 8000)]).await;
        drive.delete(&[chunk_id(n)]).await.unwrap();
    }
    drive.compact().await.unwrap();
    rig.crash();
    rig.lose_checkpoint();
    let drive = rig.open();
    assert_eq!(drive.read(chunk_id(1), 0..4000).await.unwrap().bytes, payload(1, 4000));
    assert_eq!(drive.scan(None, 10).await.unwrap(), [(chunk_id(1), 4000)]);
}

#[test]
fn metrics_register_once_per_drive() {
    let registry = prometheus::Registry::new();
    DriveMetrics::new(&registry, "a").unwrap();
    DriveMetrics::new(&registry, "b").unwrap();
    assert!(DriveMetrics::new(&registry, "a").is_err());
    assert_eq!(registry.gather().len(), 22);
}

#[tokio::test]
async fn what_waits_for_the_writer_is_bounded_in_bytes_and_comes_through_all_the_same() {
    let mut rig = Rig::new(33);
    rig.config.queue_bytes = 40_000;
    let drive = rig.open();
    let mut model = Model::default();
    let appends = |drive: &Drive| (0..8).map(|n| (n, drive.clone())).collect::<Vec<_>>();
    let mut waiting = tokio::task::JoinSet::new();
    for (n, drive) in appends(&drive) {
        waiting.spawn(async move { drive.append(sealed(n, 15_000)).await });
    }
    // Every caller has come as far as it can, and the writer has not had its turn.
    tokio::task::yield_now().await;
    assert!(drive.handle.queue_bytes.available_permits() < 15_000, "the bound was reached");
    while let Some(stored) = waiting.join_next().await {
        stored.unwrap().unwrap();
    }
    drive.append(sealed(8, 100_000)).await.unwrap();
    assert_eq!(drive.handle.queue_bytes.available_permits(), 40_000);
    model.fates.extend((0..8).map(|n| (n, Fate::Stored(15_000))).chain([(8, Fate::Stored(100_000))]));
    model.check(&drive, "after the queue").await;
}
