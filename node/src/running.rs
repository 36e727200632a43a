//! A running node: its threads, its parts, its listeners.

use std::fs::{File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use prometheus::Registry;
use tokio::sync::Semaphore;

use crate::assembly::{Assembly, AssemblyError, Parts};
use crate::config::Config;
use crate::health::NotReady;
use crate::http::{
    Front, HttpLimits, HttpMetrics, HttpServer, NodeView, TlsError, bind_listeners, load_tls, operator_routes,
};
use crate::runtimes::Runtimes;
use crate::shutdown::{Stages, Stopped, stop_in_order};

/// A node that serves. Stop it with [`RunningNode::stop`]; dropped, it ends as in a crash.
pub struct RunningNode {
    address: SocketAddr,
    view: Arc<dyn NodeView>,
    stopping: Arc<AtomicBool>,
    servers: Vec<HttpServer>,
    stages: Box<dyn Stages>,
    runtimes: Runtimes,
    deadline: Duration,
    _lock: File,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory is not there.
    #[error("{path}: {source}; `drystone cluster create` makes the state directory of a node")]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// Why it cannot be used.
        source: io::Error,
    },
    /// Another process uses the state directory.
    #[error("{path} is in use by another drystone process")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// No thread or poller to be had.
    #[error("cannot start threads: {0}")]
    Threads(io::Error),
    /// The S3 address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The S3 certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Metrics of one name were registered twice.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
    /// The cluster side refused.
    #[error(transparent)]
    Assembly(#[from] AssemblyError),
}

/// An address of the configuration that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {key} = {address} ({protocol}): {cause}{}", advice(cause))]
pub struct ListenError {
    /// The key of the configuration.
    pub key: &'static str,
    /// TCP or UDP: their ports are apart.
    pub protocol: &'static str,
    /// The address.
    pub address: SocketAddr,
    /// Why not.
    pub cause: io::Error,
}

/// What an operator can do about an address that is refused.
fn advice(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::AddrInUse => "; stop the process that has the port, or choose another",
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has the address",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
        _ => "",
    }
}

impl RunningNode {
    /// Starts a node. It listens for clients as soon as its parts exist, and is ready when they say so.
    ///
    /// # Errors
    /// Why it must not or cannot run; nothing is left behind then.
    pub async fn start(name: &str, config: &Config, assembly: &dyn Assembly) -> Result<Self, StartError> {
        let lock = lock_state_dir(&config.state_dir)?;
        let tls = config.s3.tls.as_ref().map(load_tls).transpose()?;
        let listen = |cause| ListenError { key: "s3.listen", protocol: "TCP", address: config.s3.listen, cause };
        // Before anything else starts, so that a taken port leaves no trace.
        let listeners = bind_listeners(config.s3.listen, config.workers).map_err(listen)?;
        let address = listeners.first().map_or(Ok(config.s3.listen), |first| first.local_addr()).map_err(listen)?;
        let registry = Registry::new();
        let metrics = HttpMetrics::new(&registry)?;
        let runtimes = Runtimes::start(name, config.workers).map_err(StartError::Threads)?;
        let Parts { s3, view, admin, stages } = assembly.start(config, &runtimes, &registry).await?;
        let stopping = Arc::new(AtomicBool::new(false));
        let operator = operator_routes(Arc::clone(&view), admin, Arc::clone(&stopping));
        let limits = HttpLimits {
            connections: Arc::new(Semaphore::new(config.s3.connections_max)),
            header_timeout: config.s3.header_timeout,
            stall_timeout: config.s3.stall_timeout,
            accept_log: Arc::default(),
        };
        let mut servers = Vec::with_capacity(listeners.len());
        for ((listener, s3), worker) in listeners.into_iter().zip(s3).zip(&runtimes.workers) {
            let front = Front::new(s3, operator.clone(), &config.s3.domains);
            let (limits, tls, metrics) = (limits.clone(), tls.clone(), metrics.clone());
            let server = HttpServer::start(worker.handle(), listener, front, limits, tls, metrics);
            servers.push(server.map_err(listen)?);
        }
        tracing::info!(node = view.health().node.name, %address, workers = servers.len(), "listening for S3");
        let deadline = config.shutdown_deadline;
        Ok(Self { address, view, stopping, servers, stages, runtimes, deadline, _lock: lock })
    }

    /// Where it serves S3 and the `/-/` endpoints.
    pub fn s3_address(&self) -> SocketAddr {
        self.address
    }

    /// Whether the node can serve reads and writes now.
    ///
    /// # Errors
    /// Why not.
    pub fn ready(&self) -> Result<(), NotReady> {
        self.view.ready()
    }

    /// Stops in the order of [`crate::shutdown`], then ends the threads.
    pub async fn stop(self) -> Stopped {
        let stopped = stop_in_order(&self.stopping, self.servers, self.stages.as_ref(), self.deadline).await;
        drop(self.stages);
        self.runtimes.stop();
        stopped
    }
}

/// Takes the lock of a state directory. The kernel frees it when the process ends, however it ends.
fn lock_state_dir(path: &Path) -> Result<File, StartError> {
    let failed = |source| StartError::StateDir { path: path.to_path_buf(), source };
    let lock = File::options().create(true).truncate(false).write(true).open(path.join("lock")).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StartError::InUse { path: path.to_path_buf() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

#[cfg(test)]
mod tests;
