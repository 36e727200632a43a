//! Moving the whole state of a group from the leader to a replica that is too far behind for the log.
//!
//! The sender walks the keys of a frozen view and sends them in chunks; the receiver writes them into a new generation,
//! which counts only after the last chunk has proved the rest complete (count and BLAKE3) and one synced batch has
//! switched to it. A crash at any point leaves the old state or the new one. Both sides hold a few chunks in memory.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::codec::{self, v1};
use super::error::HandleError;
use super::ids::GroupId;
use super::keys;
use super::view::{Generation, State};
use crate::kv::{Batch, KeyRange, KvError, KvView, LogWriter, Space};

/// Chunks between reading and sending.
pub(super) const CHUNKS_IN_FLIGHT: usize = 4;
/// Bytes of keys and values in one chunk; one pair may exceed it.
const CHUNK_BYTES: usize = 256 << 10;
/// Keys deleted by one batch when a generation goes.
const SWEEP_COUNT_MAX: usize = 1_000;

/// Sends everything of `generation` as chunks. Ends early, without error, when the receiver goes away.
pub(super) async fn produce(
    view: Arc<dyn KvView>,
    group: GroupId,
    generation: u32,
    chunks: mpsc::Sender<Bytes>,
) -> Result<(), KvError> {
    let prefix = keys::generation(group, generation);
    let mut range = KeyRange::prefix(&prefix);
    let mut hasher = blake3::Hasher::new();
    let mut pair_count = 0u64;
    for sequence in 0.. {
        let (pairs, last) = read_chunk(&*view, &range, prefix.len())?;
        let Some(last) = last else { break };
        range = range.after(&last);
        pair_count += u64::try_from(pairs.len()).unwrap_or_default();
        let chunk = codec::encode(&v1::SnapshotChunk::Pairs { sequence, pairs });
        hasher.update(&chunk);
        if chunks.send(chunk).await.is_err() {
            return Ok(());
        }
    }
    let end = v1::SnapshotChunk::End { pair_count, hash: *hasher.finalize().as_bytes() };
    if chunks.send(codec::encode(&end)).await.is_err() {
        tracing::debug!(%group, "the snapshot's receiver went away");
    }
    Ok(())
}

type Pairs = Vec<(v1::Blob, v1::Blob)>;

fn read_chunk(view: &dyn KvView, range: &KeyRange, prefix_len: usize) -> Result<(Pairs, Option<Vec<u8>>), KvError> {
    let mut pairs = Vec::new();
    let mut last = None;
    let mut len = 0;
    view.scan(Space::State, range, &mut |key, value| {
        let relative = key.get(prefix_len..).unwrap_or_default();
        len += relative.len() + value.len();
        pairs.push((v1::Blob(Bytes::copy_from_slice(relative)), v1::Blob(Bytes::copy_from_slice(value))));
        if len >= CHUNK_BYTES {
            last = Some(key.to_vec());
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    if last.is_none() {
        last = pairs.last().map(|(key, _)| {
            let mut last = range_prefix(range, prefix_len);
            last.extend_from_slice(&key.0);
            last
        });
    }
    Ok((pairs, last))
}

/// The first `prefix_len` bytes of where the range starts: the prefix all its keys share.
fn range_prefix(range: &KeyRange, prefix_len: usize) -> Vec<u8> {
    match &range.start {
        std::ops::Bound::Included(start) | std::ops::Bound::Excluded(start) => {
            start.iter().copied().take(prefix_len).collect()
        }
        std::ops::Bound::Unbounded => Vec::new(),
    }
}

/// Writes the chunks into a new generation and checks them. If this fails or is cancelled, what was written goes.
pub(super) async fn receive(
    state: &State,
    writer: &LogWriter,
    mut chunks: mpsc::Receiver<Bytes>,
) -> Result<Arc<Generation>, HandleError> {
    let generation = state.begin();
    let prefix = keys::generation(state.group, generation.number);
    let mut hasher = blake3::Hasher::new();
    let mut received = 0u64;
    let mut expected_sequence = 0u64;
    while let Some(chunk) = chunks.recv().await {
        match codec::decode(&chunk).map_err(|_| HandleError::BrokenSnapshot)? {
            v1::SnapshotChunk::Pairs { sequence, pairs } => {
                if sequence != expected_sequence {
                    return Err(HandleError::BrokenSnapshot);
                }
                expected_sequence += 1;
                hasher.update(&chunk);
                received += u64::try_from(pairs.len()).unwrap_or_default();
                writer.write(batch_of(&prefix, pairs)).await?;
            }
            v1::SnapshotChunk::End { pair_count, hash } => {
                let complete = pair_count == received && hash == *hasher.finalize().as_bytes();
                return if complete { Ok(generation) } else { Err(HandleError::BrokenSnapshot) };
            }
        }
    }
    Err(HandleError::BrokenSnapshot)
}

fn batch_of(prefix: &[u8], pairs: Pairs) -> Batch {
    let mut batch = Batch::new();
    for (key, value) in pairs {
        batch.put(Space::State, [prefix, &key.0].concat(), value.0);
    }
    batch
}

/// The generations of which a key exists, the records of generation 0 left out. Skips from one to the next.
pub(super) fn stored_generations(kv: &dyn KvView, group: GroupId) -> Result<BTreeSet<u32>, KvError> {
    let mut found = BTreeSet::new();
    let mut next = 1u32;
    loop {
        let range = KeyRange {
            start: std::ops::Bound::Included(keys::generation(group, next)),
            end: KeyRange::prefix(&keys::state(group)).end,
        };
        let mut number = None;
        kv.scan(Space::State, &range, &mut |key, _| {
            number = keys::generation_of(key);
            ControlFlow::Break(())
        })?;
        let Some(number) = number else {
            return Ok(found);
        };
        found.insert(number);
        match number.checked_add(1) {
            Some(after) => next = after,
            None => return Ok(found),
        }
    }
}

/// Deletes a generation in bounded batches, one after the other.
pub(super) async fn sweep(kv: &dyn KvView, writer: &LogWriter, group: GroupId, generation: u32) -> Result<(), KvError> {
    // What its last holder submitted before it let go is written first.
    writer.write(Batch::new()).await?;
    let mut range = KeyRange::prefix(&keys::generation(group, generation));
    loop {
        let mut batch = Batch::new();
        let mut count = 0;
        let mut last = None;
        kv.scan(Space::State, &range, &mut |key, _| {
            batch.delete(Space::State, key.to_vec());
            last = Some(key.to_vec());
            count += 1;
            if count >= SWEEP_COUNT_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let Some(last) = last else { return Ok(()) };
        range = range.after(&last);
        writer.write(batch).await?;
    }
}
