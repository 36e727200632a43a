//! An index in memory that forgets what was not synced, for simulations and tests.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{ChunkIndex, IndexError, IndexFactory, Stamp};
use crate::drive::location::Location;
use crate::ids::ChunkId;

#[derive(Clone, Default)]
struct Content {
    stamp: Option<Stamp>,
    entries: BTreeMap<ChunkId, Location>,
}

#[derive(Default)]
struct State {
    now: Content,
    synced: Content,
    broken: bool,
    discards: u64,
}

/// The "disk" of an in-memory index: survives closing and opening a drive. A handle: cloning shares it.
#[derive(Clone, Default)]
pub struct MemoryIndexFactory {
    state: Arc<Mutex<State>>,
}

impl MemoryIndexFactory {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Loses what was not synced.
    pub fn crash(&self) {
        let mut state = self.lock();
        state.now = state.synced.clone();
    }

    /// Makes every operation fail until the index is discarded.
    pub fn break_index(&self) {
        self.lock().broken = true;
    }

    /// How often the index was discarded.
    pub fn discard_count(&self) -> u64 {
        self.lock().discards
    }

    /// Changes every entry's offsets behind the store's back.
    pub fn garble(&self) {
        let mut state = self.lock();
        for location in state.now.entries.values_mut() {
            location.head_offset ^= 8;
        }
        state.synced = state.now.clone();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn usable(&self) -> Result<MutexGuard<'_, State>, IndexError> {
        let state = self.lock();
        if state.broken { Err(IndexError::Engine("broken on request".to_owned())) } else { Ok(state) }
    }
}

impl IndexFactory for MemoryIndexFactory {
    fn open(&self) -> Result<Box<dyn ChunkIndex>, IndexError> {
        drop(self.usable()?);
        Ok(Box::new(self.clone()))
    }

    fn discard(&self) -> Result<(), IndexError> {
        let discards = self.lock().discards + 1;
        *self.lock() = State { discards, ..State::default() };
        Ok(())
    }
}

impl ChunkIndex for MemoryIndexFactory {
    fn stamp(&self) -> Result<Option<Stamp>, IndexError> {
        Ok(self.usable()?.now.stamp)
    }

    fn set_stamp(&self, stamp: Stamp) -> Result<(), IndexError> {
        self.usable()?.now.stamp = Some(stamp);
        Ok(())
    }

    fn get(&self, chunk: ChunkId) -> Result<Option<Location>, IndexError> {
        Ok(self.usable()?.now.entries.get(&chunk).copied())
    }

    fn put(&self, chunk: ChunkId, location: Location) -> Result<(), IndexError> {
        self.usable()?.now.entries.insert(chunk, location);
        Ok(())
    }

    fn remove(&self, chunk: ChunkId) -> Result<(), IndexError> {
        self.usable()?.now.entries.remove(&chunk);
        Ok(())
    }

    fn scan(&self, after: Option<ChunkId>, limit: usize) -> Result<Vec<(ChunkId, Location)>, IndexError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let state = self.usable()?;
        Ok(state.now.entries.range((from, Bound::Unbounded)).take(limit).map(|(chunk, at)| (*chunk, *at)).collect())
    }

    fn sync(&self) -> Result<(), IndexError> {
        let mut state = self.usable()?;
        state.synced = state.now.clone();
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        0
    }
}
