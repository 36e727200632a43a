//! The cluster as this binary runs it: founding, starting and stopping a member with S3 in front of it.

mod admin;
mod founding;
mod service;
mod stages;
mod view;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use drystone_certs::Identity;
use drystone_cluster::kv::{FjallConfig, FjallKv, Kv};
use drystone_cluster::member::{self, Executor, MemberConfig, Running, Seams, Start};
use drystone_cluster::seams::{Randomness, SystemClock, WallClock};
use drystone_erasure::drive::index::{IndexFactory, SledIndexFactory};
use drystone_erasure::files::OsFiles;
use drystone_s3gw::{Gateway, GatewayConfig, GatewayMetrics};
use drystone_transport::{BoundSocket, TransportConfig};
use futures_util::future::BoxFuture;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use self::admin::ClusterAdmin;
use self::service::GatewayService;
use self::stages::MemberStages;
use self::view::MemberView;
use super::{Assembly, AssemblyError, FoundedCluster, FoundingPlan, Parts};
use crate::config::Config;
use crate::http::{BoxError, Service};
use crate::running::ListenError;
use crate::runtimes::Runtimes;

/// Memory for the cached pages of each drive's chunk index.
const CHUNK_INDEX_CACHE_BYTES: u64 = 8 << 20;

/// Makes and runs real clusters.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClusterAssembly;

impl Assembly for ClusterAssembly {
    fn create_cluster(&self, plan: &FoundingPlan) -> Result<FoundedCluster, AssemblyError> {
        founding::create_cluster(plan).map_err(|error| AssemblyError(error.into()))
    }

    fn start<'a>(
        &'a self,
        config: &'a Config,
        runtimes: &'a Runtimes,
        registry: &'a Registry,
    ) -> BoxFuture<'a, Result<Parts, AssemblyError>> {
        Box::pin(async move { start(config, runtimes, registry).await.map_err(AssemblyError) })
    }
}

async fn start(config: &Config, runtimes: &Runtimes, registry: &Registry) -> Result<Parts, BoxError> {
    let identity = load_identity(config)?;
    let transport = transport_config(config);
    let start = Start {
        config: member_config(config),
        socket: bind_peer_port(config.peer.listen, &transport)?,
        transport,
        identity,
        runtimes: drystone_transport::Runtimes {
            control: runtimes.consensus.handle().clone(),
            data: runtimes.workers.iter().map(|worker| worker.handle().clone()).collect(),
        },
        registry: registry.clone(),
        stop: CancellationToken::new(),
    };
    // Dropped while it starts (a signal came first), the member must not go on starting behind our back.
    let stop_if_dropped = start.stop.clone().drop_guard();
    let seams = seams(config);
    let running = runtimes.consensus.handle().spawn(member::start(start, seams)).await??;
    let running = Arc::new(running);
    let parts = assemble(config, runtimes, registry, &running).await?;
    stop_if_dropped.disarm();
    Ok(parts)
}

fn bind_peer_port(address: SocketAddr, transport: &TransportConfig) -> Result<BoundSocket, ListenError> {
    drystone_transport::bind(address, transport).map_err(|cause| ListenError {
        key: "peer.listen",
        protocol: "UDP",
        address,
        cause,
    })
}

async fn assemble(
    config: &Config,
    runtimes: &Runtimes,
    registry: &Registry,
    running: &Arc<Running>,
) -> Result<Parts, BoxError> {
    let metrics = GatewayMetrics::new(registry)?;
    let mut s3: Vec<Arc<dyn Service>> = Vec::new();
    let mut admin = None;
    for (worker, seed) in runtimes.workers.iter().zip(1..) {
        let dialling = Arc::clone(running);
        let store = worker.handle().spawn(async move { dialling.worker_store() }).await??;
        let gateway = Gateway::new(
            store.clone(),
            gateway_config(config),
            metrics.clone(),
            Arc::new(|| SystemClock.now_ms()),
            request_seed(running, seed),
        );
        admin.get_or_insert_with(|| ClusterAdmin::new(gateway.clone(), store));
        s3.push(Arc::new(GatewayService(gateway)));
    }
    let admin = admin.ok_or("a node needs a worker")?;
    Ok(Parts {
        s3,
        view: Arc::new(MemberView::new(Arc::clone(running), registry.clone())),
        admin: Arc::new(admin),
        stages: Box::new(MemberStages(Arc::clone(running))),
    })
}

/// Request ids differ between nodes, workers and runs.
fn request_seed(running: &Running, worker: u64) -> u64 {
    let node = u64::from_be_bytes(*running.member().node().as_bytes());
    node ^ SystemClock.now_ms().rotate_left(20) ^ worker.rotate_left(56)
}

fn load_identity(config: &Config) -> Result<Arc<Identity>, BoxError> {
    let identity = Identity::load(&config.state_dir.join("identity"))?;
    match &config.cluster_id {
        Some(wanted) if wanted.to_string() != identity.cluster().to_string() => Err(format!(
            "cluster.id is {wanted}, but {} belongs to cluster {}: correct the configuration or the state directory",
            config.state_dir.display(),
            identity.cluster()
        )
        .into()),
        _ => Ok(Arc::new(identity)),
    }
}

fn member_config(config: &Config) -> MemberConfig {
    MemberConfig {
        inflight_bytes_max: config.s3.inflight_bytes_max,
        reserve_percent: config.drive.reserve_percent,
        reserve_bytes_min: config.drive.reserve_bytes,
        segment_bytes: u32::try_from(config.drive.segment_bytes).unwrap_or(1 << 30),
        ..MemberConfig::new(config.state_dir.clone(), config.drives.clone())
    }
}

fn transport_config(config: &Config) -> TransportConfig {
    TransportConfig { packet_bytes_max: config.peer.packet_bytes_max, ..TransportConfig::default() }
}

fn gateway_config(config: &Config) -> GatewayConfig {
    GatewayConfig {
        region: config.s3.region.clone(),
        domains: config.s3.domains.clone(),
        tls: config.s3.tls.is_some(),
        ..GatewayConfig::default()
    }
}

fn seams(config: &Config) -> Seams {
    let transport = transport_config(config);
    Seams {
        files: Arc::new(OsFiles),
        open_kv: Arc::new(|path| Ok(Arc::new(FjallKv::open(path, &FjallConfig::default())?) as Arc<dyn Kv>)),
        chunk_index: Arc::new(open_chunk_index),
        executor: Executor::Threads,
        bind_client: Arc::new(move |address| drystone_transport::bind(address, &transport)),
        clock: Arc::new(SystemClock),
        randomness: Randomness::from_system(),
        quic_seed: None,
    }
}

fn open_chunk_index(drive: &Path) -> Box<dyn IndexFactory> {
    Box::new(SledIndexFactory::new(drive.join("chunks"), CHUNK_INDEX_CACHE_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_port_that_is_taken_is_said_with_its_key() {
        let transport = TransportConfig::default();
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind_peer_port(address, &transport).unwrap_err().to_string();
        let expected =
            format!("cannot listen on peer.listen = {address} (UDP): Address already in use (os error 98); stop");
        assert!(error.starts_with(&expected), "{error}");
        // TEST-NET-1 (RFC 5737): nobody has it.
        let error = bind_peer_port("192.0.2.1:0".parse().unwrap(), &transport).unwrap_err().to_string();
        assert!(error.ends_with("; no interface of this machine has the address"), "{error}");
    }
}
