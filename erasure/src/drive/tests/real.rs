//! Real files, real threads, the real index.

use super::*;
use crate::drive::index::SledIndexFactory;
use crate::files::OsFiles;

fn open(dir: &Path, metrics: &DriveMetrics) -> Drive {
    let config = DriveConfig { checkpoint_changes: 64, segment_len: 4 << 20, ..small_config(dir, 1) };
    let index = Box::new(SledIndexFactory::new(dir.join("chunks"), 4 << 20));
    let executor = Executor::Threads { readers: 2 };
    Drive::open(config, Arc::new(OsFiles::new()), index, executor, metrics.clone()).unwrap()
}

fn format(dir: &Path) -> DriveMetrics {
    Drive::format(&OsFiles::new(), dir, identity(), &mut SmallRng::seed_from_u64(9)).unwrap();
    DriveMetrics::unregistered("real").unwrap()
}

/// A copy of the drive as a crash of the process would leave it.
fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

async fn fill(drive: &Drive, numbers: std::ops::Range<u64>, model: &mut Model) {
    let mut tasks = tokio::task::JoinSet::new();
    for n in numbers {
        let drive = drive.clone();
        let len = random_len(&mut SmallRng::seed_from_u64(n));
        model.fates.insert(n, Fate::Stored(len));
        tasks.spawn(async move { drive.append(sealed(n, len)).await });
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_real_drive_survives_closing_crashing_and_losing_its_index() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("drive");
    let metrics = format(&dir);
    let mut model = Model::default();
    let drive = open(&dir, &metrics);
    fill(&drive, 0..300, &mut model).await;
    let dead: Vec<u64> = (0..300).filter(|n| n % 4 != 0).collect();
    drive.delete(&dead.iter().map(|n| chunk_id(*n)).collect::<Vec<_>>()).await.unwrap();
    model.fates.extend(dead.into_iter().map(|n| (n, Fate::Deleted)));
    drive.compact().await.unwrap();
    model.check(&drive, "in use").await;

    // Everything acknowledged is in the files already; the copy is taken under an open drive, with a little log behind
    // its checkpoint and no housekeeping left to do.
    drive.checkpoint().await.unwrap();
    fill(&drive, 400..410, &mut model).await;
    let copy = temp.path().join("copy");
    copy_dir(&dir, &copy);
    drive.close().await.unwrap();
    drop(drive);
    let crashed = open(&copy, &metrics);
    assert!(!crashed.recovery().clean);
    model.check(&crashed, "after a crash").await;
    crashed.close().await.unwrap();

    let drive = open(&dir, &metrics);
    assert!(drive.recovery().clean && drive.recovery().index_rebuilt.is_none(), "{:?}", drive.recovery());
    model.check(&drive, "reopened").await;
    fill(&drive, 300..350, &mut model).await;
    drive.close().await.unwrap();
    drop(drive);

    std::fs::remove_dir_all(dir.join("chunks")).unwrap();
    let drive = open(&dir, &metrics);
    assert_eq!(drive.recovery().index_rebuilt, Some(RebuildReason::Stamp));
    model.check(&drive, "index removed").await;
    drive.close().await.unwrap();
    drop(drive);

    let db = dir.join("chunks").join("db");
    let len = std::fs::metadata(&db).unwrap().len() as usize;
    std::fs::write(&db, vec![0xA5; len]).unwrap();
    std::fs::write(dir.join("chunks").join("conf"), b"garbage").unwrap();
    let drive = open(&dir, &metrics);
    assert!(drive.recovery().index_rebuilt.is_some());
    assert!(dir.join("chunks.bad").exists(), "the bad index is kept aside");
    model.check(&drive, "index garbage").await;
    drive.close().await.unwrap();
}

#[tokio::test]
async fn concurrent_appends_on_real_threads_share_syncs_and_reads_run_beside_them() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("drive");
    let metrics = format(&dir);
    let drive = open(&dir, &metrics);
    let mut model = Model::default();
    fill(&drive, 0..64, &mut model).await;
    let (syncs, commits) = (metrics.sync_count(), metrics.commit_count());
    assert!(commits < 64, "{commits} commits for 64 appends");
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..200u64 {
        let drive = drive.clone();
        if n % 2 == 0 {
            tasks.spawn(async move { drive.append(sealed(1000 + n, 4096)).await });
        } else {
            tasks.spawn(async move { drive.verify(chunk_id(n % 64)).await });
        }
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap().unwrap();
    }
    assert!(metrics.sync_count() - syncs < 100, "{} syncs for 100 appends", metrics.sync_count() - syncs);
    drive.close().await.unwrap();
    assert!(matches!(drive.verify(chunk_id(1)).await, Err(DriveError::Closed(_))));
}

#[tokio::test]
async fn read_buffers_come_back_to_the_pool() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("drive");
    let metrics = format(&dir);
    let pool = BufferPool::new(1 << 20);
    let config = DriveConfig { pool: pool.clone(), ..small_config(&dir, 1) };
    let index = Box::new(MemoryIndexFactory::new());
    let drive =
        Drive::open(config, Arc::new(OsFiles::new()), index, Executor::Threads { readers: 1 }, metrics).unwrap();
    append_all(&drive, [(1, 100_000)]).await;
    let kept = pool.kept_bytes();
    let read = drive.read(chunk_id(1), 0..100_000).await.unwrap();
    let lent = pool.kept_bytes();
    let slice = read.bytes.slice(99_990..);
    drop(read);
    assert_eq!(pool.kept_bytes(), lent);
    drop(slice);
    assert!(pool.kept_bytes() > kept.max(lent));
    drive.close().await.unwrap();
}

/// Not a test of speed: prints what one append and one read of 1 MiB cost here.
#[tokio::test]
#[ignore = "prints measurements"]
async fn measure_real_appends_and_reads() {
    let temp = tempfile::tempdir_in(std::env::var("DRIVE_BENCH_DIR").unwrap_or_else(|_| ".".to_owned())).unwrap();
    let dir = temp.path().join("drive");
    let metrics = format(&dir);
    let config = DriveConfig {
        segment_len: 1 << 30,
        allocate_step: 64 << 20,
        checkpoint_changes: 16_384,
        ..small_config(&dir, 1)
    };
    let index = Box::new(SledIndexFactory::new(dir.join("chunks"), 16 << 20));
    let executor = Executor::Threads { readers: 2 };
    let drive = Drive::open(config, Arc::new(OsFiles::new()), index, executor, metrics.clone()).unwrap();
    for (base, len, count, width) in
        [(0u64, 1usize << 20, 256u64, 8u64), (100_000, 128 << 10, 2000, 16), (200_000, 8 << 10, 20_000, 64)]
    {
        let chunks: Vec<SealedChunk> = (0..count).map(|n| sealed(base + n, len)).collect();
        let started = tokio::time::Instant::now();
        let syncs = metrics.sync_count();
        let mut tasks: tokio::task::JoinSet<Result<(), DriveError>> = tokio::task::JoinSet::new();
        for chunk in chunks {
            if tasks.len() as u64 >= width {
                tasks.join_next().await.unwrap().unwrap().unwrap();
            }
            let drive = drive.clone();
            tasks.spawn(async move { drive.append(chunk).await });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap().unwrap();
        }
        let wrote = started.elapsed();
        let started = tokio::time::Instant::now();
        for n in 0..count {
            drive.read(chunk_id(base + n), 0..len as u32).await.unwrap();
        }
        let read = started.elapsed();
        let mb = (len as u64 * count) as f64 / 1e6;
        println!(
            "{len} bytes, {width} at a time: append {:.0}/s {:.0} MB/s, {} syncs; read one by one {:.0}/s {:.0} MB/s",
            count as f64 / wrote.as_secs_f64(),
            mb / wrote.as_secs_f64(),
            metrics.sync_count() - syncs,
            count as f64 / read.as_secs_f64(),
            mb / read.as_secs_f64(),
        );
    }
    drive.close().await.unwrap();
}
