//! Commands to the control group, their answers, and the records they make. Format 1: append-only enums and frozen
//! structs behind a version byte.

use bincode::{Decode, Encode};

use crate::codec::{Blob, DecodeError};
use crate::ids::{BucketId, DeletionAttempt, InstanceId, NodeId};
use crate::state::{decode_record, encode_record};
use crate::store::BucketName;
use crate::topology::Topology;

/// A secret under its seal; this crate never opens it.
pub type SealedSecret = Blob;

/// A change to the control state.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ControlCommand {
    /// Creates a bucket.
    CreateBucket {
        /// Its name.
        name: BucketName,
        /// Its identity, drawn by the proposer; never used before.
        id: BucketId,
        /// Wall-clock milliseconds since the Unix epoch.
        created_ms: u64,
    },
    /// Closes a bucket while its shards are sealed and checked for emptiness: whoever is told the attempt's number owns
    /// the deletion, all others hear that the bucket is busy.
    BeginBucketDeletion {
        /// Its name.
        name: BucketName,
        /// The identity meant.
        id: BucketId,
    },
    /// Removes a bucket that is being deleted by this attempt.
    FinishBucketDeletion {
        /// Its name.
        name: BucketName,
        /// The identity meant.
        id: BucketId,
        /// Who asks.
        attempt: DeletionAttempt,
    },
    /// Opens a bucket again that is being deleted by this attempt.
    CancelBucketDeletion {
        /// Its name.
        name: BucketName,
        /// The identity meant.
        id: BucketId,
        /// Who asks.
        attempt: DeletionAttempt,
    },
    /// Adds an access key, or replaces the one of that id.
    PutAccessKey {
        /// Its public part.
        id: String,
        /// What is kept of it.
        record: AccessKeyRecord,
    },
    /// Removes an access key.
    DeleteAccessKey {
        /// Its public part.
        id: String,
    },
    /// Replaces the topology by its successor.
    PutTopology {
        /// The epoch it was made from; 0 for the first.
        expected_epoch: u64,
        /// The new one, of epoch `expected_epoch + 1`.
        topology: Topology,
    },
    /// Remembers the life of a node's state directory at its first contact.
    RememberInstance {
        /// The node.
        node: NodeId,
        /// Its life.
        instance: InstanceId,
    },
    /// Adds the access key that the cluster was founded with, once in the cluster's life: a key deleted since does not
    /// come back, whichever founding node starts for the first time.
    InstallFirstKey {
        /// Its public part.
        id: String,
        /// What is kept of it.
        record: AccessKeyRecord,
    },
    /// Takes over a deletion whose owner went away. From then on that owner can neither finish nor cancel it.
    ResumeBucketDeletion {
        /// Its name.
        name: BucketName,
        /// The identity meant.
        id: BucketId,
        /// Whose work is taken over; if somebody else did so first, nothing changes.
        interrupted: DeletionAttempt,
    },
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ControlAnswer {
    /// The command is not known to this release; nothing changed.
    Unsupported,
    /// Done, or already so.
    Done,
    /// The bucket was created (or by this very id before).
    BucketCreated(BucketRecord),
    /// A bucket of that name exists.
    BucketExists(BucketRecord),
    /// A bucket of that name is being deleted.
    BucketBusy,
    /// No bucket of that name and id; for the end of a deletion: none that is being deleted.
    NoSuchBucket,
    /// No access key of that id.
    NoSuchAccessKey,
    /// The topology has moved on.
    EpochMismatch {
        /// Its epoch now; 0 if there is none.
        current: u64,
    },
    /// The topology belongs to another cluster, skips an epoch or cannot be followed.
    InvalidTopology {
        /// What is wrong with it.
        problem: String,
    },
    /// The node is not in the topology.
    NoSuchNode,
    /// The node is remembered with another life.
    InstanceMismatch {
        /// The remembered one.
        remembered: InstanceId,
    },
    /// The command carries a bucket name that is none; nothing changed.
    Invalid,
    /// There is another access key of that id.
    AccessKeyExists,
    /// It is the only access key: without one nobody could make another.
    LastAccessKey,
    /// Whoever asked owns the bucket's deletion.
    DeletionBegun {
        /// Under this number.
        attempt: DeletionAttempt,
    },
    /// The bucket's deletion was taken over by a later attempt; nothing changed.
    DeletionTakenOver,
}

/// Whether a bucket can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum BucketPhase {
    /// In use.
    Live,
    /// On its way out: it exists until the deletion is finished, but clients are told to ask again.
    Deleting,
}

/// A bucket as the control group keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BucketRecord {
    /// Its identity.
    pub id: BucketId,
    /// When it was created, milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Whether it can be used.
    pub phase: BucketPhase,
}

/// An access key as the control group keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AccessKeyRecord {
    /// The sealed secret.
    pub sealed: SealedSecret,
    /// When it was created, milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// An operator's remark.
    pub note: String,
}

macro_rules! versioned {
    ($($name:ident),*) => {$(
        impl $name {
            /// The bytes that are proposed or answered.
            pub fn encode(&self) -> Vec<u8> {
                encode_record(self)
            }

            /// Reads what `encode` made.
            ///
            /// # Errors
            /// What is wrong with the bytes. Never panics, whatever they are.
            pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                decode_record(bytes)
            }
        }
    )*};
}

versioned!(ControlCommand, ControlAnswer);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name() -> BucketName {
        BucketName::new("abc").unwrap()
    }

    #[test]
    fn the_bytes_of_format_1_never_change() {
        let (id, node, instance) = (BucketId(300), NodeId::from_bytes([7; 8]), InstanceId::from_bytes([8; 16]));
        let attempt = DeletionAttempt(3);
        let record = AccessKeyRecord { sealed: Blob(vec![1, 2].into()), created_ms: 5, note: "n".to_owned() };
        let commands = [
            ControlCommand::CreateBucket { name: name(), id, created_ms: 1 },
            ControlCommand::BeginBucketDeletion { name: name(), id },
            ControlCommand::FinishBucketDeletion { name: name(), id, attempt },
            ControlCommand::CancelBucketDeletion { name: name(), id, attempt },
            ControlCommand::PutAccessKey { id: "AK".to_owned(), record: record.clone() },
            ControlCommand::DeleteAccessKey { id: "AK".to_owned() },
            ControlCommand::RememberInstance { node, instance },
            ControlCommand::InstallFirstKey { id: "AK".to_owned(), record },
            ControlCommand::ResumeBucketDeletion { name: name(), id, interrupted: attempt },
        ];
        let golden = [
            "010003616263fb2c0101",
            "010103616263fb2c01",
            "010203616263fb2c0103",
            "010303616263fb2c0103",
            "010402414b02010205016e",
            "010502414b",
            "0107070707070707070708080808080808080808080808080808",
            "010802414b02010205016e",
            "010903616263fb2c0103",
        ];
        for (command, golden) in commands.iter().zip(golden) {
            assert_eq!(hex::encode(command.encode()), golden);
            assert_eq!(ControlCommand::decode(&command.encode()).as_ref(), Ok(command));
        }
        let answer = ControlAnswer::InstanceMismatch { remembered: instance };
        assert_eq!(hex::encode(answer.encode()), "010a08080808080808080808080808080808");
        assert_eq!(hex::encode(ControlAnswer::AccessKeyExists.encode()), "010c");
        assert_eq!(hex::encode(ControlAnswer::LastAccessKey.encode()), "010d");
        assert_eq!(hex::encode(ControlAnswer::DeletionBegun { attempt }.encode()), "010e03");
        assert_eq!(hex::encode(ControlAnswer::DeletionTakenOver.encode()), "010f");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let command = ControlCommand::decode(&bytes);
            let answer = ControlAnswer::decode(&bytes);
            prop_assert!(bytes.first() == Some(&1) || (command.is_err() && answer.is_err()));
            bytes.insert(0, 1);
            if let Ok(command) = ControlCommand::decode(&bytes) {
                prop_assert_eq!(ControlCommand::decode(&command.encode()), Ok(command));
            }
        }
    }
}
