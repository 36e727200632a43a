//! Commands to an index shard and their answers. Format 1: append-only enums and frozen structs behind a version byte.

use bincode::{Decode, Encode};

use super::entry::{ExtentRecord, GarbageExtent, ObjectEntry, PartRecord, UploadRecord};
use crate::codec::DecodeError;
use crate::ids::{BucketId, DeletionAttempt, DriveId, ExtentId, UploadId, VersionId};
use crate::state::{decode_record, encode_record};
use crate::store::{Checksum, CompletedPart, Condition, ETag, Key};

/// Which part of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct PartAddress {
    /// The upload, open or completed.
    pub upload: UploadId,
    /// The part's number.
    pub number: u32,
}

/// A change to a shard's state.
///
/// A write that is refused leaves nothing behind: the chunks it carries become garbage with the refusal. `abandoned`
/// are chunks that may have reached a drive which then failed the write and was replaced; they become garbage in any
/// case.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum IndexCommand {
    /// Makes `entry` the current version. What it replaces becomes garbage.
    PutObject {
        /// Where.
        bucket: BucketId,
        /// Under which key.
        key: Key,
        /// The new version; its content is inline or in extents.
        entry: ObjectEntry,
        /// What must hold.
        condition: Condition,
        /// Chunks given up during the write.
        abandoned: Vec<GarbageExtent>,
    },
    /// Removes the current version, if there is one.
    DeleteObject {
        /// Where.
        bucket: BucketId,
        /// Under which key.
        key: Key,
        /// What must hold.
        condition: Condition,
        /// Wall-clock milliseconds since the Unix epoch.
        now_ms: u64,
    },
    /// Starts an upload.
    CreateUpload {
        /// Where.
        bucket: BucketId,
        /// Under which key.
        key: Key,
        /// Its id.
        upload: UploadId,
        /// What was said.
        record: UploadRecord,
    },
    /// Stores a part. A part of the same number becomes garbage.
    PutPart {
        /// Where.
        bucket: BucketId,
        /// Under which key.
        key: Key,
        /// Which part.
        part: PartAddress,
        /// The part; its content is inline or in extents.
        record: PartRecord,
        /// Chunks given up during the write.
        abandoned: Vec<GarbageExtent>,
    },
    /// Makes an object of an upload's parts. Parts not named become garbage, and so does what the object replaces.
    CompleteUpload {
        /// Where.
        bucket: BucketId,
        /// Under which key.
        key: Key,
        /// Which upload.
        upload: UploadId,
        /// The parts in ascending order.
        parts: Vec<CompletedPart>,
        /// What must hold.
        condition: Condition,
        /// The version to make.
        version: VersionId,
        /// Wall-clock milliseconds since the Unix epoch.
        now_ms: u64,
        /// The checksum the client declares for the object.
        checksum: Option<Checksum>,
        /// The length the client declares for the object.
        len: Option<u64>,
    },
    /// Drops an upload with its parts.
    AbortUpload {
        /// Where.
        bucket: BucketId,
        /// Under which key.
        key: Key,
        /// Which upload.
        upload: UploadId,
        /// Wall-clock milliseconds since the Unix epoch.
        now_ms: u64,
    },
    /// Refuses further writes to a bucket, before its deletion. Each attempt seals once, and takes the seal over from an
    /// earlier attempt.
    SealBucket {
        /// Which.
        bucket: BucketId,
        /// Who asks.
        attempt: DeletionAttempt,
    },
    /// Takes writes again: the deletion was given up by whoever sealed the bucket last.
    UnsealBucket {
        /// Which.
        bucket: BucketId,
        /// Who asks.
        attempt: DeletionAttempt,
    },
    /// Refuses writes for ever, and forgets open uploads and the counters. The bucket must have no objects and be sealed
    /// by this attempt. Where there are many uploads it takes several of these: while the answer is `Sealed` and empty,
    /// some are left.
    DropBucket {
        /// Which.
        bucket: BucketId,
        /// Who asks.
        attempt: DeletionAttempt,
        /// Wall-clock milliseconds since the Unix epoch.
        now_ms: u64,
    },
    /// Removes garbage records whose chunks have all been cleared.
    ClearGarbage {
        /// Which.
        sequences: Vec<u64>,
    },
    /// Puts what could not be cleared yet at the end of the queue.
    RescheduleGarbage {
        /// The record that was tried.
        sequence: u64,
        /// What is left of it; nothing removes it.
        extents: Vec<GarbageExtent>,
        /// Wall-clock milliseconds since the Unix epoch.
        now_ms: u64,
    },
    /// Hands the chunks of a write that was given up to the garbage queue. Never those of a write whose command was
    /// proposed with unknown outcome: it may still commit.
    DropAbandoned {
        /// What may lie on drives.
        extents: Vec<GarbageExtent>,
        /// Wall-clock milliseconds since the Unix epoch.
        now_ms: u64,
    },
    /// Records that a chunk was rebuilt or copied to another drive, if it still lies where it was taken from; the old
    /// chunk becomes garbage. If not, the new one does.
    MoveChunk {
        /// Where.
        bucket: BucketId,
        /// Under which key.
        key: Key,
        /// The version of the object, or of the part if one is given.
        version: VersionId,
        /// The part the extent belongs to, if any.
        part: Option<PartAddress>,
        /// Which extent.
        extent: ExtentId,
        /// Which of its chunks.
        slot: u8,
        /// Where it lay.
        from: DriveId,
        /// Where it lies now.
        to: DriveId,
        /// Wall-clock milliseconds since the Unix epoch.
        now_ms: u64,
    },
}

/// The condition that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum FailedCondition {
    /// `If-Match`.
    IfMatch,
    /// `If-None-Match`.
    IfNoneMatch,
}

impl FailedCondition {
    /// The request header that failed.
    pub const fn header(self) -> &'static str {
        match self {
            Self::IfMatch => "If-Match",
            Self::IfNoneMatch => "If-None-Match",
        }
    }
}

/// What is now stored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PutAnswer {
    /// Its version.
    pub version: VersionId,
    /// Its entity tag.
    pub etag: ETag,
    /// Its checksum.
    pub checksum: Option<Checksum>,
    /// Length in bytes.
    pub len: u64,
    /// Milliseconds since the Unix epoch.
    pub modified_ms: u64,
}

/// Whether a bucket takes writes in this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum BucketStatus {
    /// It takes writes.
    Open,
    /// It refuses writes; its deletion has begun.
    Sealed,
    /// It refuses writes for ever.
    Dropped,
}

/// A shard's part in the deletion of a bucket, kept once one was attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BucketSeal {
    /// Whether the bucket takes writes.
    pub status: BucketStatus,
    /// Who sealed it last. What earlier attempts ask for is refused.
    pub attempt: DeletionAttempt,
}

/// What became of a [`IndexCommand::MoveChunk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum MoveOutcome {
    /// The chunk is recorded at its new place (or was already).
    Moved,
    /// The chunk is not where it was taken from any more, or its object is gone; the new chunk is garbage.
    Stale,
    /// An older chunk of this very slot still waits to be cleared from the new drive, which would take the new one
    /// with it: try another drive.
    TargetPending,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum IndexAnswer {
    /// The command is not known to this release; nothing changed.
    Unsupported,
    /// The command contradicts itself (extents that do not fit their scheme, parts where none may be, a key that is none);
    /// nothing changed.
    Invalid,
    /// Done, or already so.
    Done,
    /// An object or a part is stored.
    Stored(PutAnswer),
    /// An object was deleted, if it existed.
    Deleted {
        /// Whether it did.
        existed: bool,
    },
    /// A condition does not hold.
    PreconditionFailed(FailedCondition),
    /// `If-Match`, but there is no object.
    NoSuchKey,
    /// No such open upload.
    NoSuchUpload,
    /// The bucket takes no writes: it is being deleted or was.
    Sealed,
    /// A part named at completion is missing, differs, or lacks the checksum it should have.
    InvalidPart {
        /// Its number.
        number: u32,
    },
    /// No parts are named, or not in ascending order.
    InvalidPartOrder,
    /// A part other than the last is too small.
    PartTooSmall {
        /// Its number.
        number: u32,
        /// Its length in bytes.
        len: u64,
    },
    /// The object's checksum is not the declared one, or cannot be computed from the parts'.
    ChecksumMismatch,
    /// The object's length is not the declared one.
    LenMismatch {
        /// As declared.
        declared: u64,
        /// As the parts give.
        actual: u64,
    },
    /// The answer to sealing, unsealing and dropping.
    Bucket {
        /// Whether it takes writes now.
        status: BucketStatus,
        /// Whether it has no objects.
        empty: bool,
    },
    /// The answer to moving a chunk.
    Move(MoveOutcome),
    /// A later attempt works on the bucket's deletion; nothing changed.
    DeletionTakenOver,
}

macro_rules! versioned {
    ($($name:ident),*) => {$(
        impl $name {
            /// The bytes that are proposed or answered.
            pub fn encode(&self) -> Vec<u8> {
                encode_record(self)
            }

            /// Reads what `encode` made.
            ///
            /// # Errors
            /// What is wrong with the bytes. Never panics, whatever they are.
            pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                decode_record(bytes)
            }
        }
    )*};
}

versioned!(IndexCommand, IndexAnswer);

impl IndexCommand {
    /// The object key the command is about, if it is about one.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::PutObject { key, .. }
            | Self::DeleteObject { key, .. }
            | Self::CreateUpload { key, .. }
            | Self::PutPart { key, .. }
            | Self::CompleteUpload { key, .. }
            | Self::AbortUpload { key, .. }
            | Self::MoveChunk { key, .. } => Some(key),
            Self::SealBucket { .. }
            | Self::UnsealBucket { .. }
            | Self::DropBucket { .. }
            | Self::ClearGarbage { .. }
            | Self::RescheduleGarbage { .. }
            | Self::DropAbandoned { .. } => None,
        }
    }

    /// The extents a write carries.
    pub fn extents(&self) -> &[ExtentRecord] {
        match self {
            Self::PutObject { entry, .. } => entry.content.extents(),
            Self::PutPart { record, .. } => record.content.extents(),
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::entry::Content;
    use super::super::entry::tests::{entry, extent};
    use super::*;
    use crate::codec::Blob;
    use crate::store::{EntityTag, ObjectMetadata};

    pub(super) fn samples() -> Vec<IndexCommand> {
        let (bucket, key, upload) = (BucketId(300), Key::new("k").unwrap(), UploadId([5; 16]));
        let condition = Condition {
            if_match: Some(EntityTag::OneOf(vec![ETag::whole([1; 16])])),
            if_none_match: Some(EntityTag::Any),
        };
        let part = PartAddress { upload, number: 2 };
        let record = PartRecord {
            len: 1,
            etag: ETag::whole([2; 16]),
            modified_ms: 3,
            checksum: None,
            version: VersionId([4; 16]),
            content: Content::Inline(Blob(vec![7].into())),
        };
        let (from, to) = (DriveId::from_bytes([1; 8]), DriveId::from_bytes([2; 8]));
        let garbage = vec![GarbageExtent { id: ExtentId::from_bytes([6; 16]), chunks: vec![(1, from)] }];
        let parts = vec![CompletedPart { number: 2, etag: ETag::whole([2; 16]), checksum: None }];
        let upload_record = UploadRecord { started_ms: 9, checksum: None, metadata: ObjectMetadata::default() };
        let version = VersionId([8; 16]);
        vec![
            IndexCommand::PutObject {
                bucket,
                key: key.clone(),
                entry: entry(1),
                condition: condition.clone(),
                abandoned: garbage.clone(),
            },
            IndexCommand::DeleteObject { bucket, key: key.clone(), condition, now_ms: 9 },
            IndexCommand::CreateUpload { bucket, key: key.clone(), upload, record: upload_record },
            IndexCommand::PutPart { bucket, key: key.clone(), part, record, abandoned: Vec::new() },
            IndexCommand::CompleteUpload {
                bucket,
                key: key.clone(),
                upload,
                parts,
                condition: Condition::default(),
                version,
                now_ms: 9,
                checksum: None,
                len: Some(1),
            },
            IndexCommand::AbortUpload { bucket, key: key.clone(), upload, now_ms: 9 },
            IndexCommand::SealBucket { bucket, attempt: DeletionAttempt(3) },
            IndexCommand::UnsealBucket { bucket, attempt: DeletionAttempt(3) },
            IndexCommand::DropBucket { bucket, attempt: DeletionAttempt(3), now_ms: 9 },
            IndexCommand::ClearGarbage { sequences: vec![1, 2] },
            IndexCommand::RescheduleGarbage { sequence: 1, extents: garbage.clone(), now_ms: 9 },
            IndexCommand::DropAbandoned { extents: garbage, now_ms: 9 },
            IndexCommand::MoveChunk {
                bucket,
                key,
                version,
                part: Some(part),
                extent: extent(1).id,
                slot: 1,
                from,
                to,
                now_ms: 9,
            },
        ]
    }

    #[test]
    fn the_bytes_of_format_1_never_change() {
        let commands = samples();
        let encoded: Vec<String> = commands.iter().map(|command| hex::encode(command.encode())).collect();
        assert_eq!(encoded, GOLDEN);
        for command in commands {
            assert_eq!(IndexCommand::decode(&command.encode()), Ok(command));
        }
    }

    const GOLDEN: [&str; 13] = [
        "0100fb2c01016bfbe8030101010101010101010101010101010100fd0068e5cf8b0100000101000101010101010101010101010101010101040102030400010c636f6e74656e742d747970650a746578742f706c61696e0101610162010101010101010101010101010101010101fbe80302010301010101010101010202020202020202030303030303030301010101010101010101010101010101010101000100010606060606060606060606060606060601010101010101010101",
        "0101fb2c01016b0101010101010101010101010101010101010100010009",
        "0102fb2c01016b0505050505050505050505050505050509000000",
        "0103fb2c01016b050505050505050505050505050505050201020202020202020202020202020202020003000404040404040404040404040404040400010700",
        "0104fb2c01016b05050505050505050505050505050505010202020202020202020202020202020202000000000808080808080808080808080808080809000101",
        "0105fb2c01016b0505050505050505050505050505050509",
        "0106fb2c0103",
        "0107fb2c0103",
        "0108fb2c010309",
        "0109020102",
        "010a0101060606060606060606060606060606060101010101010101010109",
        "010b01060606060606060606060606060606060101010101010101010109",
        "010cfb2c01016b0808080808080808080808080808080801050505050505050505050505050505050201010101010101010101010101010101010101010101010101020202020202020209",
    ];

    #[test]
    fn the_numbers_of_answers_never_change() {
        let stored = PutAnswer {
            version: VersionId([1; 16]),
            etag: ETag::whole([2; 16]),
            checksum: None,
            len: 3,
            modified_ms: 4,
        };
        let answers = [
            IndexAnswer::Unsupported,
            IndexAnswer::Invalid,
            IndexAnswer::Done,
            IndexAnswer::Stored(stored),
            IndexAnswer::Deleted { existed: true },
            IndexAnswer::PreconditionFailed(FailedCondition::IfNoneMatch),
            IndexAnswer::NoSuchKey,
            IndexAnswer::NoSuchUpload,
            IndexAnswer::Sealed,
            IndexAnswer::InvalidPart { number: 1 },
            IndexAnswer::InvalidPartOrder,
            IndexAnswer::PartTooSmall { number: 1, len: 2 },
            IndexAnswer::ChecksumMismatch,
            IndexAnswer::LenMismatch { declared: 1, actual: 2 },
            IndexAnswer::Bucket { status: BucketStatus::Dropped, empty: true },
            IndexAnswer::Move(MoveOutcome::TargetPending),
            IndexAnswer::DeletionTakenOver,
        ];
        let encoded: Vec<String> = answers.iter().map(|answer| hex::encode(answer.encode())).collect();
        let stored = format!("0103{}{}000004", "01".repeat(16), "02".repeat(16)).replace("000004", "00000304");
        let golden = [
            "0100", "0101", "0102", &stored, "010401", "010501", "0106", "0107", "0108", "010901", "010a", "010b0102",
            "010c", "010d0102", "010e0201", "010f02", "0110",
        ];
        assert_eq!(encoded, golden);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            body in proptest::collection::vec(any::<u8>(), 0..120), sample in 0..13_usize, at: usize, bit in 0..8_u8,
        ) {
            let mut random = vec![1, u8::try_from(sample).unwrap()];
            random.extend_from_slice(&body);
            let mut bent = samples()[sample].encode();
            let at = at % bent.len();
            bent[at] ^= 1 << bit;
            for bytes in [body, random, bent] {
                if let Ok(command) = IndexCommand::decode(&bytes) {
                    prop_assert_eq!(IndexCommand::decode(&command.encode()), Ok(command));
                }
                if let Ok(answer) = IndexAnswer::decode(&bytes) {
                    prop_assert_eq!(IndexAnswer::decode(&answer.encode()), Ok(answer));
                }
            }
        }
    }
}
