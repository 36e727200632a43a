//! Everything of one simulated node that outlives its process: files, key-value stores, chunk indexes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use drystone_cluster::kv::{CrashLoss, Kv, KvError, MemoryKv};
use drystone_erasure::drive::index::{IndexFactory, MemoryIndexFactory};
use drystone_erasure::files::SimFiles;
use rand::Rng;
use rand::rngs::StdRng;

/// The drives of one node. A handle: clones share them.
#[derive(Clone)]
pub struct Disk {
    files: SimFiles,
    stores: Arc<Mutex<BTreeMap<PathBuf, MemoryKv>>>,
    indexes: Arc<Mutex<BTreeMap<PathBuf, MemoryIndexFactory>>>,
}

impl Disk {
    /// Empty drives whose luck in crashes follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { files: SimFiles::new(seed), stores: Arc::default(), indexes: Arc::default() }
    }

    /// The files, for the test itself: injects faults, outlives crashes.
    #[must_use]
    pub fn files(&self) -> &SimFiles {
        &self.files
    }

    /// Opens the store of a directory, or makes an empty one.
    pub(super) fn open_kv(&self, dir: &Path) -> Result<Arc<dyn Kv>, KvError> {
        Ok(Arc::new(lock(&self.stores).entry(dir.to_owned()).or_default().clone()))
    }

    /// The chunk index of a drive.
    pub(super) fn chunk_index(&self, drive: &Path) -> Box<dyn IndexFactory> {
        Box::new(lock(&self.indexes).entry(drive.to_owned()).or_default().clone())
    }

    /// Loses power. The process must be gone. Returns how many batches of the stores were not synced.
    pub(super) fn crash(&self, rng: &mut StdRng) -> usize {
        self.files.crash();
        let mut unsynced_count = 0;
        for store in lock(&self.stores).values_mut() {
            unsynced_count += store.unsynced_count();
            let loss = match rng.random::<bool>() {
                true => CrashLoss::AllUnsynced,
                false => CrashLoss::SomeUnsynced { seed: rng.random() },
            };
            *store = store.crash(loss);
        }
        lock(&self.indexes).values().for_each(MemoryIndexFactory::crash);
        unsynced_count
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
