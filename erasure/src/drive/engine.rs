//! The writer's side of a drive: turns requests into frames. Synchronous; knows no threads and no clock.
//!
//! One call of [`Engine::commit`] writes as few frames as its requests allow (usually one), each with one sync, and
//! changes the catalogue only after that sync. Order on disk is order of requests wherever it matters: a chunk is never
//! touched twice by one frame.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::catalogue::Changes;
use super::checkpoint::{Position, SegmentLine};
use super::checkpointer::{Checkpointer, Job};
use super::compaction::Compaction;
use super::error::{DriveError, FailReason};
use super::executor::Request;
use super::frame::{self, FrameKey, RECORDS_MAX, Record};
use super::index::IndexFactory;
use super::location::Location;
use super::plan::{FRAME_COST, Plan, Planned, chunk_cost, is_big};
use super::reader::Shared;
use super::segment::{self, Name, SEGMENT_HEADER_LEN, Segment};
use super::{AppendClass, DriveConfig};
use crate::buffer::AlignedBuf;
use crate::chunk::SealedChunk;
use crate::files::{File, Files, is_out_of_space};
use crate::ids::ChunkId;

/// Bytes staged per write: enough for direct I/O to run at full speed, small enough to stay in the cache.
const STAGE_LEN: usize = 1 << 20;
/// Changes in memory at which the writer waits for a checkpoint rather than add more.
const RECENT_MAX: usize = 262_144;
/// Holes punched per turn.
const PUNCHES_PER_TURN: usize = 64;
/// Chunks waiting to be punched beyond which no more are remembered; compaction gets their room.
const PUNCHES_MAX: usize = 65_536;

/// The segment that is being filled.
pub(super) struct Active {
    pub(super) segment: Arc<Segment>,
    pub(super) key: FrameKey,
    pub(super) tail: u32,
    /// Up to where room has been allocated.
    pub(super) allocated_end: u32,
}

pub(super) struct Engine {
    pub(super) config: DriveConfig,
    pub(super) files: Arc<dyn Files>,
    /// Where the segments are.
    pub(super) dir: PathBuf,
    pub(super) secret: [u8; 16],
    pub(super) shared: Arc<Shared>,
    pub(super) factory: Box<dyn IndexFactory>,
    pub(super) checkpointer: Checkpointer,
    pub(super) active: Active,
    /// Emptied segments and the room they occupy.
    pub(super) free: Vec<(u64, u64)>,
    pub(super) sequence_next: u64,
    pub(super) number_next: u64,
    pub(super) used_bytes: u64,
    pub(super) chunk_count: u64,
    pub(super) bytes_since_checkpoint: u64,
    pub(super) compaction: Option<Compaction>,
    /// Segments that could not be emptied.
    pub(super) stuck: BTreeSet<u64>,
    pub(super) punches: Vec<Location>,
    pub(super) stage: AlignedBuf,
}

/// What planning a request came to.
enum Step {
    /// Nothing to write.
    Done,
    /// Answered by the frame.
    Waits,
}

impl Engine {
    pub(super) fn stage() -> AlignedBuf {
        AlignedBuf::zeroed(STAGE_LEN)
    }

    /// Bytes a frame can have in a segment of its own.
    pub(super) fn frame_len_max(&self) -> u64 {
        u64::from(self.config.segment_len - SEGMENT_HEADER_LEN)
    }

    /// Makes requests durable; the answers are in their order. Nothing is retried: after a failed write or sync the
    /// drive takes no more.
    pub(super) fn commit(&mut self, batch: Vec<Request>) -> Vec<Result<(), DriveError>> {
        if let Err(error) = self.prepare() {
            return batch.iter().map(|_| Err(error.clone())).collect();
        }
        let mut room = self.publish_room();
        let mut answers = Vec::with_capacity(batch.len());
        let mut waiting = Vec::new();
        let mut plan = Plan::default();
        for request in batch {
            if !self.goes_with(&plan, &request) {
                room = room.saturating_sub(plan.len_max());
                self.flush(&mut plan, &mut waiting, &mut answers);
            }
            let index = answers.len();
            answers.push(match self.plan_request(&mut plan, request, room) {
                Ok(Step::Done) => Ok(()),
                Ok(Step::Waits) => {
                    waiting.push(index);
                    Ok(())
                }
                Err(error) => Err(error),
            });
        }
        self.flush(&mut plan, &mut waiting, &mut answers);
        self.publish_room();
        answers
    }

    /// Checks that the drive takes changes and its index is usable.
    fn prepare(&mut self) -> Result<(), DriveError> {
        self.shared.vitals.check_writable()?;
        if self.shared.catalogue.is_broken() {
            self.rebuild_index()?;
        }
        Ok(())
    }

    fn flush(&mut self, plan: &mut Plan, waiting: &mut Vec<usize>, answers: &mut [Result<(), DriveError>]) {
        let plan = std::mem::take(plan);
        let result = if plan.is_empty() { Ok(()) } else { self.write_plan(plan) };
        for index in waiting.drain(..) {
            answers[index].clone_from(&result);
        }
    }

    /// Whether the request can share the frame planned so far: it fits, and touches no chunk the other way round.
    fn goes_with(&self, plan: &Plan, request: &Request) -> bool {
        match request {
            Request::Append { chunk, .. } => {
                let cost = append_cost(chunk);
                !plan.deletes(chunk.header().chunk) && plan.fits(1, cost, self.frame_len_max())
            }
            Request::Delete { chunks } => {
                let cost = (frame::RECORD_LEN * chunks.len()) as u64;
                plan.fits(chunks.len(), cost, self.frame_len_max()) && !chunks.iter().any(|chunk| plan.appends(*chunk))
            }
        }
    }

    fn plan_request(&self, plan: &mut Plan, request: Request, room: u64) -> Result<Step, DriveError> {
        match request {
            Request::Append { chunk, class } => self.plan_append(plan, chunk, class, room),
            Request::Delete { chunks } => self.plan_delete(plan, &chunks),
        }
    }

    fn lookup(&self, chunk: ChunkId) -> Result<Option<Location>, DriveError> {
        self.shared.catalogue.get(chunk).map_err(|_| DriveError::IndexUnavailable(self.shared.drive))
    }

    fn plan_append(
        &self,
        plan: &mut Plan,
        sealed: SealedChunk,
        class: AppendClass,
        room: u64,
    ) -> Result<Step, DriveError> {
        let chunk = sealed.header().chunk;
        if plan.appends(chunk) {
            return Ok(Step::Waits);
        }
        if self.lookup(chunk)?.is_some() {
            return Ok(Step::Done);
        }
        let len = append_cost(&sealed) + FRAME_COST;
        if len > self.frame_len_max() {
            return Err(DriveError::TooLarge { drive: self.shared.drive, chunk, len });
        }
        if class == AppendClass::Client && plan.len_max() + len > room {
            return Err(self.shared.vitals.refuse(len));
        }
        let (head, payload_len) = (sealed.encode_head(), sealed.header().payload_len);
        plan.append(Planned { chunk, head, payload: sealed.into_payload(), payload_len, moved_from: None });
        Ok(Step::Waits)
    }

    fn plan_delete(&self, plan: &mut Plan, chunks: &[ChunkId]) -> Result<Step, DriveError> {
        let mut step = Step::Done;
        for chunk in chunks {
            if plan.deletes(*chunk) {
                step = Step::Waits;
            } else if let Some(location) = self.lookup(*chunk)? {
                plan.delete(*chunk, location);
                step = Step::Waits;
            }
        }
        Ok(step)
    }

    /// Writes one frame and syncs it; only then does the catalogue know.
    pub(super) fn write_plan(&mut self, plan: Plan) -> Result<(), DriveError> {
        self.shared.vitals.check_writable()?;
        debug_assert!(plan.record_count() <= RECORDS_MAX, "recovery does not read frames with more records");
        let layout = plan.place();
        let len = u32::try_from(layout.len).unwrap_or(u32::MAX);
        self.make_room(len)?;
        let (base, sequence) = (self.active.tail, self.active.segment.sequence);
        let records = self.records(&plan, &layout.offsets, base, sequence);
        let table = frame::encode(&self.active.key, sequence, self.number_next, len, &records);
        if let Err(error) = self.write_frame(base, &table, &plan, &layout.offsets, len) {
            return Err(self.undo_frame(base, len, &error));
        }
        self.sync_active()?;
        self.active.tail += len;
        self.number_next += 1;
        self.bytes_since_checkpoint += u64::from(len);
        self.shared.metrics.commit_records.observe(f64::from(u32::try_from(records.len()).unwrap_or(u32::MAX)));
        self.apply(&plan, &records);
        Ok(())
    }

    fn records(&self, plan: &Plan, offsets: &[(u64, u64)], base: u32, sequence: u64) -> Vec<Record> {
        let at = |offset: u64| base.saturating_add(u32::try_from(offset).unwrap_or(u32::MAX));
        let mut records = Vec::with_capacity(plan.record_count());
        for (planned, (head, payload)) in plan.chunks.iter().zip(offsets) {
            // A chunk that moves leaves copies behind, in segments no older than these.
            let oldest = planned.moved_from.and_then(|from| self.shared.segments.first_from(from.oldest));
            let location = Location {
                segment: sequence,
                oldest: oldest.unwrap_or(sequence),
                head_offset: at(*head),
                payload_offset: at(*payload),
                payload_len: planned.payload_len,
                head_len: u16::try_from(planned.head.len()).unwrap_or(u16::MAX),
            };
            records.push(Record::Chunk { chunk: planned.chunk, location });
        }
        for (chunk, dead) in &plan.deleted {
            let Location { oldest, segment: newest, head_offset: offset, .. } = *dead;
            records.push(Record::Tombstone { chunk: *chunk, oldest, newest, offset });
        }
        records.extend_from_slice(&plan.carried);
        records
    }

    fn write_frame(
        &mut self,
        base: u32,
        table: &[u8],
        plan: &Plan,
        offsets: &[(u64, u64)],
        len: u32,
    ) -> std::io::Result<()> {
        let mut stager = Stager { file: &*self.active.segment.file, buf: &mut self.stage, filled: 0, at: base.into() };
        let base = u64::from(base);
        stager.put(table)?;
        for i in plan.placement_order() {
            let planned = &plan.chunks[i];
            stager.pad_to(base + offsets[i].0)?;
            stager.put(&planned.head)?;
            stager.pad_to(base + offsets[i].1)?;
            for piece in &planned.payload {
                stager.put(piece)?;
            }
        }
        stager.pad_to(base + u64::from(len))?;
        stager.flush()
    }

    /// After a failed write: out of room is no damage if the unfinished frame can be unmade durably; anything else
    /// fails the drive.
    fn undo_frame(&mut self, base: u32, len: u32, error: &std::io::Error) -> DriveError {
        if !is_out_of_space(error) {
            return self.shared.vitals.fail_io(FailReason::Write, error);
        }
        self.stage[..frame::FRAME_ALIGN as usize].fill(0);
        let file = &self.active.segment.file;
        match file.write_at(u64::from(base), &self.stage[..frame::FRAME_ALIGN as usize]) {
            Ok(()) => {}
            // Not even the frame's first block has room: then nothing of its header was written either.
            Err(error) if is_out_of_space(&error) => {}
            Err(error) => return self.shared.vitals.fail_io(FailReason::Write, &error),
        }
        match self.sync_active() {
            Ok(()) => self.shared.vitals.refuse(u64::from(len)),
            Err(error) => error,
        }
    }

    fn sync_active(&self) -> Result<(), DriveError> {
        self.shared.metrics.syncs.inc();
        self.active.segment.file.sync_data().map_err(|error| self.shared.vitals.fail_io(FailReason::Sync, &error))
    }

    fn apply(&mut self, plan: &Plan, records: &[Record]) {
        for (planned, record) in plan.chunks.iter().zip(records) {
            let Record::Chunk { chunk, location } = record else {
                continue;
            };
            self.shared.catalogue.set(*chunk, Some(*location));
            self.active.segment.add_live(location);
            match &planned.moved_from {
                Some(old) => {
                    self.shared.metrics.compacted_bytes.inc_by(location.stored_len());
                    self.forget_live(old);
                }
                None => {
                    self.used_bytes += location.stored_len();
                    self.chunk_count += 1;
                    self.shared.metrics.append_bytes.inc_by(u64::from(location.payload_len));
                }
            }
        }
        for (chunk, dead) in &plan.deleted {
            self.shared.catalogue.set(*chunk, None);
            self.used_bytes = self.used_bytes.saturating_sub(dead.stored_len());
            self.chunk_count = self.chunk_count.saturating_sub(1);
            self.forget_live(dead);
            self.shared.metrics.tombstones.inc();
            if is_big(dead.payload_len) && self.punches.len() < PUNCHES_MAX {
                self.punches.push(*dead);
            }
        }
    }

    fn forget_live(&self, location: &Location) {
        if let Some(segment) = self.shared.segments.get(location.segment) {
            segment.remove_live(location);
        }
    }

    /// Gives back the room of big chunks whose tombstones are durable. Failing to is no harm: compaction gets it.
    pub(super) fn punch_some(&mut self) {
        let count = self.punches.len().min(PUNCHES_PER_TURN);
        for dead in self.punches.drain(..count) {
            let Some(segment) = self.shared.segments.get(dead.segment) else {
                continue;
            };
            let align = u64::from(frame::FRAME_ALIGN);
            let start = u64::from(dead.payload_offset).next_multiple_of(align);
            let end = (u64::from(dead.payload_offset) + u64::from(dead.payload_len)) / align * align;
            if end > start && segment.file.punch_hole(start, end - start).is_ok() {
                segment.set_allocated(segment.allocated().saturating_sub(end - start));
                self.shared.metrics.punched_bytes.inc_by(end - start);
            }
        }
    }

    pub(super) fn has_punches(&self) -> bool {
        !self.punches.is_empty()
    }

    /// Makes sure that `len` bytes behind the tail are allocated, in a new segment if need be.
    fn make_room(&mut self, len: u32) -> Result<(), DriveError> {
        let fits = self.active.tail.checked_add(len).is_some_and(|end| end <= self.config.segment_len);
        if !fits {
            self.roll(len)?;
        }
        let end = self.active.tail + len;
        if end <= self.active.allocated_end {
            return Ok(());
        }
        let step = self.config.allocate_step;
        let wanted = u64::from(end).next_multiple_of(u64::from(step)).min(u64::from(self.config.segment_len));
        let from = self.active.allocated_end;
        let file = &self.active.segment.file;
        match file.allocate(u64::from(from), wanted - u64::from(from)) {
            Ok(()) => {}
            Err(error) if is_out_of_space(&error) => {
                return Err(self.shared.vitals.refuse(u64::from(len)));
            }
            Err(error) => return Err(self.shared.vitals.fail_io(FailReason::Write, &error)),
        }
        self.active.allocated_end = u32::try_from(wanted).unwrap_or(u32::MAX);
        let allocated = file.allocated().unwrap_or(wanted);
        self.active.segment.set_allocated(allocated);
        Ok(())
    }

    /// Seals the active segment and starts another: an emptied one under a new sequence, or a new file.
    fn roll(&mut self, len: u32) -> Result<(), DriveError> {
        let sequence = self.sequence_next;
        match self.start_segment(sequence) {
            Ok(active) => {
                self.sequence_next += 1;
                self.shared.segments.insert(active.segment.clone());
                self.active = active;
                Ok(())
            }
            Err(error) if is_out_of_space(&error) => Err(self.shared.vitals.refuse(u64::from(len))),
            Err(error) => Err(self.shared.vitals.fail_io(FailReason::Names, &error)),
        }
    }

    fn start_segment(&mut self, sequence: u64) -> std::io::Result<Active> {
        let reused = self.free.pop();
        let (name, file) = match reused {
            Some((old, _)) => (Name::Free(old), self.files.open(&Name::Free(old).path(&self.dir))),
            None => (Name::Free(sequence), self.files.create(&Name::Free(sequence).path(&self.dir))),
        };
        let started = file.and_then(|file| start_file(self, &*file, name, sequence).map(|end| (file, end)));
        match started {
            Ok((file, allocated_end)) => {
                let allocated = file.allocated().unwrap_or(u64::from(allocated_end));
                let segment = Arc::new(Segment::new(sequence, file, allocated));
                let key = FrameKey::derive(&self.secret, sequence);
                Ok(Active { segment, key, tail: SEGMENT_HEADER_LEN, allocated_end })
            }
            Err(error) => {
                // Out of room is survivable: leave things as they were.
                match reused {
                    Some(free) => self.free.push(free),
                    None => drop(self.files.remove(&name.path(&self.dir))),
                }
                Err(error)
            }
        }
    }

    /// Creates the first segment of an empty drive.
    pub(super) fn first_segment(&mut self) -> Result<(), DriveError> {
        self.roll(0)
    }

    /// Bytes that could still be written, reserve included, and the capacity.
    fn available(&self) -> (u64, u64) {
        let space = self.files.space(&self.dir).unwrap_or(crate::files::Space { total_bytes: 0, available_bytes: 0 });
        let free: u64 = self.free.iter().map(|(_, allocated)| allocated).sum();
        let reusable = free + u64::from(self.active.allocated_end.saturating_sub(self.active.tail));
        let Some(quota) = self.config.capacity_bytes else {
            return (space.available_bytes + reusable, space.total_bytes);
        };
        let occupied: u64 = self.shared.segments.all().iter().map(|segment| segment.allocated()).sum();
        let available = quota.saturating_sub(occupied + free).min(space.available_bytes);
        (available + reusable, quota.min(space.total_bytes))
    }

    /// Tells the status how much room there is; returns what ordinary appends may take.
    pub(super) fn publish_room(&self) -> u64 {
        let (available, capacity) = self.available();
        let share = capacity / 100 * u64::from(self.config.reserve.percent);
        let room = available.saturating_sub(share.max(self.config.reserve.bytes_min));
        self.shared.vitals.publish(capacity, room, self.used_bytes, self.chunk_count);
        room
    }

    /// The end of the log.
    pub(super) fn position(&self) -> Position {
        Position { segment: self.active.segment.sequence, offset: self.active.tail, number: self.number_next }
    }

    /// Hands a checkpoint over when enough has changed.
    pub(super) fn checkpoint_if_due(&mut self) {
        let recent = self.shared.catalogue.recent_count();
        let due =
            recent >= self.config.checkpoint_changes || self.bytes_since_checkpoint >= self.config.checkpoint_bytes;
        if !due || self.shared.vitals.failure().is_some() || self.shared.catalogue.is_broken() {
            return;
        }
        if let Some(frozen) = self.shared.catalogue.freeze() {
            let job = self.job(frozen, None);
            self.checkpointer.submit(job);
        } else if recent >= RECENT_MAX {
            // The index is far behind: wait rather than let memory grow.
            drop(self.checkpoint_now());
        }
    }

    fn job(&mut self, frozen: Arc<Changes>, clean: Option<Vec<SegmentLine>>) -> Job {
        self.bytes_since_checkpoint = 0;
        Job { frozen, position: self.position(), clean }
    }

    /// Brings index and checkpoint up to date before returning.
    pub(super) fn checkpoint_now(&mut self) -> Result<(), DriveError> {
        self.prepare()?;
        self.settle_checkpointer()?;
        let Some(frozen) = self.shared.catalogue.freeze() else {
            return Err(DriveError::IndexUnavailable(self.shared.drive));
        };
        let job = self.job(frozen, None);
        let closed = DriveError::Closed(self.shared.drive);
        self.checkpointer.run(job, closed)
    }

    /// Waits until no checkpoint is under way.
    fn settle_checkpointer(&mut self) -> Result<(), DriveError> {
        if let Checkpointer::Thread { .. } = self.checkpointer {
            let closed = || DriveError::Closed(self.shared.drive);
            let writer = self.checkpointer.stop().ok_or_else(closed)?;
            self.checkpointer = Checkpointer::spawn(writer).map_err(|_| closed())?;
        }
        self.shared.vitals.check_writable()
    }

    /// Writes the last, clean checkpoint.
    pub(super) fn close(&mut self) -> Result<(), DriveError> {
        let closed = DriveError::Closed(self.shared.drive);
        let writer = self.checkpointer.stop();
        self.prepare_to_close()?;
        let mut writer = writer.or_else(|| self.checkpointer.stop()).ok_or(closed)?;
        let Some(frozen) = self.shared.catalogue.freeze() else {
            return Err(DriveError::IndexUnavailable(self.shared.drive));
        };
        let lines = self.shared.segments.all().into_iter().map(|segment| SegmentLine {
            sequence: segment.sequence,
            live_bytes: segment.live_bytes(),
            live_count: segment.live_count(),
        });
        let clean = Some(lines.collect());
        writer.run(self.job(frozen, clean))
    }

    fn prepare_to_close(&self) -> Result<(), DriveError> {
        self.shared.vitals.check_writable()?;
        if self.shared.catalogue.is_broken() {
            // The next start rebuilds the index.
            return Err(DriveError::IndexUnavailable(self.shared.drive));
        }
        Ok(())
    }
}

fn append_cost(chunk: &SealedChunk) -> u64 {
    let header = chunk.header();
    chunk_cost(crate::chunk::v1::head_len(header.owner.key.len(), header.payload_len), header.payload_len)
}

/// Makes a free file the segment `sequence`: room, header, then the name; durable in that order. Returns up to where
/// room is allocated.
fn start_file(engine: &Engine, file: &dyn File, name: Name, sequence: u64) -> std::io::Result<u32> {
    let config = &engine.config;
    let step = config.allocate_step.min(config.segment_len);
    file.allocate(0, u64::from(step))?;
    engine.shared.metrics.syncs.inc();
    segment::write_header(file, &config.identity, sequence, config.segment_len)?;
    engine.files.rename(&name.path(&engine.dir), &Name::Live(sequence).path(&engine.dir))?;
    engine.files.sync_dir(&engine.dir)?;
    Ok(step)
}

/// Gathers bytes in an aligned buffer and writes it whenever it is full.
struct Stager<'a> {
    file: &'a dyn File,
    buf: &'a mut AlignedBuf,
    filled: usize,
    /// Where the buffer's first byte goes.
    at: u64,
}

impl Stager<'_> {
    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(self.buf.len() - self.filled));
            self.buf[self.filled..self.filled + now.len()].copy_from_slice(now);
            self.filled += now.len();
            rest = later;
            if self.filled == self.buf.len() {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Fills up with zeros to the file offset `offset`.
    fn pad_to(&mut self, offset: u64) -> std::io::Result<()> {
        const ZEROS: [u8; frame::FRAME_ALIGN as usize] = [0; frame::FRAME_ALIGN as usize];
        let missing = offset.saturating_sub(self.at + self.filled as u64);
        // Padding is always less than one block.
        self.put(&ZEROS[..usize::try_from(missing).unwrap_or(ZEROS.len()).min(ZEROS.len())])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.filled > 0 {
            self.file.write_at(self.at, &self.buf[..self.filled])?;
            self.at += self.filled as u64;
            self.filled = 0;
        }
        Ok(())
    }
}
