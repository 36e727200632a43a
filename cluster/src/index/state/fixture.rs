//! What tests of commands share: short ways to make commands, and a census of chunks.

use std::collections::BTreeSet;

use super::apply;
use crate::ids::{BucketId, DriveId, ExtentId, UploadId, VersionId};
use crate::index::entry::tests as entries;
use crate::index::{
    Content, ExtentRecord, GarbageExtent, IndexAnswer, IndexCommand, ObjectEntry, PartAddress, PartRecord,
    UploadRecord, query,
};
use crate::state::MemoryState;
use crate::store::{
    Checksum, ChecksumAlgorithm, ChecksumKind, CompletedPart, Condition, ETag, Key, ObjectMetadata, PART_LEN_MIN,
};

pub(crate) const BUCKET: BucketId = BucketId(7);
pub(crate) const UPLOAD: UploadId = UploadId([0xaa; 16]);
pub(crate) const NOW: u64 = 1_700_000_000_000;
pub(crate) const ENTRY_LEN: u64 = 1000;
/// The tag of a part too small to be any but the last.
pub(crate) const SMALL: u8 = 0xfe;

/// Extent, slot and drive.
pub(crate) type Chunk = (ExtentId, u8, DriveId);

pub(crate) fn run(state: &mut MemoryState, command: &IndexCommand) -> IndexAnswer {
    IndexAnswer::decode(&apply(state, &command.encode()).unwrap()).unwrap()
}

pub(crate) fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

/// Two data chunks and one of parity, on drives 1, 2 and 3.
pub(crate) fn extent(number: u8) -> ExtentRecord {
    entries::extent(number)
}

/// An entry of tag, version and extent `number`.
pub(crate) fn entry(number: u8) -> ObjectEntry {
    entries::entry(number)
}

pub(crate) fn put(key: &str, number: u8) -> IndexCommand {
    put_if(key, number, Condition::default())
}

pub(crate) fn put_if(key: &str, number: u8, condition: Condition) -> IndexCommand {
    let (key, entry) = (self::key(key), entry(number));
    IndexCommand::PutObject { bucket: BUCKET, key, entry, condition, abandoned: Vec::new() }
}

pub(crate) fn delete(key: &str) -> IndexCommand {
    IndexCommand::DeleteObject { bucket: BUCKET, key: self::key(key), condition: Condition::default(), now_ms: NOW }
}

pub(crate) fn create_upload(key: &str) -> IndexCommand {
    create_upload_with(key, None)
}

pub(crate) fn create_upload_as(key: &str, upload: UploadId) -> IndexCommand {
    let record = UploadRecord { started_ms: NOW, checksum: None, metadata: ObjectMetadata::default() };
    IndexCommand::CreateUpload { bucket: BUCKET, key: self::key(key), upload, record }
}

pub(crate) fn create_upload_with(key: &str, checksum: Option<(ChecksumAlgorithm, ChecksumKind)>) -> IndexCommand {
    let record = UploadRecord { started_ms: NOW, checksum, metadata: ObjectMetadata::default() };
    IndexCommand::CreateUpload { bucket: BUCKET, key: self::key(key), upload: UPLOAD, record }
}

pub(crate) fn part_record(tag: u8) -> PartRecord {
    PartRecord {
        len: if tag == SMALL { 100 } else { PART_LEN_MIN },
        etag: ETag::whole([tag; 16]),
        modified_ms: NOW,
        checksum: None,
        version: VersionId([tag; 16]),
        content: Content::Extents(vec![extent(tag)]),
    }
}

pub(crate) fn put_part(key: &str, number: u32, tag: u8) -> IndexCommand {
    put_part_with(key, number, tag, None)
}

pub(crate) fn put_part_with(key: &str, number: u32, tag: u8, checksum: Option<Checksum>) -> IndexCommand {
    let record = PartRecord { checksum, ..part_record(tag) };
    let part = PartAddress { upload: UPLOAD, number };
    IndexCommand::PutPart { bucket: BUCKET, key: self::key(key), part, record, abandoned: Vec::new() }
}

pub(crate) fn complete(key: &str, parts: &[(u32, u8)]) -> IndexCommand {
    complete_if(key, parts, Condition::default())
}

pub(crate) fn complete_if(key: &str, parts: &[(u32, u8)], condition: Condition) -> IndexCommand {
    let named =
        |(number, tag): &(u32, u8)| CompletedPart { number: *number, etag: ETag::whole([*tag; 16]), checksum: None };
    IndexCommand::CompleteUpload {
        bucket: BUCKET,
        key: self::key(key),
        upload: UPLOAD,
        parts: parts.iter().map(named).collect(),
        condition,
        version: VersionId([0xcc; 16]),
        now_ms: NOW,
        checksum: None,
        len: None,
    }
}

pub(crate) fn abort(key: &str) -> IndexCommand {
    IndexCommand::AbortUpload { bucket: BUCKET, key: self::key(key), upload: UPLOAD, now_ms: NOW }
}

pub(crate) fn chunks(extents: &[GarbageExtent]) -> BTreeSet<Chunk> {
    extents.iter().flat_map(|extent| extent.chunks.iter().map(|(slot, drive)| (extent.id, *slot, *drive))).collect()
}

/// The chunks of the extents of these numbers.
pub(crate) fn chunks_of(numbers: &[u8]) -> BTreeSet<Chunk> {
    numbers.iter().flat_map(|number| chunks(&[extent(*number).garbage()])).collect()
}

/// All chunks in the garbage queue.
pub(crate) fn garbage(state: &MemoryState) -> BTreeSet<Chunk> {
    let records = query::garbage_due(state, u64::MAX, 0, usize::MAX).unwrap();
    records.iter().flat_map(|(_, record)| chunks(&record.extents)).collect()
}

/// All chunks that objects and parts refer to.
pub(crate) fn referenced(state: &MemoryState) -> BTreeSet<Chunk> {
    let (walked, next) = query::walk(state, None, usize::MAX).unwrap();
    assert_eq!(next, None);
    walked.iter().flat_map(|item| &item.extents).flat_map(|extent| chunks(&[extent.garbage()])).collect()
}
