//! Whether this node can really serve reads and writes now, asked anew every second, and more often while it cannot.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Member;
use super::groups::group_of_shard;
use crate::codec::encode;
use crate::consensus::GroupId;
use crate::detector::PeerState;
use crate::engine::GroupClient;
use crate::ids::ExtentId;
use crate::peer::{ControlQuery, Method};
use crate::placement::{EXTENT_LEN_MAX, Want, place};

/// How often the question is asked.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// While it is not ready, so that it does not stay away for longer than it must.
const PROBE_INTERVAL_UNREADY: Duration = Duration::from_millis(200);
/// A control group that does not confirm a read by then is not reachable.
const CONTROL_DEADLINE: Duration = Duration::from_secs(2);

/// Why a node is not ready.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// Not yet.
    #[error("starting: {0}")]
    Starting(&'static str),
    /// A planned stop has begun.
    #[error("stopping")]
    Stopping,
    /// The control group did not confirm a read.
    #[error("no quorum for the control group: {0}")]
    NoControlQuorum(String),
    /// Index shards have no leader that this node can reach.
    #[error("{} of {shard_count} index shards have no reachable leader: {leaderless:?}", leaderless.len())]
    LeaderlessShards {
        /// The shards.
        leaderless: Vec<u16>,
        /// Of how many.
        shard_count: u16,
    },
    /// A durable write would find too few domains.
    #[error("writes are refused: {0}")]
    NoPlacement(String),
    /// Nobody could sign a request.
    #[error("no access key is known here yet: the founding key is installed once the control group has a quorum")]
    NoAccessKey,
}

/// The last answer.
pub(crate) struct Phase(Mutex<Result<(), NotReady>>);

impl Phase {
    pub(crate) fn starting(what: &'static str) -> Self {
        Self(Mutex::new(Err(NotReady::Starting(what))))
    }

    /// Replaces the answer; once stopping, it stays so. Returns whether it changed.
    pub(crate) fn set(&self, answer: Result<(), NotReady>) -> bool {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *current == Err(NotReady::Stopping) || *current == answer {
            return false;
        }
        *current = answer;
        true
    }

    pub(crate) fn get(&self) -> Result<(), NotReady> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Asks again and again until `stop`.
pub(super) async fn watch_readiness(member: Arc<Member>, groups: GroupClient, stop: CancellationToken) {
    let mut was_ready = false;
    loop {
        let answer = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            answer = ask(&member, &groups) => answer,
        };
        let is_ready = answer.is_ok();
        if member.phase.set(answer.clone()) {
            match answer {
                Ok(()) => tracing::info!("ready"),
                // Until the first elections are over this is how every start looks.
                Err(reason) if !was_ready => tracing::info!(%reason, "not ready yet"),
                Err(reason) => tracing::warn!(%reason, "not ready"),
            }
        }
        was_ready |= is_ready;
        let interval = if is_ready { PROBE_INTERVAL } else { PROBE_INTERVAL_UNREADY };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = member.beat.wait(interval) => {}
        }
    }
}

async fn ask(member: &Member, groups: &GroupClient) -> Result<(), NotReady> {
    confirm_control(member, groups).await?;
    check_shards(member)?;
    check_placement(member)?;
    if member.has_local_access_key() { Ok(()) } else { Err(NotReady::NoAccessKey) }
}

async fn confirm_control(member: &Member, groups: &GroupClient) -> Result<(), NotReady> {
    let query = ControlQuery::Position;
    let request = Bytes::from(encode(&query));
    let local = || member.read_control(&query, CONTROL_DEADLINE);
    let read = groups.read(GroupId::CONTROL, Method::ControlRead, request, local);
    match timeout(CONTROL_DEADLINE, read).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(NotReady::NoControlQuorum(error.to_string())),
        Err(_) => Err(NotReady::NoControlQuorum(format!("no answer within {CONTROL_DEADLINE:?}"))),
    }
}

fn check_shards(member: &Member) -> Result<(), NotReady> {
    let shard_count = member.topology().shard_count;
    let reachable = |shard: &u16| {
        let group = group_of_shard(*shard);
        let by_replica = member.group(group).and_then(|replica| replica.status().leader).map(|(_, node)| node);
        let leader = by_replica.or_else(|| member.leaders().get(group));
        leader.is_some_and(|leader| leader == member.node() || member.detector().state(leader) == PeerState::Alive)
    };
    let leaderless: Vec<u16> = (0..shard_count).filter(|shard| !reachable(shard)).collect();
    if leaderless.is_empty() { Ok(()) } else { Err(NotReady::LeaderlessShards { leaderless, shard_count }) }
}

fn check_placement(member: &Member) -> Result<(), NotReady> {
    let extent = ExtentId::from_bytes([0; 16]);
    let want = Want { extent, len: EXTENT_LEN_MAX, exclude: &[], local: None };
    match place(&member.topology(), &member.health(), &want) {
        Ok(_) => Ok(()),
        Err(refusal) => Err(NotReady::NoPlacement(refusal.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stopping_is_final() {
        let phase = Phase::starting("opening drives");
        assert!(phase.set(Ok(())));
        assert!(!phase.set(Ok(())), "no change");
        assert!(phase.set(Err(NotReady::Stopping)));
        assert!(!phase.set(Ok(())));
        assert_eq!(phase.get(), Err(NotReady::Stopping));
    }
}
