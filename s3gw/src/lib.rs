//! The S3 gateway: S3 over HTTP in, calls on [`drystone_cluster::store::Store`] out.
//!
//! [`Gateway::serve`] takes one HTTP request and gives its answer. Protocol (`sig`, `chunked`, `xml`, `route`,
//! `checksum`) stands apart from operations (`ops`), and what decides is synchronous: signatures, framing, ranges and
//! conditions take time and bytes as arguments and are tested by comparing values.
//!
//! Deliberately not here: listening, TLS and HTTP itself (the node's), the `/-/` endpoints, policies, versioning, and
//! every byte at rest.

mod body;
mod checksum;
mod chunked;
mod conditions;
mod config;
mod error;
mod features;
mod gateway;
mod metadata;
mod metrics;
mod ops;
mod range;
mod response;
mod route;
pub mod sig;
mod timestamp;
mod xml;

pub use checksum::{
    compute as compute_checksum, format_value as format_checksum, header as checksum_header, name as checksum_name,
    parse_value as parse_checksum,
};
pub use config::GatewayConfig;
pub use error::{ErrorCode, S3Error};
pub use gateway::{Gateway, WallClock};
pub use metrics::GatewayMetrics;
pub use response::{BrokenOff, GatewayBody};
pub use route::Operation;
