//! Who runs a drive: threads in production, tasks of the caller's runtime in simulation. The engine is the same.
//!
//! With threads, one writer thread owns the engine and drains its queue into commits; a few reader threads find, read
//! and verify, so that a read costs one hop. With tasks, the writer is a task and reads run in the caller's turn; the
//! delays of a simulated drive are slept off with `tokio::time`, never in a blocking way.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::AppendClass;
use super::compaction::CompactStep;
use super::engine::Engine;
use super::error::{DriveError, OpenError};
use super::identity::DriveIdentity;
use super::opening::Opened;
use super::reader::Shared;
use super::recovery::RecoveryReport;
use crate::chunk::SealedChunk;
use crate::files::Files;
use crate::ids::ChunkId;

/// Turns of a busy writer between steps of compaction.
const TURNS_PER_COMPACTION: u32 = 32;

/// What runs a drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Executor {
    /// One writer thread, one thread for checkpoints, and `readers` reader threads (at least one; 2 suit a fast
    /// drive).
    Threads {
        /// Reader threads.
        readers: usize,
    },
    /// A task on the runtime in whose context the drive is opened; no threads. For simulation and tests.
    Tasks,
}

/// A change of what the drive holds.
pub(super) enum Request {
    Append { chunk: SealedChunk, class: AppendClass },
    Delete { chunks: Vec<ChunkId> },
}

impl Request {
    fn len(&self) -> u64 {
        match self {
            Self::Append { chunk, .. } => u64::from(chunk.header().payload_len),
            Self::Delete { .. } => 0,
        }
    }

    fn records(&self) -> usize {
        match self {
            Self::Append { .. } => 1,
            Self::Delete { chunks } => chunks.len(),
        }
    }
}

type Answer = oneshot::Sender<Result<(), DriveError>>;

enum Command {
    /// With its share of the queue's bytes.
    Change(Request, Answer, OwnedSemaphorePermit),
    Checkpoint(Answer),
    Compact(Answer),
    Close(Answer),
}

type ReadJob = Box<dyn FnOnce(&Shared) + Send>;

/// The readers' queue: bounded by the permits its jobs hold.
struct ReadQueue {
    jobs: Mutex<(VecDeque<ReadJob>, Open)>,
    wake: Condvar,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Yes,
    No,
}

enum Workers {
    Threads { queue: Arc<ReadQueue>, permits: Arc<Semaphore>, threads: Mutex<Vec<JoinHandle<()>>> },
    Task { task: tokio::sync::Mutex<Option<tokio::task::JoinHandle<()>>> },
}

/// What a [`super::Drive`] holds on to.
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
    pub(super) identity: DriveIdentity,
    pub(super) report: RecoveryReport,
    files: Arc<dyn Files>,
    commands: mpsc::Sender<Command>,
    pub(super) queue_bytes: Arc<Semaphore>,
    queue_bytes_max: u32,
    workers: Workers,
}

pub(super) fn start(opened: Opened, executor: Executor) -> Result<Handle, OpenError> {
    let Opened { engine, report } = opened;
    let (commands, queue) = mpsc::channel(engine.config.queue_len);
    let (shared, files, identity) = (engine.shared.clone(), engine.files.clone(), engine.config.identity);
    let dir = engine.config.dir.clone();
    let queue_bytes_max = engine.config.queue_bytes;
    let queue_bytes = Arc::new(Semaphore::new(queue_bytes_max as usize));
    let workers = match executor {
        Executor::Threads { readers } => {
            start_threads(engine, queue, readers.max(1)).map_err(|error| OpenError::Io { dir, error })?
        }
        Executor::Tasks => {
            let task = tokio::spawn(run_task(engine, queue));
            Workers::Task { task: tokio::sync::Mutex::new(Some(task)) }
        }
    };
    Ok(Handle { shared, identity, report, files, commands, queue_bytes, queue_bytes_max, workers })
}

fn start_threads(engine: Engine, commands: mpsc::Receiver<Command>, readers: usize) -> std::io::Result<Workers> {
    let permits = Arc::new(Semaphore::new(engine.config.queue_len));
    let queue = Arc::new(ReadQueue { jobs: Mutex::new((VecDeque::new(), Open::Yes)), wake: Condvar::new() });
    let mut threads = Vec::with_capacity(readers + 1);
    for _ in 0..readers {
        let (queue, shared) = (queue.clone(), engine.shared.clone());
        threads.push(std::thread::Builder::new().name("drive-read".to_owned()).spawn(move || queue.run(&shared))?);
    }
    let writer = std::thread::Builder::new().name("drive-write".to_owned());
    threads.push(writer.spawn(move || run_thread(engine, commands))?);
    Ok(Workers::Threads { queue, permits, threads: Mutex::new(threads) })
}

impl ReadQueue {
    fn run(&self, shared: &Shared) {
        loop {
            let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
            let job = loop {
                match (jobs.0.pop_front(), jobs.1) {
                    (Some(job), _) => break job,
                    (None, Open::No) => return,
                    (None, Open::Yes) => jobs = self.wake.wait(jobs).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(jobs);
            job(shared);
        }
    }

    fn push(&self, job: ReadJob) -> bool {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.1 == Open::No {
            return false;
        }
        jobs.0.push_back(job);
        drop(jobs);
        self.wake.notify_one();
        true
    }

    fn close(&self) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).1 = Open::No;
        self.wake.notify_all();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Workers::Threads { queue, .. } = &self.workers {
            queue.close();
        }
    }
}

impl Handle {
    fn closed(&self) -> DriveError {
        DriveError::Closed(self.shared.drive)
    }

    async fn command(&self, command: impl FnOnce(Answer) -> Command) -> Result<(), DriveError> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| self.closed())?;
        answered.await.unwrap_or_else(|_| Err(self.closed()))
    }

    pub(super) async fn change(&self, request: Request) -> Result<(), DriveError> {
        // What is larger than the queue waits for all of it.
        let len = request.len().min(u64::from(self.queue_bytes_max));
        let room = Arc::clone(&self.queue_bytes).acquire_many_owned(u32::try_from(len).unwrap_or(u32::MAX)).await;
        let room = room.map_err(|_| self.closed())?;
        self.command(|answer| Command::Change(request, answer, room)).await
    }

    pub(super) async fn checkpoint(&self) -> Result<(), DriveError> {
        self.command(Command::Checkpoint).await
    }

    pub(super) async fn compact(&self) -> Result<(), DriveError> {
        self.command(Command::Compact).await
    }

    /// Runs `act` on a reader.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Shared) -> Result<T, DriveError> + Send + 'static,
    ) -> Result<T, DriveError> {
        match &self.workers {
            Workers::Threads { queue, permits, .. } => {
                let permit = permits.clone().acquire_owned().await.map_err(|_| self.closed())?;
                let (answer, answered) = oneshot::channel();
                let pushed = queue.push(Box::new(move |shared| {
                    // A caller that went away needs no bytes.
                    if !answer.is_closed() {
                        drop(answer.send(act(shared)));
                    }
                    drop(permit);
                }));
                if !pushed {
                    return Err(self.closed());
                }
                answered.await.unwrap_or_else(|_| Err(self.closed()))
            }
            Workers::Task { .. } => {
                if self.commands.is_closed() {
                    return Err(self.closed());
                }
                let result = act(&self.shared);
                sleep_off(&*self.files).await;
                result
            }
        }
    }

    pub(super) async fn close(&self) -> Result<(), DriveError> {
        let closed = self.command(Command::Close).await;
        match &self.workers {
            Workers::Threads { queue, threads, .. } => {
                queue.close();
                let threads = std::mem::take(&mut *threads.lock().unwrap_or_else(PoisonError::into_inner));
                for thread in threads {
                    // The writer has answered and the readers have only their queue left: a matter of milliseconds.
                    drop(thread.join());
                }
            }
            Workers::Task { task } => {
                if let Some(task) = task.lock().await.take() {
                    drop(task.await);
                }
            }
        }
        closed
    }
}

async fn sleep_off(files: &dyn Files) {
    let debt = files.take_debt();
    if !debt.is_zero() {
        tokio::time::sleep(debt).await;
    }
}

/// What the writer has to do next.
struct Turn {
    batch: Vec<Request>,
    answers: Vec<Answer>,
    room: Vec<OwnedSemaphorePermit>,
    /// A command that ended the batch.
    then: Option<Command>,
}

impl Turn {
    /// Drains what is queued behind `first`, up to the bounds of a commit.
    fn collect(engine: &Engine, first: Command, queue: &mut mpsc::Receiver<Command>) -> Self {
        let mut turn = Self { batch: Vec::new(), answers: Vec::new(), room: Vec::new(), then: None };
        let (mut bytes, mut records) = (0, 0);
        let mut next = Some(first);
        while let Some(command) = next {
            let Command::Change(request, answer, room) = command else {
                turn.then = Some(command);
                break;
            };
            bytes += request.len();
            records += request.records();
            turn.batch.push(request);
            turn.answers.push(answer);
            turn.room.push(room);
            if bytes >= engine.config.commit_bytes_max || records >= engine.config.commit_requests_max {
                break;
            }
            next = queue.try_recv().ok();
        }
        turn
    }
}

/// Answers that are ready to be sent.
type Answered = Vec<(Answer, Result<(), DriveError>)>;

/// Runs one turn. `Some` answer last: the drive is closing, and is answered when everything is done.
fn run_turn(engine: &mut Engine, turn: Turn) -> (Answered, Flow) {
    let mut answered: Answered = Vec::new();
    engine.shared.vitals.set_busy();
    if !turn.batch.is_empty() {
        let results = engine.commit(turn.batch);
        answered.extend(turn.answers.into_iter().zip(results));
    }
    let mut flow = Flow::Continue;
    match turn.then {
        None | Some(Command::Change(..)) => {}
        Some(Command::Checkpoint(answer)) => answered.push((answer, engine.checkpoint_now())),
        Some(Command::Compact(answer)) => {
            let result = compact_all(engine);
            answered.push((answer, result));
        }
        Some(Command::Close(answer)) => {
            answered.push((answer, engine.close()));
            flow = Flow::Stop;
        }
    }
    engine.shared.vitals.set_idle();
    (answered, flow)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Continue,
    Stop,
}

fn compact_all(engine: &mut Engine) -> Result<(), DriveError> {
    while engine.has_punches() {
        engine.punch_some();
    }
    while engine.compact_step()? != CompactStep::Idle {}
    engine.publish_room();
    Ok(())
}

/// One piece of the writer's housekeeping; `false` when there is none left.
fn keep_house(engine: &mut Engine) -> bool {
    engine.checkpoint_if_due();
    if engine.has_punches() {
        engine.punch_some();
        engine.publish_room();
        return true;
    }
    // An error has failed the drive, or there is no room to move anything now.
    let worked = matches!(engine.compact_step(), Ok(step) if step != CompactStep::Idle);
    if worked {
        engine.publish_room();
    }
    worked
}

fn send(answered: Answered) {
    for (answer, result) in answered {
        // A caller that dropped its future does not want to know.
        drop(answer.send(result));
    }
}

fn run_thread(mut engine: Engine, mut queue: mpsc::Receiver<Command>) {
    let mut turns = 0u32;
    while let Some(first) = queue.blocking_recv() {
        let turn = Turn::collect(&engine, first, &mut queue);
        let (answered, flow) = run_turn(&mut engine, turn);
        if flow == Flow::Stop {
            queue.close();
        }
        send(answered);
        if flow == Flow::Stop {
            break;
        }
        turns = turns.wrapping_add(1);
        let mut more = queue.is_empty() || turns.is_multiple_of(TURNS_PER_COMPACTION);
        engine.checkpoint_if_due();
        while more {
            more = keep_house(&mut engine) && queue.is_empty();
        }
    }
    drop(engine.checkpointer.stop());
}

async fn run_task(mut engine: Engine, mut queue: mpsc::Receiver<Command>) {
    let files = engine.files.clone();
    let mut turns = 0u32;
    while let Some(first) = queue.recv().await {
        let turn = Turn::collect(&engine, first, &mut queue);
        let (answered, flow) = run_turn(&mut engine, turn);
        // Slow drives answer late; the status sees how long it takes.
        engine.shared.vitals.set_busy();
        sleep_off(&*files).await;
        engine.shared.vitals.set_idle();
        if flow == Flow::Stop {
            queue.close();
        }
        send(answered);
        if flow == Flow::Stop {
            break;
        }
        turns = turns.wrapping_add(1);
        let mut more = queue.is_empty() || turns.is_multiple_of(TURNS_PER_COMPACTION);
        engine.checkpoint_if_due();
        while more {
            more = keep_house(&mut engine) && queue.is_empty();
            sleep_off(&*files).await;
            tokio::task::yield_now().await;
        }
    }
}
