//! Opening a drive: identity, segments, index, replay, and an engine that stands where the log ends.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

use super::DriveConfig;
use super::catalogue::Catalogue;
use super::checkpoint::{Checkpoint, Position};
use super::checkpointer::{CheckpointWriter, Checkpointer};
use super::engine::{Active, Engine};
use super::error::{DriveError, FailReason, OpenError};
use super::executor::Executor;
use super::frame::{FrameKey, Record};
use super::identity::{self, Stored};
use super::index::{ChunkIndex, IndexError, IndexFactory, Stamp};
use super::location::Location;
use super::metrics::DriveMetrics;
use super::plan::Plan;
use super::reader::Shared;
use super::recovery::{
    LastFrame, Live, RebuildReason, RecoveryReport, Replay, ReplayError, Tail, adopt_live, count_live,
};
use super::segment::{self, Name, Segment, Segments};
use super::status::Vitals;
use crate::files::Files;
use crate::ids::{ChunkId, ExtentId};

/// Entries of the index compared with the segments before it is trusted.
const SAMPLES: usize = 32;
/// An index may take so much, and three times what its entries need (about 100 bytes each), before it is rebuilt.
const INDEX_BYTES_MIN: u64 = 64 << 20;
const INDEX_BYTES_PER_CHUNK: u64 = 300;

/// An engine ready to run.
pub(super) struct Opened {
    pub(super) engine: Engine,
    pub(super) report: RecoveryReport,
}

pub(super) fn open(
    config: DriveConfig,
    files: Arc<dyn Files>,
    factory: Box<dyn IndexFactory>,
    executor: &Executor,
    metrics: DriveMetrics,
) -> Result<Opened, OpenError> {
    let at = config.dir.clone();
    let io = |error| OpenError::Io { dir: at.clone(), error };
    let index_error = |error| OpenError::Index { dir: at.clone(), error };
    let stored = identity::load(&*files, &config.dir)?;
    identity::check(&config.dir, config.identity, stored.identity)?;
    let dir = config.dir.join("segments");
    let mut disk = load_segments(&*files, &dir).map_err(io)?;
    let checkpoint = Checkpoint::load(&*files, &config.dir).map_err(io)?;
    // The newest segment may have been lost; its sequence is not given again.
    let known = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.positions[0].segment);
    disk.sequence_next = disk.sequence_next.max(known + 1);
    let mut rng = SmallRng::seed_from_u64(config.seed);
    let mut report = RecoveryReport { clean: checkpoint.as_ref().is_some_and(|c| c.clean), ..Default::default() };
    let (index, trusted) = open_index(&*factory, checkpoint.as_ref(), &mut rng).map_err(index_error)?;
    let shared = Arc::new(Shared {
        drive: config.identity.drive,
        catalogue: Catalogue::new(index, disk.segments.clone()),
        segments: disk.segments.clone(),
        vitals: Vitals::new(config.identity.drive, &config.dir, config.slow_after, metrics.clone()),
        metrics,
        pool: config.pool.clone(),
    });
    let (shared_ref, stored_ref, factory_ref) = (&*shared, &stored, &*factory);
    let mut recovery = Recovery { shared: shared_ref, stored: stored_ref, factory: factory_ref, report: &mut report };
    let replayed = recovery.run(checkpoint.as_ref(), trusted, &mut rng).map_err(|error| match error {
        ReplayError::Index(error) => index_error(error),
        ReplayError::Segment(error) => io(error),
    })?;
    let (torn, blank) = (replayed.tail.torn.clone(), replayed.tail.segment == 0);
    let mut engine = assemble(config, files, factory, &stored, disk, shared, replayed);
    engine.settle(&torn, blank, &mut report, executor)?;
    Ok(Opened { engine, report })
}

/// An engine that stands where the log ends.
fn assemble(
    config: DriveConfig,
    files: Arc<dyn Files>,
    factory: Box<dyn IndexFactory>,
    stored: &Stored,
    disk: Disk,
    shared: Arc<Shared>,
    replayed: Replayed,
) -> Engine {
    let Replayed { tail, stamp, live, positions } = replayed;
    let active = resume(&shared, stored, &tail, &config, &disk);
    let writer =
        CheckpointWriter { files: files.clone(), dir: config.dir.clone(), shared: shared.clone(), stamp, positions };
    Engine {
        dir: config.dir.join("segments"),
        secret: stored.secret,
        shared,
        factory,
        checkpointer: Checkpointer::Inline(writer),
        active,
        free: disk.free,
        sequence_next: disk.sequence_next,
        number_next: tail.number_next,
        used_bytes: live.bytes,
        chunk_count: live.chunks,
        bytes_since_checkpoint: 0,
        compaction: None,
        stuck: Default::default(),
        punches: Vec::new(),
        stage: Engine::stage(),
        config,
        files,
    }
}

/// What lies in the segment directory.
struct Disk {
    segments: Arc<Segments>,
    free: Vec<(u64, u64)>,
    sequence_next: u64,
}

fn load_segments(files: &dyn Files, dir: &Path) -> io::Result<Disk> {
    files.create_dir(dir)?;
    let (live, free) = segment::list(files, dir)?;
    let newest = live.last().max(free.last()).copied().unwrap_or(0);
    let segments = Segments::default();
    for sequence in live {
        let file = files.open(&Name::Live(sequence).path(dir))?;
        let allocated = file.allocated()?;
        segments.insert(Arc::new(Segment::new(sequence, file, allocated)));
    }
    let mut spare = Vec::new();
    for sequence in free {
        spare.push((sequence, files.open(&Name::Free(sequence).path(dir))?.allocated()?));
    }
    Ok(Disk { segments: Arc::new(segments), free: spare, sequence_next: newest + 1 })
}

/// The stamp of an index that may be replayed over; or why it was made anew, and its stamp.
type Trust = Result<Stamp, (RebuildReason, Stamp)>;

/// Opens the index, or a new one if what is there is unusable. Says why it cannot be trusted, if so.
fn open_index(
    factory: &dyn IndexFactory,
    checkpoint: Option<&Checkpoint>,
    rng: &mut SmallRng,
) -> Result<(Arc<dyn ChunkIndex>, Trust), IndexError> {
    let reason = match factory.open() {
        Err(error) => RebuildReason::Unusable(error),
        Ok(index) => match (index.stamp(), checkpoint) {
            (Err(error), _) => RebuildReason::Unusable(error),
            (Ok(Some(stamp)), Some(checkpoint)) if stamp == checkpoint.stamp => {
                return Ok((Arc::from(index), Ok(stamp)));
            }
            (Ok(_), Some(_)) => RebuildReason::Stamp,
            (Ok(_), None) => RebuildReason::NoCheckpoint,
        },
    };
    let (index, stamp) = new_index(factory, rng)?;
    Ok((index, Err((reason, stamp))))
}

/// Moves the old index aside and makes an empty one.
fn new_index(factory: &dyn IndexFactory, rng: &mut SmallRng) -> Result<(Arc<dyn ChunkIndex>, Stamp), IndexError> {
    factory.discard()?;
    let index = factory.open()?;
    let mut stamp = Stamp::default();
    rng.fill_bytes(&mut stamp);
    index.set_stamp(stamp)?;
    Ok((Arc::from(index), stamp))
}

struct Replayed {
    tail: Tail,
    stamp: Stamp,
    live: Live,
    positions: [Position; 3],
}

struct Recovery<'a> {
    shared: &'a Shared,
    stored: &'a Stored,
    factory: &'a dyn IndexFactory,
    report: &'a mut RecoveryReport,
}

impl Recovery<'_> {
    fn run(
        &mut self,
        checkpoint: Option<&Checkpoint>,
        trusted: Trust,
        rng: &mut SmallRng,
    ) -> Result<Replayed, ReplayError> {
        let floor = checkpoint.map_or(Position::default(), |checkpoint| checkpoint.positions[0]);
        let stamp = match (trusted, checkpoint) {
            (Ok(stamp), Some(checkpoint)) => match self.replay_known(checkpoint, rng)? {
                Ok((tail, live)) => {
                    let positions = if checkpoint.clean { [checkpoint.positions[0]; 3] } else { checkpoint.positions };
                    return Ok(Replayed { tail, stamp, live, positions });
                }
                Err(reason) => self.start_over(reason, rng)?,
            },
            (Ok(_), None) => self.start_over(RebuildReason::NoCheckpoint, rng)?,
            (Err((reason, stamp)), _) => {
                self.note_rebuild(reason, checkpoint.is_none());
                stamp
            }
        };
        let (tail, live) = self.replay_all(floor)?;
        Ok(Replayed { tail, stamp, live, positions: [Position::default(); 3] })
    }

    fn note_rebuild(&mut self, reason: RebuildReason, first: bool) {
        // A drive that never had a segment has nothing to rebuild.
        if !(first && self.shared.segments.all().is_empty()) {
            tracing::warn!(drive = %self.shared.drive, ?reason, "rebuilding the chunk index from segments");
            self.shared.metrics.index_rebuilds.inc();
            self.report.index_rebuilt = Some(reason);
        }
    }

    fn start_over(&mut self, reason: RebuildReason, rng: &mut SmallRng) -> Result<Stamp, IndexError> {
        self.note_rebuild(reason, false);
        let (index, stamp) = new_index(self.factory, rng)?;
        self.shared.catalogue.replace_index(index);
        Ok(stamp)
    }

    fn replay(&mut self, from: Position, floor: Position) -> Result<Tail, ReplayError> {
        let report = &mut *self.report;
        let last_frame = if report.clean { LastFrame::Durable } else { LastFrame::Unsure };
        Replay { shared: self.shared, secret: &self.stored.secret, floor, last_frame, report }.run(from)
    }

    fn replay_all(&mut self, floor: Position) -> Result<(Tail, Live), ReplayError> {
        let tail = self.replay(Position::default(), floor)?;
        Ok((tail, count_live(self.shared)?))
    }

    /// Replays behind the checkpoint over an index that carries its stamp; or says why the index must be made anew.
    fn replay_known(
        &mut self,
        checkpoint: &Checkpoint,
        rng: &mut SmallRng,
    ) -> io::Result<Result<(Tail, Live), RebuildReason>> {
        let before = self.report.clone();
        let replayed = match self.try_index(checkpoint, rng) {
            Ok(verdict) => verdict,
            Err(ReplayError::Index(error)) => Err(RebuildReason::Unusable(error)),
            Err(ReplayError::Segment(error)) => return Err(error),
        };
        if replayed.is_err() {
            // The whole log is replayed next; it finds the same again.
            *self.report = before;
        }
        Ok(replayed)
    }

    fn try_index(
        &mut self,
        checkpoint: &Checkpoint,
        rng: &mut SmallRng,
    ) -> Result<Result<(Tail, Live), RebuildReason>, ReplayError> {
        if !self.sample_agrees(rng)? {
            return Ok(Err(RebuildReason::Disagrees));
        }
        let tail = self.replay(checkpoint.replay_from(), checkpoint.positions[0])?;
        let unchanged = checkpoint.clean && self.shared.catalogue.recent_count() == 0;
        let adopted = if unchanged { adopt_live(self.shared, &checkpoint.lines) } else { None };
        let live = match adopted {
            Some(live) => live,
            None => count_live(self.shared)?,
        };
        if live.lost > 0 {
            return Ok(Err(RebuildReason::SegmentsLost { chunks: live.lost }));
        }
        let bytes_max = INDEX_BYTES_MIN.max(live.chunks.saturating_mul(INDEX_BYTES_PER_CHUNK));
        let bloated = self.shared.catalogue.index().size_bytes() > bytes_max;
        Ok(if bloated { Err(RebuildReason::Bloated) } else { Ok((tail, live)) })
    }

    /// Compares some entries with what lies where they point.
    fn sample_agrees(&self, rng: &mut SmallRng) -> Result<bool, IndexError> {
        let mut extent = [0; 16];
        rng.fill_bytes(&mut extent);
        let middle = ChunkId { extent: ExtentId::from_bytes(extent), slot: 0 };
        let mut samples = self.shared.catalogue.scan(None, SAMPLES)?;
        samples.extend(self.shared.catalogue.scan(Some(middle), SAMPLES)?);
        let verdicts: Vec<bool> =
            samples.iter().filter_map(|(chunk, location)| self.shared.head_matches(*chunk, location)).collect();
        let wrong = verdicts.iter().filter(|matches| !**matches).count();
        // A few wrong ones are damaged chunks; most wrong is a wrong index.
        Ok(verdicts.is_empty() || wrong * 2 <= verdicts.len())
    }
}

fn resume(shared: &Shared, stored: &Stored, tail: &Tail, config: &DriveConfig, disk: &Disk) -> Active {
    let newest = shared.segments.get(tail.segment);
    let segment = newest.unwrap_or_else(|| {
        // An empty drive: a stand-in without room, replaced by a real segment before anything is written.
        Arc::new(Segment::new(0, Arc::new(NoFile), 0))
    });
    let allocated_end = segment.file.len().unwrap_or(0).min(u64::from(config.segment_len));
    let allocated_end = u32::try_from(allocated_end).unwrap_or(0).max(tail.offset);
    debug_assert!(disk.sequence_next > tail.segment, "sequences only grow");
    let key = FrameKey::derive(&stored.secret, segment.sequence);
    Active { segment, key, tail: tail.offset, allocated_end }
}

/// The file of a segment that does not exist.
struct NoFile;

impl crate::files::File for NoFile {
    fn write_at(&self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn read_at(&self, _offset: u64, _into: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn allocate(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn punch_hole(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn allocated(&self) -> io::Result<u64> {
        Ok(0)
    }
}

impl Engine {
    /// Ends opening: a first segment, tombstones for torn records, a checkpoint that says the drive is in use.
    fn settle(
        &mut self,
        torn: &[(ChunkId, Location)],
        blank: bool,
        report: &mut RecoveryReport,
        executor: &Executor,
    ) -> Result<(), DriveError> {
        if blank {
            self.first_segment()?;
        }
        self.cut_torn(torn, report)?;
        if let Some(index) = &report.index_rebuilt {
            tracing::info!(drive = %self.shared.drive, reason = ?index, chunks = self.chunk_count, "chunk index rebuilt");
        }
        for region in &report.corrupt_regions {
            tracing::error!(drive = %self.shared.drive, segment = region.segment, offset = region.offset,
                len = region.len, "damaged part of a segment");
        }
        self.checkpoint_now()?;
        if let Executor::Threads { .. } = executor
            && let Some(writer) = self.checkpointer.stop()
        {
            let spawned = Checkpointer::spawn(writer);
            self.checkpointer = spawned.map_err(|error| self.shared.vitals.fail_io(FailReason::Checkpoint, &error))?;
        }
        self.publish_room();
        Ok(())
    }

    /// The last frame's table may be there without all of its payloads. Records that are not whole were never
    /// acknowledged; the next frame says so for good.
    fn cut_torn(&mut self, torn: &[(ChunkId, Location)], report: &mut RecoveryReport) -> Result<(), DriveError> {
        let mut plan = Plan::default();
        for (chunk, location) in torn {
            let (segment, offset) = location.position();
            plan.carry(Record::Void { chunk: *chunk, segment, offset });
            report.torn_records += 1;
            self.shared.metrics.torn_records.inc();
        }
        if plan.is_empty() { Ok(()) } else { self.write_plan(plan) }
    }

    /// Makes a new index from the segments while the drive is in use; until then reads answer that it is unavailable.
    pub(super) fn rebuild_index(&mut self) -> Result<(), DriveError> {
        tracing::warn!(drive = %self.shared.drive, "the chunk index failed; rebuilding it from segments");
        self.shared.metrics.index_rebuilds.inc();
        let failed = |engine: &Self| engine.shared.vitals.fail(FailReason::Index);
        let threaded = matches!(self.checkpointer, Checkpointer::Thread { .. });
        let Some(mut writer) = self.checkpointer.stop() else {
            return Err(failed(self));
        };
        let mut rng = SmallRng::seed_from_u64(self.config.seed ^ self.number_next);
        let rebuilt = new_index(&*self.factory, &mut rng).map_err(ReplayError::from).and_then(|(index, stamp)| {
            self.shared.catalogue.replace_index(index);
            let mut report = RecoveryReport::default();
            let (shared, secret, floor) = (&*self.shared, &self.secret, self.position());
            Replay { shared, secret, floor, last_frame: LastFrame::Durable, report: &mut report }
                .run(Position::default())?;
            Ok((stamp, count_live(shared)?))
        });
        let Ok((stamp, live)) = rebuilt else {
            return Err(failed(self));
        };
        (self.used_bytes, self.chunk_count) = (live.bytes, live.chunks);
        (writer.stamp, writer.positions) = (stamp, [Position::default(); 3]);
        self.checkpointer = Checkpointer::Inline(writer);
        self.shared.catalogue.set_usable();
        self.checkpoint_now()?;
        if threaded && let Some(writer) = self.checkpointer.stop() {
            let spawned = Checkpointer::spawn(writer);
            self.checkpointer = spawned.map_err(|_| self.shared.vitals.fail(FailReason::Index))?;
        }
        Ok(())
    }
}
