//! Linearizable reads: one confirmation of leadership serves every reader that waited for it.
//!
//! ReadIndex (Raft dissertation §6.4): the leader notes its commit position, hears from a majority that it still leads,
//! and waits until it has applied that position. One round is in flight at a time; readers that arrive meanwhile share
//! the next one, never the running one, whose position may be older than what they must see. A clock is not trusted, so
//! a leader that was paused for any time finds out before it answers.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::errors::{LinearizableReadError, RaftError};
use openraft::{LinearizerOption, Raft, ReadPolicy};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::error::{ReadError, UnavailableReason};
use super::machine::Machine;
use super::raft::Types;
use super::status::named;

/// Readers that may wait at once; more are refused.
const WAITERS_MAX: usize = 65_536;

type Waiter = oneshot::Sender<Result<(), ReadError>>;

/// Where readers wait for the next round.
#[derive(Default)]
pub(super) struct Barrier {
    waiters: Mutex<Vec<Waiter>>,
    arrived: Notify,
}

impl Barrier {
    fn waiters(&self) -> MutexGuard<'_, Vec<Waiter>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the next round.
    pub(super) fn join(&self) -> Result<oneshot::Receiver<Result<(), ReadError>>, ReadError> {
        let (sender, receiver) = oneshot::channel();
        let mut waiters = self.waiters();
        if waiters.len() >= WAITERS_MAX {
            return Err(ReadError::Unavailable { reason: UnavailableReason::Overloaded });
        }
        waiters.push(sender);
        drop(waiters);
        self.arrived.notify_one();
        Ok(receiver)
    }

    /// Runs rounds until cancelled; then refuses who still waits.
    pub(super) async fn run(&self, raft: &Raft<Types, Machine>, round_max: Duration, cancelled: &CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = cancelled.cancelled() => break,
                () = self.arrived.notified() => {}
            }
            let waiters = std::mem::take(&mut *self.waiters());
            if waiters.is_empty() {
                continue;
            }
            let result = tokio::select! {
                biased;
                () = cancelled.cancelled() => Err(ReadError::Stopped),
                result = round(raft, round_max) => result,
            };
            answer(waiters, &result);
        }
        answer(std::mem::take(&mut *self.waiters()), &Err(ReadError::Stopped));
    }
}

fn answer(waiters: Vec<Waiter>, result: &Result<(), ReadError>) {
    for waiter in waiters {
        // A reader whose deadline has passed is gone.
        waiter.send(result.clone()).unwrap_or_default();
    }
}

async fn round(raft: &Raft<Types, Machine>, round_max: Duration) -> Result<(), ReadError> {
    let option = LinearizerOption::from(ReadPolicy::ReadIndex).with_wait_timeout(round_max);
    let linearizer = match raft.get_read_linearizer(option).await {
        Ok(linearizer) => linearizer,
        Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
            return Err(ReadError::NotLeader { leader: named(forward.leader_id, forward.leader_node.as_ref()) });
        }
        Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
            return Err(ReadError::Unavailable { reason: UnavailableReason::NoQuorum });
        }
        Err(RaftError::Fatal(_)) => return Err(ReadError::Stopped),
    };
    match linearizer.try_await_ready(raft, Some(round_max)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(ReadError::Unavailable { reason: UnavailableReason::Deadline }),
        Err(_) => Err(ReadError::Stopped),
    }
}
