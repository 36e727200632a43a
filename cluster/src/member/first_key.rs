//! Gives the first access key, which `cluster create` left in the state directory, to the control group.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Member;
use crate::consensus::GroupId;
use crate::control::{AccessKeyRecord, ControlAnswer, ControlCommand};
use crate::engine::GroupClient;

const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Proposes the key until it is agreed, then forgets it. Every founding node does so, whenever it first starts: only
/// the first proposal of all does anything. Cut off by `stop`, it begins anew at the next start.
pub(super) async fn install_first_key(member: Arc<Member>, groups: GroupClient, stop: CancellationToken) {
    let Some(key) = member.record().first_key else { return };
    let record = AccessKeyRecord { sealed: key.sealed, created_ms: key.created_ms, note: "first key".to_owned() };
    let command = ControlCommand::InstallFirstKey { id: key.id, record };
    let mut ticks = interval(RETRY_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let agreed = async {
        loop {
            ticks.tick().await;
            match groups.propose(GroupId::CONTROL, command.encode()).await {
                Ok(answer) => match ControlAnswer::decode(&answer) {
                    Ok(ControlAnswer::Done) => return,
                    other => tracing::warn!(answer = ?other, "the first access key was not taken; trying again"),
                },
                Err(error) => tracing::debug!(%error, "the first access key waits for a quorum"),
            }
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => return,
        () = agreed => {}
    }
    if let Err(error) = member.change_record(|record| record.first_key = None) {
        tracing::error!(%error, "the member file could not be written");
    }
}
