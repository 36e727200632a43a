//! What the control group agrees on: buckets, access keys, the topology, and which life of each node's state counts.
//!
//! Commands in, answers out, deterministic; no time or randomness is read while applying. Consensus, proposals and
//! linearizable reads are elsewhere.

mod command;
/// Reads of the control state.
pub mod query;
mod state;

pub use command::{AccessKeyRecord, BucketPhase, BucketRecord, ControlAnswer, ControlCommand, SealedSecret};
pub use state::apply;
