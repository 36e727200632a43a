//! Single-threaded runtimes, each on a thread of its own: one per worker, one for consensus. Waking another core costs
//! more than a small operation, so a request lives and dies on the worker that accepted it.

use std::io;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// The threads of one node.
#[derive(Debug)]
pub struct Runtimes {
    /// Serve S3 and move data; at least one.
    pub workers: Vec<RuntimeThread>,
    /// Elections, heartbeats and log replication, which bulk traffic must not delay.
    pub consensus: RuntimeThread,
}

impl Runtimes {
    /// Starts the threads of a node. `name` tells nodes in one process apart in thread lists.
    ///
    /// # Errors
    /// The operating system gives no thread or no poller.
    pub fn start(name: &str, workers: usize) -> io::Result<Self> {
        let workers = (0..workers.max(1)).map(|index| RuntimeThread::start(format!("{name}-w{index}")));
        Ok(Self {
            workers: workers.collect::<io::Result<_>>()?,
            consensus: RuntimeThread::start(format!("{name}-cons"))?,
        })
    }

    /// Ends all threads. Tasks still on them are dropped where they wait.
    pub fn stop(self) {
        for thread in self.workers {
            thread.stop();
        }
        self.consensus.stop();
    }
}

/// A thread that drives a single-threaded tokio runtime. Dropped without [`RuntimeThread::stop`], it ends on its own.
#[derive(Debug)]
pub struct RuntimeThread {
    handle: Handle,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl RuntimeThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system gives no thread or no poller.
    pub fn start(name: String) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name(name).spawn(move || runtime.block_on(stopped.cancelled()))?;
        Ok(Self { handle, stop, thread: Some(thread) })
    }

    /// Where to spawn work.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ends the thread and waits for it. Tasks still on it are dropped where they wait.
    pub fn stop(mut self) {
        self.stop.cancel();
        if let Some(Err(_panic)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("a runtime thread ended by panic");
        }
    }
}

impl Drop for RuntimeThread {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
