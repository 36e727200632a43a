//! The chunk index in sled: single-key upserts of small values, nothing else of sled's.
//!
//! Rules, each for a known fault of sled 0.34: no transactions and no batches (both take a process-wide lock), values
//! far below the size that goes to unsynced blob files, `flush` followed by our own `fsync` of its log (its `flush`
//! is not one), a small cache instead of the default gigabyte, no background flusher, and every call behind
//! `catch_unwind`. What does not open, or panics, is moved aside by the store and rebuilt from segments.

use std::fs;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use super::{ChunkIndex, IndexError, IndexFactory, Stamp, decode_key, encode_key};
use crate::drive::location::Location;
use crate::ids::ChunkId;

/// Opening replays sled's log; anything longer than this is a hang (sled has known deadlocks while opening).
const OPEN_SECONDS_MAX: u64 = 120;

/// Not a chunk key: shorter than any.
const STAMP_KEY: &[u8] = b"stamp";

/// Opens a sled database in a directory of its own.
#[derive(Debug, Clone)]
pub struct SledIndexFactory {
    dir: PathBuf,
    cache_bytes: u64,
}

impl SledIndexFactory {
    /// The index in `dir` (usually `<drive>/chunks`), with a cache of `cache_bytes` (16 MiB is plenty).
    pub fn new(dir: impl Into<PathBuf>, cache_bytes: u64) -> Self {
        Self { dir: dir.into(), cache_bytes }
    }
}

fn guarded<T>(act: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, IndexError> {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(result) => result.map_err(|error| IndexError::Engine(error.to_string())),
        Err(_) => Err(IndexError::Panicked),
    }
}

fn io_error(error: &std::io::Error) -> IndexError {
    IndexError::Io(error.kind())
}

impl IndexFactory for SledIndexFactory {
    fn open(&self) -> Result<Box<dyn ChunkIndex>, IndexError> {
        let config = sled::Config::new().path(&self.dir).cache_capacity(self.cache_bytes).flush_every_ms(None);
        let (send, receive) = mpsc::channel();
        std::thread::Builder::new()
            .name("index-open".to_owned())
            .spawn(move || {
                // Nobody listens any more only after the timeout below.
                drop(send.send(guarded(|| config.open())));
            })
            .map_err(|error| io_error(&error))?;
        let opened = receive.recv_timeout(Duration::from_secs(OPEN_SECONDS_MAX));
        let db = opened.map_err(|_| IndexError::OpenTimeout(OPEN_SECONDS_MAX))??;
        Ok(Box::new(SledIndex { db, dir: self.dir.clone() }))
    }

    fn discard(&self) -> Result<(), IndexError> {
        if !self.dir.exists() {
            return Ok(());
        }
        // The newest bad one is kept for whoever wants to know why; older ones are not.
        let bad = self.dir.with_extension("bad");
        remove_dir(&bad)?;
        fs::rename(&self.dir, &bad).map_err(|error| io_error(&error))
    }
}

fn remove_dir(dir: &Path) -> Result<(), IndexError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error(&error)),
        _ => Ok(()),
    }
}

struct SledIndex {
    db: sled::Db,
    dir: PathBuf,
}

impl ChunkIndex for SledIndex {
    fn stamp(&self) -> Result<Option<Stamp>, IndexError> {
        match guarded(|| self.db.get(STAMP_KEY))? {
            None => Ok(None),
            Some(value) => value.as_ref().try_into().map(Some).map_err(|_| IndexError::Value),
        }
    }

    fn set_stamp(&self, stamp: Stamp) -> Result<(), IndexError> {
        guarded(|| self.db.insert(STAMP_KEY, &stamp[..])).map(drop)
    }

    fn get(&self, chunk: ChunkId) -> Result<Option<Location>, IndexError> {
        match guarded(|| self.db.get(encode_key(chunk)))? {
            None => Ok(None),
            Some(value) => Location::decode(&value).map(Some).ok_or(IndexError::Value),
        }
    }

    fn put(&self, chunk: ChunkId, location: Location) -> Result<(), IndexError> {
        guarded(|| self.db.insert(encode_key(chunk), &location.encode()[..])).map(drop)
    }

    fn remove(&self, chunk: ChunkId) -> Result<(), IndexError> {
        guarded(|| self.db.remove(encode_key(chunk))).map(drop)
    }

    fn scan(&self, after: Option<ChunkId>, limit: usize) -> Result<Vec<(ChunkId, Location)>, IndexError> {
        let from = after.map_or(Bound::Unbounded, |chunk| Bound::Excluded(encode_key(chunk)));
        let range = (from, Bound::Unbounded);
        let pairs: Vec<_> = guarded(|| {
            let entries = self.db.range::<[u8; 17], _>(range);
            entries.filter(|entry| !matches!(entry, Ok((key, _)) if key == STAMP_KEY)).take(limit).collect()
        })?;
        let decode = |(key, value): (sled::IVec, sled::IVec)| Some((decode_key(&key)?, Location::decode(&value)?));
        pairs.into_iter().map(|pair| decode(pair).ok_or(IndexError::Value)).collect()
    }

    fn sync(&self) -> Result<(), IndexError> {
        guarded(|| self.db.flush())?;
        let log = fs::File::open(self.dir.join("db")).map_err(|error| io_error(&error))?;
        log.sync_all().map_err(|error| io_error(&error))
    }

    fn size_bytes(&self) -> u64 {
        guarded(|| self.db.size_on_disk()).unwrap_or(0)
    }
}
