//! Opens the stores of this node and starts its replicas: the control group's in the state directory, those of index
//! shards on their drives.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use drystone_transport::Peers;
use rand::RngCore as _;

use super::Member;
use super::groups::{ControlMachine, IndexMachine, group_of_shard};
use super::network::PeerNetwork;
use super::seams::Seams;
use crate::consensus::{
    ConsensusNetwork, Group, GroupConfig, GroupId, GroupParts, MemberRole, Members, StartError, StartMode, StateMachine,
};
use crate::ids::{DriveId, ReplicaId};
use crate::kv::{Kv, KvError, LogWriter};
use crate::topology::Role;

/// Replicas that cannot start. A store of one drive that does not open is not among them: it only loses its replicas.
#[derive(Debug, thiserror::Error)]
pub enum ReplicasError {
    /// The control group's store does not open.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// The control group's replica does not start.
    #[error("the control group's replica does not start: {0}")]
    Control(#[from] StartError),
    /// No thread for a log writer.
    #[error("a log writer cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// The log writers of the opened stores, to be closed after all replicas.
#[derive(Default)]
pub(super) struct Stores(Mutex<Vec<(PathBuf, LogWriter)>>);

impl Stores {
    fn add(&self, dir: PathBuf, writer: LogWriter) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((dir, writer));
    }

    /// The stores and where they lie.
    pub(super) fn all(&self) -> Vec<(PathBuf, LogWriter)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) async fn close(&self) {
        let writers = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for (_, writer) in writers {
            writer.shutdown().await;
        }
    }
}

/// One store and its group commit.
struct Store {
    kv: Arc<dyn Kv>,
    log_writer: LogWriter,
}

struct Starter<'a> {
    member: &'a Member,
    seams: &'a Seams,
    network: Arc<dyn ConsensusNetwork>,
    mode: StartMode,
}

/// Starts every replica the topology gives to this node.
pub(super) async fn start(
    member: &Arc<Member>,
    seams: &Seams,
    peers: &Peers,
    stores: &Stores,
) -> Result<(), ReplicasError> {
    let mode = if member.record().founded { StartMode::Resume } else { StartMode::Create };
    let starter = Starter { member, seams, network: Arc::new(PeerNetwork::new(member, peers.clone())), mode };
    let dir = member.config.state_dir.join("control");
    let control = starter.open(&dir)?;
    stores.add(dir, control.log_writer.clone());
    starter.start_control(&control).await?;
    for (drive, shards) in starter.shards_by_drive() {
        match starter.open_on_drive(drive) {
            Ok((dir, store)) => {
                stores.add(dir, store.log_writer.clone());
                for (shard, replica) in shards {
                    starter.start_shard(shard, replica, &store).await;
                }
            }
            Err(reason) => shards.into_iter().for_each(|(shard, _)| starter.lose(group_of_shard(shard), &reason)),
        }
    }
    Ok(())
}

impl Starter<'_> {
    fn open(&self, dir: &Path) -> Result<Store, ReplicasError> {
        let kv = (self.seams.open_kv)(dir)?;
        let log_writer =
            LogWriter::start(Arc::clone(&kv), self.seams.executor.of_logs(), self.member.metrics().logs.clone())?;
        Ok(Store { kv, log_writer })
    }

    fn open_on_drive(&self, drive: DriveId) -> Result<(PathBuf, Store), String> {
        if self.member.lost_drives.contains_key(&drive) {
            return Err(format!("drive {drive} is lost"));
        }
        let path = self.member.drive_paths.get(&drive).ok_or_else(|| format!("drive {drive} has no directory"))?;
        let dir = path.join("index");
        let store = self.open(&dir).map_err(|error| error.to_string())?;
        Ok((dir, store))
    }

    fn shards_by_drive(&self) -> BTreeMap<DriveId, Vec<(u16, ReplicaId)>> {
        let topology = self.member.topology();
        let mut by_drive: BTreeMap<DriveId, Vec<(u16, ReplicaId)>> = BTreeMap::new();
        for (shard, replicas) in (0_u16..).zip(&topology.shards) {
            for replica in replicas.iter().filter(|replica| replica.node == self.member.node()) {
                by_drive.entry(replica.drive).or_default().push((shard, replica.id));
            }
        }
        by_drive
    }

    async fn start_control(&self, store: &Store) -> Result<(), ReplicasError> {
        let topology = self.member.topology();
        let role = |role| match role {
            Role::Voter => MemberRole::Voter,
            Role::Learner => MemberRole::Learner,
        };
        let members: Members =
            topology.control.iter().map(|replica| (replica.id, (replica.node, role(replica.role)))).collect();
        let Some(own) = topology.control.iter().find(|replica| replica.node == self.member.node()) else {
            return Ok(());
        };
        let mut config = GroupConfig::new(GroupId::CONTROL, own.id, members, self.mode);
        config.preferred_leader = topology.control.first().map(|replica| replica.id);
        self.bound_log(&mut config);
        let group = self.start_group(config, store, Arc::new(ControlMachine)).await?;
        self.keep(GroupId::CONTROL, own.id, group);
        Ok(())
    }

    async fn start_shard(&self, shard: u16, replica: ReplicaId, store: &Store) {
        let topology = self.member.topology();
        let replicas = &topology.shards[usize::from(shard)];
        let members = replicas.iter().map(|replica| (replica.id, (replica.node, MemberRole::Voter))).collect();
        let mut config = GroupConfig::new(group_of_shard(shard), replica, members, self.mode);
        config.preferred_leader = replicas.first().map(|replica| replica.id);
        self.bound_log(&mut config);
        match self.start_group(config, store, Arc::new(IndexMachine)).await {
            Ok(group) => self.keep(group_of_shard(shard), replica, group),
            Err(error) => self.lose(group_of_shard(shard), &error.to_string()),
        }
    }

    fn bound_log(&self, config: &mut GroupConfig) {
        (config.snapshot_every, config.log_keep) = (self.member.config.snapshot_every, self.member.config.log_keep);
    }

    async fn start_group(
        &self,
        config: GroupConfig,
        store: &Store,
        state_machine: Arc<dyn StateMachine>,
    ) -> Result<Group, StartError> {
        let parts = GroupParts {
            kv: Arc::clone(&store.kv),
            log_writer: store.log_writer.clone(),
            state_machine,
            network: Arc::clone(&self.network),
            rng_seed: self.seams.randomness.with(|rng| rng.next_u64()),
            beat: self.member.beat,
        };
        Group::start(config, parts).await
    }

    fn keep(&self, group: GroupId, id: ReplicaId, replica: Group) {
        self.member.groups.write().unwrap_or_else(PoisonError::into_inner).insert((group, id), replica);
    }

    fn lose(&self, group: GroupId, reason: &str) {
        tracing::error!(%group, %reason, "a replica does not run");
        self.member.lost_groups.write().unwrap_or_else(PoisonError::into_inner).insert(group, reason.to_owned());
    }
}
