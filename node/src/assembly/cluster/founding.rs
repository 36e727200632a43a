//! `drystone cluster create`: everything a cluster begins with, made offline.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use drystone_certs::{
    AuthorityError, ClusterAuthority, ClusterId, FOUNDING_LIFETIME, Identity, IdentityError, NodeId, SealingError,
};
use drystone_cluster::engine::seal_access_key;
use drystone_cluster::member::{FirstKey, Founding, StateDirError, found};
use drystone_cluster::seams::{SystemClock, WallClock};
use drystone_cluster::topology::{FoundError, FoundingNode, Topology};
use drystone_erasure::files::OsFiles;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use zeroize::Zeroizing;

use crate::assembly::{FoundedCluster, FoundingPlan};

/// A cluster that could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum FoundingError {
    #[error("{path} exists already: nothing is overwritten")]
    Exists { path: PathBuf },
    #[error("{path}: {cause}")]
    Io { path: PathBuf, cause: io::Error },
    #[error(transparent)]
    Topology(#[from] FoundError),
    #[error("making certificates: {0}")]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("sealing the first key: {0}")]
    Sealing(#[from] SealingError),
    #[error(transparent)]
    State(#[from] StateDirError),
}

pub(super) fn create_cluster(plan: &FoundingPlan) -> Result<FoundedCluster, FoundingError> {
    refuse_existing(plan)?;
    let mut rng = StdRng::from_os_rng();
    let now_ms = SystemClock.now_ms();
    let now = UNIX_EPOCH + Duration::from_millis(now_ms);
    let cluster = ClusterId::random(&mut rng);
    let authority = ClusterAuthority::create(cluster, now, &mut rng)?;
    let topology = topology(plan, cluster, &mut rng)?;
    let mut sealing_key = Zeroizing::new([0; 32]);
    rng.fill_bytes(sealing_key.as_mut_slice());
    let id = &plan.first_key.access_key;
    let sealed = seal_access_key(&sealing_key, id, &plan.first_key.secret_key, &mut rng)?;
    let first_key = FirstKey { id: id.clone(), sealed, created_ms: now_ms };
    save_authority(plan, &authority)?;
    let mut nodes = Vec::new();
    for node in &plan.nodes {
        let dir = plan.out.join(&node.name);
        make_dir(&dir)?;
        let id = node_id(&topology, &node.name);
        let identity = Identity::founding(&authority, id, *sealing_key, now, FOUNDING_LIFETIME, &mut rng)?;
        identity.save(&dir.join("identity"))?;
        let founding = Founding { topology: &topology, first_key: first_key.clone() };
        found(Arc::new(OsFiles), &dir, founding)?;
        nodes.push((node.name.clone(), dir));
    }
    Ok(FoundedCluster { cluster: cluster.to_string(), nodes })
}

fn refuse_existing(plan: &FoundingPlan) -> Result<(), FoundingError> {
    let names = plan.nodes.iter().map(|node| node.name.as_str()).chain([AUTHORITY]);
    match names.map(|name| plan.out.join(name)).find(|path| path.exists()) {
        Some(path) => Err(FoundingError::Exists { path }),
        None => Ok(()),
    }
}

fn topology(plan: &FoundingPlan, cluster: ClusterId, rng: &mut StdRng) -> Result<Topology, FoundError> {
    let founding: Vec<FoundingNode> = plan
        .nodes
        .iter()
        .map(|node| FoundingNode {
            name: node.name.clone(),
            address: node.address.clone(),
            zone: node.zone.clone(),
            drive_count: plan.drive_count.get(),
        })
        .collect();
    Topology::found(cluster, &founding, plan.shard_count, plan.tolerated, rng)
}

/// The id that the topology drew for the node of that name.
fn node_id(topology: &Topology, name: &str) -> NodeId {
    let mut named = topology.nodes.iter().filter(|(_, record)| record.name == name);
    named.next().map_or(NodeId::from_bytes([0; 8]), |(id, _)| *id)
}

fn make_dir(path: &Path) -> Result<(), FoundingError> {
    std::fs::create_dir_all(path).map_err(|cause| FoundingError::Io { path: path.to_owned(), cause })
}

/// Where the authority goes: it stays with the operator, because running nodes do not need its key.
const AUTHORITY: &str = "authority";

fn save_authority(plan: &FoundingPlan, authority: &ClusterAuthority) -> Result<(), FoundingError> {
    let dir = plan.out.join(AUTHORITY);
    make_dir(&dir)?;
    let pem = authority.to_pem();
    write_private(&dir.join("ca.crt"), pem.certificate.as_bytes())?;
    write_private(&dir.join("ca.key"), pem.key.as_bytes())
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<(), FoundingError> {
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|cause| FoundingError::Io { path: path.to_owned(), cause })
}
