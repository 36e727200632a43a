//! Segments: the files that hold frames, and the table of those that exist.
//!
//! A segment's name says its sequence, which is never used twice: `<sequence>.seg` holds live data, `<sequence>.free`
//! was emptied and waits to be used again under a new sequence. Being emptied is therefore one durable rename. The
//! first block of a segment says the same again for people and tools; the store trusts the name.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::identity::DriveIdentity;
use super::location::Location;
use crate::buffer::AlignedBuf;
use crate::files::{File, Files};

/// Bytes before the first frame.
pub(super) const SEGMENT_HEADER_LEN: u32 = 4096;

/// What a name in the segment directory stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Live(u64),
    Free(u64),
}

impl Name {
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (sequence, kind) = name.split_once('.')?;
        let sequence = (sequence.len() == 16).then(|| u64::from_str_radix(sequence, 16).ok())??;
        match kind {
            "seg" => Some(Self::Live(sequence)),
            "free" => Some(Self::Free(sequence)),
            _ => None,
        }
    }

    pub(super) fn path(self, dir: &Path) -> PathBuf {
        match self {
            Self::Live(sequence) => dir.join(format!("{sequence:016x}.seg")),
            Self::Free(sequence) => dir.join(format!("{sequence:016x}.free")),
        }
    }
}

/// One live segment.
pub(super) struct Segment {
    pub(super) sequence: u64,
    pub(super) file: Arc<dyn File>,
    live_bytes: AtomicU64,
    live_count: AtomicU64,
    /// Room it occupies, holes taken off.
    allocated: AtomicU64,
}

impl Segment {
    pub(super) fn new(sequence: u64, file: Arc<dyn File>, allocated: u64) -> Self {
        let (live_bytes, live_count) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { sequence, file, live_bytes, live_count, allocated: AtomicU64::new(allocated) }
    }

    pub(super) fn live_bytes(&self) -> u64 {
        self.live_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn live_count(&self) -> u64 {
        self.live_count.load(Ordering::Relaxed)
    }

    pub(super) fn allocated(&self) -> u64 {
        self.allocated.load(Ordering::Relaxed)
    }

    pub(super) fn set_live(&self, bytes: u64, count: u64) {
        self.live_bytes.store(bytes, Ordering::Relaxed);
        self.live_count.store(count, Ordering::Relaxed);
    }

    pub(super) fn set_allocated(&self, bytes: u64) {
        self.allocated.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_live(&self, location: &Location) {
        self.live_bytes.fetch_add(location.stored_len(), Ordering::Relaxed);
        self.live_count.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn remove_live(&self, location: &Location) {
        self.set_live(self.live_bytes().saturating_sub(location.stored_len()), self.live_count().saturating_sub(1));
    }
}

/// The live segments by sequence. Shared by the writer, which changes it, and readers.
#[derive(Default)]
pub(super) struct Segments {
    map: RwLock<BTreeMap<u64, Arc<Segment>>>,
}

impl Segments {
    pub(super) fn get(&self, sequence: u64) -> Option<Arc<Segment>> {
        self.map.read().unwrap_or_else(PoisonError::into_inner).get(&sequence).cloned()
    }

    pub(super) fn insert(&self, segment: Arc<Segment>) {
        self.map.write().unwrap_or_else(PoisonError::into_inner).insert(segment.sequence, segment);
    }

    pub(super) fn remove(&self, sequence: u64) {
        self.map.write().unwrap_or_else(PoisonError::into_inner).remove(&sequence);
    }

    pub(super) fn all(&self) -> Vec<Arc<Segment>> {
        self.map.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The oldest live segment from `sequence` on.
    pub(super) fn first_from(&self, sequence: u64) -> Option<u64> {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        map.range(sequence..).next().map(|(sequence, _)| *sequence)
    }

    /// Whether a live segment other than `except` lies between the two sequences, both included.
    pub(super) fn any_between(&self, oldest: u64, newest: u64, except: u64) -> bool {
        if oldest > newest {
            return false;
        }
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        map.range(oldest..=newest).any(|(sequence, _)| *sequence != except)
    }
}

/// Writes the first block of a segment, durably.
pub(super) fn write_header(
    file: &dyn File,
    identity: &DriveIdentity,
    sequence: u64,
    segment_len: u32,
) -> io::Result<()> {
    let mut block = AlignedBuf::zeroed(SEGMENT_HEADER_LEN as usize);
    block[..4].copy_from_slice(b"DSSG");
    block[4] = 1;
    block[8..16].copy_from_slice(&sequence.to_le_bytes());
    block[16..32].copy_from_slice(&identity.cluster);
    block[32..40].copy_from_slice(identity.drive.as_bytes());
    block[40..44].copy_from_slice(&segment_len.to_le_bytes());
    let checksum = crc_fast::crc32_iscsi(&block[..44]);
    block[44..48].copy_from_slice(&checksum.to_le_bytes());
    file.write_at(0, &block)?;
    file.sync_data()
}

/// Lists the segment directory: live and free sequences, each sorted.
pub(super) fn list(files: &dyn Files, dir: &Path) -> io::Result<(Vec<u64>, Vec<u64>)> {
    let (mut live, mut free) = (Vec::new(), Vec::new());
    for name in files.list(dir)? {
        match Name::parse(&name) {
            Some(Name::Live(sequence)) => live.push(sequence),
            Some(Name::Free(sequence)) => free.push(sequence),
            None => {}
        }
    }
    live.sort_unstable();
    free.sort_unstable();
    Ok((live, free))
}
