//! Every second this node tells every peer that it lives, with its drives, and hears the same. What comes back
//!  feeds the failure detector and, through it, where new chunks may go.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use drystone_erasure::{DriveState, DriveStatus};
use drystone_transport::{Class, Peers};
use futures_util::future::join_all;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Member;
use super::drive_watch::DriveWatch;
use super::groups::group_of_shard;
use crate::codec::{decode, encode};
use crate::consensus::{Group, GroupId, ReplicaRole};
use crate::detector::{Detector, PeerState, Transition};
use crate::ids::NodeId;
use crate::peer::{DriveReport, Heartbeat, Method};
use crate::placement::{DriveCondition, Health, is_full};

/// How often peers are probed.
pub(crate) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// An answer that takes longer counts as missed. Less than the interval, so that a silent peer does not make it two.
const ANSWER_DEADLINE: Duration = Duration::from_millis(900);

/// Probes all peers until `stop`.
pub(crate) async fn probe_peers(member: Arc<Member>, peers: Peers, stop: CancellationToken) {
    let mut drives = DriveWatch::default();
    loop {
        let round = join_all(member.peer_nodes().into_iter().map(|node| probe(&member, &peers, node)));
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = round => {}
        }
        member.refresh_health();
        drives.look(&member);
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = member.beat.wait(HEARTBEAT_INTERVAL) => {}
        }
    }
}

async fn probe(member: &Member, peers: &Peers, node: NodeId) {
    let sent_at = Instant::now();
    let body = Bytes::from(encode(&member.heartbeat()));
    let answer = peers.call(node, Class::Control, Method::Heartbeat.number(), body, ANSWER_DEADLINE).await;
    match answer.map_err(|error| error.to_string()).and_then(|bytes| decode(&bytes).map_err(|error| error.to_string()))
    {
        Ok(theirs) => {
            member.note_heartbeat(&theirs);
            member.detector().on_answer(node, member.uptime(), sent_at.elapsed());
        }
        Err(error) => {
            tracing::debug!(peer = %node, %error, "a peer did not answer");
            member.detector().on_miss(node, member.uptime());
        }
    }
}

impl Member {
    pub(crate) fn detector(&self) -> MutexGuard<'_, Detector> {
        self.detector.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since this node started.
    pub(crate) fn uptime(&self) -> Duration {
        self.started_at.elapsed()
    }

    /// All nodes but this one.
    pub(crate) fn peer_nodes(&self) -> Vec<NodeId> {
        self.topology().nodes.keys().copied().filter(|node| *node != self.node()).collect()
    }

    /// What this node says of itself now.
    pub(crate) fn heartbeat(&self) -> Heartbeat {
        let led = |(group, replica): &(GroupId, _)| {
            *group != GroupId::CONTROL && Group::status(replica).role == ReplicaRole::Leader
        };
        let leads = self.replicas().into_iter().filter(led).map(|(group, _)| group.0 - 1).collect();
        Heartbeat { node: self.node(), epoch: self.topology().epoch, drives: self.drive_reports(), leads }
    }

    fn drive_reports(&self) -> Vec<DriveReport> {
        let opened = self.drives.iter().map(|(id, drive)| {
            let status = drive.status();
            DriveReport {
                drive: *id,
                state: state_number(&status.state),
                free_bytes: status.free_bytes,
                capacity_bytes: status.capacity_bytes,
                used_bytes: status.used_bytes,
                error_count: error_count(&status),
            }
        });
        let lost = self.lost_drives.keys().map(|id| DriveReport {
            drive: *id,
            state: FAILED,
            free_bytes: 0,
            capacity_bytes: 0,
            used_bytes: 0,
            error_count: 1,
        });
        opened.chain(lost).collect()
    }

    /// Takes in what a peer said of itself.
    pub(crate) fn note_heartbeat(&self, theirs: &Heartbeat) {
        let topology = self.topology();
        let Some(record) = topology.nodes.get(&theirs.node) else { return };
        let mut reports = self.reports.write().unwrap_or_else(PoisonError::into_inner);
        for report in theirs.drives.iter().filter(|report| record.drives.contains(&report.drive)) {
            reports.insert(report.drive, report.clone());
        }
        drop(reports);
        self.peer_epochs.write().unwrap_or_else(PoisonError::into_inner).insert(theirs.node, theirs.epoch);
        for shard in theirs.leads.iter().filter(|shard| **shard < topology.shard_count) {
            self.leaders.learn(group_of_shard(*shard), theirs.node);
        }
    }

    /// Combines the detector's verdicts with the drives' own reports into what placement goes by.
    pub(crate) fn refresh_health(&self) {
        let transitions = self.detector().tick(self.uptime());
        for Transition { peer, from, to, .. } in transitions {
            let topology = self.topology();
            let name = topology.nodes.get(&peer).map_or("", |record| &record.name);
            match to {
                PeerState::Alive => tracing::info!(%peer, name, ?from, ?to, "peer state changed"),
                PeerState::Suspect | PeerState::Down => tracing::warn!(%peer, name, ?from, ?to, "peer state changed"),
            }
        }
        let own: BTreeMap<_, _> = self.drive_reports().into_iter().map(|report| (report.drive, report)).collect();
        let reports = self.reports.read().unwrap_or_else(PoisonError::into_inner);
        let mut health = Health::default();
        for (node, record) in &self.topology().nodes {
            let peer = if *node == self.node() { PeerState::Alive } else { self.detector().state(*node) };
            for drive in &record.drives {
                let report = if *node == self.node() { own.get(drive) } else { reports.get(drive) };
                health.set(*drive, condition(peer, report));
            }
        }
        self.is_full.store(is_full(&self.topology(), &health), Ordering::Relaxed);
        self.health.store(Arc::new(health));
    }

    /// Whether the drives take no more writes: then nothing but deletes and healing may fill them, and the index, which
    /// shares their file systems, takes no bodies either. At most a second old.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }
}

/// Errors of a drive since it was opened: I/O and verification.
pub(super) fn error_count(status: &DriveStatus) -> u64 {
    status.write_errors + status.read_errors + status.corrupt_reads
}

const FAILED: u8 = 3;

fn state_number(state: &DriveState) -> u8 {
    match state {
        DriveState::Healthy => 0,
        DriveState::Slow => 1,
        DriveState::Failing => 2,
        DriveState::Failed { .. } => FAILED,
        DriveState::Full => 4,
    }
}

/// What placement may think of a drive.
fn condition(peer: PeerState, report: Option<&DriveReport>) -> DriveCondition {
    match (peer, report) {
        (PeerState::Down, _) | (_, None) => DriveCondition::Down,
        (PeerState::Suspect, _) => DriveCondition::Suspect,
        (PeerState::Alive, Some(report)) => match report.state {
            0 => DriveCondition::Up { free_bytes: report.free_bytes, weight_percent: 100 },
            1 | 2 => DriveCondition::Slow { free_bytes: report.free_bytes },
            4 => DriveCondition::Full,
            _ => DriveCondition::Failed,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::DriveId;

    fn report(state: u8) -> DriveReport {
        let drive = DriveId::from_bytes([1; 8]);
        DriveReport { drive, state, free_bytes: 9, capacity_bytes: 10, used_bytes: 1, error_count: 0 }
    }

    #[test]
    fn a_drive_is_no_better_than_its_node_and_unknown_states_count_as_failed() {
        assert_eq!(
            condition(PeerState::Alive, Some(&report(0))),
            DriveCondition::Up { free_bytes: 9, weight_percent: 100 }
        );
        assert_eq!(condition(PeerState::Suspect, Some(&report(0))), DriveCondition::Suspect);
        assert_eq!(condition(PeerState::Down, Some(&report(0))), DriveCondition::Down);
        assert_eq!(condition(PeerState::Alive, Some(&report(77))), DriveCondition::Failed);
        assert_eq!(condition(PeerState::Alive, None), DriveCondition::Down);
    }
}
