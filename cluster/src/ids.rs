//! Identities of what the cluster agrees on. Those of nodes and drives come from below and are re-exported.

use std::fmt;

use bincode::{Decode, Encode};
use rand::RngCore;

pub use drystone_certs::{ClusterId, InstanceId, NodeId};
pub use drystone_erasure::{ChunkId, DriveId, ExtentId, Scheme};

/// A bucket, for as long as it exists: a bucket created again under the same name gets another id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct BucketId(pub u64);

/// Who works on the deletion of a bucket: counted by the control group, per bucket, from 1. A later attempt takes the
/// deletion over; what an earlier one still has on its way is refused from then on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct DeletionAttempt(pub u64);

impl DeletionAttempt {
    /// The one that takes over from this one.
    #[must_use]
    pub fn next(self) -> Self {
        // At one a second, 2^64 of them take longer than there are drives.
        Self(self.0.saturating_add(1))
    }
}

/// Which index shard, `0..topology.shard_count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ShardIndex(pub u16);

/// One replica of a consensus group, for as long as it exists. Never reused, so that a replica that lost its state
/// cannot pass for the one that voted before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ReplicaId(pub u64);

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// Draws a new id.
            pub fn random(rng: &mut impl RngCore) -> Self {
                let mut bytes = [0; 16];
                rng.fill_bytes(&mut bytes);
                Self(bytes)
            }

            /// Reads the text form, 32 hexadecimal digits.
            pub fn parse(text: &str) -> Option<Self> {
                let mut bytes = [0; 16];
                hex::decode_to_slice(text, &mut bytes).ok()?;
                Some(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

random_id!(
    /// One immutable body and its metadata under a key. Drawn by the gateway for each write.
    VersionId
);
random_id!(
    /// A multipart upload.
    UploadId
);
random_id!(
    /// One attempt to change state. A proposal that is retried keeps its id and is applied once.
    CommandId
);

impl UploadId {
    /// Draws a new id that sorts by when the upload started: 48 bits of `now_ms` (wall-clock milliseconds since the
    /// Unix epoch), then 80 random bits. Listings of uploads are in the order of ids, hence in S3's order.
    pub fn started(now_ms: u64, rng: &mut impl RngCore) -> Self {
        let mut id = Self::random(rng);
        id.0[..6].copy_from_slice(&now_ms.to_be_bytes()[2..]);
        id
    }
}
