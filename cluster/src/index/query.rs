//! Reads of a shard's state: as fresh as the replica they are made on; whoever needs linearizable answers passes a
//! read barrier first.

use std::ops::{ControlFlow, Range};

use super::command::{BucketSeal, BucketStatus, PartAddress};
use super::entry::{BucketUsage, Content, ExtentRecord, GarbageRecord, ObjectEntry, PartRecord, UploadRecord};
use super::{keys, object};
use crate::codec::DecodeError;
use crate::ids::{BucketId, DeletionAttempt, DriveId, ExtentId, UploadId, VersionId};
use crate::state::{StateError, StateRead, decode_stored, prefix_end, read_record, scan_records};
use crate::store::{Key, PartSummary};

/// The current version of an object.
///
/// # Errors
/// The state cannot be read; so for all queries here.
pub fn object(state: &dyn StateRead, bucket: BucketId, key: &str) -> Result<Option<ObjectEntry>, StateError> {
    let damaged = |cause| StateError::Damaged { key: keys::object_key(bucket, key), cause };
    let record = object::read(state, bucket, key)?;
    record.map(|record| ObjectEntry::decode(&record).map_err(damaged)).transpose()
}

/// A part of an upload, open or completed.
///
/// # Errors
/// As [`object`].
pub fn part(
    state: &dyn StateRead,
    bucket: BucketId,
    key: &str,
    part: PartAddress,
) -> Result<Option<PartRecord>, StateError> {
    read_record(state, &keys::part_key(bucket, key, part.upload, part.number))
}

/// A part of an object and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectPart {
    /// Its number at upload.
    pub number: u32,
    /// Its first byte's offset from the start of the object.
    pub offset: u64,
    /// The part.
    pub record: PartRecord,
}

/// The parts of a multipart object that hold some of the bytes `range`, in order; none for other objects. `Ok(None)` if
/// a part is gone because the object was replaced since `entry` was read: read the entry again.
///
/// # Errors
/// As [`object`].
pub fn object_parts(
    state: &dyn StateRead,
    bucket: BucketId,
    key: &str,
    entry: &ObjectEntry,
    range: Range<u64>,
) -> Result<Option<Vec<ObjectPart>>, StateError> {
    let Content::Parts { upload, parts } = &entry.content else { return Ok(Some(Vec::new())) };
    let mut found = Vec::new();
    let mut offset: u64 = 0;
    for part_ref in parts {
        let end = offset.saturating_add(part_ref.len);
        if !range.is_empty() && offset < range.end && range.start < end {
            let address = PartAddress { upload: *upload, number: part_ref.number };
            let Some(record) = part(state, bucket, key, address)? else { return Ok(None) };
            found.push(ObjectPart { number: part_ref.number, offset, record });
        }
        offset = end;
    }
    Ok(Some(found))
}

/// An open upload.
///
/// # Errors
/// As [`object`].
pub fn upload(
    state: &dyn StateRead,
    bucket: BucketId,
    key: &str,
    upload: UploadId,
) -> Result<Option<UploadRecord>, StateError> {
    read_record(state, &keys::upload_key(bucket, key, upload))
}

/// At most `limit` parts of an upload with numbers greater than `after`, and whether more follow. Whether the upload is
/// open is for [`upload`] to say.
///
/// # Errors
/// As [`object`].
pub fn parts_page(
    state: &dyn StateRead,
    bucket: BucketId,
    key: &str,
    upload: UploadId,
    after: u32,
    limit: usize,
) -> Result<(Vec<PartSummary>, bool), StateError> {
    let prefix = keys::parts_prefix(bucket, key, upload);
    let Some(first) = after.checked_add(1) else { return Ok((Vec::new(), false)) };
    let (mut parts, mut more) = (Vec::new(), false);
    scan_records(state, &prefix, &keys::part_key(bucket, key, upload, first), |raw, record: PartRecord| {
        if parts.len() == limit {
            more = true;
            return ControlFlow::Break(());
        }
        let number = raw.get(prefix.len()..).and_then(|number| number.try_into().ok()).map(u32::from_be_bytes);
        let PartRecord { len, etag, modified_ms, checksum, .. } = record;
        parts.extend(number.map(|number| PartSummary { number, len, etag, modified_ms, checksum }));
        ControlFlow::Continue(())
    })?;
    Ok((parts, more))
}

/// What a bucket holds in this shard.
///
/// # Errors
/// As [`object`].
pub fn bucket_usage(state: &dyn StateRead, bucket: BucketId) -> Result<BucketUsage, StateError> {
    Ok(read_record(state, &keys::usage_key(bucket))?.unwrap_or_default())
}

/// Whether a bucket takes writes in this shard.
///
/// # Errors
/// As [`object`].
pub fn bucket_status(state: &dyn StateRead, bucket: BucketId) -> Result<BucketStatus, StateError> {
    Ok(bucket_seal(state, bucket)?.status)
}

/// This shard's part in a bucket's deletion; open under attempt 0 if there never was one.
///
/// # Errors
/// As [`object`].
pub fn bucket_seal(state: &dyn StateRead, bucket: BucketId) -> Result<BucketSeal, StateError> {
    let untouched = BucketSeal { status: BucketStatus::Open, attempt: DeletionAttempt::default() };
    Ok(read_record(state, &keys::seal_key(bucket))?.unwrap_or(untouched))
}

/// Whether a bucket has no objects in this shard: looked up, not counted. Open uploads go with their bucket, as in S3.
///
/// # Errors
/// As [`object`].
pub fn is_empty(state: &dyn StateRead, bucket: BucketId) -> Result<bool, StateError> {
    let mut empty = true;
    let prefix = keys::prefix_key(keys::OBJECTS, bucket, "");
    state.scan(&prefix, prefix_end(&prefix).as_deref(), &mut |_, _| {
        empty = false;
        ControlFlow::Break(())
    })?;
    Ok(empty)
}

/// The first open upload of a bucket in this shard, in the order of keys.
///
/// # Errors
/// As [`object`].
pub fn first_upload(state: &dyn StateRead, bucket: BucketId) -> Result<Option<(Key, UploadId)>, StateError> {
    let mut first = None;
    let prefix = keys::prefix_key(keys::UPLOADS, bucket, "");
    state.scan(&prefix, prefix_end(&prefix).as_deref(), &mut |raw, _| {
        first = Some(raw.to_vec());
        ControlFlow::Break(())
    })?;
    let Some(raw) = first else { return Ok(None) };
    let parsed =
        keys::parse(&raw).and_then(|(_, key, upload)| Some((Key::new(key).ok()?, UploadId(upload.try_into().ok()?))));
    let cause = DecodeError::Malformed { what: "upload", cause: "its key is none".to_owned() };
    parsed.map(Some).ok_or(StateError::Damaged { key: raw, cause })
}

/// A walk over the queue gives up after so many records in a row that are not due: they are roughly in order of time.
const NOT_DUE_COUNT_MAX: usize = 64;

/// At most `limit` garbage records, oldest first, that have been garbage for `delay_ms` at `now_ms`, with their
/// sequences.
///
/// # Errors
/// As [`object`].
pub fn garbage_due(
    state: &dyn StateRead,
    now_ms: u64,
    delay_ms: u64,
    limit: usize,
) -> Result<Vec<(u64, GarbageRecord)>, StateError> {
    let (mut due, mut early_count) = (Vec::new(), 0);
    scan_records(state, &[keys::GARBAGE], &[keys::GARBAGE], |raw, record: GarbageRecord| {
        if due.len() >= limit || early_count >= NOT_DUE_COUNT_MAX {
            return ControlFlow::Break(());
        }
        if record.since_ms.saturating_add(delay_ms) <= now_ms {
            early_count = 0;
            due.extend(keys::parse_garbage(raw).map(|sequence| (sequence, record)));
        } else {
            early_count += 1;
        }
        ControlFlow::Continue(())
    })?;
    Ok(due)
}

/// Records at the head of the queue that say they become garbage only in the future: written by way of a clock that was
/// ahead. They would hold up all behind them until that time.
///
/// # Errors
/// As [`object`].
pub fn garbage_ahead(
    state: &dyn StateRead,
    now_ms: u64,
    delay_ms: u64,
) -> Result<Vec<(u64, GarbageRecord)>, StateError> {
    let (mut ahead, mut count) = (Vec::new(), 0);
    scan_records(state, &[keys::GARBAGE], &[keys::GARBAGE], |raw, record: GarbageRecord| {
        if count == NOT_DUE_COUNT_MAX {
            return ControlFlow::Break(());
        }
        count += 1;
        // Clocks of nodes may differ a little.
        if record.since_ms > now_ms.saturating_add(delay_ms) {
            ahead.extend(keys::parse_garbage(raw).map(|sequence| (sequence, record)));
        }
        ControlFlow::Continue(())
    })?;
    Ok(ahead)
}

/// Whether an older chunk of this slot waits to be cleared from this drive. Before rebuilding a chunk onto a drive a
/// healer must find `false`, or the garbage worker would clear what it has just written.
///
/// # Errors
/// As [`object`].
pub fn is_stray(state: &dyn StateRead, extent: ExtentId, slot: u8, drive: DriveId) -> Result<bool, StateError> {
    Ok(state.get(&keys::stray_key(extent, slot, drive))?.is_some())
}

/// The record of an extent that an object's version, or a part written as `version`, refers to; `None` if nothing
/// does: for drives that ask about old chunks. A part is looked for in all of the key's uploads.
///
/// # Errors
/// As [`object`].
pub fn owned_extent(
    state: &dyn StateRead,
    bucket: BucketId,
    key: &str,
    version: VersionId,
    part: Option<u32>,
    extent: ExtentId,
) -> Result<Option<ExtentRecord>, StateError> {
    let in_content = |content: &Content| content.extents().iter().find(|known| known.id == extent).cloned();
    let Some(number) = part else {
        let entry = object(state, bucket, key)?.filter(|entry| entry.version == version);
        return Ok(entry.and_then(|entry| in_content(&entry.content)));
    };
    let prefix = keys::key_prefix(keys::PARTS, bucket, key);
    let mut found = None;
    scan_records(state, &prefix, &prefix, |raw, record: PartRecord| {
        let address = raw.get(prefix.len()..).and_then(keys::parse_part);
        if address.is_some_and(|(_, known)| known == number) && record.version == version {
            found = in_content(&record.content);
        }
        if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(found)
}

/// Whether the chunk on `drive` is the one an entry or part refers to. See [`owned_extent`].
///
/// # Errors
/// As [`object`].
#[expect(clippy::too_many_arguments, reason = "the owner of a chunk, as its header says, and the chunk")]
pub fn references(
    state: &dyn StateRead,
    bucket: BucketId,
    key: &str,
    version: VersionId,
    part: Option<u32>,
    extent: ExtentId,
    slot: u8,
    drive: DriveId,
) -> Result<bool, StateError> {
    let owned = owned_extent(state, bucket, key, version, part, extent)?;
    Ok(owned.is_some_and(|owned| owned.drives.get(usize::from(slot)) == Some(&drive)))
}

/// Something with extents, met on a walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walked {
    /// Where.
    pub bucket: BucketId,
    /// Under which key.
    pub key: Key,
    /// The version of the object, or the write of the part.
    pub version: VersionId,
    /// The part, if it is one.
    pub part: Option<PartAddress>,
    /// Its extents.
    pub extents: Vec<ExtentRecord>,
}

/// Where a walk goes on. Only for [`walk`] to interpret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalkCursor(Vec<u8>);

/// Walks over everything in the shard that has extents — objects, then parts — for healing, scrubbing and draining.
/// Looks at no more than `limit` records and returns where to go on; `None` at the end.
///
/// # Errors
/// As [`object`].
pub fn walk(
    state: &dyn StateRead,
    from: Option<&WalkCursor>,
    limit: usize,
) -> Result<(Vec<Walked>, Option<WalkCursor>), StateError> {
    let (mut found, mut next, mut failed, mut left) = (Vec::new(), None, None, limit);
    for table in [keys::OBJECTS, keys::PARTS] {
        let begin = from.map_or(vec![table], |cursor| cursor.0.clone().max(vec![table]));
        state.scan(&begin, prefix_end(&[table]).as_deref(), &mut |raw, value| {
            if left == 0 {
                next = Some(WalkCursor(raw.to_vec()));
                return ControlFlow::Break(());
            }
            left -= 1;
            match walked(table, raw, value) {
                Ok(item) => found.extend(item),
                Err(error) => failed = Some(error),
            }
            if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if let Some(error) = failed.take() {
            return Err(error);
        }
        if next.is_some() {
            break;
        }
    }
    Ok((found, next))
}

fn walked(table: u8, raw: &[u8], value: &[u8]) -> Result<Option<Walked>, StateError> {
    let damaged = || {
        let cause = DecodeError::Malformed { what: "key of an index record", cause: "wrong layout".to_owned() };
        StateError::Damaged { key: raw.to_vec(), cause }
    };
    let (bucket, key, rest) = keys::parse(raw).ok_or_else(damaged)?;
    let key = Key::new(key).map_err(|_| damaged())?;
    let (version, part, content) = if table == keys::OBJECTS {
        if value.first() == Some(&object::CUT) {
            return Ok(None);
        }
        let entry: ObjectEntry = decode_stored(raw, value)?;
        (entry.version, None, entry.content)
    } else {
        let record: PartRecord = decode_stored(raw, value)?;
        let (upload, number) = keys::parse_part(rest).ok_or_else(damaged)?;
        (record.version, Some(PartAddress { upload, number }), record.content)
    };
    match content {
        Content::Extents(extents) => Ok(Some(Walked { bucket, key, version, part, extents })),
        Content::Inline(_) | Content::Parts { .. } => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::fixture::{
        BUCKET, UPLOAD, abort, complete, create_upload, create_upload_as, entry, extent, key, part_record, put,
        put_part, run,
    };
    use super::*;
    use crate::codec::Blob;
    use crate::index::IndexCommand;
    use crate::state::MemoryState;
    use crate::store::{Condition, PART_LEN_MIN};

    fn multipart() -> MemoryState {
        let mut state = MemoryState::new();
        run(&mut state, &create_upload("a"));
        for (number, tag) in [(1, 1), (3, 3), (9, 9)] {
            run(&mut state, &put_part("a", number, tag));
        }
        state
    }

    #[test]
    fn a_range_is_served_by_the_parts_that_hold_it() {
        let mut state = multipart();
        run(&mut state, &complete("a", &[(1, 1), (3, 3), (9, 9)]));
        let entry = object(&state, BUCKET, "a").unwrap().unwrap();
        let parts = |range| {
            let parts = object_parts(&state, BUCKET, "a", &entry, range).unwrap().unwrap();
            parts.into_iter().map(|part| (part.number, part.offset)).collect::<Vec<_>>()
        };
        let (one, two) = (PART_LEN_MIN, 2 * PART_LEN_MIN);
        assert_eq!(parts(0..1), [(1, 0)]);
        assert_eq!(parts(one - 1..one + 1), [(1, 0), (3, one)]);
        assert_eq!(parts(one..two), [(3, one)]);
        assert_eq!(parts(two..u64::MAX), [(9, two)]);
        assert_eq!(parts(5..5), []);
        run(&mut state, &put("a", 7));
        assert_eq!(object_parts(&state, BUCKET, "a", &entry, 0..1).unwrap(), None);
    }

    #[test]
    fn parts_are_paged_by_number() {
        let state = multipart();
        let page = |after, limit| {
            let (parts, more) = parts_page(&state, BUCKET, "a", UPLOAD, after, limit).unwrap();
            (parts.into_iter().map(|part| part.number).collect::<Vec<_>>(), more)
        };
        assert_eq!(page(0, 2), (vec![1, 3], true));
        assert_eq!(page(3, 2), (vec![9], false));
        assert_eq!(page(0, 3), (vec![1, 3, 9], false));
        assert_eq!(page(u32::MAX, 3), (vec![], false));
        let (parts, _) = parts_page(&state, BUCKET, "a", UPLOAD, 0, 1).unwrap();
        let PartRecord { len, etag, modified_ms, checksum, .. } = part_record(1);
        assert_eq!(parts, [PartSummary { number: 1, len, etag, modified_ms, checksum }]);
    }

    #[test]
    fn a_drive_learns_whether_its_chunk_is_in_use() {
        let mut state = multipart();
        run(&mut state, &put("b", 5));
        let on = |number: u8| DriveId::from_bytes([number; 8]);
        let asked = |state: &MemoryState, key: &str, version: u8, part, extent: u8, slot, drive| {
            let (version, extent) = (VersionId([version; 16]), ExtentId::from_bytes([extent; 16]));
            references(state, BUCKET, key, version, part, extent, slot, drive).unwrap()
        };
        assert!(asked(&state, "b", 5, None, 5, 0, on(1)));
        assert!(!asked(&state, "b", 5, None, 5, 0, on(2)));
        assert!(!asked(&state, "b", 5, None, 5, 9, on(1)));
        assert!(!asked(&state, "b", 4, None, 5, 0, on(1)));
        assert!(!asked(&state, "b", 5, None, 4, 0, on(1)));
        assert!(!asked(&state, "c", 5, None, 5, 0, on(1)));
        assert!(asked(&state, "a", 3, Some(3), 3, 2, on(3)));
        assert!(!asked(&state, "a", 3, Some(1), 3, 2, on(3)));
        run(&mut state, &complete("a", &[(3, 3)]));
        assert!(asked(&state, "a", 3, Some(3), 3, 2, on(3)));
        assert!(!asked(&state, "a", 1, Some(1), 1, 2, on(3)));
    }

    #[test]
    fn a_walk_meets_everything_with_extents_once_whatever_its_step() {
        let mut state = multipart();
        run(&mut state, &put("b", 5));
        let inline = ObjectEntry { content: Content::Inline(Blob::default()), ..entry(6) };
        let (condition, abandoned) = (Condition::default(), Vec::new());
        run(
            &mut state,
            &IndexCommand::PutObject { bucket: BUCKET, key: key("c"), entry: inline, condition, abandoned },
        );
        run(&mut state, &put("d\0", 7));
        run(&mut state, &create_upload_as("z", UploadId([1; 16])));
        for limit in 1..8 {
            let (mut found, mut cursor) = (Vec::new(), None);
            loop {
                let (items, next) = walk(&state, cursor.as_ref(), limit).unwrap();
                assert!(items.len() <= limit);
                found.extend(items.into_iter().map(|item| {
                    assert_eq!(item.extents, [extent(item.version.0[0])]);
                    (item.key.to_string(), item.part.map(|part| part.number), item.version.0[0])
                }));
                cursor = next;
                if cursor.is_none() {
                    break;
                }
            }
            let name = |name: &str| name.to_owned();
            let parts = [1, 3, 9].map(|number: u8| (name("a"), Some(u32::from(number)), number));
            let expected: Vec<_> = [(name("b"), None, 5), (name("d\0"), None, 7)].into_iter().chain(parts).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn garbage_of_a_clock_that_was_ahead_is_found_at_the_head_of_the_queue() {
        let mut state = MemoryState::new();
        let mut put = |sequence, since_ms| {
            let record = GarbageRecord { since_ms, strays: false, extents: vec![extent(1).garbage()] };
            crate::state::StateWrite::put(&mut state, keys::garbage_key(sequence), record.encode());
        };
        (0..70).for_each(|sequence| put(sequence, 1_000_000));
        put(70, 10);
        put(0, 1_003);
        assert_eq!(garbage_due(&state, 1_000, 5, 9).unwrap(), [], "what is due is hidden");
        let ahead = garbage_ahead(&state, 1_000, 5).unwrap().into_iter().map(|(sequence, _)| sequence);
        assert!(ahead.eq(1..64), "one is only a little ahead");
        assert_eq!(garbage_ahead(&state, 1_000_000, 5).unwrap(), []);
    }

    #[test]
    fn garbage_that_is_not_due_does_not_hide_what_is() {
        let mut state = MemoryState::new();
        let late = GarbageRecord { since_ms: 1000, strays: false, extents: vec![extent(1).garbage()] };
        let due = GarbageRecord { since_ms: 10, ..late.clone() };
        for (sequence, record) in [(0, &late), (1, &due), (2, &late), (3, &due)] {
            crate::state::StateWrite::put(&mut state, keys::garbage_key(sequence), record.encode());
        }
        let sequences = |now, limit| {
            let due = garbage_due(&state, now, 5, limit).unwrap();
            due.into_iter().map(|(sequence, _)| sequence).collect::<Vec<_>>()
        };
        assert_eq!((sequences(14, 9), sequences(15, 9), sequences(15, 1)), (vec![], vec![1, 3], vec![1]));
        assert_eq!(sequences(1005, 9), [0, 1, 2, 3]);
    }

    #[test]
    fn an_open_upload_is_found_until_it_ends() {
        let mut state = multipart();
        assert!(upload(&state, BUCKET, "a", UPLOAD).unwrap().is_some());
        assert_eq!(first_upload(&state, BUCKET).unwrap(), Some((Key::new("a").unwrap(), UPLOAD)));
        run(&mut state, &abort("a"));
        assert_eq!(upload(&state, BUCKET, "a", UPLOAD).unwrap(), None);
        assert_eq!(first_upload(&state, BUCKET).unwrap(), None);
    }

    #[test]
    fn a_damaged_record_is_an_error_and_never_an_absence() {
        let mut state = MemoryState::new();
        crate::state::StateWrite::put(&mut state, keys::object_key(BUCKET, "a"), vec![9, 9]);
        assert!(matches!(object(&state, BUCKET, "a"), Err(StateError::Damaged { .. })));
        assert!(matches!(walk(&state, None, 9), Err(StateError::Damaged { .. })));
    }

    #[test]
    fn only_an_object_may_be_cut() {
        let mut state = MemoryState::new();
        crate::state::StateWrite::put(&mut state, keys::object_key(BUCKET, "a"), vec![object::CUT]);
        assert_eq!(walk(&state, None, 9).unwrap(), (Vec::new(), None));
        crate::state::StateWrite::put(&mut state, keys::part_key(BUCKET, "a", UPLOAD, 1), vec![object::CUT]);
        assert!(matches!(walk(&state, None, 9), Err(StateError::Damaged { .. })));
    }
}
