//! Damaged segments, indexes and checkpoints: what is lost, what is not, and what is said about it.

use super::*;
use crate::drive::segment::SEGMENT_HEADER_LEN;
use crate::files::{SimFault, SimOp};

/// Appends one chunk per frame and returns the offset of each frame in the first segment.
async fn frames(rig: &Rig, drive: &Drive, lens: &[usize]) -> Vec<u64> {
    let path = rig.segments()[0].clone();
    let mut offsets = Vec::new();
    for (n, len) in lens.iter().enumerate() {
        let file = rig.files.open(&path).unwrap();
        let mut bytes = vec![0; 512 << 10];
        let read = file.read_at(0, &mut bytes).unwrap();
        // Frames are the only blocks here that start with their magic.
        let end = bytes[..read].chunks(4096).skip(1).rposition(|block| block.starts_with(b"DSFR"));
        append_all(drive, [(n as u64, *len)]).await;
        let mut after = vec![0; 512 << 10];
        file.read_at(0, &mut after).unwrap();
        let from = end.map_or(1, |i| i + 2);
        let found = after.chunks(4096).enumerate().skip(from).find(|(_, block)| block.starts_with(b"DSFR"));
        offsets.push(found.unwrap().0 as u64 * 4096);
    }
    offsets
}

#[tokio::test]
async fn a_flipped_bit_costs_one_chunk_and_is_never_served() {
    let rig = Rig::new(20);
    let drive = rig.open();
    let offsets = frames(&rig, &drive, &[10_000, 150_000, 10_000]).await;
    // The middle chunk: head in the frame's first block, payload from the next one on.
    rig.files.flip_bit(&rig.segments()[0], offsets[1] + 4096 + 70_000, 3);
    assert_eq!(drive.read(chunk_id(1), 0..65_536).await.unwrap().bytes, payload(1, 150_000)[..65_536]);
    let corrupt = drive.read(chunk_id(1), 65_536..65_537).await.unwrap_err();
    assert!(matches!(corrupt, DriveError::Corrupt { block: Some(1), .. }), "{corrupt}");
    assert!(matches!(drive.verify(chunk_id(1)).await, Err(DriveError::Corrupt { .. })));
    assert_eq!(drive.status().corrupt_reads, 2);
    drive.verify(chunk_id(0)).await.unwrap();
    drive.verify(chunk_id(2)).await.unwrap();
    // Healing: delete, then store again.
    drive.delete(&[chunk_id(1)]).await.unwrap();
    drive.append_as(sealed(1, 150_000), AppendClass::Heal).await.unwrap();
    drive.verify(chunk_id(1)).await.unwrap();
}

#[tokio::test]
async fn a_damaged_head_is_corrupt_not_missing() {
    let rig = Rig::new(21);
    let drive = rig.open();
    let offsets = frames(&rig, &drive, &[10_000]).await;
    rig.files.zero(&rig.segments()[0], offsets[0] + 120..offsets[0] + 200);
    assert!(matches!(drive.head(chunk_id(0)).await, Err(DriveError::Corrupt { block: None, .. })));
}

#[tokio::test]
async fn a_corrupt_middle_is_reported_and_costs_only_its_own_frame() {
    let rig = Rig::new(22);
    let drive = rig.open();
    let offsets = frames(&rig, &drive, &[10_000, 20_000, 70_000, 10_000]).await;
    drive.close().await.unwrap();
    drop(drive);
    rig.files.flip_bit(&rig.segments()[0], offsets[1] + 30, 0);
    // The index still knows the chunk, and the chunk itself is whole.
    let drive = rig.open();
    assert_eq!(drive.recovery().corrupt_regions, []);
    drive.verify(chunk_id(1)).await.unwrap();
    drop(drive);
    rig.crash();
    rig.lose_checkpoint();
    let drive = rig.open();
    let expected = CorruptRegion { segment: 1, offset: offsets[1] as u32, len: (offsets[2] - offsets[1]) as u32 };
    assert_eq!(drive.recovery().corrupt_regions, [expected]);
    assert_eq!(drive.recovery().frames_lost, 1);
    let mut model = Model::default();
    model.fates.extend([(0, 10_000), (2, 70_000), (3, 10_000)].map(|(n, len)| (n, Fate::Stored(len))));
    model.fates.insert(1, Fate::Deleted);
    model.check(&drive, "middle lost").await;
}

#[tokio::test]
async fn a_torn_tail_is_cut_without_alarm_and_written_over() {
    let rig = Rig::new(23);
    let drive = rig.open();
    let offsets = frames(&rig, &drive, &[10_000, 90_000]).await;
    drop(drive);
    rig.crash();
    rig.files.zero(&rig.segments()[0], offsets[1]..offsets[1] + 512);
    let drive = rig.open();
    assert_eq!((drive.recovery().corrupt_regions.len(), drive.recovery().frames_lost), (0, 0));
    let mut model = Model::default();
    model.fates.extend([(0, Fate::Stored(10_000)), (1, Fate::Deleted)]);
    model.check(&drive, "cut").await;
    append_all(&drive, [(5, 100)]).await;
    model.fates.insert(5, Fate::Stored(100));
    drop(drive);
    rig.crash();
    rig.lose_checkpoint();
    let drive = rig.open();
    model.check(&drive, "written over").await;
    assert_eq!(drive.recovery().corrupt_regions, []);
}

#[tokio::test]
async fn what_a_checkpoint_vouches_for_is_damage_not_a_torn_tail() {
    let rig = Rig::new(24);
    let drive = rig.open();
    let offsets = frames(&rig, &drive, &[10_000, 90_000]).await;
    drive.checkpoint().await.unwrap();
    drop(drive);
    rig.crash();
    rig.files.zero(&rig.segments()[0], offsets[1]..offsets[1] + 512);
    rig.index.break_index();
    let drive = rig.open();
    assert!(matches!(drive.recovery().index_rebuilt, Some(RebuildReason::Unusable(_))));
    assert_eq!(drive.recovery().corrupt_regions.len(), 1);
    assert_eq!(drive.recovery().frames_lost, 1);
    // Its place is not written over.
    append_all(&drive, [(7, 100)]).await;
    drive.verify(chunk_id(0)).await.unwrap();
}

#[tokio::test]
async fn records_of_the_last_frame_that_are_not_whole_are_gone_for_good() {
    let rig = Rig::new(25);
    let drive = rig.open();
    let offsets = frames(&rig, &drive, &[10_000, 150_000]).await;
    drop(drive);
    rig.crash();
    rig.files.zero(&rig.segments()[0], offsets[1] + 4096 + 140_000..offsets[1] + 4096 + 141_000);
    let mut model = Model::default();
    model.fates.extend([(0, Fate::Stored(10_000)), (1, Fate::Deleted)]);
    let drive = rig.open();
    assert_eq!(drive.recovery().torn_records, 1);
    model.check(&drive, "cut").await;
    drop(drive);
    rig.crash();
    rig.lose_checkpoint();
    let drive = rig.open();
    assert_eq!(drive.recovery().torn_records, 0);
    model.check(&drive, "scanned").await;
    // A retry of the append stores it anew.
    append_all(&drive, [(1, 150_000)]).await;
    drive.verify(chunk_id(1)).await.unwrap();
}

#[tokio::test]
async fn a_missing_foreign_or_garbled_index_is_rebuilt() {
    let rig = Rig::new(26);
    let drive = rig.open();
    let mut model = Model::default();
    append_all(&drive, (0..40).map(|n| (n, 3000))).await;
    drive.delete(&[chunk_id(3)]).await.unwrap();
    model.fates.extend((0..40).map(|n| (n, Fate::Stored(3000))));
    model.fates.insert(3, Fate::Deleted);
    drive.close().await.unwrap();
    type Ruin = fn(&mut Rig);
    let ruins: [(Ruin, RebuildReason); 4] = [
        (|rig| rig.lose_checkpoint(), RebuildReason::NoCheckpoint),
        (|rig| rig.index = MemoryIndexFactory::new(), RebuildReason::Stamp),
        (|rig| rig.index.garble(), RebuildReason::Disagrees),
        (|rig| rig.files.set_small(&rig.config.dir.join("checkpoint"), Some(vec![7; 90])), RebuildReason::NoCheckpoint),
    ];
    let mut rig = rig;
    for (ruin, reason) in ruins {
        ruin(&mut rig);
        let drive = rig.open();
        assert_eq!(drive.recovery().index_rebuilt, Some(reason.clone()));
        model.check(&drive, &format!("{reason:?}")).await;
        drive.close().await.unwrap();
        assert_eq!(rig.open().recovery().index_rebuilt, None, "rebuilt once");
        rig.crash();
    }
}

#[tokio::test]
async fn an_index_that_fails_in_use_is_rebuilt_by_the_next_change() {
    let rig = Rig::new(27);
    let drive = rig.open();
    append_all(&drive, (0..40).map(|n| (n, 3000))).await;
    drive.checkpoint().await.unwrap();
    let discards = rig.index.discard_count();
    rig.index.break_index();
    assert!(matches!(drive.read(chunk_id(1), 0..1).await, Err(DriveError::IndexUnavailable(_))));
    append_all(&drive, [(50, 10)]).await;
    assert_eq!(rig.index.discard_count(), discards + 1);
    let mut model = Model::default();
    model.fates.extend((0..40).map(|n| (n, Fate::Stored(3000))));
    model.fates.insert(50, Fate::Stored(10));
    model.check(&drive, "rebuilt in use").await;
}

#[tokio::test]
async fn lost_segments_are_missing_chunks_not_errors() {
    let rig = Rig::new(28);
    let drive = rig.open();
    append_all(&drive, (0..12).map(|n| (n, 120_000))).await;
    drive.close().await.unwrap();
    drop(drive);
    let first = rig.segments()[0].clone();
    rig.files.remove(&first).unwrap();
    let drive = rig.open();
    let missing = 12 - drive.scan(None, 100).await.unwrap().len() as u64;
    assert!((1..12).contains(&missing));
    assert_eq!(drive.status().chunk_count, 12 - missing);
    assert!(matches!(drive.read(chunk_id(0), 0..1).await, Err(DriveError::NotFound { .. })));
    drive.verify(chunk_id(11)).await.unwrap();
    append_all(&drive, [(0, 120_000)]).await;
    drive.verify(chunk_id(0)).await.unwrap();
}

#[tokio::test]
async fn a_damaged_chunk_stays_damaged_when_its_segment_is_compacted() {
    let rig = Rig::new(29);
    let drive = rig.open();
    let offsets = frames(&rig, &drive, &[10_000, 10_000]).await;
    // Past table and head: the payload of the first chunk.
    rig.files.flip_bit(&rig.segments()[0], offsets[0] + 5000, 1);
    for n in 10..120 {
        append_all(&drive, [(n, 9000)]).await;
        drive.delete(&[chunk_id(n)]).await.unwrap();
    }
    drive.compact().await.unwrap();
    assert!(!rig.segments().iter().any(|path| path.ends_with("0000000000000001.seg")));
    assert!(matches!(drive.verify(chunk_id(0)).await, Err(DriveError::Corrupt { block: Some(0), .. })));
    drive.verify(chunk_id(1)).await.unwrap();
}

#[tokio::test]
async fn a_payload_that_imitates_frames_is_not_replayed() {
    let rig = Rig::new(30);
    let drive = rig.open();
    append_all(&drive, [(1, 5000)]).await;
    let mut copy = vec![0; 8 * 4096];
    let file = rig.files.open(&rig.segments()[0]).unwrap();
    file.read_at(u64::from(SEGMENT_HEADER_LEN), &mut copy).unwrap();
    let header = ChunkHeader { payload_len: 3 * 65_536, extent_len: 6 * 65_536, ..sealed(2, 0).header().clone() };
    let bytes = Bytes::from([copy.clone(), copy.clone(), copy.clone(), copy.clone(), copy.clone(), copy].concat());
    drive.append(SealedChunk::seal(header, vec![bytes]).unwrap()).await.unwrap();
    drive.delete(&[chunk_id(1)]).await.unwrap();
    drop(drive);
    // Even when the frame around the payload is lost, so that a search runs through it.
    let mut damaged = vec![0; 16 * 4096];
    file.read_at(0, &mut damaged).unwrap();
    let second = damaged.chunks(4096).enumerate().skip(2).find(|(_, block)| block.starts_with(b"DSFR")).unwrap().0;
    rig.crash();
    rig.files.flip_bit(&rig.segments()[0], second as u64 * 4096 + 9, 1);
    rig.lose_checkpoint();
    let drive = rig.open();
    assert_eq!(drive.recovery().frames_lost, 1);
    assert_eq!(drive.scan(None, 10).await.unwrap(), []);
}

/// What is left of `model` on the drive: everything stored but not readable becomes deleted.
async fn forget_lost(model: &mut Model, drive: &Drive) -> u64 {
    let mut lost = 0;
    for (n, fate) in &mut model.fates {
        if drive.head(chunk_id(*n)).await.unwrap().is_none() {
            lost += 1;
            *fate = Fate::Deleted;
        }
    }
    lost
}

#[tokio::test]
async fn segments_that_vanish_while_the_drive_is_closed_are_noticed_and_their_chunks_are_missing() {
    for closed in [true, false] {
        let rig = Rig::new(27);
        let drive = rig.open();
        let mut model = Model::default();
        for n in 0..40 {
            append_all(&drive, [(n, 60_000)]).await;
            model.fates.insert(n, Fate::Stored(60_000));
        }
        drive.checkpoint().await.unwrap();
        if closed {
            drive.close().await.unwrap();
        }
        drop(drive);
        if !closed {
            rig.crash();
        }
        // One from the middle, and the newest: what it was called is not given again.
        let segments = rig.segments();
        let newest = segments.last().unwrap();
        for path in [&segments[1], newest] {
            let files = rig.files.mount();
            files.remove(path).unwrap();
            files.sync_dir(path.parent().unwrap()).unwrap();
        }
        let drive = rig.open();
        let Some(RebuildReason::SegmentsLost { chunks }) = drive.recovery().index_rebuilt else {
            panic!("closed {closed}: {:?}", drive.recovery());
        };
        assert_eq!(chunks, forget_lost(&mut model, &drive).await, "closed {closed}");
        assert!(chunks >= 8, "a segment holds eight of these, {chunks} are lost");
        model.check(&drive, "after the loss").await;
        append_all(&drive, [(100, 60_000)]).await;
        model.fates.insert(100, Fate::Stored(60_000));
        assert!(!rig.segments().contains(newest), "closed {closed}");
        drive.close().await.unwrap();
        drop(drive);
        let drive = rig.open();
        assert_eq!(drive.recovery().index_rebuilt, None);
        model.check(&drive, "and once more").await;
    }
}

#[tokio::test]
async fn what_compaction_moves_beside_thousands_of_tombstones_survives_a_crash() {
    let mut rig = Rig::new(31);
    rig.config = DriveConfig { segment_len: 4 << 20, checkpoint_changes: usize::MAX, ..rig.config };
    let drive = rig.open();
    let mut model = Model::default();
    // The first segment: half alive for good, and more small chunks to be deleted than a frame has records.
    let keepers: Vec<_> = (0..50).map(|n| (n, 55_000)).collect();
    let victims: Vec<_> = (1_000..5_500).map(|n| (n, 10)).collect();
    assert!(append_together(&drive, &keepers, &mut model).await);
    assert!(append_together(&drive, &victims, &mut model).await);
    // The second one: their tombstones, a few chunks that stay and many that go.
    let moved: Vec<_> = (100..103).map(|n| (n, 5_000)).collect();
    let fillers: Vec<_> = (9_999..10_080).map(|n| (n, 60_000)).collect();
    // Too long for what is left of the first segment.
    assert!(append_together(&drive, &[(9_999, 700_000)], &mut model).await);
    assert_eq!(rig.segments().len(), 2);
    for some in victims.chunks(900) {
        drive.delete(&some.iter().map(|(n, _)| chunk_id(*n)).collect::<Vec<_>>()).await.unwrap();
    }
    assert!(append_together(&drive, &moved, &mut model).await);
    assert!(append_together(&drive, &fillers[1..], &mut model).await);
    for (n, _) in &fillers {
        drive.delete(&[chunk_id(*n)]).await.unwrap();
    }
    model.fates.extend(victims.iter().chain(&fillers).map(|(n, _)| (*n, Fate::Deleted)));
    drive.compact().await.unwrap();
    let second = |path: &PathBuf| path.ends_with("0000000000000002.seg");
    assert!(!rig.segments().iter().any(second), "the second segment was not compacted: the test shows nothing");
    drop(drive);
    rig.crash();
    for checkpoint in ["there", "lost"] {
        let drive = rig.open();
        assert_eq!(drive.recovery().corrupt_regions, [], "checkpoint {checkpoint}");
        model.check(&drive, &format!("checkpoint {checkpoint}")).await;
        drop(drive);
        rig.crash();
        rig.lose_checkpoint();
    }
}

#[tokio::test]
async fn a_read_error_while_a_drive_opens_is_never_taken_for_the_end_of_its_log() {
    let (mut refused, mut opened) = (0, 0);
    for skip in 0..40 {
        let rig = Rig::new(32);
        let drive = rig.open();
        let mut model = Model::default();
        for n in 0..6 {
            append_all(&drive, [(n, 9_000)]).await;
            model.fates.insert(n, Fate::Stored(9_000));
        }
        drop(drive);
        rig.crash();
        rig.files.inject(SimFault::FailOnce { op: SimOp::Read, skip });
        match rig.try_open() {
            Ok(drive) => {
                opened += 1;
                rig.files.heal();
                // What is written now must not lie over what was there.
                append_all(&drive, [(100, 9_000)]).await;
                model.fates.insert(100, Fate::Stored(9_000));
            }
            Err(OpenError::Io { .. }) => refused += 1,
            Err(other) => panic!("read {skip}: {other}"),
        }
        rig.files.heal();
        rig.crash();
        let drive = rig.open();
        model.check(&drive, &format!("read {skip}")).await;
        assert_eq!(drive.recovery().corrupt_regions, [], "read {skip}");
    }
    assert!(refused > 3 && opened > 3, "{refused} opens refused, {opened} not");
}
