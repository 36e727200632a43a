//! The body of the file in which a node and each of its drives remember the topology.
//!
//! Layout: magic (8) · version u16 · body length u32 · BLAKE3 of all before it and of the body (32) · body; integers
//! little-endian. Nothing of the body is believed before the hash matches. Writing the file is not done here.

use super::{Topology, TopologyProblem};
use crate::codec::{self, DecodeError};

const MAGIC: [u8; 8] = *b"DRYTOPO\n";
const VERSION: u16 = 1;
const HASH_OFFSET: usize = 14;
const HEADER_LEN: usize = HASH_OFFSET + 32;

/// Bytes that are not a usable topology snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Shorter than a header.
    #[error("{len} bytes are too few for a topology snapshot")]
    TooShort {
        /// How many there are.
        len: usize,
    },
    /// Another kind of file.
    #[error("this is not a topology snapshot")]
    NotASnapshot,
    /// Written by another release.
    #[error("topology snapshot of unknown version {0}")]
    UnknownVersion(u16),
    /// Cut or padded.
    #[error("the topology snapshot should have {declared} bytes of body and has {actual}")]
    WrongLength {
        /// As the header says.
        declared: u32,
        /// As there are.
        actual: usize,
    },
    /// Damaged.
    #[error("the topology snapshot is damaged: its hash does not match")]
    WrongHash,
    /// The body does not decode.
    #[error(transparent)]
    Body(#[from] DecodeError),
    /// The body decodes to nonsense.
    #[error(transparent)]
    Problem(#[from] TopologyProblem),
}

/// Encodes a topology for a file.
pub fn encode_snapshot(topology: &Topology) -> Vec<u8> {
    let body = codec::encode(topology);
    let mut bytes = Vec::with_capacity(HEADER_LEN + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    let hash = hash(&bytes, &body);
    bytes.extend_from_slice(&hash);
    bytes.extend_from_slice(&body);
    bytes
}

/// Decodes and checks what [`encode_snapshot`] made.
///
/// # Errors
/// What is wrong with the bytes. Never panics, whatever they are.
pub fn decode_snapshot(bytes: &[u8]) -> Result<Topology, SnapshotError> {
    let Some((header, body)) = bytes.split_at_checked(HEADER_LEN) else {
        return Err(SnapshotError::TooShort { len: bytes.len() });
    };
    if header[..8] != MAGIC {
        return Err(SnapshotError::NotASnapshot);
    }
    let version = u16::from_le_bytes([header[8], header[9]]);
    if version != VERSION {
        return Err(SnapshotError::UnknownVersion(version));
    }
    let declared = u32::from_le_bytes([header[10], header[11], header[12], header[13]]);
    if usize::try_from(declared) != Ok(body.len()) {
        return Err(SnapshotError::WrongLength { declared, actual: body.len() });
    }
    if hash(&header[..HASH_OFFSET], body) != header[HASH_OFFSET..] {
        return Err(SnapshotError::WrongHash);
    }
    let topology: Topology = codec::decode(body)?;
    topology.check()?;
    Ok(topology)
}

fn hash(head: &[u8], body: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(head);
    hasher.update(body);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::cluster;
    use super::super::{ControlReplica, NodeRecord, Role, ShardReplica};
    use super::*;
    use crate::ids::{ClusterId, DriveId, NodeId, ReplicaId};

    #[test]
    fn what_was_written_is_read_back() {
        let topology = cluster(&[None, Some("a"), Some("b")], 2);
        assert_eq!(decode_snapshot(&encode_snapshot(&topology)), Ok(topology));
    }

    #[test]
    fn the_bytes_of_version_1_never_change() {
        let (node, drive) = (NodeId::from_bytes([2; 8]), DriveId::from_bytes([3; 8]));
        let (name, address) = ("n1".to_owned(), "h:1".to_owned());
        let record = NodeRecord { name, address, zone: Some("z".to_owned()), drives: vec![drive] };
        let topology = Topology {
            cluster: ClusterId::from_bytes([1; 16]),
            epoch: 300,
            shard_count: 1,
            tolerated: 0,
            nodes: [(node, record)].into(),
            control: vec![ControlReplica { id: ReplicaId(1), node, role: Role::Voter }],
            shards: vec![vec![ShardReplica { id: ReplicaId(2), node, drive }]],
            next_replica: 3,
        };
        let bytes = encode_snapshot(&topology);
        assert_eq!(hex::encode(&bytes[..14]), GOLDEN_HEAD);
        assert_eq!(hex::encode(&bytes[14..46]), GOLDEN_HASH);
        assert_eq!(hex::encode(&bytes[46..]), GOLDEN_BODY);
        assert_eq!(decode_snapshot(&bytes), Ok(topology));
    }

    const GOLDEN_HEAD: &str = "445259544f504f0a010050000000";
    const GOLDEN_HASH: &str = "ed6fdcbcccf55d36848ce651e2d378155143584f8cce88a42fee4aab63203186";
    const GOLDEN_BODY: &str = "01010101010101010101010101010101fb2c010100010202020202020202026e3103683a3101017a01030303030303030301010202020202020202000101020202020202020202030303030303030303";

    #[test]
    fn every_kind_of_damage_has_its_name() {
        let good = encode_snapshot(&cluster(&[None; 3], 1));
        let with = |index: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[index] = value;
            decode_snapshot(&bytes)
        };
        assert_eq!(decode_snapshot(&good[..20]), Err(SnapshotError::TooShort { len: 20 }));
        assert_eq!(with(0, 0), Err(SnapshotError::NotASnapshot));
        assert_eq!(with(8, 2), Err(SnapshotError::UnknownVersion(2)));
        let cut = decode_snapshot(&good[..good.len() - 1]);
        assert!(matches!(cut, Err(SnapshotError::WrongLength { .. })), "{cut:?}");
        assert_eq!(with(60, good[60] ^ 1), Err(SnapshotError::WrongHash));
    }

    #[test]
    fn nonsense_under_a_right_hash_is_refused() {
        let mut topology = cluster(&[None; 3], 1);
        topology.epoch = 0;
        let refused = decode_snapshot(&encode_snapshot(&topology));
        assert_eq!(refused, Err(SnapshotError::Problem(TopologyProblem::NoEpoch)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode_snapshot(&bytes).is_err());
        }

        #[test]
        fn arbitrary_bodies_under_a_right_hash_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = MAGIC.to_vec();
            bytes.extend_from_slice(&VERSION.to_le_bytes());
            bytes.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
            let hash = hash(&bytes, &body);
            bytes.extend_from_slice(&hash);
            bytes.extend_from_slice(&body);
            prop_assert!(decode_snapshot(&bytes).is_err());
        }
    }
}
