//! What the whole-system tests of Drystone stand on: clusters of real processes, an S3 client of its own, recorded
//! histories and their checker, a reference model, and bodies that any reader can verify.
//!
//! The client signs requests with its own code and shares none with the product, so that a mistake in one is not
//! hidden by the same mistake in the other. The tests themselves are in `tests/`, one binary per theme.

pub mod census;
pub mod client;
pub mod content;
pub mod harness;
pub mod health;
pub mod history;
pub mod linearizability;
pub mod model;
pub mod sim;
pub mod tree;
pub mod workload;
