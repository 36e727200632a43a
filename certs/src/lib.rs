//! Who a node is.
//!
//! Ids, the cluster's certificate authority, node certificates and the persisted identity of a node. This crate
//! opens no sockets and knows nothing of consensus: it makes and reads what `transport` proves to peers.
//!
//! Wall-clock time and randomness are always arguments, so that a simulated cluster gets the same keys, serials and
//! verdicts from the same seed.

pub mod authority;
pub mod identity;
pub mod ids;
pub mod names;
pub mod peer;
pub mod sealing;

pub use authority::{AuthorityError, ClusterAuthority, FOUNDING_LIFETIME, NodeCredentials};
pub use identity::{Identity, IdentityError};
pub use ids::{ClusterId, InstanceId, NodeId};
pub use names::{parse_server_name, server_name};
pub use peer::{PeerRejection, moment, read_claims, read_peer};
pub use sealing::{SealingError, open, seal};
