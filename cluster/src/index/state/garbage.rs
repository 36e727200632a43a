//! The garbage queue, and chunks that move from one drive to another.
//!
//! A worker takes records that are old enough, clears their chunks from drives, and says so. A *stray* is a garbage
//! chunk whose extent may still be in use: it also has a key of its own, so that no chunk moves to a drive from which
//! the worker is about to clear its predecessor.

use crate::ids::{DriveId, ExtentId};
use crate::index::command::{IndexAnswer, IndexCommand, MoveOutcome};
use crate::index::entry::{Content, ExtentRecord, GarbageExtent, GarbageRecord};
use crate::index::{keys, object, query};
use crate::state::{StateError, StateWrite, put_record, read_record};

/// Extents in one garbage record, which bounds its size to some 30 KiB.
const EXTENT_COUNT_MAX: usize = 256;

/// Whether the extents of garbage may still be in use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// No entry refers to them.
    Dead,
    /// An entry may refer to other chunks of them.
    Stray,
}

/// Puts chunks into the queue.
pub(super) fn discard(
    state: &mut dyn StateWrite,
    extents: Vec<GarbageExtent>,
    since_ms: u64,
    kind: Kind,
) -> Result<(), StateError> {
    let extents: Vec<GarbageExtent> = extents.into_iter().filter(|extent| !extent.chunks.is_empty()).collect();
    if extents.is_empty() {
        return Ok(());
    }
    let mut sequence: u64 = read_record(state, &keys::garbage_next_key())?.unwrap_or(0);
    for extents in extents.chunks(EXTENT_COUNT_MAX) {
        let record = GarbageRecord { since_ms, strays: kind == Kind::Stray, extents: extents.to_vec() };
        if record.strays {
            stray_keys(&record).for_each(|key| state.put(key, Vec::new()));
        }
        put_record(state, keys::garbage_key(sequence), &record);
        sequence += 1;
    }
    put_record(state, keys::garbage_next_key(), &sequence);
    Ok(())
}

/// All chunks of extents, as garbage.
pub(super) fn all_chunks(extents: &[ExtentRecord]) -> Vec<GarbageExtent> {
    extents.iter().map(ExtentRecord::garbage).collect()
}

/// What was given up during a write, without anything that the write itself refers to.
pub(super) fn given_up(abandoned: Vec<GarbageExtent>, kept: &[ExtentRecord]) -> Vec<GarbageExtent> {
    let is_kept = |id: ExtentId, slot: u8, drive: DriveId| {
        kept.iter().any(|extent| extent.id == id && extent.drives.get(usize::from(slot)) == Some(&drive))
    };
    let without_kept = |mut extent: GarbageExtent| {
        extent.chunks.retain(|(slot, drive)| !is_kept(extent.id, *slot, *drive));
        extent
    };
    abandoned.into_iter().map(without_kept).collect()
}

fn stray_keys(record: &GarbageRecord) -> impl Iterator<Item = Vec<u8>> {
    let chunks = record.extents.iter().flat_map(|extent| extent.chunks.iter().map(|chunk| (extent.id, *chunk)));
    chunks.map(|(id, (slot, drive))| keys::stray_key(id, slot, drive))
}

pub(super) fn clear(state: &mut dyn StateWrite, sequences: &[u64]) -> Result<IndexAnswer, StateError> {
    for sequence in sequences {
        take(state, *sequence)?;
    }
    Ok(IndexAnswer::Done)
}

/// Removes a record with its stray keys.
fn take(state: &mut dyn StateWrite, sequence: u64) -> Result<Option<GarbageRecord>, StateError> {
    let key = keys::garbage_key(sequence);
    let Some(record) = read_record::<GarbageRecord>(state, &key)? else { return Ok(None) };
    if record.strays {
        stray_keys(&record).for_each(|key| state.delete(key));
    }
    state.delete(key);
    Ok(Some(record))
}

/// Only what the record held can be left of it: saying so twice adds nothing.
pub(super) fn reschedule(
    state: &mut dyn StateWrite,
    sequence: u64,
    left: Vec<GarbageExtent>,
    now_ms: u64,
) -> Result<IndexAnswer, StateError> {
    if let Some(record) = take(state, sequence)? {
        let held = |id: ExtentId, chunk: &(u8, DriveId)| {
            record.extents.iter().any(|extent| extent.id == id && extent.chunks.contains(chunk))
        };
        let only_held = |mut extent: GarbageExtent| {
            extent.chunks.retain(|chunk| held(extent.id, chunk));
            extent
        };
        let kind = if record.strays { Kind::Stray } else { Kind::Dead };
        discard(state, left.into_iter().map(only_held).collect(), now_ms, kind)?;
    }
    Ok(IndexAnswer::Done)
}

pub(super) fn move_chunk(state: &mut dyn StateWrite, command: IndexCommand) -> Result<IndexAnswer, StateError> {
    let IndexCommand::MoveChunk { bucket, key, version, part, extent, slot, from, to, now_ms } = command else {
        return Ok(IndexAnswer::Invalid);
    };
    let outcome = match part {
        None => match query::object(state, bucket, key.as_str())?.filter(|entry| entry.version == version) {
            None => MoveOutcome::Stale,
            Some(mut entry) => {
                let outcome = plan(state, &mut entry.content, extent, slot, from, to)?;
                if outcome == MoveOutcome::Moved {
                    object::put(state, bucket, key.as_str(), &entry, None);
                }
                outcome
            }
        },
        Some(part) => match query::part(state, bucket, key.as_str(), part)?.filter(|part| part.version == version) {
            None => MoveOutcome::Stale,
            Some(mut record) => {
                let outcome = plan(state, &mut record.content, extent, slot, from, to)?;
                if outcome == MoveOutcome::Moved {
                    state.put(keys::part_key(bucket, key.as_str(), part.upload, part.number), record.encode());
                }
                outcome
            }
        },
    };
    let loser = match outcome {
        MoveOutcome::Moved if from != to => from,
        MoveOutcome::Stale => to,
        MoveOutcome::Moved | MoveOutcome::TargetPending => return Ok(IndexAnswer::Move(outcome)),
    };
    // Moving what has moved already, or refusing what was refused already, must not queue the loser twice.
    if state.get(&keys::stray_key(extent, slot, loser))?.is_none() {
        let chunks = vec![(slot, loser)];
        discard(state, vec![GarbageExtent { id: extent, chunks }], now_ms, Kind::Stray)?;
    }
    Ok(IndexAnswer::Move(outcome))
}

/// Changes the placement in `content` if it is what the move started from.
fn plan(
    state: &dyn StateWrite,
    content: &mut Content,
    id: ExtentId,
    slot: u8,
    from: DriveId,
    to: DriveId,
) -> Result<MoveOutcome, StateError> {
    let Content::Extents(extents) = content else { return Ok(MoveOutcome::Stale) };
    let Some(extent) = extents.iter_mut().find(|extent| extent.id == id) else { return Ok(MoveOutcome::Stale) };
    let slot_index = usize::from(slot);
    let current = extent.drives.get(slot_index).copied();
    if current == Some(to) {
        return Ok(MoveOutcome::Moved);
    }
    if current != Some(from) || extent.drives.contains(&to) {
        return Ok(MoveOutcome::Stale);
    }
    if state.get(&keys::stray_key(id, slot, to))?.is_some() {
        return Ok(MoveOutcome::TargetPending);
    }
    extent.drives[slot_index] = to;
    Ok(MoveOutcome::Moved)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::*;
    use crate::ids::VersionId;
    use crate::index::PartAddress;
    use crate::state::MemoryState;

    fn drive(number: u8) -> DriveId {
        DriveId::from_bytes([number; 8])
    }

    fn moving(number: u8, part: Option<PartAddress>, from: u8, to: u8) -> IndexCommand {
        IndexCommand::MoveChunk {
            bucket: BUCKET,
            key: key("a"),
            version: VersionId([number; 16]),
            part,
            extent: ExtentId::from_bytes([number; 16]),
            slot: 1,
            from: drive(from),
            to: drive(to),
            now_ms: 10,
        }
    }

    fn placed(state: &MemoryState) -> Vec<DriveId> {
        query::object(state, BUCKET, "a").unwrap().unwrap().content.extents()[0].drives.clone()
    }

    fn stray(number: u8, on: u8) -> Chunk {
        (ExtentId::from_bytes([number; 16]), 1, drive(on))
    }

    #[test]
    fn a_chunk_moves_once_and_its_old_place_becomes_garbage() {
        let mut state = MemoryState::new();
        run(&mut state, &put("a", 1));
        for _ in 0..2 {
            assert_eq!(run(&mut state, &moving(1, None, 2, 9)), IndexAnswer::Move(MoveOutcome::Moved));
            assert_eq!(placed(&state), [drive(1), drive(9), drive(3)]);
            assert_eq!(garbage(&state), [stray(1, 2)].into());
        }
    }

    #[test]
    fn a_move_from_another_placement_is_stale_and_its_chunk_is_garbage() {
        let mut state = MemoryState::new();
        run(&mut state, &put("a", 1));
        let stale = IndexAnswer::Move(MoveOutcome::Stale);
        assert_eq!(run(&mut state, &moving(1, None, 7, 9)), stale);
        assert_eq!(run(&mut state, &moving(2, None, 2, 9)), stale);
        assert_eq!(run(&mut state, &moving(1, None, 2, 3)), stale);
        assert_eq!(placed(&state), [drive(1), drive(2), drive(3)]);
        assert_eq!(garbage(&state), [stray(1, 9), stray(2, 9), stray(1, 3)].into());
    }

    #[test]
    fn nothing_moves_to_a_drive_that_is_still_to_be_cleared_of_the_same_chunk() {
        let mut state = MemoryState::new();
        run(&mut state, &put("a", 1));
        run(&mut state, &moving(1, None, 2, 9));
        assert_eq!(run(&mut state, &moving(1, None, 9, 2)), IndexAnswer::Move(MoveOutcome::TargetPending));
        assert!(query::is_stray(&state, ExtentId::from_bytes([1; 16]), 1, drive(2)).unwrap());
        let due = query::garbage_due(&state, 10, 0, 10).unwrap();
        run(&mut state, &IndexCommand::ClearGarbage { sequences: due.iter().map(|(sequence, _)| *sequence).collect() });
        assert_eq!(run(&mut state, &moving(1, None, 9, 2)), IndexAnswer::Move(MoveOutcome::Moved));
        assert_eq!(placed(&state), [drive(1), drive(2), drive(3)]);
    }

    #[test]
    fn chunks_of_parts_move_before_and_after_completion() {
        let mut state = MemoryState::new();
        run(&mut state, &create_upload("a"));
        run(&mut state, &put_part("a", 1, 1));
        let part = Some(PartAddress { upload: UPLOAD, number: 1 });
        assert_eq!(run(&mut state, &moving(1, part, 2, 9)), IndexAnswer::Move(MoveOutcome::Moved));
        assert!(matches!(run(&mut state, &complete("a", &[(1, 1)])), IndexAnswer::Stored(_)));
        assert_eq!(run(&mut state, &moving(1, part, 9, 8)), IndexAnswer::Move(MoveOutcome::Moved));
        run(&mut state, &delete("a"));
        let now_dead = [(0, 1), (1, 8), (2, 3)].map(|(slot, on)| (ExtentId::from_bytes([1; 16]), slot, drive(on)));
        assert_eq!(garbage(&state), now_dead.into_iter().chain([stray(1, 2), stray(1, 9)]).collect());
    }

    #[test]
    fn rescheduled_garbage_goes_to_the_end_and_keeps_only_what_is_left() {
        let mut state = MemoryState::new();
        for number in 1..=2 {
            run(&mut state, &put("a", number));
        }
        run(&mut state, &delete("a"));
        let sequences = |state: &MemoryState, now: u64| -> Vec<u64> {
            query::garbage_due(state, now, 5, 10).unwrap().into_iter().map(|(sequence, _)| sequence).collect()
        };
        assert_eq!((sequences(&state, NOW + 4), sequences(&state, NOW + 5)), (vec![], vec![0, 1]));
        let left =
            vec![GarbageExtent { id: ExtentId::from_bytes([1; 16]), chunks: vec![(2, drive(3)), (7, drive(7))] }];
        let reschedule = IndexCommand::RescheduleGarbage { sequence: 0, extents: left, now_ms: NOW + 5 };
        for _ in 0..2 {
            assert_eq!(run(&mut state, &reschedule), IndexAnswer::Done);
        }
        assert_eq!((sequences(&state, NOW + 5), sequences(&state, NOW + 10)), (vec![1], vec![1, 2]));
        let record = query::garbage_due(&state, NOW + 10, 5, 10).unwrap().pop().unwrap().1;
        assert_eq!(record.extents, [GarbageExtent { id: ExtentId::from_bytes([1; 16]), chunks: vec![(2, drive(3))] }]);
    }

    #[test]
    fn abandoned_chunks_are_queued_but_never_those_the_write_kept() {
        let mut state = MemoryState::new();
        let IndexCommand::PutObject { bucket, key, entry, condition, .. } = put("a", 1) else { unreachable!() };
        let chunks = vec![(1, drive(9)), (1, drive(2))];
        let abandoned = vec![GarbageExtent { id: ExtentId::from_bytes([1; 16]), chunks }];
        run(&mut state, &IndexCommand::PutObject { bucket, key, entry, condition, abandoned });
        assert_eq!(garbage(&state), [stray(1, 9)].into());
    }
}
