//! Replaying the log: from frames to the catalogue, telling a torn tail from a corrupt middle.
//!
//! At most one frame is unsynced at any time. So what does not verify and has nothing valid behind it is the tail of
//! an unfinished commit, and is cut; what does not verify and has valid frames behind it (or lies before a place that
//! a checkpoint vouches for) is damage: it is reported, and only the records in it are lost.
//!
//! What cannot be *read* is neither: behind the checkpoint it may be what was acknowledged last, so the drive does not
//! open until it can be read. In older segments it is damage like any other.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use super::catalogue::Sync;
use super::checkpoint::{Position, SegmentLine};
use super::frame::{self, FRAME_ALIGN, FrameHeader, FrameKey, Record};
use super::index::IndexError;
use super::location::Location;
use super::reader::Shared;
use super::segment::{SEGMENT_HEADER_LEN, Segment};
use crate::ids::ChunkId;

/// Changes kept in memory while replaying before they go to the index.
const SPILL_CHANGES: usize = 65_536;
/// Bytes read at a time while looking for the next valid frame.
const SEARCH_LEN: u32 = 256 * 1024;
/// Entries per page while counting what is live.
const COUNT_PAGE: usize = 4096;

/// A part of a segment that should hold frames but does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CorruptRegion {
    /// Sequence of the segment.
    pub segment: u64,
    /// Where it starts within the segment.
    pub offset: u32,
    /// Its length in bytes.
    pub len: u32,
}

/// Why the index was rebuilt from the segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RebuildReason {
    /// There was no usable checkpoint.
    NoCheckpoint,
    /// The index could not be opened or read.
    Unusable(IndexError),
    /// The index is not the one the checkpoint speaks of.
    Stamp,
    /// Its entries do not agree with the segments.
    Disagrees,
    /// It takes far more room than its entries need.
    Bloated,
    /// Segments it points to are gone, and with them so many chunks.
    SegmentsLost {
        /// Chunks that lay in them.
        chunks: u64,
    },
}

/// What opening a drive found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The drive had been closed in order.
    pub clean: bool,
    /// Why the index was rebuilt, if it was.
    pub index_rebuilt: Option<RebuildReason>,
    /// Frames replayed.
    pub frames_replayed: u64,
    /// Records of an unfinished last commit that were cut.
    pub torn_records: u64,
    /// Damaged parts of the log.
    pub corrupt_regions: Vec<CorruptRegion>,
    /// Frames known to be lost in them. Chunks of such a frame that the index still knew are not lost.
    pub frames_lost: u64,
}

/// Why the log could not be replayed.
#[derive(Debug)]
pub(super) enum ReplayError {
    /// The index could not be read or written; it can be made anew.
    Index(IndexError),
    /// A segment could not be read where the log may end.
    Segment(io::Error),
}

impl From<IndexError> for ReplayError {
    fn from(error: IndexError) -> Self {
        Self::Index(error)
    }
}

impl From<io::Error> for ReplayError {
    fn from(error: io::Error) -> Self {
        Self::Segment(error)
    }
}

/// Where the log ends.
pub(super) struct Tail {
    pub(super) segment: u64,
    pub(super) offset: u32,
    pub(super) number_next: u64,
    /// Records of the last frame whose bytes are not whole; they were not applied.
    pub(super) torn: Vec<(ChunkId, Location)>,
}

/// Whether the last frame may be torn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum LastFrame {
    /// After a crash: believe only what is whole.
    Unsure,
    /// The log was closed in order, or is in use: all of it is durable.
    Durable,
}

/// A replay under way.
///
/// A frame is applied only once the next one is known: that one may say that records of its predecessor are void. A
/// torn record must never be applied, not even for a moment: it may be a move, whose original still counts.
pub(super) struct Replay<'a> {
    pub(super) shared: &'a Shared,
    pub(super) secret: &'a [u8; 16],
    /// What a checkpoint vouches for: anything invalid before it is damage.
    pub(super) floor: Position,
    pub(super) last_frame: LastFrame,
    pub(super) report: &'a mut RecoveryReport,
}

impl Replay<'_> {
    /// Applies all frames from `from` on.
    pub(super) fn run(&mut self, from: Position) -> Result<Tail, ReplayError> {
        let mut tail =
            Tail { segment: 0, offset: SEGMENT_HEADER_LEN, number_next: from.number.max(1), torn: Vec::new() };
        let mut pending = Pending::default();
        for segment in self.shared.segments.all() {
            if segment.sequence < from.segment {
                continue;
            }
            tail.segment = segment.sequence;
            tail.offset = if segment.sequence == from.segment { from.offset } else { SEGMENT_HEADER_LEN };
            self.replay_segment(&segment, &mut tail, &mut pending)?;
        }
        let vouched = (pending.segment, pending.end) <= (self.floor.segment, self.floor.offset);
        if self.last_frame == LastFrame::Unsure && !vouched {
            tail.torn = self.torn(&pending.records)?;
            pending.drop_all(&tail.torn.iter().map(|(_, location)| location.position()).collect());
        }
        self.apply_all(&pending.records)?;
        Ok(tail)
    }

    /// Chunk records whose bytes are not whole.
    fn torn(&self, records: &[Record]) -> io::Result<Vec<(ChunkId, Location)>> {
        let mut torn = Vec::new();
        for record in records {
            if let Record::Chunk { chunk, location } = record
                && !self.shared.is_whole(*chunk, location)?
            {
                torn.push((*chunk, *location));
            }
        }
        Ok(torn)
    }

    fn replay_segment(
        &mut self,
        segment: &Arc<Segment>,
        tail: &mut Tail,
        pending: &mut Pending,
    ) -> Result<(), ReplayError> {
        let unreadable = if segment.sequence < self.floor.segment { Unreadable::IsDamage } else { Unreadable::IsError };
        let log = LogReader::new(segment, self.secret, unreadable)?;
        // Within a segment frame numbers have no gaps, but its first one is known only by reading it.
        let mut expected = None;
        loop {
            if let Some((header, records)) = log.read_frame(tail.offset, tail.number_next)? {
                self.report.frames_replayed += 1;
                tail.offset += header.len;
                tail.number_next = header.number + 1;
                expected = Some(tail.number_next);
                let void = records.iter().filter_map(|record| match record {
                    Record::Void { segment, offset, .. } => Some((*segment, *offset)),
                    _ => None,
                });
                pending.drop_all(&void.collect());
                let next = Pending { segment: segment.sequence, end: tail.offset, records };
                let previous = std::mem::replace(pending, next);
                self.apply_all(&previous.records)?;
                continue;
            }
            let found = log.find_frame(tail.offset.saturating_add(FRAME_ALIGN), tail.number_next)?;
            let floor = (segment.sequence == self.floor.segment && tail.offset < self.floor.offset)
                .then_some((self.floor.offset, self.floor.number));
            let Some((offset, number)) = found.or(floor) else {
                return Ok(());
            };
            self.report.frames_lost += expected.map_or(1, |expected: u64| number.saturating_sub(expected));
            self.report.corrupt_regions.push(CorruptRegion {
                segment: segment.sequence,
                offset: tail.offset,
                len: offset - tail.offset,
            });
            self.shared.metrics.corrupt_regions.inc();
            tail.offset = offset;
            tail.number_next = tail.number_next.max(number);
            expected = Some(number);
        }
    }

    fn apply_all(&self, records: &[Record]) -> Result<(), IndexError> {
        records.iter().try_for_each(|record| self.apply(record))
    }

    fn apply(&self, record: &Record) -> Result<(), IndexError> {
        let catalogue = &self.shared.catalogue;
        match *record {
            Record::Chunk { chunk, location } => {
                let known = catalogue.get(chunk)?;
                if known.is_none_or(|known| known.position() < location.position()) {
                    catalogue.set(chunk, Some(location));
                }
            }
            Record::Tombstone { chunk, newest, offset, .. } => {
                let known = catalogue.get(chunk)?;
                if known.is_some_and(|known| known.position() <= (newest, offset)) {
                    catalogue.set(chunk, None);
                }
            }
            Record::Void { chunk, segment, offset } => {
                // Only if its frame was applied before it was found torn.
                let known = catalogue.get(chunk)?;
                if known.is_some_and(|known| known.position() == (segment, offset)) {
                    catalogue.set(chunk, None);
                }
            }
        }
        if catalogue.recent_count() >= SPILL_CHANGES
            && let Some(frozen) = catalogue.freeze()
        {
            catalogue.write_frozen(&frozen, Sync::Later)?;
            catalogue.drop_frozen();
        }
        Ok(())
    }
}

/// The last frame read, not yet applied.
#[derive(Default)]
struct Pending {
    segment: u64,
    end: u32,
    records: Vec<Record>,
}

impl Pending {
    /// Forgets the chunk records at these positions.
    fn drop_all(&mut self, void: &BTreeSet<(u64, u32)>) {
        self.records.retain(|record| match record {
            Record::Chunk { location, .. } => !void.contains(&location.position()),
            _ => true,
        });
    }
}

/// What a drive holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Live {
    /// Bytes its chunks take.
    pub(super) bytes: u64,
    pub(super) chunks: u64,
    /// Chunks of the index whose segment does not exist.
    pub(super) lost: u64,
}

/// Counts what is live, per segment and in all.
pub(super) fn count_live(shared: &Shared) -> Result<Live, IndexError> {
    for segment in shared.segments.all() {
        segment.set_live(0, 0);
    }
    let (mut live, mut after) = (Live::default(), None);
    loop {
        let (page, next) = shared.catalogue.scan_page(after, COUNT_PAGE)?;
        for location in page.values() {
            if let Some(segment) = shared.segments.get(location.segment) {
                segment.add_live(location);
                live.bytes += location.stored_len();
                live.chunks += 1;
            } else {
                live.lost += 1;
            }
        }
        match next {
            Some(last) => after = Some(last),
            None => return Ok(live),
        }
    }
}

/// Takes over what a clean checkpoint says is live; `None` if it does not speak of these segments.
pub(super) fn adopt_live(shared: &Shared, lines: &[SegmentLine]) -> Option<Live> {
    let segments = shared.segments.all();
    let same = segments.len() == lines.len()
        && segments.iter().zip(lines).all(|(segment, line)| segment.sequence == line.sequence);
    if !same {
        return None;
    }
    for (segment, line) in segments.iter().zip(lines) {
        segment.set_live(line.live_bytes, line.live_count);
    }
    let bytes = lines.iter().map(|line| line.live_bytes).sum();
    Some(Live { bytes, chunks: lines.iter().map(|line| line.live_count).sum(), lost: 0 })
}

/// What a place that cannot be read counts as.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// As one that holds no frame.
    IsDamage,
    /// As an error: it may hold a frame.
    IsError,
}

/// Reads frames of one segment.
pub(super) struct LogReader<'a> {
    segment: &'a Segment,
    key: FrameKey,
    file_len: u64,
    unreadable: Unreadable,
}

impl<'a> LogReader<'a> {
    pub(super) fn new(segment: &'a Segment, secret: &[u8; 16], unreadable: Unreadable) -> io::Result<Self> {
        let file_len = segment.file.len()?.min(u64::from(u32::MAX));
        Ok(Self { segment, key: FrameKey::derive(secret, segment.sequence), file_len, unreadable })
    }

    /// The frame at `offset`, if a whole one numbered `number_min` or later is there.
    pub(super) fn read_frame(&self, offset: u32, number_min: u64) -> io::Result<Option<(FrameHeader, Vec<Record>)>> {
        let mut bytes = vec![0; FRAME_ALIGN as usize];
        if self.read(offset, &mut bytes)? < bytes.len() {
            return Ok(None);
        }
        let Some(header) = frame::decode_header(&self.key, self.segment.sequence, &bytes) else { return Ok(None) };
        if header.number < number_min || u64::from(offset) + u64::from(header.len) > u64::from(u32::MAX) {
            return Ok(None);
        }
        if header.table_end() > bytes.len() {
            bytes.resize(header.table_end(), 0);
            if self.read(offset, &mut bytes)? < bytes.len() {
                return Ok(None);
            }
        }
        let records = frame::decode_table(&self.key, self.segment.sequence, offset, &header, &bytes);
        Ok(records.map(|records| (header, records)))
    }

    /// The next place at or after `from` with a whole frame numbered `number_min` or later.
    pub(super) fn find_frame(&self, from: u32, number_min: u64) -> io::Result<Option<(u32, u64)>> {
        let mut window = vec![0; SEARCH_LEN as usize];
        let mut window_start = from;
        while u64::from(window_start) < self.file_len {
            let read = self.read_window(window_start, &mut window)?;
            for (block, start) in
                window[..read].chunks(FRAME_ALIGN as usize).zip((window_start..).step_by(FRAME_ALIGN as usize))
            {
                if frame::decode_header(&self.key, self.segment.sequence, block).is_none() {
                    continue;
                }
                if let Some((header, _)) = self.read_frame(start, number_min)? {
                    return Ok(Some((start, header.number)));
                }
            }
            let Some(next) = window_start.checked_add(SEARCH_LEN) else { return Ok(None) };
            window_start = next;
        }
        Ok(None)
    }

    /// Fills the window as far as the file goes; blocks that cannot be read are zeros if they count as damage.
    fn read_window(&self, start: u32, window: &mut [u8]) -> io::Result<usize> {
        if let Ok(read) = self.segment.file.read_at(u64::from(start), window) {
            return Ok(read);
        }
        let len = usize::try_from(self.file_len.saturating_sub(u64::from(start))).unwrap_or(usize::MAX);
        let len = len.min(window.len());
        for (block, offset) in
            window[..len].chunks_mut(FRAME_ALIGN as usize).zip((start..).step_by(FRAME_ALIGN as usize))
        {
            block.fill(0);
            self.read(offset, block)?;
        }
        Ok(len)
    }

    /// Bytes read; none where nothing can be read and that counts as damage.
    fn read(&self, offset: u32, into: &mut [u8]) -> io::Result<usize> {
        match self.segment.file.read_at(u64::from(offset), into) {
            Err(_) if self.unreadable == Unreadable::IsDamage => Ok(0),
            result => result,
        }
    }
}
