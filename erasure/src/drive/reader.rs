//! Reading chunks: find, read, verify. Synchronous; runs on reader threads, or inline in simulation.
//!
//! A chunk may be deleted, moved or its segment recycled between finding and reading it. What is then read does not
//! verify; so damage is only reported after looking again and finding the chunk at the same place.

use std::ops::Range;
use std::sync::Arc;

use super::ChunkRead;
use super::catalogue::Catalogue;
use super::error::DriveError;
use super::location::Location;
use super::metrics::DriveMetrics;
use super::segment::Segments;
use super::status::Vitals;
use crate::buffer::BufferPool;
use crate::chunk::{BLOCK_LEN, ChunkHead, ChunkHeader};
use crate::ids::{ChunkId, DriveId};

/// Bytes read in vain to get head and payload with one read instead of two.
const WASTE_MAX: u32 = 64 * 1024;
/// A chunk that moves this often during one read is not worth chasing.
const ATTEMPTS: usize = 4;

/// What the writer and the readers of a drive share.
pub(super) struct Shared {
    pub(super) drive: DriveId,
    pub(super) segments: Arc<Segments>,
    pub(super) catalogue: Catalogue,
    pub(super) vitals: Vitals,
    pub(super) metrics: DriveMetrics,
    pub(super) pool: BufferPool,
}

/// What one attempt found wrong.
enum Trouble {
    Damaged(Option<u32>),
    Io(std::io::ErrorKind),
    Range(DriveError),
}

impl Shared {
    fn lookup(&self, chunk: ChunkId) -> Result<Option<Location>, DriveError> {
        let unavailable = DriveError::IndexUnavailable(self.drive);
        if self.catalogue.is_broken() {
            return Err(unavailable);
        }
        self.catalogue.get(chunk).map_err(|_| unavailable)
    }

    pub(super) fn contains(&self, chunk: ChunkId) -> Result<bool, DriveError> {
        Ok(self.lookup(chunk)?.is_some())
    }

    pub(super) fn scan(&self, after: Option<ChunkId>, limit: usize) -> Result<Vec<(ChunkId, u32)>, DriveError> {
        let unavailable = DriveError::IndexUnavailable(self.drive);
        if self.catalogue.is_broken() {
            return Err(unavailable);
        }
        let found = self.catalogue.scan(after, limit).map_err(|_| unavailable)?;
        Ok(found.into_iter().map(|(chunk, location)| (chunk, location.payload_len)).collect())
    }

    pub(super) fn read(&self, chunk: ChunkId, range: Range<u32>) -> Result<ChunkRead, DriveError> {
        let read = self.attempt(chunk, |location| self.read_at(chunk, location, range.clone()))?;
        let Some(read) = read else {
            self.metrics.missing_reads.inc();
            return Err(DriveError::NotFound { drive: self.drive, chunk });
        };
        self.metrics.read_bytes.inc_by(read.bytes.len() as u64);
        Ok(read)
    }

    pub(super) fn verify(&self, chunk: ChunkId) -> Result<(), DriveError> {
        let whole = |location: &Location| self.read_at(chunk, location, 0..location.payload_len);
        match self.attempt(chunk, whole)? {
            Some(_) => Ok(()),
            None => Err(DriveError::NotFound { drive: self.drive, chunk }),
        }
    }

    pub(super) fn head(&self, chunk: ChunkId) -> Result<Option<ChunkHeader>, DriveError> {
        self.attempt(chunk, |location| self.read_head(chunk, location).map(|head| head.header))
    }

    fn attempt<T>(
        &self,
        chunk: ChunkId,
        act: impl Fn(&Location) -> Result<T, Trouble>,
    ) -> Result<Option<T>, DriveError> {
        let Some(mut location) = self.lookup(chunk)? else {
            return Ok(None);
        };
        for _ in 0..ATTEMPTS {
            let trouble = match act(&location) {
                Ok(found) => return Ok(Some(found)),
                Err(Trouble::Range(error)) => return Err(error),
                Err(trouble) => trouble,
            };
            match self.lookup(chunk)? {
                None => return Ok(None),
                Some(now) if now != location => location = now,
                Some(_) => return Err(self.report(chunk, trouble)),
            }
        }
        Err(DriveError::Read { drive: self.drive, chunk, kind: std::io::ErrorKind::ResourceBusy })
    }

    fn report(&self, chunk: ChunkId, trouble: Trouble) -> DriveError {
        match trouble {
            Trouble::Damaged(block) => {
                self.vitals.count_corrupt_read();
                DriveError::Corrupt { drive: self.drive, chunk, block }
            }
            Trouble::Io(kind) => {
                self.vitals.count_read_error();
                DriveError::Read { drive: self.drive, chunk, kind }
            }
            Trouble::Range(error) => error,
        }
    }

    fn fill(&self, location: &Location, offset: u32, into: &mut [u8]) -> Result<(), Trouble> {
        let segment = self.segments.get(location.segment).ok_or(Trouble::Damaged(None))?;
        match segment.file.read_at(u64::from(offset), into) {
            Ok(read) if read == into.len() => Ok(()),
            Ok(_) => Err(Trouble::Damaged(None)),
            Err(error) => Err(Trouble::Io(error.kind())),
        }
    }

    fn read_head(&self, chunk: ChunkId, location: &Location) -> Result<ChunkHead, Trouble> {
        let mut buf = self.pool.take(usize::from(location.head_len));
        self.fill(location, location.head_offset, &mut buf)?;
        check_head(chunk, location, &buf)
    }

    fn read_at(&self, chunk: ChunkId, location: &Location, range: Range<u32>) -> Result<ChunkRead, Trouble> {
        let payload_len = location.payload_len;
        if !location.is_plausible() {
            return Err(Trouble::Damaged(None));
        }
        if range.start > range.end || range.end > payload_len {
            let Range { start, end } = range;
            return Err(Trouble::Range(DriveError::OutOfRange { chunk, start, end, payload_len }));
        }
        let first = range.start / BLOCK_LEN;
        let blocks_start = first * BLOCK_LEN;
        let blocks_end = range.end.next_multiple_of(BLOCK_LEN).min(payload_len).max(blocks_start);
        let gap = location.payload_offset + blocks_start - location.head_offset - u32::from(location.head_len);
        let (head, buf, skip) = if gap <= WASTE_MAX {
            let skip = (location.payload_offset + blocks_start - location.head_offset) as usize;
            let mut buf = self.pool.take(skip + (blocks_end - blocks_start) as usize);
            self.fill(location, location.head_offset, &mut buf)?;
            (check_head(chunk, location, &buf[..usize::from(location.head_len)])?, buf, skip)
        } else {
            let mut buf = self.pool.take((blocks_end - blocks_start) as usize);
            self.fill(location, location.payload_offset + blocks_start, &mut buf)?;
            (self.read_head(chunk, location)?, buf, 0)
        };
        if let Some(block) = head.find_bad_block(first, &buf[skip..]) {
            return Err(Trouble::Damaged(Some(block)));
        }
        let start = skip + (range.start - blocks_start) as usize;
        let bytes = buf.freeze().slice(start..start + (range.end - range.start) as usize);
        Ok(ChunkRead { scheme: head.header.scheme, extent_len: head.header.extent_len, payload_len, bytes })
    }

    /// Whether head and payload at `location` are whole; for what may have been torn.
    ///
    /// # Errors
    /// They cannot be read, so nobody knows.
    pub(super) fn is_whole(&self, chunk: ChunkId, location: &Location) -> std::io::Result<bool> {
        match self.read_at(chunk, location, 0..location.payload_len) {
            Ok(_) => Ok(true),
            Err(Trouble::Io(kind)) => Err(kind.into()),
            Err(Trouble::Damaged(_) | Trouble::Range(_)) => Ok(false),
        }
    }

    /// Whether the head at `location` is that of `chunk`; `None` if it cannot be read.
    pub(super) fn head_matches(&self, chunk: ChunkId, location: &Location) -> Option<bool> {
        match self.read_head(chunk, location) {
            Ok(_) => Some(true),
            Err(Trouble::Io(_)) => None,
            Err(_) => Some(false),
        }
    }

    /// Head and payload as they lie there, verified or not: what a move copies. `None` if they cannot be read.
    pub(super) fn read_raw(&self, location: &Location) -> Option<(bytes::Bytes, bytes::Bytes)> {
        if !location.is_plausible() {
            return None;
        }
        let mut head = self.pool.take(usize::from(location.head_len));
        let mut payload = self.pool.take(location.payload_len as usize);
        self.fill(location, location.head_offset, &mut head).ok()?;
        self.fill(location, location.payload_offset, &mut payload).ok()?;
        Some((head.freeze(), payload.freeze()))
    }
}

fn check_head(chunk: ChunkId, location: &Location, bytes: &[u8]) -> Result<ChunkHead, Trouble> {
    match ChunkHead::decode(bytes) {
        Ok(head) if head.header.chunk == chunk && head.header.payload_len == location.payload_len => Ok(head),
        _ => Err(Trouble::Damaged(None)),
    }
}
