//! How commands change a shard's state. One file per family of commands.

mod bucket;
#[cfg(test)]
pub(super) mod fixture;
mod garbage;
#[cfg(test)]
mod model;
mod object;
mod upload;

use super::command::{IndexAnswer, IndexCommand};
use super::entry::{BucketUsage, Content};
use super::keys;
use crate::ids::BucketId;
use crate::state::{StateError, StateWrite, put_record, read_record};
use crate::store::Key;

/// Applies an encoded [`IndexCommand`] and returns the encoded [`IndexAnswer`]. Total and deterministic: bytes that are
/// no known command change nothing and are answered with [`IndexAnswer::Unsupported`].
///
/// Work is proportional to the records a command touches; dropping an object or upload of many parts touches them all
/// (one record per part, at most 10,000).
///
/// # Errors
/// The state could not be read: the replica must drop the transaction and stop.
pub fn apply(state: &mut dyn StateWrite, command: &[u8]) -> Result<Vec<u8>, StateError> {
    let answer = match IndexCommand::decode(command) {
        Err(_) => IndexAnswer::Unsupported,
        // Decoding checks the form of a key, not its length.
        Ok(command) if command.key().is_some_and(|key| Key::new(key.as_str()).is_err()) => IndexAnswer::Invalid,
        Ok(command) => answer(state, command)?,
    };
    Ok(answer.encode())
}

fn answer(state: &mut dyn StateWrite, command: IndexCommand) -> Result<IndexAnswer, StateError> {
    match command {
        IndexCommand::PutObject { .. } => object::put(state, command),
        IndexCommand::DeleteObject { bucket, key, condition, now_ms } => {
            object::delete(state, bucket, &key, &condition, now_ms)
        }
        IndexCommand::CreateUpload { bucket, key, upload, record } => {
            upload::create(state, bucket, &key, upload, &record)
        }
        IndexCommand::PutPart { .. } => upload::put_part(state, command),
        IndexCommand::CompleteUpload { .. } => upload::complete(state, command),
        IndexCommand::AbortUpload { bucket, key, upload, now_ms } => upload::abort(state, bucket, &key, upload, now_ms),
        IndexCommand::SealBucket { bucket, attempt } => bucket::seal(state, bucket, attempt),
        IndexCommand::UnsealBucket { bucket, attempt } => bucket::unseal(state, bucket, attempt),
        IndexCommand::DropBucket { bucket, attempt, now_ms } => bucket::drop(state, bucket, attempt, now_ms),
        IndexCommand::ClearGarbage { sequences } => garbage::clear(state, &sequences),
        IndexCommand::RescheduleGarbage { sequence, extents, now_ms } => {
            garbage::reschedule(state, sequence, extents, now_ms)
        }
        IndexCommand::DropAbandoned { extents, now_ms } => {
            garbage::discard(state, extents, now_ms, garbage::Kind::Stray)?;
            Ok(IndexAnswer::Done)
        }
        IndexCommand::MoveChunk { .. } => garbage::move_chunk(state, command),
    }
}

/// Whether a write may bring this content: no parts, and extents that fit their schemes.
fn is_writable(content: &Content) -> bool {
    match content {
        Content::Inline(_) => true,
        Content::Extents(extents) => extents.iter().all(super::entry::ExtentRecord::is_sound),
        Content::Parts { .. } => false,
    }
}

/// Changes a bucket's counters.
fn count(
    state: &mut dyn StateWrite,
    bucket: BucketId,
    change: impl FnOnce(&mut BucketUsage),
) -> Result<(), StateError> {
    let key = keys::usage_key(bucket);
    let mut usage: BucketUsage = read_record(state, &key)?.unwrap_or_default();
    change(&mut usage);
    if usage == BucketUsage::default() {
        state.delete(key);
    } else {
        put_record(state, key, &usage);
    }
    Ok(())
}
