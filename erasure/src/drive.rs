//! The drive store: chunks on one drive, durable when acknowledged, verified when read.
//!
//! A drive is a directory with append-only *segments* (the truth), an index of them and a checkpoint (both
//! rebuildable). One writer collects appends and deletions, writes them as one *frame* and makes them durable with
//! one `fdatasync`; reads go past it. What holds:
//!
//! - An acknowledged byte is never rewritten in place; frames start on 4 KiB boundaries.
//! - At most one frame is ever unsynced, so after a crash only the last one can be torn.
//! - The index never vouches for itself: from where the log must be replayed is our own record.
//! - A failed write or sync fails the drive at once: it goes read-only and nothing is retried.
//!
//! Deliberately absent: caching of payloads (the page cache does that), and any notion of objects.

mod catalogue;
mod checkpoint;
mod checkpointer;
mod compaction;
mod engine;
mod error;
mod executor;
mod frame;
mod identity;
pub mod index;
mod location;
mod metrics;
mod opening;
mod plan;
mod reader;
mod recovery;
mod segment;
mod status;
#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "test data is far below any bound")]
mod tests;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::RngCore;

use crate::buffer::BufferPool;
use crate::chunk::{ChunkHeader, SealedChunk};
use crate::files::Files;
use crate::ids::{ChunkId, Scheme};

pub use error::{DriveError, FailReason, OpenError};
pub use executor::Executor;
pub use identity::DriveIdentity;
pub use location::Location;
pub use metrics::DriveMetrics;
pub use recovery::{CorruptRegion, RebuildReason, RecoveryReport};
pub use status::{DriveState, DriveStatus};

use executor::{Handle, Request};
use index::IndexFactory;

/// Most chunks that one tombstone frame is asked to hold; longer deletions are split.
const DELETE_CHUNKS_MAX: usize = 1024;

/// Room kept for tombstones, healing and moving chunks: ordinary appends stop before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserve {
    /// Share of the capacity, in percent. Default 5.
    pub percent: u8,
    /// At least this many bytes. Default 1 GiB.
    pub bytes_min: u64,
}

/// How a drive works. [`DriveConfig::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct DriveConfig {
    /// The drive's directory.
    pub dir: PathBuf,
    /// Who the drive should be.
    pub identity: DriveIdentity,
    /// Length of a segment in bytes, a multiple of 4096, at least 64 KiB. Default 1 GiB. Segments written under another
    /// length stay readable.
    pub segment_len: u32,
    /// Room is allocated in steps of so many bytes, a multiple of 4096. Default 64 MiB.
    pub allocate_step: u32,
    /// A commit stops collecting at so many bytes. Default 16 MiB. Bounds what is lost to one failed write.
    pub commit_bytes_max: u64,
    /// A commit stops collecting at so many requests. Default 1024.
    pub commit_requests_max: usize,
    /// Requests that may wait for the writer, and as many for the readers, before callers wait. Default 1024.
    pub queue_len: usize,
    /// Bytes that may wait for the writer before callers wait. Default 64 MiB. A drive that hangs holds no more of what
    /// its callers have given up on.
    pub queue_bytes: u32,
    /// Room kept from ordinary appends.
    pub reserve: Reserve,
    /// Bytes the drive may use at most; `None`: what the file system has.
    pub capacity_bytes: Option<u64>,
    /// The index is brought up to date after so many changes. Default 16,384 (about 2 MiB of memory).
    pub checkpoint_changes: usize,
    /// The index is brought up to date after so many bytes of log. Default 256 MiB. Bounds what a restart replays.
    pub checkpoint_bytes: u64,
    /// A segment is compacted when at most this share of the room it occupies is live, in percent. Default 50.
    pub compact_live_percent: u8,
    /// Emptied segments kept for reuse. Default 2.
    pub spare_segments: usize,
    /// A drive whose operations take longer than this counts as slow. Default 500 ms.
    pub slow_after: Duration,
    /// Where read buffers come from; share one among the drives of a node.
    pub pool: BufferPool,
    /// Seed of the few random choices (index stamps, samples).
    pub seed: u64,
}

impl DriveConfig {
    /// The defaults for the drive `identity` in `dir`.
    pub fn new(dir: impl Into<PathBuf>, identity: DriveIdentity, pool: BufferPool, seed: u64) -> Self {
        Self {
            dir: dir.into(),
            identity,
            segment_len: 1 << 30,
            allocate_step: 64 << 20,
            commit_bytes_max: 16 << 20,
            commit_requests_max: 1024,
            queue_len: 1024,
            queue_bytes: 64 << 20,
            reserve: Reserve { percent: 5, bytes_min: 1 << 30 },
            capacity_bytes: None,
            checkpoint_changes: 16_384,
            checkpoint_bytes: 256 << 20,
            compact_live_percent: 50,
            spare_segments: 2,
            slow_after: Duration::from_millis(500),
            pool,
            seed,
        }
    }

    fn check(&self) -> Result<(), OpenError> {
        let aligned = |len: u32| len > 0 && len.is_multiple_of(frame::FRAME_ALIGN);
        let rules = [
            (aligned(self.segment_len) && self.segment_len >= 64 << 10, "segment_len: a multiple of 4 KiB from 64 KiB"),
            (aligned(self.allocate_step), "allocate_step: a multiple of 4 KiB"),
            (self.queue_len > 0, "queue_len: at least 1"),
            (self.queue_bytes > 0, "queue_bytes: at least 1"),
            (self.commit_requests_max > 0 && self.commit_requests_max <= 2048, "commit_requests_max: 1 to 2048"),
            (self.reserve.percent < 100, "reserve.percent: less than 100"),
            (self.compact_live_percent <= 95, "compact_live_percent: at most 95"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(OpenError::Config(rule)),
            None => Ok(()),
        }
    }
}

/// On whose behalf bytes are appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendClass {
    /// A client: refused when only the reserve is left.
    Client,
    /// Healing or moving: may use the reserve.
    Heal,
}

/// Verified bytes of a chunk.
#[derive(Debug, Clone)]
pub struct ChunkRead {
    /// How the chunk's extent was cut.
    pub scheme: Scheme,
    /// Length of the extent in bytes.
    pub extent_len: u32,
    /// Length of the chunk's whole payload in bytes.
    pub payload_len: u32,
    /// The bytes asked for.
    pub bytes: Bytes,
}

/// An open drive. A handle: clone it, use it from any thread or runtime. When the last one is dropped without
/// [`Drive::close`] the writer stops as in a crash: nothing acknowledged is lost, but the next start replays.
#[derive(Clone)]
pub struct Drive {
    handle: Arc<Handle>,
}

impl Drive {
    /// Makes a directory a drive. Durable on return.
    ///
    /// # Errors
    /// [`OpenError::AlreadyFormatted`] names the drive it already is.
    pub fn format(
        files: &dyn Files,
        dir: &Path,
        identity: DriveIdentity,
        rng: &mut dyn RngCore,
    ) -> Result<(), OpenError> {
        identity::format(files, dir, identity, rng)
    }

    /// Who the drive in a directory is.
    ///
    /// # Errors
    /// [`OpenError::Blank`] if it is none; damaged or newer ones are told apart.
    pub fn identify(files: &dyn Files, dir: &Path) -> Result<DriveIdentity, OpenError> {
        identity::load(files, dir).map(|stored| stored.identity)
    }

    /// Opens a drive: opens or rebuilds its index, replays the log behind the checkpoint, cuts a torn tail. Blocks for
    /// as long as that takes: milliseconds after an orderly close, a scan of all frame tables when the index is
    /// rebuilt. With [`Executor::Tasks`], call it within a tokio runtime.
    ///
    /// # Errors
    /// The directory is not that drive, is of a newer format, or cannot be read or written.
    pub fn open(
        config: DriveConfig,
        files: Arc<dyn Files>,
        index: Box<dyn IndexFactory>,
        executor: Executor,
        metrics: DriveMetrics,
    ) -> Result<Self, OpenError> {
        config.check()?;
        let opened = opening::open(config, files, index, &executor, metrics)?;
        Ok(Self { handle: Arc::new(executor::start(opened, executor)?) })
    }

    /// Stores a client's chunk; see [`Drive::append_as`].
    ///
    /// # Errors
    /// See [`Drive::append_as`].
    pub async fn append(&self, chunk: SealedChunk) -> Result<(), DriveError> {
        self.append_as(chunk, AppendClass::Client).await
    }

    /// Stores a chunk, durable on return. A chunk id that the drive holds already is left as it is (to replace a
    /// damaged chunk, delete it first). The payload is taken as sealed; it is not hashed again. Dropping the future
    /// leaves it open whether the chunk is stored.
    ///
    /// # Errors
    /// [`DriveError::Full`] and [`DriveError::TooLarge`]: nothing was stored. [`DriveError::Failed`]: unknown until
    /// the drive is opened again.
    pub async fn append_as(&self, chunk: SealedChunk, class: AppendClass) -> Result<(), DriveError> {
        let started = tokio::time::Instant::now();
        self.handle.change(Request::Append { chunk, class }).await?;
        self.handle.shared.vitals.record_append(started.elapsed());
        Ok(())
    }

    /// Reads and verifies a range of a chunk's payload, whole blocks from the drive at a time. Dropping the future
    /// wastes the read, nothing else.
    ///
    /// # Errors
    /// [`DriveError::NotFound`], [`DriveError::Corrupt`], [`DriveError::Read`], [`DriveError::OutOfRange`].
    pub async fn read(&self, chunk: ChunkId, range: Range<u32>) -> Result<ChunkRead, DriveError> {
        let started = tokio::time::Instant::now();
        let read = self.handle.read(move |reader| reader.read(chunk, range)).await?;
        self.handle.shared.vitals.record_read(started.elapsed());
        Ok(read)
    }

    /// Deletes chunks, durable on return; those the drive does not hold are fine. Dropping the future leaves it open
    /// whether they are deleted.
    ///
    /// # Errors
    /// [`DriveError::Failed`]: unknown until the drive is opened again.
    pub async fn delete(&self, chunks: &[ChunkId]) -> Result<(), DriveError> {
        for part in chunks.chunks(DELETE_CHUNKS_MAX) {
            self.handle.change(Request::Delete { chunks: part.to_vec() }).await?;
        }
        Ok(())
    }

    /// Whether the drive holds the chunk, by its index alone.
    ///
    /// # Errors
    /// [`DriveError::IndexUnavailable`].
    pub async fn contains(&self, chunk: ChunkId) -> Result<bool, DriveError> {
        self.handle.read(move |reader| reader.contains(chunk)).await
    }

    /// What the chunk says about itself, read from the drive; `None` if the drive does not hold it.
    ///
    /// # Errors
    /// As [`Drive::read`].
    pub async fn head(&self, chunk: ChunkId) -> Result<Option<ChunkHeader>, DriveError> {
        self.handle.read(move |reader| reader.head(chunk)).await
    }

    /// The next chunks after `after` in id order with their payload lengths, at most `limit`; fewer only at the end.
    /// Not a snapshot: chunks that come or go meanwhile may or may not be seen.
    ///
    /// # Errors
    /// [`DriveError::IndexUnavailable`].
    pub async fn scan(&self, after: Option<ChunkId>, limit: usize) -> Result<Vec<(ChunkId, u32)>, DriveError> {
        self.handle.read(move |reader| reader.scan(after, limit)).await
    }

    /// Reads the whole chunk from the drive and verifies every block.
    ///
    /// # Errors
    /// As [`Drive::read`].
    pub async fn verify(&self, chunk: ChunkId) -> Result<(), DriveError> {
        self.handle.read(move |reader| reader.verify(chunk)).await
    }

    /// How the drive is doing. Takes no lock and makes no system call unless the drive has failed.
    pub fn status(&self) -> DriveStatus {
        self.handle.shared.vitals.status()
    }

    /// Who the drive is.
    pub fn identity(&self) -> DriveIdentity {
        self.handle.identity
    }

    /// What opening the drive found.
    pub fn recovery(&self) -> &RecoveryReport {
        &self.handle.report
    }

    /// Brings index and checkpoint up to date now. Happens by itself; for tests and before planned restarts.
    ///
    /// # Errors
    /// [`DriveError::Failed`], [`DriveError::Closed`].
    pub async fn checkpoint(&self) -> Result<(), DriveError> {
        self.handle.checkpoint().await
    }

    /// Compacts until no segment is worth it. Happens by itself when the writer is idle; for tests and operators.
    ///
    /// # Errors
    /// [`DriveError::Failed`], [`DriveError::Closed`], [`DriveError::Full`] when there is no room to move chunks.
    pub async fn compact(&self) -> Result<(), DriveError> {
        self.handle.compact().await
    }

    /// Finishes what is queued, writes a clean checkpoint and ends the drive's threads or tasks. Later calls answer
    /// [`DriveError::Closed`]. Dropping the future does not stop the closing.
    ///
    /// # Errors
    /// [`DriveError::Failed`]: the drive had failed or fails now; it is closed nevertheless.
    pub async fn close(&self) -> Result<(), DriveError> {
        self.handle.close().await
    }
}
