//! The messages of each method, version 1.

use bincode::{Decode, Encode};

use crate::codec::Blob;
use crate::ids::{BucketId, ChunkId, CommandId, DriveId, ExtentId, NodeId, UploadId, VersionId};
use crate::index::listing::ShardPage;
use crate::store::{BucketName, Key};

/// A message between replicas; the body belongs to the consensus module.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ConsensusMessage {
    /// 0 is the control group, `1 + shard` an index shard.
    pub group: u16,
    /// Opaque here.
    pub body: Blob,
}

/// What precedes the bytes of a snapshot; the body belongs to the consensus module.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotHead {
    /// 0 is the control group, `1 + shard` an index shard.
    pub group: u16,
    /// Opaque here.
    pub head: Blob,
}

/// One drive, as its node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DriveReport {
    /// Which drive.
    pub drive: DriveId,
    /// 0 healthy, 1 slow, 2 failing, 3 failed, 4 full. Append-only.
    pub state: u8,
    /// Bytes that client writes may still take.
    pub free_bytes: u64,
    /// Size of the drive in bytes.
    pub capacity_bytes: u64,
    /// Bytes of live chunks.
    pub used_bytes: u64,
    /// Errors since start: I/O and verification.
    pub error_count: u64,
}

/// Sent every second to every peer, and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Heartbeat {
    /// Who speaks.
    pub node: NodeId,
    /// The sender's topology epoch.
    pub epoch: u64,
    /// The sender's drives.
    pub drives: Vec<DriveReport>,
    /// Which shards the sender leads now: lists find their leaders without asking.
    pub leads: Vec<u16>,
}

/// A read within one shard.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ShardQuery {
    /// The current entry of a key, encoded as stored.
    Object {
        /// Where.
        bucket: BucketId,
        /// Under which key.
        key: Key,
    },
    /// Part records of a completed or open upload, by number.
    Parts {
        /// Where.
        bucket: BucketId,
        /// Under which key.
        key: Key,
        /// Of which upload.
        upload: UploadId,
        /// Only numbers above this one.
        after: u32,
        /// At most so many.
        limit: u32,
    },
    /// The record of an open upload.
    Upload {
        /// Where.
        bucket: BucketId,
        /// Under which key.
        key: Key,
        /// Which upload.
        upload: UploadId,
    },
    /// Whether the chunk of an extent is referred to by the entry or part that owns it.
    Refers {
        /// Where.
        bucket: BucketId,
        /// Under which key.
        key: Key,
        /// Which write.
        version: VersionId,
        /// Of which part; `None` for a body put whole.
        part: Option<u32>,
        /// Which extent.
        extent: ExtentId,
    },
    /// Whether a bucket has neither objects nor open uploads in this shard.
    IsEmpty {
        /// Which.
        bucket: BucketId,
    },
}

/// What a shard answers to a query.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ShardReply {
    /// The record, encoded as stored.
    Record(Blob),
    /// Numbered records, encoded as stored.
    Records(Vec<(u32, Blob)>),
    /// There is none.
    Missing,
    /// The shard has sealed or dropped the bucket.
    BucketSealed,
    /// Yes or no.
    Verdict(bool),
}

/// A linearizable read at a shard's leader.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct IndexReadRequest {
    /// Which shard.
    pub shard: u16,
    /// What to read.
    pub query: ShardQuery,
}

/// One listing query over several shards of one leader.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct IndexListRequest {
    /// The shards, each with where to go on and how many entries to return at most.
    pub shards: Vec<ShardCursor>,
    /// Which bucket.
    pub bucket: BucketId,
    /// Only keys that begin so.
    pub prefix: String,
    /// Groups keys.
    pub delimiter: Option<String>,
    /// What is listed.
    pub what: Listed,
}

/// What the leader of some shards answers to a listing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ListReply<E> {
    /// A page per shard, in the order of the request.
    Pages(Vec<ShardPage<E>>),
    /// A shard has sealed or dropped the bucket.
    BucketSealed,
}

/// Where a listing stands in one shard.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ShardCursor {
    /// Which shard.
    pub shard: u16,
    /// Only names after this one.
    pub after: Option<String>,
    /// For uploads: of the key `after`, only uploads after this one.
    pub upload_after: Option<UploadId>,
    /// At most so many entries.
    pub limit: u32,
}

/// What a listing lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Listed {
    /// Current objects.
    Objects,
    /// Open uploads.
    Uploads,
}

/// A read of the control state.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ControlQuery {
    /// Only the barrier: after it the caller's own replica of the position answered is up to date.
    Position,
    /// A bucket by name.
    Bucket(BucketName),
    /// All buckets.
    Buckets,
    /// An access key by id.
    AccessKey(String),
    /// All access keys, without their secrets.
    AccessKeys,
}

/// A command for a group.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Proposal {
    /// The group: 0 control, `1 + shard` an index shard.
    pub group: u16,
    /// Retries keep it; applied once.
    pub id: CommandId,
    /// The encoded command.
    pub command: Blob,
}

/// Stores a chunk; the payload follows as bulk.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ChunkWriteRequest {
    /// On which drive.
    pub drive: DriveId,
    /// 0 a client's write, 1 healing (may use the reserve).
    pub class: u8,
    /// Header and block hashes as they lie on disk.
    pub head: Blob,
}

/// Reads a range of a chunk's payload.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ChunkReadRequest {
    /// On which drive.
    pub drive: DriveId,
    /// Which chunk.
    pub chunk: ChunkId,
    /// First byte of the payload.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// Precedes the bytes of a chunk read.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ChunkReadReply {
    /// How many bytes follow.
    pub len: u32,
}

/// Deletes chunks of one drive.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ChunkDeleteRequest {
    /// On which drive.
    pub drive: DriveId,
    /// Which chunks; ones that are not there count as deleted.
    pub chunks: Vec<ChunkId>,
}
