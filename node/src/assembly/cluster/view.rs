//! What the member says about itself, in the shapes of `/-/health`.

use std::sync::Arc;
use std::time::Duration;

use drystone_cluster::consensus::GroupId;
use drystone_cluster::detector;
use drystone_cluster::member::{self, Running};
use drystone_erasure as erasure;
use prometheus::Registry;

use crate::health::{
    DriveHealth, DriveState, Durability, GroupHealth, Health, NodeHealth, NotReady, PeerHealth, PeerState, WorkerHealth,
};
use crate::http::NodeView;

/// A running member, as an operator sees it.
pub(super) struct MemberView {
    running: Arc<Running>,
    registry: Registry,
}

impl MemberView {
    pub(super) fn new(running: Arc<Running>, registry: Registry) -> Self {
        Self { running, registry }
    }
}

impl NodeView for MemberView {
    fn ready(&self) -> Result<(), NotReady> {
        self.running.member().ready().map_err(|reason| match reason {
            member::NotReady::Stopping => NotReady::Stopping,
            other => NotReady::Because(other.to_string()),
        })
    }

    fn health(&self) -> Health {
        let report = self.running.member().report();
        Health {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster: report.cluster.to_string(),
            epoch: report.epoch,
            failures_tolerated: report.tolerated,
            node: NodeHealth {
                id: report.node.to_string(),
                name: report.name.clone(),
                zone: report.zone.clone(),
                uptime_ms: millis(report.uptime),
            },
            peers: report.peers.iter().map(peer).collect(),
            drives: report.drives.iter().map(drive).collect(),
            groups: groups(&report.groups, &report.lost_groups),
            durability: Durability {
                chunk_read_failures: report.chunk_read_failures,
                chunk_write_failures: report.chunk_write_failures,
                degraded_reads: report.degraded_reads,
            },
            workers: vec![WorkerHealth {
                name: "garbage".to_owned(),
                done: report.garbage_extents_deleted,
                failed: report.garbage_chunk_failures,
            }],
        }
    }

    fn registry(&self) -> &Registry {
        // The transport's gauges are read off the live connections when somebody asks.
        self.running.connections();
        &self.registry
    }
}

fn peer(peer: &member::PeerHealth) -> PeerHealth {
    PeerHealth {
        id: peer.node.to_string(),
        name: peer.name.clone(),
        address: peer.address.clone(),
        state: match peer.state {
            detector::PeerState::Alive => PeerState::Alive,
            detector::PeerState::Suspect => PeerState::Suspect,
            detector::PeerState::Down => PeerState::Down,
        },
        answer_age_ms: peer.last_answer_age.map(millis),
        round_trip_us: peer.round_trip.map(micros),
        epoch: peer.epoch,
    }
}

fn drive(drive: &member::DriveHealth) -> DriveHealth {
    DriveHealth {
        id: drive.drive.to_string(),
        path: drive.path.clone(),
        state: match drive.state {
            erasure::DriveState::Healthy => DriveState::Healthy,
            erasure::DriveState::Slow => DriveState::Slow,
            erasure::DriveState::Failing => DriveState::Failing,
            erasure::DriveState::Failed { .. } => DriveState::Failed,
            erasure::DriveState::Full => DriveState::Full,
        },
        capacity_bytes: drive.capacity_bytes,
        free_bytes: drive.free_bytes,
        used_bytes: drive.used_bytes,
        io_errors: drive.io_errors,
        corrupt_blocks: drive.corrupt_blocks,
        write_us: micros(drive.append_latency),
        read_us: micros(drive.read_latency),
        problem: drive.problem.clone(),
    }
}

/// The control group first, then shards by index, whether they run or not.
fn groups(running: &[member::GroupHealth], lost: &[(GroupId, String)]) -> Vec<GroupHealth> {
    let running = running.iter().map(|group| {
        let health = GroupHealth {
            group: group_name(group.group),
            leader: group.leader.map(|leader| leader.to_string()),
            term: group.term,
            lag: Some(group.lag),
            problem: group.problem.clone(),
        };
        (group.group, health)
    });
    let lost = lost.iter().map(|(group, reason)| {
        let problem = Some(reason.clone());
        (*group, GroupHealth { group: group_name(*group), leader: None, term: 0, lag: None, problem })
    });
    let mut all: Vec<(GroupId, GroupHealth)> = running.chain(lost).collect();
    all.sort_by_key(|(group, _)| *group);
    all.into_iter().map(|(_, health)| health).collect()
}

fn group_name(group: GroupId) -> String {
    match group {
        GroupId::CONTROL => "control".to_owned(),
        GroupId(number) => format!("shard {}", number - 1),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use drystone_cluster::consensus::ReplicaRole;

    use super::*;

    #[test]
    fn groups_are_in_order_whether_they_run_or_not() {
        let running = [0, 1, 3].map(|number| member::GroupHealth {
            group: GroupId(number),
            role: ReplicaRole::Leader,
            leader: None,
            term: 4,
            applied: 0,
            lag: 0,
            problem: None,
        });
        let shown = groups(&running, &[(GroupId(2), "its drive is lost".to_owned())]);
        let names: Vec<&str> = shown.iter().map(|group| group.group.as_str()).collect();
        assert_eq!(names, ["control", "shard 0", "shard 1", "shard 2"]);
        assert_eq!((shown[2].lag, shown[2].problem.as_deref()), (None, Some("its drive is lost")));
        assert_eq!((shown[3].lag, &shown[3].problem), (Some(0), &None));
    }
}
