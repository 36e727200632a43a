//! What is true and who holds it: topology, failure detector, consensus groups, control state, object index,
//! placement and the object engine. The gateway sees only the nouns and the [`store::Store`] port.

pub mod beat;
pub mod codec;
pub mod consensus;
pub mod control;
pub mod detector;
pub mod engine;
pub mod ids;
pub mod index;
pub mod kv;
pub mod member;
pub mod peer;
pub mod placement;
pub mod seams;
pub mod state;
pub mod store;
pub mod topology;

/// For crates above this one, which do not know the transport.
pub use drystone_transport::log_limit;
