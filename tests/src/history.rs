//! Recorded histories: who asked what of which key, when, and what came back.
//!
//! Times are taken from one counter that every invocation and every return advances, so "A returned before B was
//! invoked" is exact however fast the clock is. Wall time is not recorded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// A value written to a key: unique in a history, so a read names the write it saw.
pub type Value = u64;

/// The return time of an operation that never returned.
pub const NEVER: u64 = u64::MAX;

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// PUT without conditions.
    Put(Value),
    /// PUT with `If-None-Match: *`.
    PutIfAbsent(Value),
    /// PUT with `If-Match: <ETag of expected>`.
    PutIfMatch {
        /// The value whose ETag was given.
        expected: Value,
        /// The value written.
        value: Value,
    },
    /// GET.
    Get,
    /// DELETE without conditions.
    Delete,
}

impl Action {
    /// The value it writes, if it writes one.
    #[must_use]
    pub fn written(self) -> Option<Value> {
        match self {
            Self::Put(value) | Self::PutIfAbsent(value) | Self::PutIfMatch { value, .. } => Some(value),
            Self::Get | Self::Delete => None,
        }
    }
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// A write was acknowledged.
    Done,
    /// A condition was refused (412, or 404 for `If-Match` on a missing key): nothing was written.
    Refused,
    /// A GET returned this value.
    Found(Value),
    /// A GET returned 404.
    Missing,
    /// An error or no answer: a write may take effect at any later time, or never; a read says nothing.
    Unknown,
}

/// One operation of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Which client asked.
    pub client: u32,
    /// Which node it asked.
    pub node: u32,
    /// Which key.
    pub key: u32,
    /// What it asked.
    pub action: Action,
    /// What came back.
    pub outcome: Outcome,
    /// When it was invoked.
    pub invoked: u64,
    /// When it returned; [`NEVER`] for [`Outcome::Unknown`].
    pub returned: u64,
}

/// Collects operations from many clients. A handle: clones share the history.
#[derive(Clone, Default)]
pub struct Recorder {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    clock: AtomicU64,
    values: AtomicU64,
    operations: Mutex<Vec<Operation>>,
}

/// An operation under way. Dropped without [`Pending::returned`] (its task was cancelled, say) it is recorded with
/// an unknown outcome, since it may have reached a node.
pub struct Pending {
    shared: Arc<Shared>,
    operation: Operation,
}

impl Recorder {
    /// An empty history.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A value that no write of this history has used; never 0.
    #[must_use]
    pub fn fresh_value(&self) -> Value {
        self.shared.values.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Notes that an operation is about to be sent.
    #[must_use]
    pub fn invoke(&self, client: u32, node: u32, key: u32, action: Action) -> Pending {
        let invoked = self.shared.clock.fetch_add(1, Ordering::SeqCst);
        let operation = Operation { client, node, key, action, outcome: Outcome::Unknown, invoked, returned: NEVER };
        Pending { shared: Arc::clone(&self.shared), operation }
    }

    /// All operations so far, by time of invocation.
    #[must_use]
    pub fn operations(&self) -> Vec<Operation> {
        let mut all = self.shared.operations.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.sort_by_key(|operation| operation.invoked);
        all
    }
}

impl Pending {
    /// Notes the outcome. An unknown one has no time of return.
    pub fn returned(mut self, outcome: Outcome) {
        if outcome != Outcome::Unknown {
            self.operation.returned = self.shared.clock.fetch_add(1, Ordering::SeqCst);
        }
        self.operation.outcome = outcome;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.shared.operations.lock().unwrap_or_else(PoisonError::into_inner).push(self.operation);
    }
}

/// The operations of one key, in the order given.
#[must_use]
pub fn of_key(operations: &[Operation], key: u32) -> Vec<Operation> {
    operations.iter().filter(|operation| operation.key == key).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancelled_operation_is_recorded_as_unknown() {
        let recorder = Recorder::new();
        let value = recorder.fresh_value();
        drop(recorder.invoke(1, 2, 3, Action::Put(value)));
        recorder.invoke(1, 2, 3, Action::Get).returned(Outcome::Found(value));
        let all = recorder.operations();
        assert_eq!((all[0].outcome, all[0].returned), (Outcome::Unknown, NEVER));
        assert_eq!((all[1].outcome, all[1].invoked < all[1].returned), (Outcome::Found(value), true));
    }
}
