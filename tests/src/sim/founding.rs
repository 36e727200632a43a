//! Founds a simulated cluster, as `drystone cluster create` does on real files.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use drystone_certs::{ClusterAuthority, ClusterId, FOUNDING_LIFETIME, Identity};
use drystone_cluster::engine::seal_access_key;
use drystone_cluster::member::{FirstKey, Founding, MemberConfig, found};
use drystone_cluster::topology::{FoundingNode, Topology};
use rand::SeedableRng;
use rand::rngs::StdRng;
use secrecy::SecretString;

use super::disk::Disk;
use super::node::{EPOCH_MS, PEER_PORT};

/// Index shards: enough that every node leads some, few enough that heartbeats do not fill the simulation.
const SHARD_COUNT: u16 = 4;
/// Segments fill up and are compacted within a run.
const SEGMENT_BYTES: u32 = 1 << 20;
/// Replaced chunks go within a run, yet no reader of a healthy cluster takes as long.
const GARBAGE_DELAY: Duration = Duration::from_secs(4);

/// Logs so short that a node that was away for a few seconds is sent whole states.
const SNAPSHOT_EVERY: u64 = 20;
const LOG_KEEP: u64 = 5;

/// A founding node: who it is, what it has.
pub(super) struct Founded {
    pub(super) name: String,
    pub(super) identity: Arc<Identity>,
    pub(super) config: MemberConfig,
    pub(super) disk: Disk,
}

/// Founds a cluster of nodes at `addresses` with so many drives each. The same seed gives the same cluster, but for the
/// certificates' keys, which are the system's.
pub(super) fn found_cluster(
    addresses: &[std::net::IpAddr],
    drive_count: usize,
    seed: u64,
) -> Result<Vec<Founded>, Box<dyn std::error::Error>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let now = UNIX_EPOCH + Duration::from_millis(EPOCH_MS);
    let cluster = ClusterId::random(&mut rng);
    let nodes: Vec<FoundingNode> = (1..)
        .zip(addresses)
        .map(|(number, address)| FoundingNode {
            name: format!("n{number}"),
            address: format!("{address}:{PEER_PORT}"),
            zone: None,
            drive_count,
        })
        .collect();
    let topology = Topology::found(cluster, &nodes, Some(SHARD_COUNT), None, &mut rng)?;
    let authority = ClusterAuthority::create(cluster, now, &mut rng)?;
    let sealing_key = [7; 32];
    let secret = SecretString::from("simulated secret");
    let sealed = seal_access_key(&sealing_key, "SIMULATED", &secret, &mut rng)?;
    let first_key = FirstKey { id: "SIMULATED".to_owned(), sealed, created_ms: EPOCH_MS };
    let mut founded = Vec::new();
    for ((id, record), disk_seed) in topology.nodes.iter().zip(seed..) {
        let identity = Identity::founding(&authority, *id, sealing_key, now, FOUNDING_LIFETIME, &mut rng)?;
        let disk = Disk::new(disk_seed);
        let state_dir = PathBuf::from("/state");
        let drives: Vec<PathBuf> = (1..=drive_count).map(|drive| PathBuf::from(format!("/d{drive}"))).collect();
        let founding = Founding { topology: &topology, first_key: first_key.clone() };
        found(Arc::new(disk.files().mount()), &state_dir, founding)?;
        let config = MemberConfig {
            garbage_delay: GARBAGE_DELAY,
            segment_bytes: SEGMENT_BYTES,
            snapshot_every: SNAPSHOT_EVERY,
            log_keep: LOG_KEEP,
            ..MemberConfig::new(state_dir, drives)
        };
        founded.push(Founded { name: record.name.clone(), identity: Arc::new(identity), config, disk });
    }
    founded.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(founded)
}
