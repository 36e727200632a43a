//! Runs a plan: fill, measure, clean up. Everything on one single-threaded runtime; one task per request under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::client::{ClientError, ClientOptions, S3Client};
use super::content::Pattern;
use super::plan::{BenchPlan, Workload};
use super::summary::{Cleanup, Summary, Tally};
use super::worker::Worker;

/// How often one object of the fill is tried.
const FILL_TRIES: u32 = 5;
/// Pause between those tries.
const FILL_PAUSE: Duration = Duration::from_millis(200);
/// Longest wait for any answer.
const STALL: Duration = Duration::from_secs(30);

/// Why a run gave no result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Nobody to ask.
    #[error("no endpoint is given")]
    NoEndpoint,
    /// The bucket could not be made.
    #[error("cannot create bucket {bucket}: {source}")]
    Bucket {
        /// The bucket.
        bucket: String,
        /// Why not.
        source: Box<ClientError>,
    },
    /// An object to be read or deleted could not be stored.
    #[error("cannot store {key} before the run: {source}")]
    Fill {
        /// Its key.
        key: String,
        /// Why not.
        source: Box<ClientError>,
    },
    /// A worker ended by panic.
    #[error("a worker ended by panic")]
    Panicked,
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What it is at.
    pub phase: Phase,
    /// Time since this phase began.
    pub elapsed: Duration,
    /// Operations done in this phase.
    pub operations: u64,
    /// Operations that failed in this phase.
    pub errors: u64,
}

/// The parts of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Storing what will be read or deleted.
    Fill,
    /// The measured part.
    Measure,
    /// Deleting what was made.
    Clean,
}

/// What all workers share.
pub(super) struct Shared {
    pub(super) plan: BenchPlan,
    pub(super) clients: Vec<S3Client>,
    pub(super) pattern: Pattern,
    pub(super) filled: u64,
    next: AtomicU64,
    limit: u64,
    ends: Option<Instant>,
    started: Instant,
    done: AtomicU64,
    failed: AtomicU64,
    last_success_ns: AtomicU64,
    longest_stall_ns: AtomicU64,
}

impl Shared {
    /// The number of the next operation; `None` when the run is over.
    pub(super) fn next_operation(&self, now: Instant) -> Option<u64> {
        if self.ends.is_some_and(|ends| now >= ends) {
            return None;
        }
        let number = self.next.fetch_add(1, Relaxed);
        (number < self.limit).then_some(number)
    }

    pub(super) fn count_success(&self, now: Instant) {
        self.done.fetch_add(1, Relaxed);
        self.mark(now);
    }

    pub(super) fn count_error(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    /// The client whose turn it is.
    pub(super) fn client(&self, turn: u64) -> Option<&S3Client> {
        let count = self.clients.len() as u64;
        self.clients.get(usize::try_from(turn % count.max(1)).unwrap_or(0))
    }

    /// Notes that something succeeded, or that the run ended, now.
    fn mark(&self, now: Instant) {
        let now = nanos(now - self.started);
        let last = self.last_success_ns.fetch_max(now, Relaxed);
        self.longest_stall_ns.fetch_max(now.saturating_sub(last), Relaxed);
    }
}

/// Runs a plan. `progress` is called once a second. Dropped: stops at once and leaves what it stored.
///
/// # Errors
/// The run could not be prepared. Errors of measured operations are part of the summary, not errors here.
pub async fn run(plan: BenchPlan, mut progress: impl FnMut(Progress)) -> Result<Summary, BenchError> {
    let options = ClientOptions { stall: STALL, hashing: plan.hashing };
    let client = |endpoint| S3Client::new(endpoint, plan.credentials.clone(), plan.clock, options);
    let clients: Vec<S3Client> = plan.endpoints.iter().cloned().map(client).collect();
    let first = clients.first().ok_or(BenchError::NoEndpoint)?;
    let bucket = |error| BenchError::Bucket { bucket: plan.bucket.clone(), source: Box::new(error) };
    first.create_bucket(&plan.bucket).await.map_err(bucket)?;
    let (workload, size, cleanup) = (plan.workload, plan.size, plan.cleanup);
    let filled = plan.prefill_count();
    if filled > 0 {
        let filling = prepare(&plan, &clients, 0, filled, None);
        supervise(&filling, Phase::Fill, &mut progress, |shared, _| fill(shared)).await?;
    }
    let limit = plan.operations_max.unwrap_or(u64::MAX).min(match workload {
        Workload::Delete => filled,
        _ => u64::MAX,
    });
    let measuring = prepare(&plan, &clients, filled, limit, Some(plan.duration));
    let tally = supervise(&measuring, Phase::Measure, &mut progress, |shared, index| async move {
        Ok(Worker::new(shared, index).run().await)
    });
    let tally = tally.await?;
    let ended = Instant::now();
    measuring.mark(ended);
    let stall = Duration::from_nanos(measuring.longest_stall_ns.load(Relaxed));
    let mut summary = tally.summary(workload, size, ended - measuring.started, stall);
    if cleanup {
        summary.cleanup = Some(clean(&measuring, &mut progress).await);
    }
    for client in &measuring.clients {
        client.close().await;
    }
    Ok(summary)
}

fn prepare(plan: &BenchPlan, clients: &[S3Client], filled: u64, limit: u64, duration: Option<Duration>) -> Arc<Shared> {
    let started = Instant::now();
    Arc::new(Shared {
        plan: plan.clone(),
        clients: clients.to_vec(),
        pattern: Pattern::new(),
        filled,
        next: AtomicU64::new(0),
        limit,
        ends: duration.map(|duration| started + duration),
        started,
        done: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        last_success_ns: AtomicU64::new(0),
        longest_stall_ns: AtomicU64::new(0),
    })
}

/// Runs one task per request under way and waits for all of them.
async fn supervise<F>(
    shared: &Arc<Shared>,
    phase: Phase,
    progress: &mut impl FnMut(Progress),
    work: impl Fn(Arc<Shared>, usize) -> F,
) -> Result<Tally, BenchError>
where
    F: Future<Output = Result<Tally, BenchError>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for index in 0..shared.plan.concurrency.max(1) {
        tasks.spawn(work(Arc::clone(shared), index));
    }
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks.tick().await;
    let mut all = Tally::default();
    loop {
        tokio::select! {
            biased;
            ended = tasks.join_next() => match ended {
                None => return Ok(all),
                Some(tally) => all.add(&tally.map_err(|_| BenchError::Panicked)??),
            },
            _ = ticks.tick() => progress(Progress {
                phase,
                elapsed: shared.started.elapsed(),
                operations: shared.done.load(Relaxed),
                errors: shared.failed.load(Relaxed),
            }),
        }
    }
}

/// One worker of the fill.
async fn fill(shared: Arc<Shared>) -> Result<Tally, BenchError> {
    while let Some(number) = shared.next_operation(Instant::now()) {
        let key = shared.plan.key(number);
        let mut tries = 0;
        loop {
            tries += 1;
            let Some(client) = shared.client(number + u64::from(tries)) else { return Err(BenchError::NoEndpoint) };
            let body = super::client::Payload::content(shared.pattern.content(&key, shared.plan.size));
            match client.put(&shared.plan.bucket, &key, body).await {
                Ok(_etag) => break,
                Err(error) if tries == FILL_TRIES => return Err(BenchError::Fill { key, source: Box::new(error) }),
                Err(_) => {
                    shared.count_error();
                    sleep(FILL_PAUSE).await;
                }
            }
        }
        shared.count_success(Instant::now());
    }
    Ok(Tally::default())
}

/// Deletes every key of the run, then the bucket if it is empty. What cannot be deleted is left and said.
async fn clean(shared: &Shared, progress: &mut impl FnMut(Progress)) -> Cleanup {
    let started = Instant::now();
    let mut cleanup = Cleanup::default();
    let Some(client) = shared.clients.first() else { return cleanup };
    let (bucket, prefix) = (&shared.plan.bucket, shared.plan.prefix());
    let mut continuation = None;
    loop {
        let page = match client.list(bucket, &prefix, "", continuation.as_deref()).await {
            Ok(page) => page,
            Err(error) => {
                cleanup.blame(format!("cannot list bucket {bucket} below {prefix}: {error}"));
                return cleanup;
            }
        };
        for keys in page.keys.chunks(shared.plan.concurrency.max(1)) {
            let deletes = keys.iter().map(|key| client.delete(bucket, key));
            for deleted in futures_util::future::join_all(deletes).await {
                match deleted {
                    Ok(()) => cleanup.deleted += 1,
                    Err(error) => {
                        cleanup.failed += 1;
                        cleanup.blame(error.to_string());
                    }
                }
            }
        }
        let (operations, errors) = (cleanup.deleted, cleanup.failed);
        progress(Progress { phase: Phase::Clean, elapsed: started.elapsed(), operations, errors });
        continuation = page.continuation;
        if continuation.is_none() {
            break;
        }
    }
    if let Err(error) = client.delete_bucket(bucket).await {
        // It held something before the run, or somebody else writes to it.
        tracing::debug!(%error, bucket, "the bucket is kept");
    }
    cleanup
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
