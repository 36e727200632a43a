//! The crash matrix: a random history, cut by a loss of power at every changing operation in turn.
//!
//! After each cut: every acknowledged chunk is there byte for byte, every acknowledged deletion stays, what was not
//! acknowledged is wholly there or wholly absent; also after a second cut during recovery, and when the index is lost
//! too.

use super::*;
use crate::files::SimFault;

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    /// Appended together, so that they may share a frame.
    Append(Vec<(u64, usize)>),
    Delete(Vec<u64>),
    Checkpoint,
    Compact,
}

fn history(seed: u64) -> Vec<Step> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let (mut steps, mut alive, mut next) = (Vec::new(), Vec::new(), 0u64);
    for _ in 0..36 {
        steps.push(match rng.random_range(0..12) {
            0 => Step::Checkpoint,
            1 => Step::Compact,
            2..=5 if alive.len() > 2 => {
                let count = rng.random_range(1..=alive.len().min(6));
                let dead = (0..count).map(|_| alive.swap_remove(rng.random_range(0..alive.len()))).collect();
                Step::Delete(dead)
            }
            _ => {
                let count = rng.random_range(1..6);
                let batch: Vec<_> = (next..next + count).map(|n| (n, random_len(&mut rng))).collect();
                next += count;
                alive.extend(batch.iter().map(|(n, _)| *n));
                Step::Append(batch)
            }
        });
    }
    steps
}

/// Plays the history until something fails; the model says what was acknowledged. `true`: played to the end.
async fn play(drive: &Drive, steps: &[Step], model: &mut Model) -> bool {
    for step in steps {
        let done = match step {
            Step::Append(batch) => append_together(drive, batch, model).await,
            Step::Delete(dead) => {
                let ids: Vec<ChunkId> = dead.iter().map(|n| chunk_id(*n)).collect();
                let result = drive.delete(&ids).await;
                for n in dead {
                    let Some(Fate::Stored(len)) = model.fates.get(n).copied() else { panic!("history deletes {n}") };
                    model.fates.insert(*n, if result.is_ok() { Fate::Deleted } else { Fate::Unknown(len) });
                }
                result.is_ok()
            }
            Step::Checkpoint => drive.checkpoint().await.is_ok(),
            Step::Compact => drive.compact().await.is_ok(),
        };
        if !done {
            return false;
        }
    }
    true
}

/// Counts what the matrix met, so that a scenario that never happens is noticed.
#[derive(Default, Debug)]
struct Met {
    cuts: u64,
    torn_records: u64,
    unknown_stored: u64,
    unknown_absent: u64,
    recovery_cut: u64,
}

async fn cut_at(seed: u64, point: u64, steps: &[Step], met: &mut Met) {
    let rig = Rig::new(seed.wrapping_mul(1_000_003) ^ point);
    let context = format!("seed {seed}, cut at operation {point}");
    let mut model = Model::default();
    rig.files.inject(SimFault::CrashAfter(point));
    if let Ok(drive) = rig.try_open() {
        play(&drive, steps, &mut model).await;
    }
    met.cuts += 1;
    rig.crash();
    if point.is_multiple_of(3) {
        // Power goes again while the drive recovers.
        rig.files.inject(SimFault::CrashAfter(1 + point % 7));
        met.recovery_cut += u64::from(rig.try_open().is_err());
        rig.crash();
    }
    let unknown: Vec<u64> =
        model.fates.iter().filter(|(_, fate)| matches!(fate, Fate::Unknown(_))).map(|(n, _)| *n).collect();
    let drive = rig.open();
    met.torn_records += drive.recovery().torn_records;
    assert_eq!(drive.recovery().corrupt_regions, [], "{context}: a cut is not damage");
    model.check(&drive, &context).await;
    for n in unknown {
        match model.fates[&n] {
            Fate::Stored(_) => met.unknown_stored += 1,
            _ => met.unknown_absent += 1,
        }
    }
    // Life goes on, and nothing of it depends on the index.
    let more = [Step::Append(vec![(9001, 100), (9002, 70_000)]), Step::Append(vec![(9003, 5000)]), Step::Compact];
    assert!(play(&drive, &more, &mut model).await, "{context}: usable after recovery: {:?}", drive.status());
    model.check(&drive, &context).await;
    drop(drive);
    rig.crash();
    rig.lose_checkpoint();
    let drive = rig.open();
    assert_eq!(drive.recovery().corrupt_regions, [], "{context}: scan");
    model.check(&drive, &format!("{context}, index lost")).await;
}

async fn matrix(seeds: std::ops::Range<u64>) {
    let mut met = Met::default();
    for seed in seeds {
        let steps = history(seed);
        let rig = Rig::new(seed);
        let before = rig.files.op_count();
        let mut model = Model::default();
        let drive = rig.open();
        assert!(play(&drive, &steps, &mut model).await, "seed {seed} without a cut");
        model.check(&drive, "without a cut").await;
        let operations = rig.files.op_count() - before;
        for point in 1..=operations {
            cut_at(seed, point, &steps, &mut met).await;
        }
    }
    let all_met = met.torn_records > 0 && met.unknown_stored > 0 && met.unknown_absent > 0 && met.recovery_cut > 0;
    assert!(all_met, "a scenario never happened: {met:?}");
}

#[tokio::test]
async fn every_cut_of_random_histories_keeps_what_was_acknowledged_part_1() {
    matrix(0..8).await;
}

#[tokio::test]
async fn every_cut_of_random_histories_keeps_what_was_acknowledged_part_2() {
    matrix(8..16).await;
}
