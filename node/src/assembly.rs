//! The seam to the cluster: what the binary asks for, and the parts of a running node that it gets.
//!
//! The one production implementation joins identity, transport, consensus, drives and the S3 gateway; tests have their
//! own. Nothing else in this crate knows how a cluster works.

pub mod cluster;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use prometheus::Registry;
use secrecy::SecretString;

use crate::config::Config;
use crate::http::{Admin, BoxError, NodeView, Service};
use crate::runtimes::Runtimes;
use crate::shutdown::Stages;

/// Makes clusters and nodes.
pub trait Assembly: Send + Sync {
    /// Makes a new cluster offline: one directory per founding node below `plan.out`, each with identity, topology
    /// epoch 1 and the first key, sealed. Everything is synced when it returns. Refuses a directory that exists.
    ///
    /// # Errors
    /// What could not be made; what was made before stays and must be removed by hand.
    fn create_cluster(&self, plan: &FoundingPlan) -> Result<FoundedCluster, AssemblyError>;

    /// Starts a node from its state directory. It returns once the node takes part, not once it is ready. Metrics go
    /// to `registry`. Per-worker work belongs on `runtimes.workers`, consensus on `runtimes.consensus`.
    ///
    /// # Errors
    /// Why the node must not start: no identity, another cluster, no drive, a damaged state.
    fn start<'a>(
        &'a self,
        config: &'a Config,
        runtimes: &'a Runtimes,
        registry: &'a Registry,
    ) -> BoxFuture<'a, Result<Parts, AssemblyError>>;
}

/// A failure on the far side of the seam, which has its own typed errors; here it is only reported.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct AssemblyError(#[from] pub BoxError);

/// The parts of a started node.
pub struct Parts {
    /// S3 for each worker, in the order of `runtimes.workers`.
    pub s3: Vec<Arc<dyn Service>>,
    /// What the node says about itself.
    pub view: Arc<dyn NodeView>,
    /// Keys and signatures.
    pub admin: Arc<dyn Admin>,
    /// How to stop it.
    pub stages: Box<dyn Stages>,
}

/// What `drystone cluster create` is asked for.
#[derive(Debug)]
pub struct FoundingPlan {
    /// The founding nodes; names are unique.
    pub nodes: Vec<FoundingNode>,
    /// Drives of each node.
    pub drive_count: NonZeroUsize,
    /// Index shards, fixed for the cluster's life; derived from the number of drives if not given.
    pub shard_count: Option<u16>,
    /// Failures to survive, if more than the number of nodes or zones gives by itself.
    pub tolerated: Option<u8>,
    /// Where the directories go: `out/NAME` becomes that node's `state_dir`.
    pub out: PathBuf,
    /// The first access key.
    pub first_key: FirstKey,
}

/// A founding node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundingNode {
    /// Name, unique in the cluster; also the name of its directory.
    pub name: String,
    /// `HOST:PORT` at which peers reach it.
    pub address: String,
    /// Failure zone.
    pub zone: Option<String>,
}

/// The first access key: given or drawn.
#[derive(Debug)]
pub struct FirstKey {
    /// The public part.
    pub access_key: String,
    /// The secret part.
    pub secret_key: SecretString,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundedCluster {
    /// Cluster id as text.
    pub cluster: String,
    /// Per node in the order of the plan: name and state directory.
    pub nodes: Vec<(String, PathBuf)>,
}
