//! State that was applied and is on its way to the store.
//!
//! The store takes batches one after the other, and a batch that comes during a sync waits for the drive. Applying does
//! not: it hands its batch to the drive's [`LogWriter`] and goes on. Until the batch is written, this module lays it over
//! the store for every reader of the group.
//!
//! Nothing is lost if the batch never arrives: it comes from agreed entries that stay in the synced log, and it reaches
//! the journal behind them, because log and state go through one queue.
//!
//! Invariants:
//! - batches are submitted by one task, in order, and leave in that order, each after it has become visible in the store;
//! - so the batches here, laid over a view of the store that is taken while none can leave, are the state after the newest
//!   of them, whatever part of them the store already shows.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::transaction::scan_over;
use crate::kv::{Batch, KeyRange, Kv, KvError, KvView, LogWriter, Space, Visit};

/// Bytes on their way above which applying waits, per group. Far more than one group applies during one sync; what may
/// add up is the log that a replica applies again after its start.
const BYTES_MAX: usize = 1 << 20;

/// The changes of one batch by key; none is a deletion.
type Layer = BTreeMap<Bytes, Option<Bytes>>;

#[derive(Default)]
struct Layers {
    /// Oldest first, each with the bytes of its batch.
    layers: VecDeque<(Arc<Layer>, usize)>,
    len: usize,
}

/// The store of a group's state with the batches that are on their way laid over it.
pub(super) struct Pending {
    kv: Arc<dyn Kv>,
    layers: Mutex<Layers>,
}

impl Pending {
    pub(super) fn new(kv: Arc<dyn Kv>) -> Self {
        Self { kv, layers: Mutex::default() }
    }

    fn layers(&self) -> MutexGuard<'_, Layers> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `batch`, all of it state, visible here at once, and sends it to the store. Waits only if very much is on its
    /// way. Called by one task at a time.
    ///
    /// # Errors
    /// The error that ended the writer. An error that comes later is found by the next call.
    pub(super) async fn submit(self: &Arc<Self>, writer: &LogWriter, batch: Batch) -> Result<(), KvError> {
        if let Some(failure) = writer.failure() {
            return Err(failure);
        }
        let is_full = self.layers().len >= BYTES_MAX;
        if is_full {
            writer.write(Batch::new()).await?;
        }
        let layer = batch.changes().iter().map(|change| (change.key.clone(), change.value.clone())).collect();
        {
            let mut layers = self.layers();
            layers.len += batch.len();
            layers.layers.push_back((Arc::new(layer), batch.len()));
        }
        let pending = Arc::downgrade(self);
        writer.submit_write(batch, move |result| {
            // What could not be written stays: the replica stops, and its last readers see what was answered.
            if let (Ok(()), Some(pending)) = (result, pending.upgrade()) {
                pending.forget_oldest();
            }
        });
        Ok(())
    }

    fn forget_oldest(&self) {
        let mut layers = self.layers();
        if let Some((_, len)) = layers.layers.pop_front() {
            layers.len -= len;
        }
    }

    /// The state of now, which later batches do not change.
    pub(super) fn frozen(&self) -> Frozen {
        // The lock keeps a batch from leaving between the two.
        let layers = self.layers();
        Frozen { view: self.kv.snapshot(), layers: layers.layers.iter().map(|(layer, _)| Arc::clone(layer)).collect() }
    }
}

impl KvView for Pending {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        if space == Space::State
            && let Some(value) = find(self.layers().layers.iter().map(|(layer, _)| layer), key)
        {
            return Ok(value);
        }
        // Not on its way: what has left since is in the store.
        self.kv.get(space, key)
    }

    fn scan(&self, space: Space, range: &KeyRange, visit: &mut Visit<'_>) -> Result<(), KvError> {
        let is_through = self.layers().layers.is_empty();
        if is_through { self.kv.scan(space, range, visit) } else { self.frozen().scan(space, range, visit) }
    }
}

/// The state of a group as it was at one moment.
pub(super) struct Frozen {
    view: Arc<dyn KvView>,
    /// Oldest first.
    layers: Vec<Arc<Layer>>,
}

impl KvView for Frozen {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        match find(self.layers.iter(), key).filter(|_| space == Space::State) {
            Some(value) => Ok(value),
            None => self.view.get(space, key),
        }
    }

    fn scan(&self, space: Space, range: &KeyRange, visit: &mut Visit<'_>) -> Result<(), KvError> {
        if range.is_empty() {
            return Ok(());
        }
        let mut changes = BTreeMap::new();
        if space == Space::State {
            for layer in &self.layers {
                changes.extend(layer.range::<[u8], _>(range.bounds()));
            }
        }
        let changes = changes.iter().map(|(key, value)| (&key[..], *value));
        scan_over(changes, |visit| self.view.scan(space, range, visit), visit)
    }
}

/// The newest change of `key`.
fn find<'l>(layers: impl DoubleEndedIterator<Item = &'l Arc<Layer>>, key: &[u8]) -> Option<Option<Bytes>> {
    layers.rev().find_map(|layer| layer.get(key).cloned())
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::kv::{Executor, LogMetrics, MemoryKv};

    type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

    fn pairs(view: &dyn KvView, range: &KeyRange) -> Pairs {
        let mut found = Vec::new();
        view.scan(Space::State, range, &mut |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
        found
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
    }

    proptest! {
        /// Batches in any state of travel: after some of them the writer is given time to write what it has.
        #[test]
        fn readers_see_every_batch_wherever_it_is(
            steps in vec((vec((0u8..8, proptest::option::of(any::<u8>())), 1..4), any::<bool>()), 1..12),
            frozen_at in 0usize..12,
            low in 0u8..8,
        ) {
            runtime().block_on(async {
                let kv: Arc<dyn Kv> = Arc::new(MemoryKv::new());
                let executor = Executor::Tasks { sync_delay: Duration::from_millis(1) };
                let writer = LogWriter::start(Arc::clone(&kv), executor, LogMetrics::unregistered()).unwrap();
                let pending = Arc::new(Pending::new(Arc::clone(&kv)));
                let mut map = BTreeMap::new();
                let mut frozen = None;
                let range = KeyRange { start: std::ops::Bound::Excluded(vec![low]), end: std::ops::Bound::Unbounded };
                let expect = |map: &BTreeMap<u8, u8>| -> Pairs {
                    map.range(low + 1..).map(|(key, value)| (vec![*key], vec![*value])).collect()
                };
                for (number, (changes, is_through)) in steps.into_iter().enumerate() {
                    let mut batch = Batch::new();
                    for (key, value) in changes {
                        match value {
                            Some(value) => { batch.put(Space::State, vec![key], vec![value]); map.insert(key, value); }
                            None => { batch.delete(Space::State, vec![key]); map.remove(&key); }
                        }
                    }
                    // Keeps the writer in a sync after its write, so that what follows stays on its way.
                    writer.submit(Batch::new(), |result| result.unwrap());
                    pending.submit(&writer, batch).await.unwrap();
                    if is_through {
                        writer.write(Batch::new()).await.unwrap();
                    }
                    if number == frozen_at {
                        frozen = Some((pending.frozen(), expect(&map)));
                    }
                    prop_assert_eq!(pairs(&*pending, &range), expect(&map));
                    for key in 0..8u8 {
                        let value = pending.get(Space::State, &[key]).unwrap();
                        prop_assert_eq!(value.as_deref(), map.get(&key).map(std::slice::from_ref));
                    }
                }
                writer.shutdown().await;
                prop_assert_eq!(pending.layers().layers.len(), 0);
                prop_assert_eq!(pairs(&*kv, &range), expect(&map));
                if let Some((frozen, expected)) = frozen {
                    prop_assert_eq!(pairs(&frozen, &range), expected);
                }
                Ok(())
            })?;
        }
    }

    #[test]
    fn state_is_readable_while_the_drive_syncs_and_reaches_the_store_behind_the_log() {
        runtime().block_on(async {
            let memory = MemoryKv::new();
            let kv: Arc<dyn Kv> = Arc::new(memory.clone());
            let executor = Executor::Tasks { sync_delay: Duration::from_secs(5) };
            let writer = LogWriter::start(Arc::clone(&kv), executor, LogMetrics::unregistered()).unwrap();
            let pending = Arc::new(Pending::new(Arc::clone(&kv)));
            let mut log = Batch::new();
            log.put(Space::Log, "entry", "1");
            let logged = writer.write_durably(log);
            let applied = async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let mut state = Batch::new();
                state.put(Space::State, "key", "1");
                pending.submit(&writer, state).await.unwrap();
                assert_eq!(pending.get(Space::State, b"key").unwrap().as_deref(), Some(&b"1"[..]));
                assert_eq!(kv.get(Space::State, b"key").unwrap(), None);
            };
            let begun = tokio::time::Instant::now();
            let (logged, ()) = futures_util::future::join(logged, applied).await;
            logged.unwrap();
            assert_eq!(begun.elapsed(), Duration::from_secs(5));
            writer.write(Batch::new()).await.unwrap();
            assert_eq!(kv.get(Space::State, b"key").unwrap().as_deref(), Some(&b"1"[..]));
            // Written, not synced: a crash may take the state, never the log under it.
            assert_eq!((memory.sync_count(), memory.unsynced_count()), (1, 1));
            writer.shutdown().await;
        });
    }
}
