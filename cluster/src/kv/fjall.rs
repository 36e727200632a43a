//! The production form of the port: one fjall database per drive.
//!
//! Log and state are separate keyspaces: deleted log ranges then never slow down reads of state, and compaction of one
//! leaves the other alone. Both share one journal, so a batch across them is atomic and a sync covers both. Writes reach
//! the operating system only; [`Kv::sync`] is `fdatasync` of the journal.
//!
//! Not used on purpose: `clear()` (not journal-safe) and key-value separation.

use std::path::Path;
use std::sync::Arc;

use ::fjall::config::{CompressionPolicy, PinningPolicy};
use ::fjall::{Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};
use bytes::Bytes;

use super::{Batch, KeyRange, Kv, KvError, KvUsage, KvView, Space, Visit, journal};

/// How much memory and how many threads a [`FjallKv`] may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FjallConfig {
    /// Block cache in bytes; default 10 MiB, so that three databases stay near 32 MiB.
    pub cache_bytes: u64,
    /// Write buffer of each of the two keyspaces in bytes; default 8 MiB. Worst case in memory: about three times that
    /// per keyspace while a flush runs.
    pub memtable_bytes: u64,
    /// Journal bytes that force a flush; default and minimum 64 MiB. Bounds the replay at start.
    pub journal_bytes_max: u64,
    /// Background threads for flushes and compactions; default 1.
    pub worker_threads: usize,
}

impl Default for FjallConfig {
    fn default() -> Self {
        Self { cache_bytes: 10 << 20, memtable_bytes: 8 << 20, journal_bytes_max: 64 << 20, worker_threads: 1 }
    }
}

/// A [`Kv`] on a directory.
pub struct FjallKv {
    database: Database,
    log: Keyspace,
    state: Keyspace,
}

impl FjallKv {
    /// Opens the database in `path`, making it if it does not exist. A torn end of the newest journal is cut; a torn end
    /// of an older one is damage.
    ///
    /// # Errors
    /// [`KvError::Open`]: the directory cannot be used, is locked by another process, or is damaged.
    pub fn open(path: &Path, config: &FjallConfig) -> Result<Self, KvError> {
        let failed =
            |error: ::fjall::Error| KvError::Open { path: path.display().to_string(), reason: error.to_string() };
        journal::prepare(path)
            .map_err(|error| KvError::Open { path: path.display().to_string(), reason: error.to_string() })?;
        let database = Database::builder(path)
            .cache_size(config.cache_bytes)
            .worker_threads(config.worker_threads.max(1))
            .max_journaling_size(config.journal_bytes_max.max(64 << 20))
            .open()
            .map_err(failed)?;
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(config.memtable_bytes)
                .data_block_compression_policy(CompressionPolicy::disabled())
                .index_block_pinning_policy(PinningPolicy::all(false))
                .filter_block_pinning_policy(PinningPolicy::all(false))
        };
        let log = database.keyspace("log", options).map_err(failed)?;
        let state = database.keyspace("state", options).map_err(failed)?;
        Ok(Self { database, log, state })
    }

    fn keyspace(&self, space: Space) -> &Keyspace {
        match space {
            Space::Log => &self.log,
            Space::State => &self.state,
        }
    }
}

fn read_failed(error: &::fjall::Error) -> KvError {
    KvError::Read { reason: error.to_string() }
}

fn visit_all(items: impl Iterator<Item = Guard>, visit: &mut Visit<'_>) -> Result<(), KvError> {
    for item in items {
        let (key, value) = item.into_inner().map_err(|error| read_failed(&error))?;
        if visit(&key, &value).is_break() {
            break;
        }
    }
    Ok(())
}

impl KvView for FjallKv {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        let value = self.keyspace(space).get(key).map_err(|error| read_failed(&error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, space: Space, range: &KeyRange, visit: &mut Visit<'_>) -> Result<(), KvError> {
        if range.is_empty() {
            return Ok(());
        }
        visit_all(self.keyspace(space).range::<&[u8], _>(range.bounds()), visit)
    }
}

impl Kv for FjallKv {
    fn write(&self, batch: Batch) -> Result<(), KvError> {
        let mut write = self.database.batch().durability(Some(PersistMode::Buffer));
        for change in batch.into_changes() {
            let keyspace = self.keyspace(change.space);
            match change.value {
                Some(value) => write.insert(keyspace, &change.key[..], &value[..]),
                None => write.remove(keyspace, &change.key[..]),
            }
        }
        write.commit().map_err(|error| KvError::Write { reason: error.to_string() })
    }

    fn sync(&self) -> Result<(), KvError> {
        self.database.persist(PersistMode::SyncData).map_err(|error| KvError::Sync { reason: error.to_string() })
    }

    fn snapshot(&self) -> Arc<dyn KvView> {
        Arc::new(FjallSnapshot { snapshot: self.database.snapshot(), log: self.log.clone(), state: self.state.clone() })
    }

    fn usage(&self) -> KvUsage {
        KvUsage {
            disk_bytes: self.database.disk_space().unwrap_or_default(),
            memory_bytes: self.database.write_buffer_size() + self.database.cache_size(),
        }
    }
}

struct FjallSnapshot {
    snapshot: ::fjall::Snapshot,
    log: Keyspace,
    state: Keyspace,
}

impl FjallSnapshot {
    fn keyspace(&self, space: Space) -> &Keyspace {
        match space {
            Space::Log => &self.log,
            Space::State => &self.state,
        }
    }
}

impl KvView for FjallSnapshot {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        let value = self.snapshot.get(self.keyspace(space), key).map_err(|error| read_failed(&error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, space: Space, range: &KeyRange, visit: &mut Visit<'_>) -> Result<(), KvError> {
        if range.is_empty() {
            return Ok(());
        }
        visit_all(self.snapshot.range::<&[u8], _>(self.keyspace(space), range.bounds()), visit)
    }
}
