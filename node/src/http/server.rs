//! The accept loop of one worker, and its drain.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use drystone_transport::LogLimit;
use hyper_util::server::conn::auto::Builder;
use rustix::io::Errno;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{self, Signals, Spawner};
use super::{Front, HttpMetrics};

/// Pause after a failed accept, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a connection may cost.
#[derive(Debug, Clone)]
pub struct HttpLimits {
    /// Open connections; shared by all servers that are given a clone. Each costs about 20 KiB idle and up to
    /// 1 MiB under load.
    pub connections: Arc<Semaphore>,
    /// Longest wait for a TLS handshake, a request's head, or the next request.
    pub header_timeout: Duration,
    /// Longest time a write may make no progress.
    pub stall_timeout: Duration,
    /// How often it is said that connections cannot be accepted; shared like `connections`.
    pub accept_log: Arc<LogLimit>,
}

/// What all connections of a server share.
pub(super) struct Shared {
    pub(super) limits: HttpLimits,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) protocol: Builder<Spawner>,
    metrics: HttpMetrics,
}

/// A running accept loop with its connections.
#[derive(Debug)]
pub struct HttpServer {
    address: SocketAddr,
    stop: CancellationToken,
    cut: CancellationToken,
    tasks: TaskTracker,
    accepting: JoinHandle<()>,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every request under way was answered.
    Whole,
    /// The deadline passed with so many tasks still at work; their connections were cut.
    Cut {
        /// Connections, and HTTP/2 streams on them.
        tasks: usize,
    },
}

impl HttpServer {
    /// Starts accepting on `runtime`, which must be driven by its own thread or by the caller.
    ///
    /// # Errors
    /// The listener cannot be registered with the runtime.
    pub fn start(
        runtime: &Handle,
        listener: TcpListener,
        front: Front,
        limits: HttpLimits,
        tls: Option<TlsAcceptor>,
        metrics: HttpMetrics,
    ) -> io::Result<Self> {
        let _entered = runtime.enter();
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let tasks = TaskTracker::new();
        let signals = Signals { stop: CancellationToken::new(), cut: CancellationToken::new() };
        let protocol = connection::protocol(&limits, Spawner(tasks.clone()));
        let shared = Arc::new(Shared { limits, tls, protocol, metrics });
        let (stop, cut) = (signals.stop.clone(), signals.cut.clone());
        let accepting = runtime.spawn(accept(listener, front, shared, signals, tasks.clone()));
        Ok(Self { address, stop, cut, tasks, accepting })
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the listener, and asks every connection to finish the request it is at and close.
    pub fn stop_accepting(&self) {
        self.stop.cancel();
    }

    /// Waits until all connections are closed; cuts what is left after `deadline`. Dropped: connections go on.
    pub async fn drain(self, deadline: Duration) -> Drained {
        self.stop_accepting();
        if let Err(error) = self.accepting.await {
            tracing::error!(%error, "the accept loop did not end in order");
        }
        self.tasks.close();
        if timeout(deadline, self.tasks.wait()).await.is_ok() {
            return Drained::Whole;
        }
        let tasks = self.tasks.len();
        self.cut.cancel();
        self.tasks.wait().await;
        Drained::Cut { tasks }
    }
}

/// Accepts until told to stop. A slot is taken before a connection is, so that those beyond the bound wait in the
/// kernel's queue and cost us nothing.
async fn accept(
    listener: tokio::net::TcpListener,
    front: Front,
    shared: Arc<Shared>,
    signals: Signals,
    tasks: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = signals.stop.cancelled() => return,
            accepted = next(&listener, &shared) => accepted,
        };
        let Some((stream, slot)) = accepted else { return };
        let (front, shared, signals) = (front.clone(), Arc::clone(&shared), signals.clone());
        shared.metrics.accepted.inc();
        tasks.spawn(async move {
            shared.metrics.open.inc();
            let end = connection::run(stream, front, Arc::clone(&shared), signals).await;
            shared.metrics.open.dec();
            shared.metrics.end(end);
            drop(slot);
        });
    }
}

async fn next(
    listener: &tokio::net::TcpListener,
    shared: &Shared,
) -> Option<(tokio::net::TcpStream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(&shared.limits.connections).acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, _peer)) => return Some((stream, slot)),
            Err(error) => {
                if let Some(unsaid) = shared.limits.accept_log.note(Instant::now()) {
                    tracing::warn!(%error, advice = advice(&error), unsaid, "cannot accept a connection");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What an operator can do about a failed accept.
fn advice(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::MFILE) => {
            Some("the process has no file descriptors left: raise LimitNOFILE of its service (ulimit -n)")
        }
        Some(Errno::NFILE) => Some("the system has no file descriptors left: raise fs.file-max"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_descriptors_names_the_limit_to_raise() {
        let advice_of = |errno: Errno| advice(&io::Error::from_raw_os_error(errno.raw_os_error()));
        assert!(advice_of(Errno::MFILE).unwrap().contains("LimitNOFILE"));
        assert!(advice_of(Errno::NFILE).unwrap().contains("fs.file-max"));
        assert_eq!(advice_of(Errno::CONNABORTED), None);
    }
}
