//! Which chunks the drive holds and where: what changed since the last checkpoint in memory, the rest in the index.
//!
//! The writer changes only the memory part, so an append never waits for the index. A checkpoint freezes that part,
//! copies it into the index and forgets it. Readers look into recent, frozen and index, in that order.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::index::{ChunkIndex, IndexError};
use super::location::Location;
use super::segment::Segments;
use crate::ids::ChunkId;

/// Changes by chunk; `None` for a chunk that is gone.
pub(super) type Changes = BTreeMap<ChunkId, Option<Location>>;

struct Inner {
    recent: Changes,
    frozen: Option<Arc<Changes>>,
    index: Arc<dyn ChunkIndex>,
}

pub(super) struct Catalogue {
    inner: RwLock<Inner>,
    segments: Arc<Segments>,
    /// Set by whoever met an index error; the writer rebuilds.
    broken: AtomicBool,
}

impl Catalogue {
    pub(super) fn new(index: Arc<dyn ChunkIndex>, segments: Arc<Segments>) -> Self {
        let inner = RwLock::new(Inner { recent: Changes::new(), frozen: None, index });
        Self { inner, segments, broken: AtomicBool::new(false) }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn note<T>(&self, result: Result<T, IndexError>) -> Result<T, IndexError> {
        if result.is_err() {
            self.broken.store(true, Ordering::Relaxed);
        }
        result
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Where the chunk is, if the drive holds it. A location in a segment that no longer exists is void.
    pub(super) fn get(&self, chunk: ChunkId) -> Result<Option<Location>, IndexError> {
        let inner = self.read();
        let overlaid = inner.recent.get(&chunk).or_else(|| inner.frozen.as_ref()?.get(&chunk)).copied();
        let index = inner.index.clone();
        drop(inner);
        let found = match overlaid {
            Some(change) => change,
            None => self.note(index.get(chunk))?,
        };
        Ok(found.filter(|location| self.segments.get(location.segment).is_some()))
    }

    pub(super) fn set(&self, chunk: ChunkId, location: Option<Location>) {
        self.inner.write().unwrap_or_else(PoisonError::into_inner).recent.insert(chunk, location);
    }

    pub(super) fn recent_count(&self) -> usize {
        self.read().recent.len()
    }

    pub(super) fn index(&self) -> Arc<dyn ChunkIndex> {
        self.read().index.clone()
    }

    /// Puts another index in place of the present one; nothing is left in memory.
    pub(super) fn replace_index(&self, index: Arc<dyn ChunkIndex>) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        *inner = Inner { recent: Changes::new(), frozen: None, index };
    }

    /// Ends what an index error began: the index was rebuilt.
    pub(super) fn set_usable(&self) {
        self.broken.store(false, Ordering::Relaxed);
    }

    /// Freezes what changed since the last time; `None` while an earlier freeze is still being written.
    pub(super) fn freeze(&self) -> Option<Arc<Changes>> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if inner.frozen.is_some() {
            return None;
        }
        let frozen = Arc::new(std::mem::take(&mut inner.recent));
        inner.frozen = Some(frozen.clone());
        Some(frozen)
    }

    /// Copies frozen changes into the index; with `sync` makes them durable there.
    pub(super) fn write_frozen(&self, frozen: &Changes, sync: Sync) -> Result<(), IndexError> {
        let index = self.index();
        let write = || {
            for (chunk, change) in frozen {
                match change {
                    Some(location) => index.put(*chunk, *location)?,
                    None => index.remove(*chunk)?,
                }
            }
            match sync {
                Sync::Now => index.sync(),
                Sync::Later => Ok(()),
            }
        };
        self.note(write())
    }

    /// Forgets frozen changes, which the index has now.
    pub(super) fn drop_frozen(&self) {
        self.inner.write().unwrap_or_else(PoisonError::into_inner).frozen = None;
    }

    /// The next `limit` chunks after `after` in id order.
    pub(super) fn scan(&self, after: Option<ChunkId>, limit: usize) -> Result<Vec<(ChunkId, Location)>, IndexError> {
        let mut found = Vec::new();
        let mut after = after;
        while found.len() < limit {
            let want = limit - found.len();
            let (page, next) = self.scan_page(after, want)?;
            found.extend(page.into_iter().filter(|(_, at)| self.segments.get(at.segment).is_some()));
            match next {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    /// One page, with what lies in segments that no longer exist; and, unless it was the last, where the next one starts.
    pub(super) fn scan_page(
        &self,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Result<(BTreeMap<ChunkId, Location>, Option<ChunkId>), IndexError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let inner = self.read();
        let range = (from, Bound::Unbounded);
        // Taken before the index is read: what a checkpoint moves meanwhile is seen at least once.
        let mut overlay: Changes = Changes::new();
        let layers = inner.frozen.iter().map(|frozen| &**frozen).chain([&inner.recent]);
        for layer in layers {
            overlay.extend(layer.range(range).take(limit).map(|(chunk, change)| (*chunk, *change)));
        }
        // A layer that was cut says nothing beyond its last entry here.
        let mut last: Option<ChunkId> = None;
        for layer in inner.frozen.iter().map(|frozen| &**frozen).chain([&inner.recent]) {
            if let Some((end, _)) = layer.range(range).nth(limit.saturating_sub(1)) {
                last = Some(last.map_or(*end, |other: ChunkId| other.min(*end)));
            }
        }
        let index = inner.index.clone();
        drop(inner);
        let entries = self.note(index.scan(after, limit))?;
        if entries.len() == limit
            && let Some((end, _)) = entries.last()
        {
            last = Some(last.map_or(*end, |other| other.min(*end)));
        }
        let mut page: BTreeMap<ChunkId, Location> = entries.into_iter().collect();
        for (chunk, change) in overlay {
            match change {
                Some(location) => page.insert(chunk, location),
                None => page.remove(&chunk),
            };
        }
        if let Some(last) = last {
            page.retain(|chunk, _| *chunk <= last);
        }
        Ok((page, last))
    }
}

/// Whether the index is synced.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    Now,
    Later,
}
