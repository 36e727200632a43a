//! `drystone bench`: an S3 load generator for any endpoint, and the small client it is made of.
//!
//! It measures what a client sees, from before the first byte of a request to after the last byte of its answer. It is
//! closed-loop: a worker that waits for an answer asks nothing else, so a stall shows as the longest stall and the
//! maximum, not as a growing queue. Nothing is retried.

pub mod client;
pub mod content;
pub mod histogram;
pub mod plan;
pub mod run;
pub mod sign;
pub mod summary;
mod worker;
