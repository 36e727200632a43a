//! This node as a member of the cluster: its drives, its replicas, its peers, and what it knows of them.
//!
//! [`Member`] is the shared state that every worker and background task of a node uses; it owns no task. Starting and
//! stopping, in order, is in [`start`]; what runs in the background belongs to the [`Running`] that start returns.

mod admission;
mod certificate;
mod chunks;
mod config;
mod drive_watch;
mod drives;
mod first_key;
mod garbage;
mod groups;
mod heartbeat;
mod leaders;
mod metrics;
mod network;
mod peers;
mod readiness;
mod replicas;
mod report;
mod seams;
mod service;
mod start;
mod state_dir;
mod store_watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use arc_swap::ArcSwap;
use drystone_certs::Identity;
use drystone_erasure::{BufferPool, Codecs, Drive};
use tokio::sync::mpsc;

use self::admission::BodyMemory;
use self::leaders::Leaders;
use self::metrics::ClusterMetrics;
use crate::beat::Beat;
use crate::consensus::{Group, GroupId, ReplicaRole};
use crate::detector::Detector;
use crate::ids::{ClusterId, DriveId, NodeId, ReplicaId};
use crate::index::GarbageExtent;
use crate::peer::DriveReport;
use crate::placement::Health;
use crate::seams::{Randomness, WallClock};
use crate::topology::Topology;

pub use self::config::MemberConfig;
pub use self::drives::DrivesError;
pub use self::readiness::NotReady;
pub use self::replicas::ReplicasError;
pub use self::report::{DriveHealth, GroupHealth, MemberHealth, PeerHealth};
pub use self::seams::{Executor, Seams};
pub use self::start::{Running, Start, StartError, start};
pub use self::state_dir::{FirstKey, Founding, StateDirError, found};

pub(crate) use self::admission::{Admitted, Progress};
pub(crate) use self::groups::{ViewState, group_of_shard};
use self::state_dir::{MemberRecord, StateDir};

/// One warning stands for so many dropped extents, so that the log is not what fails next.
const DROPPED_PER_WARNING: u64 = 1024;

/// State shared by all workers of one node.
pub struct Member {
    config: MemberConfig,
    identity: Arc<Identity>,
    clock: Arc<dyn WallClock>,
    randomness: Randomness,
    topology: ArcSwap<Topology>,
    health: ArcSwap<Health>,
    is_full: AtomicBool,
    detector: Mutex<Detector>,
    reports: RwLock<BTreeMap<DriveId, DriveReport>>,
    peer_epochs: RwLock<BTreeMap<NodeId, u64>>,
    drives: BTreeMap<DriveId, Drive>,
    drive_paths: BTreeMap<DriveId, PathBuf>,
    /// Drives this node should have but could not open, with the reason.
    lost_drives: BTreeMap<DriveId, String>,
    /// Usually one replica of a group; several where the drives of a single node are the domains.
    groups: RwLock<BTreeMap<(GroupId, ReplicaId), Group>>,
    /// Replicas that should run here but do not, with the reason.
    lost_groups: RwLock<BTreeMap<GroupId, String>>,
    leaders: Leaders,
    buffers: BufferPool,
    codecs: Codecs,
    metrics: ClusterMetrics,
    body_memory: BodyMemory,
    abandoned: mpsc::Sender<GarbageExtent>,
    state_dir: StateDir,
    record: Mutex<MemberRecord>,
    started_at: tokio::time::Instant,
    beat: Beat,
    phase: readiness::Phase,
}

impl Member {
    /// This node's id.
    pub fn node(&self) -> NodeId {
        self.identity.node()
    }

    /// The cluster's id.
    pub fn cluster(&self) -> ClusterId {
        self.identity.cluster()
    }

    /// The topology this node follows.
    pub fn topology(&self) -> Arc<Topology> {
        self.topology.load_full()
    }

    pub(crate) fn sealing_key(&self) -> &[u8; 32] {
        self.identity.sealing_key()
    }

    pub(crate) fn health(&self) -> Arc<Health> {
        self.health.load_full()
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    pub(crate) fn randomness(&self) -> &Randomness {
        &self.randomness
    }

    pub(crate) fn leaders(&self) -> &Leaders {
        &self.leaders
    }

    pub(crate) fn buffers(&self) -> &BufferPool {
        &self.buffers
    }

    pub(crate) fn codecs(&self) -> &Codecs {
        &self.codecs
    }

    pub(crate) fn metrics(&self) -> &ClusterMetrics {
        &self.metrics
    }

    /// This node's replica of a group: of several the one that leads, if one does.
    pub(crate) fn group(&self, group: GroupId) -> Option<Group> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let mut replicas = replicas_of(&groups, group);
        let first = replicas.next()?;
        match replicas.next() {
            None => Some(first.clone()),
            Some(second) => {
                let mut all = [first, second].into_iter().chain(replicas);
                let leads = |replica: &&Group| replica.status().role == ReplicaRole::Leader;
                Some(all.find(leads).unwrap_or(first).clone())
            }
        }
    }

    /// One replica of this node.
    pub(crate) fn replica(&self, group: GroupId, replica: ReplicaId) -> Option<Group> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner).get(&(group, replica)).cloned()
    }

    /// All replicas of this node.
    pub(crate) fn replicas(&self) -> Vec<(GroupId, Group)> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        groups.iter().map(|((group, _), replica)| (*group, replica.clone())).collect()
    }

    /// Hands chunks that no entry will refer to over to the garbage worker. Beyond what its queue holds they are
    /// counted, and their space stays used.
    pub(crate) fn abandon(&self, extent: GarbageExtent) {
        self.metrics.abandoned_extents.inc();
        match self.abandoned.try_send(extent) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                let dropped = &self.metrics.abandoned_extents_dropped;
                if dropped.get().is_multiple_of(DROPPED_PER_WARNING) {
                    tracing::warn!(
                        before = dropped.get(),
                        "more writes fail than the garbage worker can note; their space stays used"
                    );
                }
                dropped.inc();
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                tracing::debug!("the garbage worker has stopped; the space of the chunks stays used");
            }
        }
    }

    /// Whether this node can serve reads and writes now.
    ///
    /// # Errors
    /// Why not.
    pub fn ready(&self) -> Result<(), NotReady> {
        self.phase.get()
    }
}

fn replicas_of(groups: &BTreeMap<(GroupId, ReplicaId), Group>, group: GroupId) -> impl Iterator<Item = &Group> {
    groups.range((group, ReplicaId(0))..=(group, ReplicaId(u64::MAX))).map(|(_, replica)| replica)
}
