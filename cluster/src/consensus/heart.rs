//! The heartbeats of a leader that has nothing else to say: on the node's beat, so that those of all groups it leads go
//! out together.

use std::time::Duration;

use openraft::Raft;
use openraft::async_runtime::WatchReceiver as _;
use tokio_util::sync::CancellationToken;

use super::machine::Machine;
use super::raft::Types;
use crate::beat::Beat;

/// Sends the heartbeats of one group while this replica leads it.
pub(super) struct Heart {
    pub(super) raft: Raft<Types, Machine>,
    pub(super) beat: Beat,
    pub(super) period: Duration,
}

impl Heart {
    /// Runs until cancelled, or until the replica has stopped.
    pub(super) async fn run(self, cancelled: &CancellationToken) {
        tokio::select! {
            biased;
            () = cancelled.cancelled() => {}
            () = self.run_until_stopped() => {}
        }
    }

    async fn run_until_stopped(&self) {
        loop {
            self.beat.wait(self.period).await;
            if self.is_leader() && self.raft.trigger().heartbeat().await.is_err() {
                return;
            }
        }
    }

    fn is_leader(&self) -> bool {
        self.raft.metrics().borrow_watched().state == openraft::ServerState::Leader
    }
}
