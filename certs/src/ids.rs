//! Identities that appear in certificates, on the wire and on disk. Plain newtypes: no behaviour beyond text form.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use rand::RngCore;

/// A text that is not a valid id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {kind}: expected {digits} lower-case hexadecimal digits")]
pub struct ParseIdError {
    /// The rejected text.
    pub text: String,
    /// What was wanted, in the words of the design.
    pub kind: &'static str,
    /// How many digits that takes.
    pub digits: usize,
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $len:expr, $kind:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Draws a new id.
            pub fn random(rng: &mut impl RngCore) -> Self {
                let mut bytes = [0; $len];
                rng.fill_bytes(&mut bytes);
                Self(bytes)
            }

            /// The id with exactly these bytes.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes of the id, in the order of its text form.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
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

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let mut bytes = [0; $len];
                let lower_case = !text.bytes().any(|byte| byte.is_ascii_uppercase());
                match hex::decode_to_slice(text, &mut bytes) {
                    Ok(()) if lower_case => Ok(Self(bytes)),
                    _ => Err(ParseIdError { text: text.to_owned(), kind: $kind, digits: $len * 2 }),
                }
            }
        }
    };
}

hex_id!(
    /// A cluster, drawn once by `drystone cluster create`.
    ClusterId, 16, "cluster id"
);
hex_id!(
    /// A node of a cluster. Never reused: a node that lost its state comes back under a new id.
    NodeId, 8, "node id"
);
hex_id!(
    /// One life of a node's state directory, drawn when the node first starts. Peers remember it, so that a node
    /// whose state was wiped cannot pass for the one that voted before.
    InstanceId, 16, "instance id"
);
