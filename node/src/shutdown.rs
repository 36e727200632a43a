//! The order in which a node stops, and the signals that ask for it.
//!
//! 1. fail readiness, so that load balancers turn away
//! 2. stop accepting
//! 3. drain requests under way, until the deadline
//! 4. hand over leadership
//! 5. stop background workers
//! 6. flush drives
//! 7. close peers
//!
//! A second signal ends the process at once; the drives are as after a crash then, which is safe.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, timeout};

use crate::http::{Drained, HttpServer};

/// Longest time for each of the steps after the drain.
const STEP_DEADLINE: Duration = Duration::from_secs(10);

/// What the cluster side does when the node stops. Each step is given ten seconds and dropped after that.
pub trait Stages: Send + Sync {
    /// Gives leadership of every group to another replica, so that no election is needed.
    fn hand_over_leadership(&self) -> BoxFuture<'_, ()>;
    /// Stops background workers at their next safe point.
    fn stop_workers(&self) -> BoxFuture<'_, ()>;
    /// Writes and syncs what drives hold in memory, and closes them.
    fn flush_drives(&self) -> BoxFuture<'_, ()>;
    /// Says goodbye to peers and closes the endpoint.
    fn close_peers(&self) -> BoxFuture<'_, ()>;
}

/// How a node stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Everything under way was answered and every step ended in time.
    Clean,
    /// Something was cut short; the log says what.
    CutShort,
}

/// Stops a node in order. Dropped: the node is left half stopped; only the end of the process should do that.
pub async fn stop_in_order(
    stopping: &AtomicBool,
    servers: Vec<HttpServer>,
    stages: &dyn Stages,
    deadline: Duration,
) -> Stopped {
    let started = Instant::now();
    stopping.store(true, Ordering::Relaxed);
    tracing::info!("stopping: not ready any more");
    for server in &servers {
        server.stop_accepting();
    }
    let mut clean = true;
    for drained in join_all(servers.into_iter().map(|server| server.drain(deadline))).await {
        if let Drained::Cut { tasks } = drained {
            clean = false;
            tracing::warn!(tasks, "requests were cut at the shutdown deadline");
        }
    }
    clean &= step("hand over leadership", stages.hand_over_leadership()).await;
    clean &= step("stop workers", stages.stop_workers()).await;
    clean &= step("flush drives", stages.flush_drives()).await;
    clean &= step("close peers", stages.close_peers()).await;
    tracing::info!(elapsed_ms = millis(started.elapsed()), clean, "stopped");
    if clean { Stopped::Clean } else { Stopped::CutShort }
}

async fn step(name: &'static str, work: BoxFuture<'_, ()>) -> bool {
    let started = Instant::now();
    let in_time = timeout(STEP_DEADLINE, work).await.is_ok();
    if in_time {
        tracing::info!(step = name, elapsed_ms = millis(started.elapsed()), "done");
    } else {
        tracing::warn!(step = name, "given up after {} s", STEP_DEADLINE.as_secs());
    }
    in_time
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// SIGTERM and SIGINT of this process.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes over both signals, within a runtime.
    ///
    /// # Errors
    /// The operating system refuses a handler.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next of them. Cancel safe.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Recorder {
        steps: Mutex<Vec<&'static str>>,
        hangs: Option<&'static str>,
    }

    impl Recorder {
        fn step(&self, name: &'static str) -> BoxFuture<'_, ()> {
            Box::pin(async move {
                self.steps.lock().unwrap().push(name);
                if self.hangs == Some(name) {
                    std::future::pending::<()>().await;
                }
            })
        }
    }

    impl Stages for Recorder {
        fn hand_over_leadership(&self) -> BoxFuture<'_, ()> {
            self.step("hand over")
        }
        fn stop_workers(&self) -> BoxFuture<'_, ()> {
            self.step("workers")
        }
        fn flush_drives(&self) -> BoxFuture<'_, ()> {
            self.step("drives")
        }
        fn close_peers(&self) -> BoxFuture<'_, ()> {
            self.step("peers")
        }
    }

    const ORDER: [&str; 4] = ["hand over", "workers", "drives", "peers"];

    #[tokio::test(start_paused = true)]
    async fn the_steps_come_in_order_after_readiness_failed() {
        let (stages, stopping) = (Recorder::default(), AtomicBool::new(false));
        assert_eq!(stop_in_order(&stopping, Vec::new(), &stages, Duration::from_secs(1)).await, Stopped::Clean);
        assert!(stopping.load(Ordering::Relaxed));
        assert_eq!(*stages.steps.lock().unwrap(), ORDER);
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_that_hangs_does_not_keep_the_others_from_their_turn() {
        let stages = Recorder { hangs: Some("hand over"), ..Recorder::default() };
        let stopping = AtomicBool::new(false);
        let stopped = stop_in_order(&stopping, Vec::new(), &stages, Duration::from_secs(1)).await;
        assert_eq!(stopped, Stopped::CutShort);
        assert_eq!(*stages.steps.lock().unwrap(), ORDER);
    }
}
