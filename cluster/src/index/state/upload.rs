//! Multipart uploads: create, store parts, complete, abort.

use std::ops::ControlFlow;

use super::garbage::{self, Kind, all_chunks};
use super::object::{failed_condition, replace, stored};
use super::{bucket, count, is_writable};
use crate::ids::{BucketId, UploadId};
use crate::index::checksums;
use crate::index::command::{IndexAnswer, IndexCommand, PutAnswer};
use crate::index::entry::{Content, ObjectEntry, PartRecord, PartRef, UploadRecord};
use crate::index::{keys, query};
use crate::state::{StateError, StateRead, StateWrite, scan_records};
use crate::store::{Checksum, ChecksumAlgorithm, ChecksumKind, CompletedPart, Key, PART_LEN_MIN, PART_NUMBER_MAX};

pub(super) fn create(
    state: &mut dyn StateWrite,
    bucket: BucketId,
    key: &Key,
    upload: UploadId,
    record: &UploadRecord,
) -> Result<IndexAnswer, StateError> {
    if bucket::is_closed(state, bucket)? {
        return Ok(IndexAnswer::Sealed);
    }
    if query::upload(state, bucket, key.as_str(), upload)?.is_none() {
        state.put(keys::upload_key(bucket, key.as_str(), upload), record.encode());
        count(state, bucket, |usage| usage.upload_count = usage.upload_count.saturating_add(1))?;
    }
    Ok(IndexAnswer::Done)
}

pub(super) fn put_part(state: &mut dyn StateWrite, command: IndexCommand) -> Result<IndexAnswer, StateError> {
    let IndexCommand::PutPart { bucket, key, part, record, abandoned } = command else {
        return Ok(IndexAnswer::Invalid);
    };
    if !is_writable(&record.content) || !(1..=PART_NUMBER_MAX).contains(&part.number) {
        return Ok(IndexAnswer::Invalid);
    }
    let replaced = query::part(state, bucket, key.as_str(), part)?;
    if replaced.as_ref().is_some_and(|replaced| replaced.version == record.version) {
        return Ok(part_stored(&record));
    }
    let abandoned = garbage::given_up(abandoned, record.content.extents());
    garbage::discard(state, abandoned, record.modified_ms, Kind::Stray)?;
    let refusal = if bucket::is_closed(state, bucket)? {
        Some(IndexAnswer::Sealed)
    } else {
        let missing = query::upload(state, bucket, key.as_str(), part.upload)?.is_none();
        missing.then_some(IndexAnswer::NoSuchUpload)
    };
    if let Some(refusal) = refusal {
        garbage::discard(state, all_chunks(record.content.extents()), record.modified_ms, Kind::Dead)?;
        return Ok(refusal);
    }
    state.put(keys::part_key(bucket, key.as_str(), part.upload, part.number), record.encode());
    if let Some(replaced) = replaced {
        garbage::discard(state, all_chunks(replaced.content.extents()), record.modified_ms, Kind::Dead)?;
    }
    Ok(part_stored(&record))
}

fn part_stored(record: &PartRecord) -> IndexAnswer {
    let PartRecord { len, etag, modified_ms, checksum, version, .. } = record.clone();
    IndexAnswer::Stored(PutAnswer { version, etag, checksum, len, modified_ms })
}

pub(super) fn abort(
    state: &mut dyn StateWrite,
    bucket: BucketId,
    key: &Key,
    upload: UploadId,
    now_ms: u64,
) -> Result<IndexAnswer, StateError> {
    if query::upload(state, bucket, key.as_str(), upload)?.is_none() {
        // An upload that is not in a closed bucket may be in the one that has its name now.
        let closed = bucket::is_closed(state, bucket)?;
        return Ok(if closed { IndexAnswer::Sealed } else { IndexAnswer::NoSuchUpload });
    }
    let parts = all_parts(state, bucket, key, upload)?;
    end(state, bucket, key, upload, parts, now_ms)?;
    Ok(IndexAnswer::Done)
}

/// Whether a bucket has open uploads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenUploads {
    Some,
    None,
}

/// One command aborts uploads until it has forgotten so many parts: its time on the consensus thread is bounded.
const ABORTED_PART_COUNT: usize = 1_000;

/// Aborts open uploads of a bucket that is being deleted; says whether any are left.
pub(super) fn abort_some(state: &mut dyn StateWrite, bucket: BucketId, now_ms: u64) -> Result<OpenUploads, StateError> {
    let mut part_count = 0;
    while part_count < ABORTED_PART_COUNT {
        let Some((key, upload)) = query::first_upload(state, bucket)? else { return Ok(OpenUploads::None) };
        let parts = all_parts(state, bucket, &key, upload)?;
        // Without parts it still takes time.
        part_count += parts.len().max(1);
        end(state, bucket, &key, upload, parts, now_ms)?;
    }
    Ok(query::first_upload(state, bucket)?.map_or(OpenUploads::None, |_| OpenUploads::Some))
}

/// Forgets an upload, and drops those of its parts that no object uses.
fn end(
    state: &mut dyn StateWrite,
    bucket: BucketId,
    key: &Key,
    upload: UploadId,
    unused: Vec<(u32, PartRecord)>,
    now_ms: u64,
) -> Result<(), StateError> {
    state.delete(keys::upload_key(bucket, key.as_str(), upload));
    count(state, bucket, |usage| usage.upload_count = usage.upload_count.saturating_sub(1))?;
    let mut extents = Vec::new();
    for (number, part) in unused {
        state.delete(keys::part_key(bucket, key.as_str(), upload, number));
        extents.extend(all_chunks(part.content.extents()));
    }
    garbage::discard(state, extents, now_ms, Kind::Dead)
}

fn all_parts(
    state: &dyn StateRead,
    bucket: BucketId,
    key: &Key,
    upload: UploadId,
) -> Result<Vec<(u32, PartRecord)>, StateError> {
    let prefix = keys::parts_prefix(bucket, key.as_str(), upload);
    let mut parts = Vec::new();
    scan_records(state, &prefix, &prefix, |raw, record: PartRecord| {
        let number = raw.get(prefix.len()..).and_then(|number| number.try_into().ok());
        parts.extend(number.map(|number| (u32::from_be_bytes(number), record)));
        ControlFlow::Continue(())
    })?;
    Ok(parts)
}

pub(super) fn complete(state: &mut dyn StateWrite, command: IndexCommand) -> Result<IndexAnswer, StateError> {
    let IndexCommand::CompleteUpload { bucket, key, upload, parts, condition, version, now_ms, checksum, len } =
        command
    else {
        return Ok(IndexAnswer::Invalid);
    };
    let current = query::object(state, bucket, key.as_str())?;
    if let Some(entry) = current.as_ref().filter(|entry| is_made_of(entry, upload, &parts)) {
        return Ok(stored(entry));
    }
    if bucket::is_closed(state, bucket)? {
        return Ok(IndexAnswer::Sealed);
    }
    let Some(record) = query::upload(state, bucket, key.as_str(), upload)? else {
        return Ok(IndexAnswer::NoSuchUpload);
    };
    let (chosen, unused) = match choose(all_parts(state, bucket, &key, upload)?, &parts) {
        Ok(split) => split,
        Err(refusal) => return Ok(refusal),
    };
    let whole = match check_whole(&record, &chosen, checksum.as_ref(), len) {
        Ok(whole) => whole,
        Err(refusal) => return Ok(refusal),
    };
    if let Some(failed) = failed_condition(&condition, current.as_ref()) {
        return Ok(failed);
    }
    let part_ref = |(number, part): (u32, PartRecord)| PartRef { number, len: part.len, checksum: part.checksum };
    let entry = ObjectEntry {
        len: whole.len,
        etag: checksums::multipart_etag(parts.iter().map(|part| part.etag)),
        modified_ms: now_ms,
        version,
        checksum: whole.checksum,
        metadata: record.metadata,
        content: Content::Parts { upload, parts: chosen.into_iter().map(part_ref).collect() },
    };
    end(state, bucket, &key, upload, unused, now_ms)?;
    replace(state, bucket, &key, current, &entry, now_ms)?;
    Ok(stored(&entry))
}

/// Whether this entry came from completing this upload with these parts.
fn is_made_of(entry: &ObjectEntry, upload: UploadId, parts: &[CompletedPart]) -> bool {
    let Content::Parts { upload: made_of, parts: used } = &entry.content else { return false };
    *made_of == upload
        && used.iter().map(|part| part.number).eq(parts.iter().map(|part| part.number))
        && entry.etag == checksums::multipart_etag(parts.iter().map(|part| part.etag))
}

type Parts = Vec<(u32, PartRecord)>;

/// Splits an upload's parts into those named and the rest.
fn choose(all: Parts, named: &[CompletedPart]) -> Result<(Parts, Parts), IndexAnswer> {
    if named.is_empty() || !named.is_sorted_by(|one, next| one.number < next.number) {
        return Err(IndexAnswer::InvalidPartOrder);
    }
    let is_named = |number: u32| named.binary_search_by_key(&number, |part| part.number).is_ok();
    let (chosen, unused): (Parts, Parts) = all.into_iter().partition(|(number, _)| is_named(*number));
    let mut found = chosen.iter().peekable();
    for part in named {
        let fits = found.next_if(|(number, _)| *number == part.number).is_some_and(|(_, record)| {
            record.etag == part.etag && part.checksum.as_ref().is_none_or(|wanted| same_value(record, wanted))
        });
        if !fits {
            return Err(IndexAnswer::InvalidPart { number: part.number });
        }
    }
    let small = chosen.iter().rev().skip(1).rev().find(|(_, part)| part.len < PART_LEN_MIN);
    match small {
        Some((number, part)) => Err(IndexAnswer::PartTooSmall { number: *number, len: part.len }),
        None => Ok((chosen, unused)),
    }
}

fn same_value(record: &PartRecord, wanted: &Checksum) -> bool {
    record.checksum.as_ref().is_some_and(|known| known.algorithm == wanted.algorithm && known.value == wanted.value)
}

struct Whole {
    len: u64,
    checksum: Option<Checksum>,
}

fn check_whole(
    record: &UploadRecord,
    parts: &[(u32, PartRecord)],
    declared: Option<&Checksum>,
    declared_len: Option<u64>,
) -> Result<Whole, IndexAnswer> {
    let len = parts.iter().fold(0_u64, |len, (_, part)| len.saturating_add(part.len));
    if let Some(declared) = declared_len.filter(|declared| *declared != len) {
        return Err(IndexAnswer::LenMismatch { declared, actual: len });
    }
    let checksum = match (record.checksum, declared) {
        (None, None) => None,
        (Some((algorithm, kind)), _) => Some(whole_checksum(algorithm, kind, parts)?),
        // Not asked for at creation: it can be checked only if the parts happen to have it.
        (None, Some(declared)) => {
            let checksum = whole_checksum(declared.algorithm, declared.kind, parts);
            Some(checksum.map_err(|_| IndexAnswer::ChecksumMismatch)?)
        }
    };
    let differs = |known: &Checksum, said: &Checksum| known.algorithm != said.algorithm || known.value != said.value;
    match (&checksum, declared) {
        (Some(known), Some(said)) if differs(known, said) => Err(IndexAnswer::ChecksumMismatch),
        _ => Ok(Whole { len, checksum }),
    }
}

fn whole_checksum(
    algorithm: ChecksumAlgorithm,
    kind: ChecksumKind,
    parts: &[(u32, PartRecord)],
) -> Result<Checksum, IndexAnswer> {
    let mut values = Vec::with_capacity(parts.len());
    for (number, part) in parts {
        let value = part.checksum.as_ref().filter(|checksum| {
            checksum.algorithm == algorithm && checksum.value.len() == checksums::value_len(algorithm)
        });
        let checksum = value.ok_or(IndexAnswer::InvalidPart { number: *number })?;
        values.push((checksum.value.as_slice(), part.len));
    }
    let (value, part_count) = match kind {
        ChecksumKind::Composite => {
            let part_count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
            (checksums::composite(algorithm, values.into_iter().map(|(value, _)| value)), part_count)
        }
        ChecksumKind::FullObject => {
            (checksums::full_object(algorithm, values).ok_or(IndexAnswer::ChecksumMismatch)?, 0)
        }
    };
    Ok(Checksum { algorithm, kind, value, part_count })
}

#[cfg(test)]
mod tests {
    use md5::Digest as _;

    use super::super::fixture::{
        BUCKET, NOW, SMALL, UPLOAD, abort, chunks_of, complete, complete_if, create_upload, create_upload_with, delete,
        garbage, put, put_part, put_part_with, run,
    };
    use super::*;
    use crate::ids::VersionId;
    use crate::index::{BucketUsage, FailedCondition};
    use crate::state::MemoryState;
    use crate::store::{Condition, ETag, EntityTag};

    fn open(parts: &[(u32, u8)]) -> MemoryState {
        let mut state = MemoryState::new();
        run(&mut state, &create_upload("a"));
        for (number, tag) in parts {
            assert!(matches!(run(&mut state, &put_part("a", *number, *tag)), IndexAnswer::Stored(_)));
        }
        state
    }

    fn usage(state: &MemoryState) -> BucketUsage {
        query::bucket_usage(state, BUCKET).unwrap()
    }

    #[test]
    fn completing_makes_an_object_of_the_named_parts() {
        let mut state = open(&[(1, 1), (3, 3), (7, 7)]);
        assert_eq!(usage(&state), BucketUsage { upload_count: 1, ..BucketUsage::default() });
        let IndexAnswer::Stored(answer) = run(&mut state, &complete("a", &[(1, 1), (7, 7)])) else { unreachable!() };
        let md5 = md5::Md5::digest([[1; 16], [7; 16]].concat()).into();
        assert_eq!(answer.etag, ETag { md5, part_count: 2 });
        assert_eq!((answer.len, answer.version, answer.modified_ms), (2 * PART_LEN_MIN, VersionId([0xcc; 16]), NOW));
        assert_eq!(garbage(&state), chunks_of(&[3]));
        assert_eq!(usage(&state), BucketUsage { object_count: 1, bytes: 2 * PART_LEN_MIN, upload_count: 0 });
        assert_eq!(query::upload(&state, BUCKET, "a", UPLOAD).unwrap(), None);
        run(&mut state, &delete("a"));
        assert_eq!(garbage(&state), chunks_of(&[1, 3, 7]));
        assert_eq!(usage(&state), BucketUsage::default());
    }

    #[test]
    fn completing_twice_gives_the_same_answer() {
        let mut state = open(&[(1, 1), (2, 2)]);
        let create_only = Condition { if_match: None, if_none_match: Some(EntityTag::Any) };
        let command = complete_if("a", &[(1, 1), (2, 2)], create_only);
        let first = run(&mut state, &command);
        assert!(matches!(first, IndexAnswer::Stored(_)));
        let before = state.clone();
        assert_eq!(run(&mut state, &command), first);
        assert_eq!(run(&mut state, &complete("a", &[(1, 1)])), IndexAnswer::NoSuchUpload);
        assert_eq!(run(&mut state, &abort("a")), IndexAnswer::NoSuchUpload);
        assert_eq!(state, before);
        run(&mut state, &put("a", 9));
        assert_eq!(run(&mut state, &command), IndexAnswer::NoSuchUpload);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name_and_nothing_changes() {
        let mut state = open(&[(1, 1), (2, 2), (3, SMALL)]);
        let before = state.clone();
        let mut refused = |parts: &[(u32, u8)]| run(&mut state, &complete("a", parts));
        assert_eq!(refused(&[]), IndexAnswer::InvalidPartOrder);
        assert_eq!(refused(&[(2, 2), (1, 1)]), IndexAnswer::InvalidPartOrder);
        assert_eq!(refused(&[(1, 1), (1, 1)]), IndexAnswer::InvalidPartOrder);
        assert_eq!(refused(&[(1, 1), (2, 9)]), IndexAnswer::InvalidPart { number: 2 });
        assert_eq!(refused(&[(1, 1), (5, 5)]), IndexAnswer::InvalidPart { number: 5 });
        let create_only = Condition { if_match: None, if_none_match: Some(EntityTag::Any) };
        let overwrite_only = Condition { if_match: Some(EntityTag::Any), if_none_match: None };
        assert_eq!(run(&mut state, &complete_if("a", &[(1, 1)], overwrite_only)), IndexAnswer::NoSuchKey);
        assert_eq!(state, before);
        run(&mut state, &put("a", 9));
        let failed = run(&mut state, &complete_if("a", &[(1, 1)], create_only));
        assert_eq!(failed, IndexAnswer::PreconditionFailed(FailedCondition::IfNoneMatch));
        assert!(matches!(run(&mut state, &complete("a", &[(1, 1), (2, 2), (3, SMALL)])), IndexAnswer::Stored(_)));
    }

    #[test]
    fn only_the_last_part_may_be_small() {
        let mut state = open(&[(1, SMALL), (2, 2)]);
        let refused = run(&mut state, &complete("a", &[(1, SMALL), (2, 2)]));
        assert_eq!(refused, IndexAnswer::PartTooSmall { number: 1, len: 100 });
        assert!(matches!(run(&mut state, &complete("a", &[(1, SMALL)])), IndexAnswer::Stored(_)));
    }

    #[test]
    fn a_replaced_part_and_a_late_part_are_garbage() {
        let mut state = open(&[(1, 1), (1, 2)]);
        assert_eq!(garbage(&state), chunks_of(&[1]));
        let before = state.clone();
        assert!(matches!(run(&mut state, &put_part("a", 1, 2)), IndexAnswer::Stored(_)));
        assert_eq!(state, before);
        run(&mut state, &abort("a"));
        assert_eq!(run(&mut state, &put_part("a", 1, 3)), IndexAnswer::NoSuchUpload);
        assert_eq!(garbage(&state), chunks_of(&[1, 2, 3]));
        assert_eq!((usage(&state), run(&mut state, &abort("a"))), (BucketUsage::default(), IndexAnswer::NoSuchUpload));
    }

    #[test]
    fn creating_twice_counts_once() {
        let mut state = open(&[]);
        run(&mut state, &create_upload("a"));
        assert_eq!(usage(&state).upload_count, 1);
        let IndexCommand::PutPart { bucket, key, mut part, record, abandoned } = put_part("a", 1, 1) else {
            unreachable!()
        };
        part.number = 10_001;
        let command = IndexCommand::PutPart { bucket, key, part, record, abandoned };
        assert_eq!(run(&mut state, &command), IndexAnswer::Invalid);
    }

    fn declared(kind: ChecksumKind, value: &[u8]) -> Checksum {
        Checksum { algorithm: ChecksumAlgorithm::Crc32, kind, value: value.to_vec(), part_count: 0 }
    }

    /// Parts 1 and 2 of zeros and of ones, each of the least length, with their CRC-32.
    fn open_with_checksums(asked: Option<ChecksumKind>) -> (MemoryState, [Vec<u8>; 2], Vec<u8>) {
        let len = usize::try_from(PART_LEN_MIN).unwrap();
        let bodies = [vec![0; len], vec![1; len]];
        let crc =
            |body: &[u8]| crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, body).to_be_bytes()[4..].to_vec();
        let values = [crc(&bodies[0]), crc(&bodies[1])];
        let mut state = MemoryState::new();
        let asked = asked.map(|kind| (ChecksumAlgorithm::Crc32, kind));
        run(&mut state, &create_upload_with("a", asked));
        for (number, value) in (1..).zip(&values) {
            let checksum = Some(declared(ChecksumKind::FullObject, value));
            let tag = u8::try_from(number).unwrap();
            run(&mut state, &put_part_with("a", number, tag, checksum));
        }
        (state, values, crc(&bodies.concat()))
    }

    fn complete_declaring(state: &mut MemoryState, checksum: Option<Checksum>, len: Option<u64>) -> IndexAnswer {
        let IndexCommand::CompleteUpload { bucket, key, upload, parts, condition, version, now_ms, .. } =
            complete("a", &[(1, 1), (2, 2)])
        else {
            unreachable!()
        };
        let command =
            IndexCommand::CompleteUpload { bucket, key, upload, parts, condition, version, now_ms, checksum, len };
        run(state, &command)
    }

    fn checksum_of(answer: IndexAnswer) -> Option<Checksum> {
        let IndexAnswer::Stored(answer) = answer else { unreachable!("{answer:?}") };
        answer.checksum
    }

    #[test]
    fn a_full_object_checksum_is_that_of_all_bytes() {
        let (mut state, _, whole) = open_with_checksums(Some(ChecksumKind::FullObject));
        let wrong = declared(ChecksumKind::FullObject, &[0; 4]);
        assert_eq!(complete_declaring(&mut state, Some(wrong), None), IndexAnswer::ChecksumMismatch);
        let right = declared(ChecksumKind::FullObject, &whole);
        assert_eq!(checksum_of(complete_declaring(&mut state, Some(right.clone()), None)), Some(right));
    }

    #[test]
    fn a_composite_checksum_is_that_of_the_parts_checksums() {
        let (mut state, values, _) = open_with_checksums(Some(ChecksumKind::Composite));
        let value =
            crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, &values.concat()).to_be_bytes()[4..].to_vec();
        let expected = Checksum { part_count: 2, ..declared(ChecksumKind::Composite, &value) };
        assert_eq!(checksum_of(complete_declaring(&mut state, None, None)), Some(expected));
    }

    #[test]
    fn a_checksum_declared_only_at_the_end_is_checked_where_the_parts_have_it() {
        let (mut state, _, whole) = open_with_checksums(None);
        let right = declared(ChecksumKind::FullObject, &whole);
        let other = Checksum { algorithm: ChecksumAlgorithm::Sha256, ..right.clone() };
        assert_eq!(complete_declaring(&mut state, Some(other), None), IndexAnswer::ChecksumMismatch);
        assert_eq!(checksum_of(complete_declaring(&mut state, Some(right.clone()), None)), Some(right));
    }

    #[test]
    fn declared_lengths_and_part_checksums_must_match() {
        let (mut state, values, _) = open_with_checksums(Some(ChecksumKind::FullObject));
        let actual = 2 * PART_LEN_MIN;
        let refused = complete_declaring(&mut state, None, Some(7));
        assert_eq!(refused, IndexAnswer::LenMismatch { declared: 7, actual });
        let with_part_checksum = |value: &[u8]| {
            let mut command = complete("a", &[(1, 1), (2, 2)]);
            if let IndexCommand::CompleteUpload { parts, .. } = &mut command {
                parts[1].checksum = Some(declared(ChecksumKind::FullObject, value));
            }
            command
        };
        assert_eq!(run(&mut state, &with_part_checksum(&values[0])), IndexAnswer::InvalidPart { number: 2 });
        assert!(matches!(run(&mut state, &with_part_checksum(&values[1])), IndexAnswer::Stored(_)));
    }

    #[test]
    fn a_part_without_the_checksum_asked_for_is_invalid() {
        let (mut state, ..) = open_with_checksums(Some(ChecksumKind::FullObject));
        run(&mut state, &put_part("a", 2, 5));
        let refused = run(&mut state, &complete("a", &[(1, 1), (2, 5)]));
        assert_eq!(refused, IndexAnswer::InvalidPart { number: 2 });
    }
}
