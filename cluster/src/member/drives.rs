//! Finds, formats and opens this node's drives.
//!
//! Directories carry their drive's id. A blank directory is formatted as a drive of the topology that this node has
//! never formatted; if there is none, it stands for a lost drive, which only an operator may replace.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use drystone_erasure::drive::Reserve;
use drystone_erasure::{BufferPool, Drive, DriveConfig, DriveIdentity, DriveMetrics, OpenError};
use prometheus::Registry;
use rand::RngCore;

use super::MemberConfig;
use super::seams::Seams;
use super::state_dir::{MemberRecord, StateDir, StateDirError};
use crate::ids::{ClusterId, DriveId, NodeId};
use crate::topology::{Topology, encode_snapshot};

/// What became of the configured directories.
#[derive(Default)]
pub(super) struct OpenedDrives {
    pub(super) open: BTreeMap<DriveId, Drive>,
    pub(super) paths: BTreeMap<DriveId, PathBuf>,
    pub(super) lost: BTreeMap<DriveId, String>,
}

/// Drives that do not fit the topology or the configuration.
#[derive(Debug, thiserror::Error)]
pub enum DrivesError {
    /// The configuration names another number of drives than the topology.
    #[error("the configuration names {configured} drives, the topology has {expected} for this node")]
    Count {
        /// Directories configured.
        configured: usize,
        /// Drives of this node in the topology.
        expected: usize,
    },
    /// A directory holds a drive that is not this node's.
    #[error("{path} holds drive {found}, which the topology does not give to this node")]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// The drive it holds.
        found: DriveId,
    },
    /// Two directories hold the same drive.
    #[error("{path} holds drive {found} a second time")]
    Twice {
        /// The second directory.
        path: PathBuf,
        /// The drive.
        found: DriveId,
    },
    /// A directory holds a drive of another cluster, another node or a newer release, or a new drive cannot be formatted. A
    /// drive whose identity cannot be read is lost instead.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The state directory cannot be written.
    #[error(transparent)]
    State(#[from] StateDirError),
}

/// What drives are opened with.
pub(super) struct Opening<'a> {
    pub(super) config: &'a MemberConfig,
    pub(super) seams: &'a Seams,
    pub(super) buffers: &'a BufferPool,
    pub(super) registry: &'a Registry,
    pub(super) topology: &'a Topology,
    pub(super) node: NodeId,
    pub(super) state_dir: &'a StateDir,
}

/// Opens all drives of this node; a drive that cannot be opened is lost, not fatal.
pub(super) fn open_drives(opening: &Opening<'_>, record: &mut MemberRecord) -> Result<OpenedDrives, DrivesError> {
    let Opening { config, seams, buffers, registry, topology, node, state_dir } = *opening;
    let expected = topology.nodes.get(&node).map(|node| node.drives.clone()).unwrap_or_default();
    if expected.len() != config.drives.len() {
        return Err(DrivesError::Count { configured: config.drives.len(), expected: expected.len() });
    }
    let assigned = assign(config, seams, topology.cluster, node, &expected)?;
    let mut drives = OpenedDrives::default();
    for (path, (drive, found)) in assigned {
        drives.paths.insert(drive, path.clone());
        let blank = matches!(found, Found::Blank);
        let lost = match found {
            Found::Unreadable(reason) => Some(reason),
            Found::Blank if record.formatted.contains(&drive) => Some(not_mounted(&path, drive)),
            Found::Blank | Found::Drive => None,
        };
        if let Some(reason) = lost {
            tracing::error!(%drive, %reason, "drive lost");
            drives.lost.insert(drive, reason);
            continue;
        }
        let identity = DriveIdentity { cluster: *topology.cluster.as_bytes(), node: *node.as_bytes(), drive };
        if blank {
            seams.randomness.with(|rng| Drive::format(seams.files.as_ref(), &path, identity, rng))?;
        }
        if record.formatted.insert(drive) {
            state_dir.write_member(record)?;
        }
        match open_drive(config, seams, buffers, registry, &path, identity) {
            Ok(opened) => {
                keep_topology_copy(seams, &path, topology);
                drives.open.insert(drive, opened);
            }
            Err(error) => {
                tracing::error!(%drive, path = %path.display(), %error, "drive lost");
                drives.lost.insert(drive, error.to_string());
            }
        }
    }
    Ok(drives)
}

fn open_drive(
    config: &MemberConfig,
    seams: &Seams,
    buffers: &BufferPool,
    registry: &Registry,
    path: &Path,
    identity: DriveIdentity,
) -> Result<Drive, OpenError> {
    let metrics = DriveMetrics::new(registry, &identity.drive.to_string())
        .map_err(|_| OpenError::Config("the drive's metrics are registered already"))?;
    let seed = seams.randomness.with(RngCore::next_u64);
    let drive_config = DriveConfig {
        reserve: Reserve { percent: config.reserve_percent, bytes_min: config.reserve_bytes_min },
        segment_len: config.segment_bytes,
        ..DriveConfig::new(path, identity, buffers.clone(), seed)
    };
    Drive::open(drive_config, Arc::clone(&seams.files), (seams.chunk_index)(path), seams.executor.of_drives(), metrics)
}

/// What to tell of a blank directory that held a drive. Most likely its file system is not mounted.
fn not_mounted(path: &Path, drive: DriveId) -> String {
    let path = path.display();
    format!(
        "{path} is blank, but drive {drive} was formatted: mount its file system there and restart the node (a drive that is \
         really gone cannot be replaced yet)"
    )
}

/// What a directory turned out to be.
enum Found {
    /// The drive it is assigned.
    Drive,
    /// Nothing yet.
    Blank,
    /// Something, but what it says of itself cannot be read.
    Unreadable(String),
}

/// Which directory is which drive. Blank ones take the drives that no directory holds, in the order of the
/// configuration; unreadable ones what is left.
fn assign(
    config: &MemberConfig,
    seams: &Seams,
    cluster: ClusterId,
    node: NodeId,
    expected: &[DriveId],
) -> Result<BTreeMap<PathBuf, (DriveId, Found)>, DrivesError> {
    let mut assigned = BTreeMap::new();
    let mut held = BTreeSet::new();
    let (mut blanks, mut unreadable) = (Vec::new(), Vec::new());
    for path in &config.drives {
        match Drive::identify(seams.files.as_ref(), path) {
            Err(OpenError::Blank(_)) => blanks.push(path),
            // Whose it was cannot be told: it stands for a drive that no other directory holds.
            Err(error @ (OpenError::Io { .. } | OpenError::DamagedIdentity(_))) => {
                unreadable.push((path, error.to_string()));
            }
            Err(error) => return Err(error.into()),
            Ok(identity) => {
                check_owner(path, &identity, cluster, node)?;
                let found = identity.drive;
                if !expected.contains(&found) {
                    return Err(DrivesError::Foreign { path: path.clone(), found });
                }
                if !held.insert(found) {
                    return Err(DrivesError::Twice { path: path.clone(), found });
                }
                assigned.insert(path.clone(), (found, Found::Drive));
            }
        }
    }
    let blanks = blanks.into_iter().map(|path| (path, Found::Blank));
    let rest = blanks.chain(unreadable.into_iter().map(|(path, reason)| (path, Found::Unreadable(reason))));
    let free = expected.iter().filter(|drive| !held.contains(*drive));
    assigned.extend(rest.zip(free).map(|((path, found), drive)| (path.clone(), (*drive, found))));
    Ok(assigned)
}

fn check_owner(path: &Path, found: &DriveIdentity, cluster: ClusterId, node: NodeId) -> Result<(), OpenError> {
    let dir = path.to_owned();
    if found.cluster != *cluster.as_bytes() {
        return Err(OpenError::ForeignCluster { dir, expected: *cluster.as_bytes(), found: found.cluster });
    }
    if found.node != *node.as_bytes() {
        return Err(OpenError::ForeignNode { dir, expected: *node.as_bytes(), found: found.node });
    }
    Ok(())
}

/// A copy of the topology lies on every drive, to rebuild the state directory's from.
fn keep_topology_copy(seams: &Seams, path: &Path, topology: &Topology) {
    if let Err(error) = seams.files.write_small(&path.join("topology"), &encode_snapshot(topology)) {
        tracing::warn!(path = %path.display(), %error, "the drive's copy of the topology could not be written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_directory_is_first_of_all_one_that_is_not_mounted() {
        let text = not_mounted(Path::new("/mnt/disk1"), DriveId::from_bytes([7; 8]));
        assert!(text.starts_with("/mnt/disk1 is blank, but drive 0707070707070707 was formatted: mount"), "{text}");
        assert!(text.contains("restart the node") && !text.contains("replace the drive"), "{text}");
    }
}
