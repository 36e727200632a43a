//! What a member tells an operator of itself and of what it sees: plain values, rendered by the node.

use std::sync::PoisonError;
use std::time::Duration;

use drystone_erasure::drive::FailReason;
use drystone_erasure::{DriveState, DriveStatus};

use super::Member;
use crate::consensus::{GroupId, GroupStatus, ReplicaRole};
use crate::detector::PeerState;
use crate::ids::{ClusterId, DriveId, NodeId};

/// Everything `/-/health` shows.
#[derive(Clone, Debug)]
pub struct MemberHealth {
    /// The cluster.
    pub cluster: ClusterId,
    /// Epoch of the topology followed.
    pub epoch: u64,
    /// Domain failures that acknowledged writes survive.
    pub tolerated: u8,
    /// This node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its failure zone, if it has one.
    pub zone: Option<String>,
    /// Time since it started.
    pub uptime: Duration,
    /// Every other node.
    pub peers: Vec<PeerHealth>,
    /// Every drive of this node.
    pub drives: Vec<DriveHealth>,
    /// Every group this node holds a replica of.
    pub groups: Vec<GroupHealth>,
    /// Replicas that should run here but do not, with the reason.
    pub lost_groups: Vec<(GroupId, String)>,
    /// Chunk reads that failed since start.
    pub chunk_read_failures: u64,
    /// Chunk writes that failed since start.
    pub chunk_write_failures: u64,
    /// Pieces rebuilt from parity since start.
    pub degraded_reads: u64,
    /// Extents whose chunks the garbage worker deleted since start.
    pub garbage_extents_deleted: u64,
    /// Chunks the garbage worker could not delete when it tried, since start.
    pub garbage_chunk_failures: u64,
}

/// A peer.
#[derive(Clone, Debug)]
pub struct PeerHealth {
    /// Which node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Where it is dialled.
    pub address: String,
    /// What the failure detector thinks.
    pub state: PeerState,
    /// Time since its last answer, if it ever answered.
    pub last_answer_age: Option<Duration>,
    /// The smoothed round trip of its heartbeats, kept while it does not answer.
    pub round_trip: Option<Duration>,
    /// The topology epoch it reported last.
    pub epoch: Option<u64>,
}

/// A drive of this node.
#[derive(Clone, Debug)]
pub struct DriveHealth {
    /// Which drive.
    pub drive: DriveId,
    /// Its directory.
    pub path: String,
    /// What its store says; failed if it could not be opened.
    pub state: DriveState,
    /// Size in bytes.
    pub capacity_bytes: u64,
    /// Bytes that client writes may still take.
    pub free_bytes: u64,
    /// Bytes of live chunks.
    pub used_bytes: u64,
    /// I/O errors since start.
    pub io_errors: u64,
    /// Reads that did not verify since start.
    pub corrupt_blocks: u64,
    /// Average time of a durable append.
    pub append_latency: Duration,
    /// Average time of a read.
    pub read_latency: Duration,
    /// Why it cannot be used, if so.
    pub problem: Option<String>,
}

/// A group with a replica here.
#[derive(Clone, Debug)]
pub struct GroupHealth {
    /// Which group.
    pub group: GroupId,
    /// What the replica does.
    pub role: ReplicaRole,
    /// Who leads.
    pub leader: Option<NodeId>,
    /// The term.
    pub term: u64,
    /// Index of the last applied entry.
    pub applied: u64,
    /// Entries agreed but not applied here.
    pub lag: u64,
    /// Why the replica stopped, if it did.
    pub problem: Option<String>,
}

impl Member {
    /// What this node knows now. Takes no lock for long and asks nobody.
    pub fn report(&self) -> MemberHealth {
        let topology = self.topology();
        let own = topology.nodes.get(&self.node());
        MemberHealth {
            cluster: self.cluster(),
            epoch: topology.epoch,
            tolerated: topology.tolerated,
            node: self.node(),
            name: own.map(|node| node.name.clone()).unwrap_or_default(),
            zone: own.and_then(|node| node.zone.clone()),
            uptime: self.uptime(),
            peers: self.peer_nodes().into_iter().map(|node| self.peer_health(node)).collect(),
            drives: self.drive_healths(),
            groups: self.group_healths(),
            lost_groups: {
                let lost = self.lost_groups.read().unwrap_or_else(PoisonError::into_inner);
                lost.iter().map(|(group, reason)| (*group, reason.clone())).collect()
            },
            chunk_read_failures: self.metrics.chunk_read_failures.get(),
            chunk_write_failures: self.metrics.chunk_write_failures.get(),
            degraded_reads: self.metrics.degraded_reads.get(),
            garbage_extents_deleted: self.metrics.garbage_extents_deleted.get(),
            garbage_chunk_failures: self.metrics.garbage_chunk_failures.get(),
        }
    }

    fn peer_health(&self, node: NodeId) -> PeerHealth {
        let topology = self.topology();
        let record = topology.nodes.get(&node);
        let report = self.detector().report(node);
        PeerHealth {
            node,
            name: record.map(|record| record.name.clone()).unwrap_or_default(),
            address: record.map(|record| record.address.clone()).unwrap_or_default(),
            state: self.detector().state(node),
            last_answer_age: report.and_then(|report| report.last_answer).map(|at| self.uptime().saturating_sub(at)),
            round_trip: report.and_then(|report| report.round_trip),
            epoch: self.peer_epochs.read().unwrap_or_else(PoisonError::into_inner).get(&node).copied(),
        }
    }

    fn drive_healths(&self) -> Vec<DriveHealth> {
        let path = |drive: &DriveId| self.drive_paths.get(drive).map(|path| path.display().to_string());
        let open = self.drives.iter().map(|(id, drive)| (id, drive.status(), None));
        let lost = self.lost_drives.iter().map(|(id, reason)| (id, LOST, Some(reason.clone())));
        let health = |(id, status, problem): (&DriveId, DriveStatus, Option<String>)| DriveHealth {
            drive: *id,
            path: path(id).unwrap_or_default(),
            state: status.state,
            capacity_bytes: status.capacity_bytes,
            free_bytes: status.free_bytes,
            used_bytes: status.used_bytes,
            io_errors: status.write_errors + status.read_errors,
            corrupt_blocks: status.corrupt_reads,
            append_latency: status.append_latency,
            read_latency: status.read_latency,
            problem: problem.or_else(|| status.problem()),
        };
        let mut drives: Vec<DriveHealth> = open.chain(lost).map(health).collect();
        drives.sort_by_key(|health| health.drive);
        drives
    }

    fn group_healths(&self) -> Vec<GroupHealth> {
        self.replicas()
            .iter()
            .map(|(group, replica)| {
                let GroupStatus { role, leader, term, applied, lag, .. } = replica.status();
                GroupHealth {
                    group: *group,
                    role,
                    leader: leader.map(|(_, node)| node),
                    term,
                    applied: applied.unwrap_or(0),
                    lag,
                    problem: replica.failure().map(|failure| failure.to_string()),
                }
            })
            .collect()
    }
}

/// The status of a drive that could not be opened.
const LOST: DriveStatus = DriveStatus {
    state: DriveState::Failed { reason: FailReason::Index },
    capacity_bytes: 0,
    free_bytes: 0,
    used_bytes: 0,
    chunk_count: 0,
    write_errors: 0,
    read_errors: 0,
    corrupt_reads: 0,
    append_latency: Duration::ZERO,
    read_latency: Duration::ZERO,
    failed_errno: None,
};
