//! The real file system, through rustix.
//!
//! Segments are written with `O_DIRECT` and read through the page cache by a second descriptor, so that writes cost
//! no fresh pages and hot chunks are still cached; the kernel keeps the two coherent. Where direct I/O is refused
//! (tmpfs, some overlays) writes go through the page cache too. New segments are not pre-written with zeros: that
//! doubles the bytes written while a drive fills, and recycled segments overwrite written blocks anyway.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use super::{File, Files, Space};

/// The production form of [`Files`]. Holds nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsFiles;

impl OsFiles {
    /// The file system of this process.
    pub fn new() -> Self {
        Self
    }
}

struct OsFile {
    /// For reading, and for writing where direct I/O is refused.
    buffered: fs::File,
    direct: Option<OwnedFd>,
    /// Set when a file system accepted the flag but not the write.
    direct_refused: AtomicBool,
}

fn open_segment(path: &Path, extra: OFlags) -> io::Result<Arc<dyn File>> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | extra;
    let buffered = rustix::fs::open(path, flags, Mode::from_raw_mode(0o640))?;
    let direct = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC | OFlags::DIRECT, Mode::empty()).ok();
    Ok(Arc::new(OsFile { buffered: fs::File::from(buffered), direct, direct_refused: AtomicBool::new(false) }))
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

impl Files for OsFiles {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        open_segment(path, OFlags::CREATE | OFlags::EXCL)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        open_segment(path, OFlags::empty())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            // A name that is not UTF-8 is not ours.
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort();
        Ok(names)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        sync_dir(dir)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(Space {
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            available_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }

    fn read_small(&self, path: &Path, len_max: usize) -> io::Result<Option<Vec<u8>>> {
        use std::io::Read;
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        let limit = u64::try_from(len_max).unwrap_or(u64::MAX).saturating_add(1);
        file.take(limit).read_to_end(&mut bytes)?;
        if bytes.len() > len_max {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "file is longer than its format allows"));
        }
        Ok(Some(bytes))
    }

    fn write_small(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        use std::io::Write;
        let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        name.push(".new");
        let new = dir.join(name);
        let mut file = fs::File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        sync_dir(dir)
    }
}

impl File for OsFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        let (mut offset, mut rest) = (offset, bytes);
        while let (Some(direct), false) = (&self.direct, rest.is_empty() || self.direct_refused.load(Ordering::Relaxed))
        {
            match rustix::io::pwrite(direct, rest, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    // A short direct write leaves an offset that may no longer be aligned: finish it buffered.
                    rest = &rest[written..];
                    offset += written as u64;
                    if !written.is_multiple_of(crate::buffer::ALIGNMENT) {
                        break;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::INVAL) => self.direct_refused.store(true, Ordering::Relaxed),
                Err(error) => return Err(error.into()),
            }
        }
        self.buffered.write_all_at(rest, offset)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let mut filled = 0;
        while filled < into.len() {
            match self.buffered.read_at(&mut into[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.buffered.sync_data()
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.buffered, FallocateFlags::empty(), offset, len) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let end = offset.saturating_add(len);
                if self.len()? < end { self.buffered.set_len(end) } else { Ok(()) }
            }
            Err(error) => Err(error.into()),
        }
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&self.buffered, flags, offset, len)?)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.buffered.metadata()?.len())
    }

    fn allocated(&self) -> io::Result<u64> {
        // `st_blocks` counts 512-byte units whatever the file system's block size (stat(2)).
        Ok(self.buffered.metadata()?.blocks().saturating_mul(512))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::AlignedBuf;

    #[test]
    fn a_real_segment_is_written_read_punched_and_recycled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one");
        let files = OsFiles::new();
        let file = files.create(&path).unwrap();
        file.allocate(0, 1 << 20).unwrap();
        assert_eq!(file.len().unwrap(), 1 << 20);
        let mut buf = AlignedBuf::zeroed(8192);
        buf.fill(7);
        file.write_at(4096, &buf).unwrap();
        file.sync_data().unwrap();
        let mut back = vec![0; 10];
        assert_eq!(file.read_at(12_283, &mut back).unwrap(), 10);
        assert_eq!(back, [7, 7, 7, 7, 7, 0, 0, 0, 0, 0]);
        assert_eq!(file.read_at((1 << 20) - 4, &mut back).unwrap(), 4);
        // Some file systems cannot punch; then the bytes must still be there.
        let punched = file.punch_hole(4096, 4096).is_ok();
        file.read_at(4096, &mut back).unwrap();
        assert_eq!(back, [if punched { 0 } else { 7 }; 10]);
        files.rename(&path, &dir.path().join("two")).unwrap();
        files.sync_dir(dir.path()).unwrap();
        assert_eq!(files.list(dir.path()).unwrap(), ["two"]);
        assert!(files.open(&path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
        assert!(files.create(&dir.path().join("two")).is_err());
        assert!(files.space(dir.path()).unwrap().available_bytes > 0);
    }

    #[test]
    fn small_files_are_replaced_whole_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("small");
        let files = OsFiles::new();
        assert_eq!(files.read_small(&path, 10).unwrap(), None);
        files.write_small(&path, b"first").unwrap();
        files.write_small(&path, b"second").unwrap();
        assert_eq!(files.read_small(&path, 6).unwrap().unwrap(), b"second");
        assert!(files.read_small(&path, 5).is_err());
        assert_eq!(files.list(dir.path()).unwrap(), ["small"]);
    }
}
