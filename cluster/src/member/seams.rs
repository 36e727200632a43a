//! The outside world of a member: sockets, files, stores, time and randomness. Production and simulation differ only
//! here.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use drystone_erasure::drive::index::IndexFactory;
use drystone_erasure::files::Files;
use drystone_transport::BoundSocket;

use crate::kv::{self, Kv, KvError};
use crate::seams::{Randomness, WallClock};

/// Opens the key-value store in a directory, making it if it is not there.
pub type OpenKv = Arc<dyn Fn(&Path) -> Result<Arc<dyn Kv>, KvError> + Send + Sync>;
/// The chunk index of a drive's directory.
pub type OpenChunkIndex = Arc<dyn Fn(&Path) -> Box<dyn IndexFactory> + Send + Sync>;
/// Binds a UDP socket for outgoing connections of one worker.
pub type BindClient = Arc<dyn Fn(SocketAddr) -> std::io::Result<BoundSocket> + Send + Sync>;

/// Everything a member touches besides its own memory.
#[derive(Clone)]
pub struct Seams {
    /// Files of the state directory and of all drives.
    pub files: Arc<dyn Files>,
    /// The consensus and index store of a directory.
    pub open_kv: OpenKv,
    /// The rebuildable chunk index of a drive.
    pub chunk_index: OpenChunkIndex,
    /// Where drives and log writers run.
    pub executor: Executor,
    /// Binds the sockets that workers dial from.
    pub bind_client: BindClient,
    /// Time of day.
    pub clock: Arc<dyn WallClock>,
    /// Ids, jitter.
    pub randomness: Randomness,
    /// Seeds QUIC's own randomness; `None` takes the system's. Simulations set it.
    pub quic_seed: Option<u64>,
}

/// Threads that read from one drive. Two keep a reader that waits for the device from holding up one whose bytes are
/// cached.
const READERS_PER_DRIVE: usize = 2;

/// Whether blocking work has threads of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Executor {
    /// A writer thread and a few readers per drive, a log thread per store. Production.
    Threads,
    /// Tasks of the current runtime. Simulation.
    Tasks,
}

impl Executor {
    pub(super) fn of_drives(self) -> drystone_erasure::Executor {
        match self {
            Self::Threads => drystone_erasure::Executor::Threads { readers: READERS_PER_DRIVE },
            Self::Tasks => drystone_erasure::Executor::Tasks,
        }
    }

    pub(super) fn of_logs(self) -> kv::Executor {
        match self {
            Self::Threads => kv::Executor::Threads,
            Self::Tasks => kv::Executor::Tasks { sync_delay: std::time::Duration::from_millis(1) },
        }
    }
}

/// The port's clock as the transport wants it, for certificate validity.
#[derive(Clone)]
pub(super) struct TransportClock(pub(super) Arc<dyn WallClock>);

impl std::fmt::Debug for TransportClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TransportClock")
    }
}

impl drystone_transport::WallClock for TransportClock {
    fn now(&self) -> std::time::SystemTime {
        std::time::UNIX_EPOCH + std::time::Duration::from_millis(self.0.now_ms())
    }
}
