//! Bytes at rest: schemes, the chunk format and the drive store.
//!
//! This crate knows nothing of nodes, networks or objects: it cuts extents into chunks ([`codec`]), says what a
//! chunk looks like on the wire and on disk ([`chunk`]), and keeps chunks on one drive ([`drive`]) through a
//! replaceable view of the file system ([`files`]). What is true about objects is decided elsewhere.

pub mod buffer;
pub mod chunk;
pub mod codec;
pub mod drive;
pub mod files;
pub mod ids;

pub use buffer::{AlignedBuf, BufferPool};
pub use chunk::{ChunkHeader, DecodeChunkError, Owner, SealError, SealedChunk};
pub use codec::{Codec, CodecError, Codecs, UnsupportedCpu, check_cpu};
pub use drive::{
    AppendClass, ChunkRead, Drive, DriveConfig, DriveError, DriveIdentity, DriveMetrics, DriveState, DriveStatus,
    Executor, OpenError, RecoveryReport,
};
pub use ids::{ChunkId, DriveId, ExtentId, Scheme};
