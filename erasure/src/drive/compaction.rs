//! Getting room back: live records of mostly dead segments move to the log's head, then the segment is emptied.
//!
//! One step is bounded, idempotent and crash-safe: a move is an ordinary frame, and until the segment's durable
//! rename to `.free` both copies say the same. A tombstone is carried over as long as any segment may still hold a
//! record that it kills, so a scan of all segments never brings a deleted chunk back.

use std::io;

use super::engine::Engine;
use super::error::{DriveError, FailReason};
use super::frame::{FrameHeader, RECORD_LEN, Record};
use super::location::Location;
use super::plan::{FRAME_COST, Plan, Planned, chunk_cost};
use super::recovery::{LogReader, Unreadable};
use super::segment::{Name, SEGMENT_HEADER_LEN, Segment};
use crate::ids::ChunkId;

/// Payload bytes moved per step.
const STEP_BYTES: u64 = 4 << 20;
/// Frames looked at per step.
const STEP_FRAMES: usize = 64;
/// A segment with less than this share of its length live is compacted although its holes cost no room, so that
/// nearly empty files do not pile up: one eighth.
const SPARSE_SHARE: u64 = 8;
/// Chunks looked at per page while searching the index for leftovers.
const LEFTOVER_PAGE: usize = 4096;

/// A segment that is being emptied.
pub(super) struct Compaction {
    victim: u64,
    /// Frames before this have been dealt with.
    offset: u32,
}

/// What a step of compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CompactStep {
    /// No segment is worth it.
    Idle,
    /// Looked at frames and moved what was live.
    Moved,
    /// Emptied a segment.
    Freed,
}

/// What the next step does.
enum Step {
    /// Moves this; goes on at the offset.
    Frames { plan: Plan, offset: u32 },
    /// Moves this, and the segment stays for now.
    Stuck { plan: Plan },
    /// Moves this, and that was all.
    End { plan: Plan, offset: u32 },
}

/// The next frame, past what is damaged; `offset` then is where it starts.
fn next_frame(log: &LogReader<'_>, offset: &mut u32) -> io::Result<Option<(FrameHeader, Vec<Record>)>> {
    if let Some(frame) = log.read_frame(*offset, 0)? {
        return Ok(Some(frame));
    }
    let Some((start, _)) = log.find_frame(*offset, 0)? else { return Ok(None) };
    *offset = start;
    log.read_frame(start, 0)
}

impl Engine {
    /// Does one bounded piece of compaction.
    pub(super) fn compact_step(&mut self) -> Result<CompactStep, DriveError> {
        self.shared.vitals.check_writable()?;
        if self.shared.catalogue.is_broken() {
            return Ok(CompactStep::Idle);
        }
        let Some(compaction) = self.compaction.take().or_else(|| self.choose_victim()) else {
            return Ok(CompactStep::Idle);
        };
        let Some(segment) = self.shared.segments.get(compaction.victim) else {
            return Ok(CompactStep::Moved);
        };
        match self.plan_step(&segment, compaction.offset)? {
            Step::Frames { plan, offset } => {
                self.write_moves(plan)?;
                self.compaction = Some(Compaction { victim: compaction.victim, offset });
                Ok(CompactStep::Moved)
            }
            Step::Stuck { plan } => {
                self.stuck.insert(segment.sequence);
                self.write_moves(plan)?;
                Ok(CompactStep::Moved)
            }
            Step::End { plan, offset } => {
                self.write_moves(plan)?;
                self.finish(&segment, offset)
            }
        }
    }

    /// Plans one frame from the next few of a segment.
    fn plan_step(&self, segment: &Segment, mut offset: u32) -> Result<Step, DriveError> {
        let mut plan = Plan::default();
        // What cannot be read may be a tombstone that still counts: the segment stays.
        let Ok(log) = LogReader::new(segment, &self.secret, Unreadable::IsError) else {
            self.shared.vitals.count_read_error();
            return Ok(Step::Stuck { plan });
        };
        for _ in 0..STEP_FRAMES {
            let (header, records) = match next_frame(&log, &mut offset) {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(Step::End { plan, offset }),
                Err(_) => {
                    self.shared.vitals.count_read_error();
                    return Ok(Step::Stuck { plan });
                }
            };
            let carried = self.tombstones_that_count(&records, segment.sequence);
            if !self.plan_moves(&mut plan, &records, carried.len())? {
                break;
            }
            if self.is_pinned(&records, segment.sequence) {
                return Ok(Step::Stuck { plan });
            }
            carried.into_iter().for_each(|tombstone| plan.carry(tombstone));
            offset += header.len;
        }
        Ok(Step::Frames { plan, offset })
    }

    fn write_moves(&mut self, plan: Plan) -> Result<(), DriveError> {
        if plan.is_empty() { Ok(()) } else { self.write_plan(plan) }
    }

    fn choose_victim(&self) -> Option<Compaction> {
        let sparse = u64::from(self.config.segment_len) / SPARSE_SHARE;
        let percent = u64::from(self.config.compact_live_percent);
        let active = self.active.segment.sequence;
        let worth = |segment: &Segment| {
            let live = segment.live_bytes();
            live <= sparse || live.saturating_mul(100) <= segment.allocated().saturating_mul(percent)
        };
        let segments = self.shared.segments.all();
        let candidates = segments
            .iter()
            .filter(|segment| segment.sequence != active && !self.stuck.contains(&segment.sequence) && worth(segment));
        let victim = candidates.min_by_key(|segment| segment.live_bytes())?;
        Some(Compaction { victim: victim.sequence, offset: SEGMENT_HEADER_LEN })
    }

    /// Plans to move what is live of a frame, and leaves room for as many tombstones; `false` if the step is full before
    /// its end.
    fn plan_moves(&self, plan: &mut Plan, records: &[Record], tombstones: usize) -> Result<bool, DriveError> {
        if !plan.fits(tombstones, (RECORD_LEN * tombstones) as u64, self.frame_len_max()) {
            return Ok(false);
        }
        for record in records {
            let Record::Chunk { chunk, location } = record else {
                continue;
            };
            let live = self.shared.catalogue.get(*chunk);
            let live = live.map_err(|_| DriveError::IndexUnavailable(self.shared.drive))?;
            // The index knows best what `oldest` is; the place decides whether this record is the live one.
            let Some(known) = live.filter(|known| known.position() == location.position()) else {
                continue;
            };
            if plan.appends(*chunk) {
                continue;
            }
            if !self.plan_move(plan, *chunk, known, tombstones) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Plans to move one chunk; `false` if the step is full, with so many tombstones to come. A chunk that cannot be
    /// read stays where it is.
    fn plan_move(&self, plan: &mut Plan, chunk: ChunkId, location: Location, tombstones: usize) -> bool {
        let cost = chunk_cost(usize::from(location.head_len), location.payload_len);
        let full = plan.len_max() + cost > STEP_BYTES + FRAME_COST && !plan.is_empty();
        if full || !plan.fits(1 + tombstones, cost + (RECORD_LEN * tombstones) as u64, self.frame_len_max()) {
            return false;
        }
        match self.shared.read_raw(&location) {
            Some((head, payload)) => plan.append(Planned {
                chunk,
                head,
                payload: vec![payload],
                payload_len: location.payload_len,
                moved_from: Some(location),
            }),
            None => self.shared.vitals.count_read_error(),
        }
        true
    }

    /// The tombstones of a frame that must outlive its segment.
    fn tombstones_that_count(&self, records: &[Record], victim: u64) -> Vec<Record> {
        let counts = |record: &&Record| match record {
            Record::Tombstone { oldest, newest, .. } => self.shared.segments.any_between(*oldest, *newest, victim),
            _ => false,
        };
        records.iter().filter(counts).copied().collect()
    }

    /// Whether the frame voids records of another segment that still exists. It must stay right behind them, so its
    /// segment stays too; rare, as both frames are usually in one segment, and over with the next start.
    fn is_pinned(&self, records: &[Record], victim: u64) -> bool {
        records.iter().any(|record| match record {
            Record::Void { segment, .. } => *segment != victim && self.shared.segments.get(*segment).is_some(),
            _ => false,
        })
    }

    /// All frames are dealt with: moves what a damaged frame hid, then empties the segment.
    fn finish(&mut self, segment: &Segment, offset: u32) -> Result<CompactStep, DriveError> {
        if segment.live_count() > 0 {
            let mut plan = Plan::default();
            for (chunk, location) in self.find_leftovers(segment.sequence)? {
                if !self.plan_move(&mut plan, chunk, location, 0) {
                    break;
                }
            }
            if !plan.is_empty() {
                self.write_plan(plan)?;
                self.compaction = Some(Compaction { victim: segment.sequence, offset });
                return Ok(CompactStep::Moved);
            }
            if !self.find_leftovers(segment.sequence)?.is_empty() {
                // Unreadable chunks: their room stays taken until they are deleted.
                self.stuck.insert(segment.sequence);
                return Ok(CompactStep::Moved);
            }
        }
        self.free_segment(segment)?;
        Ok(CompactStep::Freed)
    }

    /// Live chunks that lie in a segment, by the index; at most a page.
    fn find_leftovers(&self, sequence: u64) -> Result<Vec<(ChunkId, Location)>, DriveError> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = self.shared.catalogue.scan(after, LEFTOVER_PAGE);
            let page = page.map_err(|_| DriveError::IndexUnavailable(self.shared.drive))?;
            after = page.last().map(|(chunk, _)| *chunk);
            found.extend(page.iter().filter(|(_, location)| location.segment == sequence).copied());
            if page.len() < LEFTOVER_PAGE || found.len() >= LEFTOVER_PAGE {
                return Ok(found);
            }
        }
    }

    /// Takes a segment without live chunks out of the log: one durable rename.
    fn free_segment(&mut self, segment: &Segment) -> Result<(), DriveError> {
        let sequence = segment.sequence;
        let (live, free) = (Name::Live(sequence).path(&self.dir), Name::Free(sequence).path(&self.dir));
        let renamed = self.files.rename(&live, &free).and_then(|()| self.files.sync_dir(&self.dir));
        renamed.map_err(|error| self.shared.vitals.fail_io(FailReason::Names, &error))?;
        self.shared.segments.remove(sequence);
        self.punches.retain(|dead| dead.segment != sequence);
        self.shared.metrics.segments_freed.inc();
        if self.free.len() < self.config.spare_segments {
            self.free.push((sequence, segment.allocated()));
            return Ok(());
        }
        let removed = self.files.remove(&free);
        removed.map_err(|error| self.shared.vitals.fail_io(FailReason::Names, &error))
    }
}
