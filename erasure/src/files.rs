//! The seam between the drive store and the file system: few verbs, synchronous, no policy.
//!
//! [`os`] is the production form, [`sim`] a deterministic in-memory one that loses what was not synced. Paths are
//! whole paths; every file the store writes in place is a *segment* (aligned writes, random reads), everything else
//! is a small file replaced atomically.

pub mod os;
pub mod sim;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use os::OsFiles;
pub use sim::{SimFault, SimFiles, SimOp};

/// Size and room of the file system under a directory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Size of the file system.
    pub total_bytes: u64,
    /// What we may still allocate.
    pub available_bytes: u64,
}

/// A file system, or something that behaves like one.
///
/// Names survive a crash only after [`Files::sync_dir`] of their directory, bytes only after [`File::sync_data`].
pub trait Files: Send + Sync + 'static {
    /// Creates a segment file that must not exist yet, empty.
    ///
    /// # Errors
    /// As the operating system says.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens an existing segment file for reading and aligned writing.
    ///
    /// # Errors
    /// As the operating system says; `NotFound` if there is none.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Names of the entries of a directory, sorted.
    ///
    /// # Errors
    /// As the operating system says; `NotFound` if there is no such directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Creates a directory and its missing parents; one that exists is fine. Durable when the parent is synced.
    ///
    /// # Errors
    /// As the operating system says.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the operating system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Renames a file within a directory, replacing what has the new name.
    ///
    /// # Errors
    /// As the operating system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// As the operating system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Size and room of the file system under `dir`.
    ///
    /// # Errors
    /// As the operating system says.
    fn space(&self, dir: &Path) -> io::Result<Space>;

    /// Reads a small file whole; `None` if there is none. One longer than `len_max` is an error.
    ///
    /// # Errors
    /// As the operating system says; `InvalidData` if the file is longer than `len_max`.
    fn read_small(&self, path: &Path, len_max: usize) -> io::Result<Option<Vec<u8>>>;

    /// Replaces a small file: after a crash it has the old bytes or the new ones, and the new ones once this
    /// returned.
    ///
    /// # Errors
    /// As the operating system says; then either content may be there.
    fn write_small(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// How much longer the operations since the last call should have taken. The production form, whose operations
    /// take their time themselves, is never in debt; a simulated slow drive is, and its caller sleeps it off.
    fn take_debt(&self) -> Duration {
        Duration::ZERO
    }
}

/// An open segment file. Shared between threads; no cursor.
pub trait File: Send + Sync {
    /// Writes all of `bytes`. Offset, length and the address of `bytes` are multiples of 4096.
    ///
    /// # Errors
    /// As the operating system says; then any part may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Fills `into` from `offset` on; returns less than its length only at the end of the file. No alignment is
    /// needed.
    ///
    /// # Errors
    /// As the operating system says.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Makes the bytes written so far durable, and the file's length (`fdatasync`).
    ///
    /// # Errors
    /// As the operating system says. What was written since the last success may then be lost for good, even if a
    /// later call succeeds.
    fn sync_data(&self) -> io::Result<()>;

    /// Allocates room for a range, extending the file if need be; new bytes read as zero. Where the file system
    /// cannot, only the length is extended.
    ///
    /// # Errors
    /// As the operating system says, notably no space.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Gives the room of a range back; its bytes read as zero. Multiples of 4096.
    ///
    /// # Errors
    /// `Unsupported` where the file system cannot.
    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// As the operating system says.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// As [`File::len`].
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Room that the file occupies, in bytes; less than its length where there are holes.
    ///
    /// # Errors
    /// As the operating system says.
    fn allocated(&self) -> io::Result<u64>;
}

/// Whether an error says that there is no room (`ENOSPC`, `EDQUOT`) rather than that something is broken.
pub fn is_out_of_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
