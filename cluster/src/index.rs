//! What an index shard agrees on: objects, multipart uploads and their parts, the garbage they leave, and per-bucket
//! counters.
//!
//! Commands in, answers out, deterministic: no time or randomness is read while applying. Every chunk that was ever
//! committed is referred to either by an entry or part, or by a garbage record, until a worker has cleared it.
//! Moving bytes, consensus and linearizable reads are elsewhere.

/// Checksums and entity tags of multipart objects.
pub mod checksums;
mod command;
mod entry;
mod keys;
/// Listings of one shard.
pub mod listing;
/// Listings of a bucket out of those of its shards.
pub mod merge;
mod object;
/// Reads of a shard's state.
pub mod query;
pub(crate) mod raw;
mod state;

pub use command::{
    BucketSeal, BucketStatus, FailedCondition, IndexAnswer, IndexCommand, MoveOutcome, PartAddress, PutAnswer,
};
pub use entry::{
    BucketUsage, Content, EntryHead, ExtentRecord, GarbageExtent, GarbageRecord, ObjectEntry, PartRecord, PartRef,
    UploadRecord,
};
pub use state::apply;
