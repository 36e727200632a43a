//! The key-value port: the few verbs that consensus and the object index need of an ordered, crash-safe map.
//!
//! It is not a database interface: no transactions, no queries, no caching policy. One [`Kv`] belongs to one drive
//! (or to a node's state directory) and is shared by every replica there.
//!
//! Invariants every form keeps:
//! - a [`Batch`] is atomic and visible at once when [`Kv::write`] returns;
//! - after a crash the content is that of a **prefix** of the written batches, at least up to the last one that was
//!   written before a successful [`Kv::sync`] began;
//! - after an error of `write` or `sync` nothing is promised about later calls: the owner fails the drive.

mod fjall;
mod journal;
mod log_metrics;
mod log_writer;
mod memory;
#[cfg(test)]
mod tests;

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;

pub use self::fjall::{FjallConfig, FjallKv};
pub use self::log_metrics::LogMetrics;
pub use self::log_writer::{Executor, LogWriter};
pub use self::memory::{CrashLoss, MemoryKv};

/// Is shown a key and its value, and says whether to go on.
pub type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'v;

/// Which of the two halves of a store a key lives in. They differ in how they are used, so that an engine may keep
/// them apart: logs are appended and deleted in ranges, state is read point by point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Consensus logs and votes.
    Log,
    /// What state machines have made of them.
    State,
}

/// A range of keys: lower and upper bound, as in [`std::ops::RangeBounds`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// Where the range begins.
    pub start: Bound<Vec<u8>>,
    /// Where it ends.
    pub end: Bound<Vec<u8>>,
}

impl KeyRange {
    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        let end = match successor_of_prefix(prefix) {
            Some(end) => Bound::Excluded(end),
            None => Bound::Unbounded,
        };
        Self { start: Bound::Included(prefix.to_vec()), end }
    }

    /// The keys from `start` (included) to `end` (excluded).
    pub fn half_open(start: Vec<u8>, end: Vec<u8>) -> Self {
        Self { start: Bound::Included(start), end: Bound::Excluded(end) }
    }

    /// The keys of this range that come after `key`.
    #[must_use]
    pub fn after(&self, key: &[u8]) -> Self {
        Self { start: Bound::Excluded(key.to_vec()), end: self.end.clone() }
    }

    /// Whether no key can be in it. Engines may panic on inverted ranges, so they ask first.
    pub fn is_empty(&self) -> bool {
        match (&self.start, &self.end) {
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
            (Bound::Included(start), Bound::Included(end)) => start > end,
            (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end) | Bound::Included(end)) => {
                start >= end
            }
        }
    }

    /// The bounds in the form [`std::collections::BTreeMap::range`] takes.
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (as_slice(&self.start), as_slice(&self.end))
    }
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}

/// The smallest key that is greater than every key with this prefix; none if there is no such key.
pub fn successor_of_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

/// One change of a [`Batch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The half of the store.
    pub space: Space,
    /// The key.
    pub key: Bytes,
    /// The new value; none deletes the key.
    pub value: Option<Bytes>,
}

/// Changes that take effect together, in order (the last change of a key wins).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    changes: Vec<Change>,
    len: usize,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, space: Space, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.push(space, key.into(), Some(value.into()));
    }

    /// Deletes `key`, if it exists.
    pub fn delete(&mut self, space: Space, key: impl Into<Bytes>) {
        self.push(space, key.into(), None);
    }

    fn push(&mut self, space: Space, key: Bytes, value: Option<Bytes>) {
        self.len += key.len() + value.as_ref().map_or(0, Bytes::len);
        self.changes.push(Change { space, key, value });
    }

    /// Appends the changes of `other`.
    pub fn append(&mut self, mut other: Self) {
        self.changes.append(&mut other.changes);
        self.len += other.len;
    }

    /// The changes, in order.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The changes, in order, by value.
    pub fn into_changes(self) -> Vec<Change> {
        self.changes
    }

    /// Bytes of keys and values together.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// What a store says when it cannot do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// Opening it failed.
    #[error("cannot open the store in {path}: {reason}")]
    Open {
        /// The directory.
        path: String,
        /// What the engine said.
        reason: String,
    },
    /// A read failed, for instance because a checksum did not match.
    #[error("reading the store failed: {reason}")]
    Read {
        /// What the engine said.
        reason: String,
    },
    /// A write failed.
    #[error("writing to the store failed: {reason}")]
    Write {
        /// What the engine said.
        reason: String,
    },
    /// A sync failed. What was not synced before may or may not be there after a crash.
    #[error("syncing the store failed: {reason}")]
    Sync {
        /// What the engine said.
        reason: String,
    },
    /// A write or sync has not come back. It may still, or never; whether it happened is unknown.
    #[error("the store has not answered for {seconds} s")]
    Stuck {
        /// How long it has been waited for.
        seconds: u64,
    },
    /// The writer was shut down.
    #[error("the store was closed")]
    Closed,
}

impl From<KvError> for std::io::Error {
    fn from(error: KvError) -> Self {
        std::io::Error::other(error)
    }
}

/// How much a store holds. Estimates, cheap to ask for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KvUsage {
    /// Bytes on the drive, journals included.
    pub disk_bytes: u64,
    /// Bytes of memory in write buffers and caches.
    pub memory_bytes: u64,
}

/// Reading half of a store: of the newest content, or of a frozen one (see [`Kv::snapshot`]).
pub trait KvView: Send + Sync {
    /// The value of `key`.
    ///
    /// # Errors
    /// [`KvError::Read`].
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, KvError>;

    /// Visits the keys of `range` in order until it ends or `visit` breaks. One call sees one consistent content.
    ///
    /// # Errors
    /// [`KvError::Read`]; what was visited before it is valid.
    fn scan(&self, space: Space, range: &KeyRange, visit: &mut Visit<'_>) -> Result<(), KvError>;
}

/// An ordered map on one drive. Synchronous: calls take microseconds, except [`Kv::sync`], which waits for the drive.
pub trait Kv: KvView {
    /// Applies `batch` atomically. Visible at once; survives a crash only after a later [`Kv::sync`].
    ///
    /// # Errors
    /// [`KvError::Write`]; then the store must not be used for writing any more.
    fn write(&self, batch: Batch) -> Result<(), KvError>;

    /// Makes everything written before this call durable (`fdatasync`). Blocks for the drive.
    ///
    /// # Errors
    /// [`KvError::Sync`]; then the store must not be used any more: a second attempt could report success for
    /// pages that were dropped.
    fn sync(&self) -> Result<(), KvError>;

    /// A view of the content of now that later writes do not change. Hold it briefly: it keeps old versions alive.
    fn snapshot(&self) -> Arc<dyn KvView>;

    /// How much it holds.
    fn usage(&self) -> KvUsage;
}
