//! The chunk index behind a port: chunk id → [`Location`].
//!
//! Only ever a rebuildable copy of what the segments say. It may forget everything since its last
//! [`ChunkIndex::sync`], but nothing before; the store replays the log from a checkpoint that it keeps itself.

pub mod memory;
pub mod sled;

use super::location::Location;
use crate::ids::{ChunkId, ExtentId};

pub use memory::MemoryIndexFactory;
pub use sled::SledIndexFactory;

/// Names an incarnation of the index, so that one that belongs to another checkpoint is recognised.
pub type Stamp = [u8; 16];

/// Why the index did not do what it should. The store's answer is always to rebuild it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// The engine reported an error.
    #[error("index engine: {0}")]
    Engine(String),
    /// The engine panicked; it is not used any more.
    #[error("index engine panicked")]
    Panicked,
    /// The engine did not open in time.
    #[error("index engine did not open within {0} seconds")]
    OpenTimeout(u64),
    /// A value that is not a location.
    #[error("index holds a damaged value")]
    Value,
    /// The operating system refused.
    #[error("index files: {0}")]
    Io(std::io::ErrorKind),
}

/// Opens the index of one drive.
pub trait IndexFactory: Send + Sync {
    /// Opens what is there, or an empty index.
    ///
    /// # Errors
    /// The index is unusable: [`IndexFactory::discard`] it and open again.
    fn open(&self) -> Result<Box<dyn ChunkIndex>, IndexError>;

    /// Moves what is there out of the way, so that the next [`IndexFactory::open`] finds nothing.
    ///
    /// # Errors
    /// The operating system refused.
    fn discard(&self) -> Result<(), IndexError>;
}

/// An open index. Point operations are idempotent and take effect at once; durable only after a later `sync`.
pub trait ChunkIndex: Send + Sync {
    /// The incarnation written by [`ChunkIndex::set_stamp`], if any.
    ///
    /// # Errors
    /// See [`IndexError`].
    fn stamp(&self) -> Result<Option<Stamp>, IndexError>;

    /// Names the incarnation.
    ///
    /// # Errors
    /// See [`IndexError`].
    fn set_stamp(&self, stamp: Stamp) -> Result<(), IndexError>;

    /// Where the chunk is.
    ///
    /// # Errors
    /// See [`IndexError`].
    fn get(&self, chunk: ChunkId) -> Result<Option<Location>, IndexError>;

    /// Remembers where the chunk is.
    ///
    /// # Errors
    /// See [`IndexError`].
    fn put(&self, chunk: ChunkId, location: Location) -> Result<(), IndexError>;

    /// Forgets the chunk.
    ///
    /// # Errors
    /// See [`IndexError`].
    fn remove(&self, chunk: ChunkId) -> Result<(), IndexError>;

    /// The next `limit` chunks after `after` in id order.
    ///
    /// # Errors
    /// See [`IndexError`].
    fn scan(&self, after: Option<ChunkId>, limit: usize) -> Result<Vec<(ChunkId, Location)>, IndexError>;

    /// Makes everything so far durable.
    ///
    /// # Errors
    /// See [`IndexError`].
    fn sync(&self) -> Result<(), IndexError>;

    /// Bytes that the index occupies; the store rebuilds it when they are far more than its entries need.
    fn size_bytes(&self) -> u64;
}

/// A chunk id as an index key: sorts as the id does.
pub(super) fn encode_key(chunk: ChunkId) -> [u8; 17] {
    let mut key = [0; 17];
    key[..16].copy_from_slice(chunk.extent.as_bytes());
    key[16] = chunk.slot;
    key
}

pub(super) fn decode_key(key: &[u8]) -> Option<ChunkId> {
    let key: &[u8; 17] = key.try_into().ok()?;
    Some(ChunkId { extent: ExtentId::from_bytes(*key.first_chunk()?), slot: key[16] })
}
