//! Group commit: every replica on a drive hands its batches to one writer, which writes and syncs many at once.
//!
//! It decides nothing about content. All batches are written in the order of submission, whoever submits them, so that
//! state never reaches the journal before the log it comes from. Those that must be durable are answered after a sync,
//! the others after the write; each kind in the order of submission. A turn without a batch that must be durable has no
//! sync.
//! The queue is bounded by its users: a replica has at most its bounded proposals (leader) or one append per leader
//! (follower) outstanding.
//!
//! The first error is final: that batch and all later ones are answered with it, and nothing is retried, because a sync
//! that succeeds after one that failed proves nothing. A drive that does not answer at all is given up by
//! [`LogWriter::fail_if_stuck`]: else its replicas would go on to lead groups of which nothing can be written here.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::{Batch, Kv, KvError, LogMetrics};

/// Bytes of batches that one write takes together: enough to amortise the sync, little enough to keep it short.
const GROUP_BYTES_MAX: usize = 4 << 20;

/// Where a [`LogWriter`] runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Executor {
    /// On a thread of its own, for stores that block on a drive. The production form.
    Threads,
    /// As a task of the current tokio runtime, for simulation. `sync_delay` of (simulated) time passes between write and
    /// sync, so that crashes can hit that window; zero still yields.
    Tasks {
        /// Time between write and sync.
        sync_delay: Duration,
    },
}

/// Called with the outcome, on the writer's thread: must be quick and must not block.
type Done = Box<dyn FnOnce(Result<(), KvError>) + Send>;

/// When a submission is answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Written,
    Durable,
}

struct Submission {
    batch: Batch,
    until: Until,
    done: Done,
}

/// Who waits for a turn of the writer.
#[derive(Default)]
struct Answers {
    written: Vec<Done>,
    durable: Vec<Done>,
}

impl Answers {
    fn settle(self, result: &Result<(), KvError>) {
        for done in self.written.into_iter().chain(self.durable) {
            done(result.clone());
        }
    }
}

/// What the writer is doing. It is shared so that who waits can be answered although the writer hangs.
#[derive(Default)]
struct Turn {
    since: Option<Instant>,
    answers: Answers,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Submission>,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    arrived_thread: Condvar,
    arrived_task: Notify,
    turn: Mutex<Turn>,
    failure: watch::Sender<Option<KvError>>,
    kv: Arc<dyn Kv>,
    metrics: LogMetrics,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a turn: writes a group as one batch, unless the writer has failed, and answers whom the write is enough
    /// for. Whether anybody waits for a sync.
    fn write_group(&self, group: Vec<Submission>) -> Result<bool, KvError> {
        self.metrics.batches.inc_by(group.len() as u64);
        let (batch, answers) = join_group(group);
        *self.turn() = Turn { since: Some(Instant::now()), answers };
        let failure = self.failure.borrow().clone();
        failure.map_or_else(|| self.write(batch), Err)?;
        let (written, must_sync) = {
            let answers = &mut self.turn().answers;
            (std::mem::take(&mut answers.written), !answers.durable.is_empty())
        };
        written.into_iter().for_each(|done| done(Ok(())));
        Ok(must_sync)
    }

    /// Ends a turn: answers who still waits for it; on error ends the writer.
    fn settle(&self, result: &Result<(), KvError>) {
        if let Err(error) = result {
            self.fail(error);
        }
        let Turn { answers, .. } = std::mem::take(&mut *self.turn());
        answers.settle(result);
    }

    /// Ends the writer: the first error counts. Whoever waits, for this turn or for a later one, is answered with it.
    fn fail(&self, error: &KvError) {
        self.failure.send_if_modified(|failure| {
            let is_first = failure.is_none();
            if is_first {
                *failure = Some(error.clone());
            }
            is_first
        });
        let waiting = {
            let mut queue = self.queue();
            queue.closed = true;
            std::mem::take(&mut queue.waiting)
        };
        let in_turn = std::mem::take(&mut self.turn().answers);
        in_turn.settle(&Err(error.clone()));
        for submission in waiting {
            (submission.done)(Err(error.clone()));
        }
        self.wake();
    }

    fn wake(&self) {
        self.arrived_thread.notify_one();
        self.arrived_task.notify_one();
    }

    fn write(&self, batch: Batch) -> Result<(), KvError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.metrics.bytes.inc_by(batch.len() as u64);
        self.kv.write(batch)
    }

    fn sync(&self) -> Result<(), KvError> {
        self.metrics.syncs.inc();
        self.kv.sync()
    }
}

enum Worker {
    Thread(std::thread::JoinHandle<()>),
    Task(tokio::task::JoinHandle<()>),
}

/// Handle of a drive's group commit. Clones share one writer.
#[derive(Clone)]
pub struct LogWriter {
    shared: Arc<Shared>,
    worker: Arc<Mutex<Option<Worker>>>,
}

impl LogWriter {
    /// Starts the writer of `kv`. With [`Executor::Tasks`] it must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(kv: Arc<dyn Kv>, executor: Executor, metrics: LogMetrics) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            arrived_thread: Condvar::new(),
            arrived_task: Notify::new(),
            turn: Mutex::default(),
            failure: watch::Sender::new(None),
            kv,
            metrics,
        });
        let worker = match executor {
            Executor::Threads => {
                let shared = Arc::clone(&shared);
                let thread =
                    std::thread::Builder::new().name("consensus-log".to_owned()).spawn(move || run_thread(&shared))?;
                Worker::Thread(thread)
            }
            Executor::Tasks { sync_delay } => {
                let shared = Arc::clone(&shared);
                Worker::Task(tokio::spawn(async move { run_task(&shared, sync_delay).await }))
            }
        };
        Ok(Self { shared, worker: Arc::new(Mutex::new(Some(worker))) })
    }

    /// Enqueues `batch` (which may be empty: then it is a barrier). `done` is called once it and everything before it is
    /// durable, or with the error that ended the writer. Never blocks.
    pub fn submit(&self, batch: Batch, done: impl FnOnce(Result<(), KvError>) + Send + 'static) {
        self.enqueue(batch, Until::Durable, done);
    }

    /// Enqueues `batch` behind everything submitted before. `done` is called once it is written and visible, or with the
    /// error that ended the writer. It survives a crash only after a later sync. Never blocks.
    pub fn submit_write(&self, batch: Batch, done: impl FnOnce(Result<(), KvError>) + Send + 'static) {
        self.enqueue(batch, Until::Written, done);
    }

    fn enqueue(&self, batch: Batch, until: Until, done: impl FnOnce(Result<(), KvError>) + Send + 'static) {
        if let Some(failure) = self.failure() {
            done(Err(failure));
            return;
        }
        let mut queue = self.shared.queue();
        if queue.closed {
            drop(queue);
            done(Err(self.failure().unwrap_or(KvError::Closed)));
            return;
        }
        queue.waiting.push(Submission { batch, until, done: Box::new(done) });
        drop(queue);
        self.shared.wake();
    }

    /// Writes `batch` and waits until it is durable. Cancelling stops the waiting, not the write.
    ///
    /// # Errors
    /// The error that ended the writer.
    pub async fn write_durably(&self, batch: Batch) -> Result<(), KvError> {
        self.wait_for(batch, Until::Durable).await
    }

    /// Writes `batch` behind everything submitted before, and waits until it is visible; see [`LogWriter::submit_write`].
    /// Cancelling stops the waiting, not the write.
    ///
    /// # Errors
    /// The error that ended the writer.
    pub async fn write(&self, batch: Batch) -> Result<(), KvError> {
        self.wait_for(batch, Until::Written).await
    }

    async fn wait_for(&self, batch: Batch, until: Until) -> Result<(), KvError> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.enqueue(batch, until, move |result| {
            // The waiter may have been cancelled; the write counts all the same.
            sender.send(result).unwrap_or_default();
        });
        receiver.await.unwrap_or(Err(KvError::Closed))
    }

    /// Ends the writer with `error`, as if it had occurred in it: a failed write of state on the same drive must stop
    /// every replica there.
    pub fn fail(&self, error: &KvError) {
        self.shared.fail(error);
    }

    /// Ends the writer if its present write or sync has taken longer than `patience`: see [`KvError::Stuck`].
    pub fn fail_if_stuck(&self, patience: Duration) {
        let waited = self.shared.turn().since.map(|since| since.elapsed());
        if let Some(waited) = waited.filter(|waited| *waited > patience) {
            self.fail(&KvError::Stuck { seconds: waited.as_secs() });
        }
    }

    /// The error that ended the writer, if one did.
    pub fn failure(&self) -> Option<KvError> {
        self.shared.failure.borrow().clone()
    }

    /// Changes once, when the writer fails.
    pub fn watch_failure(&self) -> watch::Receiver<Option<KvError>> {
        self.shared.failure.subscribe()
    }

    /// Writes and syncs what was submitted, then ends the writer. Later submissions are refused. A writer that was given
    /// up while it hung is left behind.
    pub async fn shutdown(&self) {
        self.close();
        if matches!(self.failure(), Some(KvError::Stuck { .. })) && self.shared.turn().since.is_some() {
            return;
        }
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner).take();
        match worker {
            Some(Worker::Thread(thread)) => join_thread(thread),
            Some(Worker::Task(task)) => {
                if let Err(error) = task.await {
                    tracing::error!(%error, "the log writer did not end cleanly");
                }
            }
            None => {}
        }
    }

    fn close(&self) {
        self.shared.queue().closed = true;
        self.shared.wake();
    }
}

/// Joins the writer's thread. It has been told to end and only finishes its last sync, so this blocks for one sync.
fn join_thread(thread: std::thread::JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("the log writer panicked");
    }
}

/// Takes as many submissions as one write should hold.
fn take_group(queue: &mut Queue) -> Vec<Submission> {
    let mut len = 0;
    let mut count = 0;
    for submission in &queue.waiting {
        count += 1;
        len += submission.batch.len();
        if len >= GROUP_BYTES_MAX {
            break;
        }
    }
    queue.waiting.drain(..count).collect()
}

/// Joins the batches of a group into one.
fn join_group(group: Vec<Submission>) -> (Batch, Answers) {
    let mut batch = Batch::new();
    let mut answers = Answers::default();
    for submission in group {
        batch.append(submission.batch);
        match submission.until {
            Until::Written => answers.written.push(submission.done),
            Until::Durable => answers.durable.push(submission.done),
        }
    }
    (batch, answers)
}

fn run_thread(shared: &Shared) {
    loop {
        let group = {
            let mut queue = shared.queue();
            while queue.waiting.is_empty() && !queue.closed {
                queue = shared.arrived_thread.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            take_group(&mut queue)
        };
        if group.is_empty() {
            return;
        }
        let result = shared.write_group(group).and_then(|must_sync| if must_sync { shared.sync() } else { Ok(()) });
        shared.settle(&result);
    }
}

async fn run_task(shared: &Shared, sync_delay: Duration) {
    loop {
        let (group, closed) = {
            let mut queue = shared.queue();
            (take_group(&mut queue), queue.closed)
        };
        if group.is_empty() {
            if closed {
                return;
            }
            shared.arrived_task.notified().await;
            continue;
        }
        let result = match shared.write_group(group) {
            Ok(true) => {
                if sync_delay.is_zero() {
                    tokio::task::yield_now().await;
                } else {
                    tokio::time::sleep(sync_delay).await;
                }
                shared.sync()
            }
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        shared.settle(&result);
    }
}
