//! The `drystone` node: configuration, command line, the client port with the `/-/` endpoints, ordered shutdown, and
//! the load generator. What is true about objects and who holds them is the cluster's business; the seam to it is
//! [`assembly`].
#![allow(clippy::disallowed_methods, reason = "the binary is where the clock and randomness come in")]

pub mod assembly;
pub mod bench;
pub mod cli;
pub mod config;
pub mod health;
pub mod http;
mod keys;
pub mod log;
pub mod running;
pub mod runtimes;
pub mod shutdown;

#[cfg(test)]
mod testing;
