//! What a node remembers of its membership besides its identity: `<state>/cluster/`.
//!
//! Two small files, each replaced atomically and checksummed: `topology` (the last topology this node followed, a copy
//! of it on every drive) and `member` (its own life). A node that has them starts from them, never from a seed list;
//! files of another cluster are a start-up error that names both ids.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bincode::{Decode, Encode};
use drystone_erasure::files::Files;

use crate::codec::{Blob, DecodeError, decode, encode};
use crate::ids::{ClusterId, DriveId, InstanceId, NodeId};
use crate::topology::{SnapshotError, Topology, decode_snapshot, encode_snapshot};

/// Longer files are not ours: a topology of thousands of nodes is far smaller.
const FILE_LEN_MAX: usize = 16 << 20;
/// First bytes of the member file: "Drystone member, version 1".
const MEMBER_MAGIC: [u8; 8] = *b"DRYMEM\0\x01";
const HASH_LEN: usize = 32;

/// A state directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// A file cannot be read or written.
    #[error("{path}: {cause}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// There is no topology: the directory was not made by `drystone cluster create`.
    #[error("{path} does not exist: make the state directory with `drystone cluster create` and copy it here")]
    NoTopology {
        /// Where it should be.
        path: PathBuf,
    },
    /// The topology file is damaged.
    #[error("{path} is damaged ({cause}): copy the file `topology` from any drive of this node in its place")]
    BadTopology {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        cause: SnapshotError,
    },
    /// The member file is damaged.
    #[error(
        "{path} is damaged: without it this node cannot prove that it is the one that voted. Put a copy of this file back \
         in its place; without one the node must stay off, for nothing replaces a node yet (docs/durability.md, What is not \
         there yet)"
    )]
    BadMember {
        /// Which file.
        path: PathBuf,
        /// What is wrong, if it got as far as decoding.
        cause: Option<DecodeError>,
    },
    /// The topology is another cluster's.
    #[error("{path} belongs to cluster {found}, this node's identity to cluster {ours}")]
    OtherCluster {
        /// Which file.
        path: PathBuf,
        /// The cluster of the file.
        found: ClusterId,
        /// The cluster of the identity.
        ours: ClusterId,
    },
}

/// The first access key, sealed, as `cluster create` leaves it for the control group.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FirstKey {
    /// The access key id.
    pub id: String,
    /// The sealed secret.
    pub sealed: Blob,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
}

/// The member file: one node's life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct MemberRecord {
    /// Drawn at the first start; `None` before it.
    pub(crate) instance: Option<InstanceId>,
    /// Whether this node's founding replicas were made. From then on a missing replica is a lost one.
    pub(crate) founded: bool,
    /// Drives this node has formatted. A blank directory for one of them is a lost drive, not a new one.
    pub(crate) formatted: BTreeSet<DriveId>,
    /// The lives of peers, as first heard.
    pub(crate) peers: BTreeMap<NodeId, InstanceId>,
    /// The first access key, until the control group has it.
    pub(crate) first_key: Option<FirstKey>,
}

/// The directory.
#[derive(Clone)]
pub(crate) struct StateDir {
    files: Arc<dyn Files>,
    dir: PathBuf,
}

impl StateDir {
    /// The membership files under the state directory `state`.
    pub(crate) fn new(files: Arc<dyn Files>, state: &Path) -> Self {
        Self { files, dir: state.join("cluster") }
    }

    /// Reads the topology.
    pub(crate) fn read_topology(&self, ours: ClusterId) -> Result<Topology, StateDirError> {
        let path = self.dir.join("topology");
        let bytes = self.read(&path)?.ok_or_else(|| StateDirError::NoTopology { path: path.clone() })?;
        let topology =
            decode_snapshot(&bytes).map_err(|cause| StateDirError::BadTopology { path: path.clone(), cause })?;
        if topology.cluster == ours {
            Ok(topology)
        } else {
            Err(StateDirError::OtherCluster { path, found: topology.cluster, ours })
        }
    }

    /// Replaces the topology: after a crash the old one or this one is there.
    pub(crate) fn write_topology(&self, topology: &Topology) -> Result<(), StateDirError> {
        self.write(&self.dir.join("topology"), &encode_snapshot(topology))
    }

    /// Reads the member file; a fresh directory has an empty one.
    pub(crate) fn read_member(&self) -> Result<MemberRecord, StateDirError> {
        let path = self.dir.join("member");
        match self.read(&path)? {
            None => Ok(MemberRecord::default()),
            Some(bytes) => {
                decode_member(&bytes).map_err(|cause| StateDirError::BadMember { path: path.clone(), cause })
            }
        }
    }

    /// Replaces the member file: after a crash the old one or this one is there.
    pub(crate) fn write_member(&self, record: &MemberRecord) -> Result<(), StateDirError> {
        self.write(&self.dir.join("member"), &encode_member(record))
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, StateDirError> {
        self.files.read_small(path, FILE_LEN_MAX).map_err(|cause| StateDirError::Io { path: path.to_owned(), cause })
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), StateDirError> {
        let io = |cause| StateDirError::Io { path: path.to_owned(), cause };
        self.files.create_dir(&self.dir).map_err(io)?;
        self.files.write_small(path, bytes).map_err(io)
    }
}

fn encode_member(record: &MemberRecord) -> Vec<u8> {
    let body = encode(record);
    let mut bytes = MEMBER_MAGIC.to_vec();
    bytes.extend_from_slice(blake3::hash(&body).as_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

fn decode_member(bytes: &[u8]) -> Result<MemberRecord, Option<DecodeError>> {
    let rest = bytes.strip_prefix(&MEMBER_MAGIC).ok_or(None)?;
    let (hash, body) = rest.split_at_checked(HASH_LEN).ok_or(None)?;
    if blake3::hash(body).as_bytes() != hash {
        return Err(None);
    }
    decode(body).map_err(Some)
}

/// What `cluster create` leaves for one founding node.
pub struct Founding<'a> {
    /// Epoch 1.
    pub topology: &'a Topology,
    /// The first access key.
    pub first_key: FirstKey,
}

/// Writes the membership files of a founding node under `state`. Durable on return.
///
/// # Errors
/// A file could not be written.
pub fn found(files: Arc<dyn Files>, state: &Path, founding: Founding<'_>) -> Result<(), StateDirError> {
    let state_dir = StateDir::new(files, state);
    state_dir.write_topology(founding.topology)?;
    state_dir.write_member(&MemberRecord { first_key: Some(founding.first_key), ..MemberRecord::default() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> MemberRecord {
        MemberRecord {
            instance: Some(InstanceId::from_bytes([7; 16])),
            founded: true,
            formatted: BTreeSet::from([DriveId::from_bytes([1; 8])]),
            peers: BTreeMap::from([(NodeId::from_bytes([2; 8]), InstanceId::from_bytes([3; 16]))]),
            first_key: None,
        }
    }

    #[test]
    fn a_member_file_reads_back_and_damage_is_noticed() {
        let bytes = encode_member(&record());
        assert_eq!(decode_member(&bytes), Ok(record()));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(decode_member(&damaged).is_err(), "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode_member(&bytes).is_err());
        }
    }
}
