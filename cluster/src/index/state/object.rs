//! Putting and deleting objects, and the conditions of both.

use super::garbage::{self, Kind, all_chunks};
use super::{bucket, count, is_writable};
use crate::ids::BucketId;
use crate::index::command::{FailedCondition, IndexAnswer, IndexCommand, PutAnswer};
use crate::index::entry::{Content, ObjectEntry, PartRecord};
use crate::index::{keys, object, query};
use crate::state::{StateError, StateWrite, read_record};
use crate::store::{Condition, ETag, EntityTag, Key};

pub(super) fn put(state: &mut dyn StateWrite, command: IndexCommand) -> Result<IndexAnswer, StateError> {
    let IndexCommand::PutObject { bucket, key, entry, condition, abandoned } = command else {
        return Ok(IndexAnswer::Invalid);
    };
    if !is_writable(&entry.content) {
        return Ok(IndexAnswer::Invalid);
    }
    let current = query::object(state, bucket, key.as_str())?;
    if let Some(current) = current.as_ref().filter(|current| current.version == entry.version) {
        return Ok(stored(current));
    }
    let abandoned = garbage::given_up(abandoned, entry.content.extents());
    garbage::discard(state, abandoned, entry.modified_ms, Kind::Stray)?;
    if let Some(refusal) = refusal(state, bucket, &condition, current.as_ref())? {
        garbage::discard(state, all_chunks(entry.content.extents()), entry.modified_ms, Kind::Dead)?;
        return Ok(refusal);
    }
    replace(state, bucket, &key, current, &entry, entry.modified_ms)?;
    Ok(stored(&entry))
}

pub(super) fn delete(
    state: &mut dyn StateWrite,
    bucket: BucketId,
    key: &Key,
    condition: &Condition,
    now_ms: u64,
) -> Result<IndexAnswer, StateError> {
    let current = query::object(state, bucket, key.as_str())?;
    // "There was nothing" must not be said of a bucket that is gone: its name may have been given anew, and the gateway
    // must look there. What a sealed bucket still holds may go: its deletion only gets easier.
    if current.is_none() && bucket::is_closed(state, bucket)? {
        return Ok(IndexAnswer::Sealed);
    }
    if let Some(failed) = failed_condition(condition, current.as_ref()) {
        return Ok(failed);
    }
    let Some(current) = current else { return Ok(IndexAnswer::Deleted { existed: false }) };
    object::delete(state, bucket, key.as_str(), &current);
    count(state, bucket, |usage| {
        usage.object_count = usage.object_count.saturating_sub(1);
        usage.bytes = usage.bytes.saturating_sub(current.len);
    })?;
    drop_content(state, bucket, key, &current.content, now_ms)?;
    Ok(IndexAnswer::Deleted { existed: true })
}

/// The answer to a write that made, or had made, this entry.
pub(super) fn stored(entry: &ObjectEntry) -> IndexAnswer {
    let ObjectEntry { version, etag, checksum, len, modified_ms, .. } = entry;
    IndexAnswer::Stored(PutAnswer {
        version: *version,
        etag: *etag,
        checksum: checksum.clone(),
        len: *len,
        modified_ms: *modified_ms,
    })
}

/// Why a write must be refused, if it must.
pub(super) fn refusal(
    state: &dyn StateWrite,
    bucket: BucketId,
    condition: &Condition,
    current: Option<&ObjectEntry>,
) -> Result<Option<IndexAnswer>, StateError> {
    if bucket::is_closed(state, bucket)? {
        return Ok(Some(IndexAnswer::Sealed));
    }
    Ok(failed_condition(condition, current))
}

/// The condition that does not hold, `If-Match` first
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html>).
pub(super) fn failed_condition(condition: &Condition, current: Option<&ObjectEntry>) -> Option<IndexAnswer> {
    if let Some(wanted) = &condition.if_match {
        match current {
            None => return Some(IndexAnswer::NoSuchKey),
            Some(current) if !matches(wanted, current.etag) => {
                return Some(IndexAnswer::PreconditionFailed(FailedCondition::IfMatch));
            }
            Some(_) => {}
        }
    }
    let unwanted = condition.if_none_match.as_ref()?;
    current
        .is_some_and(|current| matches(unwanted, current.etag))
        .then_some(IndexAnswer::PreconditionFailed(FailedCondition::IfNoneMatch))
}

fn matches(tag: &EntityTag, etag: ETag) -> bool {
    match tag {
        EntityTag::Any => true,
        EntityTag::OneOf(tags) => tags.contains(&etag),
    }
}

/// Makes `entry` the current version: counters, and garbage of what was there.
pub(super) fn replace(
    state: &mut dyn StateWrite,
    bucket: BucketId,
    key: &Key,
    current: Option<ObjectEntry>,
    entry: &ObjectEntry,
    now_ms: u64,
) -> Result<(), StateError> {
    count(state, bucket, |usage| {
        usage.object_count = usage.object_count.saturating_add(u64::from(current.is_none()));
        usage.bytes = usage.bytes.saturating_sub(current.as_ref().map_or(0, |current| current.len));
        usage.bytes = usage.bytes.saturating_add(entry.len);
    })?;
    object::put(state, bucket, key.as_str(), entry, current.as_ref());
    current.map_or(Ok(()), |current| drop_content(state, bucket, key, &current.content, now_ms))
}

/// Queues the chunks of a version that is gone, and removes its part records.
fn drop_content(
    state: &mut dyn StateWrite,
    bucket: BucketId,
    key: &Key,
    content: &Content,
    now_ms: u64,
) -> Result<(), StateError> {
    let extents = match content {
        Content::Inline(_) => return Ok(()),
        Content::Extents(extents) => all_chunks(extents),
        Content::Parts { upload, parts } => {
            let mut extents = Vec::new();
            for part in parts {
                let key = keys::part_key(bucket, key.as_str(), *upload, part.number);
                if let Some(record) = read_record::<PartRecord>(state, &key)? {
                    extents.extend(all_chunks(record.content.extents()));
                    state.delete(key);
                }
            }
            extents
        }
    };
    garbage::discard(state, extents, now_ms, Kind::Dead)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{
        BUCKET, ENTRY_LEN, UPLOAD, chunks_of, delete, entry, extent, garbage, key, put, put_if, run,
    };
    use super::*;
    use crate::index::BucketUsage;
    use crate::state::MemoryState;

    fn any() -> Option<EntityTag> {
        Some(EntityTag::Any)
    }

    fn one_of(numbers: &[u8]) -> Option<EntityTag> {
        Some(EntityTag::OneOf(numbers.iter().map(|number| ETag::whole([*number; 16])).collect()))
    }

    const FAILED_MATCH: Option<IndexAnswer> = Some(IndexAnswer::PreconditionFailed(FailedCondition::IfMatch));
    const FAILED_NONE_MATCH: Option<IndexAnswer> = Some(IndexAnswer::PreconditionFailed(FailedCondition::IfNoneMatch));
    const MISSING: Option<IndexAnswer> = Some(IndexAnswer::NoSuchKey);

    #[test]
    fn conditions_are_decided_as_aws_decides_them() {
        // (If-Match, If-None-Match, refusal without an object, refusal with an object of tag 1)
        let table = [
            (None, None, None, None),
            (None, any(), None, FAILED_NONE_MATCH),
            (None, one_of(&[1]), None, FAILED_NONE_MATCH),
            (None, one_of(&[2, 3]), None, None),
            (any(), None, MISSING, None),
            (one_of(&[1]), None, MISSING, None),
            (one_of(&[3, 1]), None, MISSING, None),
            (one_of(&[2]), None, MISSING, FAILED_MATCH),
            (one_of(&[]), None, MISSING, FAILED_MATCH),
            (one_of(&[2]), any(), MISSING, FAILED_MATCH),
            (one_of(&[1]), any(), MISSING, FAILED_NONE_MATCH),
            (any(), one_of(&[2]), MISSING, None),
        ];
        for (if_match, if_none_match, without, with) in table {
            let condition = Condition { if_match, if_none_match };
            for (existing, refusal) in [(false, without), (true, with)] {
                check_put(&condition, existing, refusal.as_ref());
                check_delete(&condition, existing, refusal.as_ref());
            }
        }
    }

    fn object_state(existing: bool) -> MemoryState {
        let mut state = MemoryState::new();
        if existing {
            run(&mut state, &put("a", 1));
        }
        state
    }

    fn check_put(condition: &Condition, existing: bool, refusal: Option<&IndexAnswer>) {
        let mut state = object_state(existing);
        let answer = run(&mut state, &put_if("a", 9, condition.clone()));
        let (tag, garbage_of) = match (refusal, existing) {
            (Some(_), _) => (existing.then_some(1), vec![9]),
            (None, true) => (Some(9), vec![1]),
            (None, false) => (Some(9), vec![]),
        };
        assert_eq!(answer, refusal.cloned().unwrap_or_else(|| stored(&entry(9))), "{condition:?}");
        let current = query::object(&state, BUCKET, "a").unwrap().map(|entry| entry.etag);
        assert_eq!(current, tag.map(|tag| ETag::whole([tag; 16])), "{condition:?}");
        assert_eq!(garbage(&state), chunks_of(&garbage_of), "{condition:?}");
    }

    fn check_delete(condition: &Condition, existing: bool, refusal: Option<&IndexAnswer>) {
        let mut state = object_state(existing);
        let command =
            IndexCommand::DeleteObject { bucket: BUCKET, key: key("a"), condition: condition.clone(), now_ms: 5 };
        let answer = run(&mut state, &command);
        assert_eq!(answer, refusal.cloned().unwrap_or(IndexAnswer::Deleted { existed: existing }), "{condition:?}");
        let remains = query::object(&state, BUCKET, "a").unwrap().is_some();
        assert_eq!(remains, existing && refusal.is_some(), "{condition:?}");
        let gone = existing && refusal.is_none();
        assert_eq!(garbage(&state), chunks_of(if gone { &[1] } else { &[] }), "{condition:?}");
    }

    #[test]
    fn a_put_that_is_applied_again_changes_nothing() {
        let mut state = MemoryState::new();
        let put = put_if("a", 1, Condition { if_match: None, if_none_match: any() });
        let first = run(&mut state, &put);
        let before = state.clone();
        assert_eq!(run(&mut state, &put), first);
        assert_eq!(state, before);
    }

    #[test]
    fn counters_follow_every_change() {
        let mut state = MemoryState::new();
        let usage = |state: &MemoryState| query::bucket_usage(state, BUCKET).unwrap();
        run(&mut state, &put("a", 1));
        run(&mut state, &put("b", 2));
        run(&mut state, &put("a", 3));
        assert_eq!(usage(&state), BucketUsage { object_count: 2, bytes: 2 * ENTRY_LEN, upload_count: 0 });
        run(&mut state, &delete("a"));
        run(&mut state, &delete("a"));
        assert_eq!(usage(&state), BucketUsage { object_count: 1, bytes: ENTRY_LEN, upload_count: 0 });
        run(&mut state, &delete("b"));
        assert_eq!(usage(&state), BucketUsage::default());
        assert!(query::is_empty(&state, BUCKET).unwrap());
    }

    #[test]
    fn content_that_contradicts_itself_is_refused() {
        let mut state = MemoryState::new();
        let IndexCommand::PutObject { entry, .. } = put("a", 1) else { unreachable!() };
        let bad = [
            Content::Parts { upload: UPLOAD, parts: Vec::new() },
            Content::Extents(vec![crate::index::ExtentRecord { drives: Vec::new(), ..extent(1) }]),
        ];
        for content in bad {
            let entry = ObjectEntry { content, ..entry.clone() };
            let (key, condition, abandoned) = (key("a"), Condition::default(), Vec::new());
            let command = IndexCommand::PutObject { bucket: BUCKET, key, entry, condition, abandoned };
            assert_eq!(run(&mut state, &command), IndexAnswer::Invalid);
        }
        assert_eq!(state, MemoryState::new());
    }
}
