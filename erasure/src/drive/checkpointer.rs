//! Brings the index up to date with the log and records how far: off the writer's path in production, inline in
//! simulation.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use super::catalogue::{Changes, Sync};
use super::checkpoint::{Checkpoint, Position, SegmentLine};
use super::error::{DriveError, FailReason};
use super::index::Stamp;
use super::reader::Shared;
use crate::files::Files;

/// What is to be written, up to which place in the log.
pub(super) struct Job {
    pub(super) frozen: Arc<Changes>,
    pub(super) position: Position,
    /// Present when the drive is being closed.
    pub(super) clean: Option<Vec<SegmentLine>>,
}

/// Writes checkpoints, one at a time.
pub(super) struct CheckpointWriter {
    pub(super) files: Arc<dyn Files>,
    pub(super) dir: PathBuf,
    pub(super) shared: Arc<Shared>,
    pub(super) stamp: Stamp,
    pub(super) positions: [Position; 3],
}

impl CheckpointWriter {
    /// The index first, durably; then our record of it. A crash in between replays a little more.
    pub(super) fn run(&mut self, job: Job) -> Result<(), DriveError> {
        let catalogue = &self.shared.catalogue;
        if catalogue.write_frozen(&job.frozen, Sync::Now).is_err() {
            // The catalogue has noted it; the writer rebuilds the index.
            return Err(DriveError::IndexUnavailable(self.shared.drive));
        }
        catalogue.drop_frozen();
        self.positions = [job.position, self.positions[0], self.positions[1]];
        self.store(job.clean)?;
        self.shared.metrics.checkpoints.inc();
        Ok(())
    }

    pub(super) fn store(&self, clean: Option<Vec<SegmentLine>>) -> Result<(), DriveError> {
        let checkpoint = Checkpoint {
            stamp: self.stamp,
            clean: clean.is_some(),
            positions: self.positions,
            lines: clean.unwrap_or_default(),
        };
        checkpoint
            .store(&*self.files, &self.dir)
            .map_err(|error| self.shared.vitals.fail_io(FailReason::Checkpoint, &error))
    }
}

type Ack = mpsc::SyncSender<Result<(), DriveError>>;

/// Where checkpoints are written.
pub(super) enum Checkpointer {
    /// In the caller's turn.
    Inline(CheckpointWriter),
    /// On a thread of its own; at most one job waits.
    Thread { jobs: mpsc::SyncSender<(Job, Option<Ack>)>, thread: JoinHandle<CheckpointWriter> },
    /// Taken apart; only while closing or rebuilding.
    Stopped,
}

impl Checkpointer {
    pub(super) fn spawn(mut writer: CheckpointWriter) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::sync_channel::<(Job, Option<Ack>)>(1);
        let thread = std::thread::Builder::new().name("drive-index".to_owned()).spawn(move || {
            while let Ok((job, ack)) = queue.recv() {
                let result = writer.run(job);
                match ack {
                    Some(ack) => drop(ack.send(result)),
                    None => drop(result), // The vitals or the catalogue carry the failure.
                }
            }
            writer
        })?;
        Ok(Self::Thread { jobs, thread })
    }

    /// Hands the job over; on a thread it may still be running on return.
    pub(super) fn submit(&mut self, job: Job) {
        match self {
            Self::Inline(writer) => drop(writer.run(job)),
            // A thread that is gone has panicked; `stop` reports it.
            Self::Thread { jobs, .. } => drop(jobs.send((job, None))),
            Self::Stopped => {}
        }
    }

    /// Runs the job to its end.
    pub(super) fn run(&mut self, job: Job, closed: DriveError) -> Result<(), DriveError> {
        match self {
            Self::Inline(writer) => writer.run(job),
            Self::Thread { jobs, .. } => {
                let (ack, done) = mpsc::sync_channel(1);
                jobs.send((job, Some(ack))).map_err(|_| closed.clone())?;
                done.recv().unwrap_or(Err(closed))
            }
            Self::Stopped => Err(closed),
        }
    }

    /// Waits for a job under way and gives the writer back.
    pub(super) fn stop(&mut self) -> Option<CheckpointWriter> {
        match std::mem::replace(self, Self::Stopped) {
            Self::Inline(writer) => Some(writer),
            Self::Thread { jobs, thread } => {
                drop(jobs);
                thread.join().ok()
            }
            Self::Stopped => None,
        }
    }
}
