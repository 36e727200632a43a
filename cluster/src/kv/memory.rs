//! The simulated form of the port: deterministic, in memory, and honest about crashes.
//!
//! It remembers the content as of the last sync and the batches written since, so that [`MemoryKv::crash`] can forget
//! them: all of them, or all but a seeded prefix, as a journal would. Errors of the next syncs and writes can be injected.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{Batch, KeyRange, Kv, KvError, KvUsage, KvView, Space, Visit};

type Map = BTreeMap<Space, Arc<BTreeMap<Bytes, Bytes>>>;

/// What a crash takes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashLoss {
    /// Every batch that was not synced.
    AllUnsynced,
    /// A random number of the newest unsynced batches, drawn from this seed: the rest had reached the drive by luck.
    SomeUnsynced {
        /// Seed of the draw.
        seed: u64,
    },
}

#[derive(Default)]
struct Content {
    durable: Map,
    visible: Map,
    unsynced: Vec<Batch>,
    fail_sync_after: Option<u64>,
    fail_write_after: Option<u64>,
    sync_count: u64,
}

/// A [`Kv`] in memory. Clones share the content.
#[derive(Clone, Default)]
pub struct MemoryKv {
    content: Arc<Mutex<Content>>,
}

impl MemoryKv {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loses power: unsynced batches vanish as `loss` says, injected errors are forgotten, and what is returned is the
    /// store as it comes back. Handles from before the crash keep their own content, so that a task of the crashed node
    /// that is still running cannot write to the store of its successor.
    #[must_use]
    pub fn crash(&self, loss: CrashLoss) -> Self {
        let content = self.content();
        let kept = match loss {
            CrashLoss::AllUnsynced => 0,
            CrashLoss::SomeUnsynced { seed } => SmallRng::seed_from_u64(seed).random_range(0..=content.unsynced.len()),
        };
        let mut map = content.durable.clone();
        for batch in content.unsynced.iter().take(kept) {
            apply(&mut map, batch);
        }
        let content = Content { durable: map.clone(), visible: map, ..Content::default() };
        Self { content: Arc::new(Mutex::new(content)) }
    }

    /// Lets `successes` more syncs succeed and every later one fail.
    pub fn fail_syncs_after(&self, successes: u64) {
        self.content().fail_sync_after = Some(successes);
    }

    /// Lets `successes` more writes succeed and every later one fail.
    pub fn fail_writes_after(&self, successes: u64) {
        self.content().fail_write_after = Some(successes);
    }

    /// How many syncs have succeeded.
    pub fn sync_count(&self) -> u64 {
        self.content().sync_count
    }

    /// How many batches would be lost by a crash now.
    pub fn unsynced_count(&self) -> usize {
        self.content().unsynced.len()
    }
}

fn apply(map: &mut Map, batch: &Batch) {
    for change in batch.changes() {
        let space = Arc::make_mut(map.entry(change.space).or_default());
        match &change.value {
            Some(value) => space.insert(change.key.clone(), value.clone()),
            None => space.remove(&change.key),
        };
    }
}

/// Counts one call down; says whether it must fail.
fn is_exhausted(budget: &mut Option<u64>) -> bool {
    match budget {
        None => false,
        Some(0) => true,
        Some(left) => {
            *left -= 1;
            false
        }
    }
}

impl KvView for Map {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        Ok(BTreeMap::get(self, &space).and_then(|space| space.get(key).cloned()))
    }

    fn scan(&self, space: Space, range: &KeyRange, visit: &mut Visit<'_>) -> Result<(), KvError> {
        let Some(space) = BTreeMap::get(self, &space) else {
            return Ok(());
        };
        if range.is_empty() {
            return Ok(());
        }
        for (key, value) in space.range::<[u8], _>(range.bounds()) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl KvView for MemoryKv {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        KvView::get(&self.content().visible, space, key)
    }

    fn scan(&self, space: Space, range: &KeyRange, visit: &mut Visit<'_>) -> Result<(), KvError> {
        let visible = self.content().visible.clone();
        visible.scan(space, range, visit)
    }
}

impl Kv for MemoryKv {
    fn write(&self, batch: Batch) -> Result<(), KvError> {
        let mut content = self.content();
        if is_exhausted(&mut content.fail_write_after) {
            return Err(KvError::Write { reason: "injected".to_owned() });
        }
        apply(&mut content.visible, &batch);
        content.unsynced.push(batch);
        Ok(())
    }

    fn sync(&self) -> Result<(), KvError> {
        let mut content = self.content();
        if is_exhausted(&mut content.fail_sync_after) {
            return Err(KvError::Sync { reason: "injected".to_owned() });
        }
        // Replayed rather than shared with `visible`: sharing would make the next write copy the whole map.
        for batch in std::mem::take(&mut content.unsynced) {
            apply(&mut content.durable, &batch);
        }
        content.sync_count += 1;
        Ok(())
    }

    fn snapshot(&self) -> Arc<dyn KvView> {
        Arc::new(self.content().visible.clone())
    }

    fn usage(&self) -> KvUsage {
        let content = self.content();
        let bytes = content
            .visible
            .values()
            .flat_map(|space| space.iter())
            .map(|(key, value)| u64::try_from(key.len() + value.len()).unwrap_or(u64::MAX))
            .sum();
        KvUsage { disk_bytes: bytes, memory_bytes: bytes }
    }
}
