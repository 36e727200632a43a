//! The seam to a state machine, and what it sees while it applies a command.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use super::ids::Position;
use crate::kv::{Batch, KeyRange, KvError, KvView, Space, Visit};

/// What a group replicates. Applying must be deterministic: the same commands in the same order give the same state and
/// the same answers on every replica, so neither clock nor randomness nor anything outside the transaction counts.
pub trait StateMachine: Send + Sync + 'static {
    /// Applies one agreed command and returns the answer for its proposer. A command that cannot be understood must be
    /// answered so, not panicked upon. Changes become visible together with those of neighbouring commands.
    ///
    /// Errors of the store need not be handled: the transaction remembers the first, the whole batch is then dropped and
    /// the replica stops.
    fn apply(&self, transaction: &mut Transaction<'_>, position: Position, command: &[u8]) -> Vec<u8>;
}

/// The state of a group with the changes of the commands being applied on top. Keys are relative to the group.
pub struct Transaction<'kv> {
    kv: &'kv dyn KvView,
    prefix: Vec<u8>,
    /// Changes by relative key, so far; none is a deletion.
    changes: BTreeMap<Vec<u8>, Option<Bytes>>,
    failure: Option<KvError>,
}

impl<'kv> Transaction<'kv> {
    pub(super) fn new(kv: &'kv dyn KvView, prefix: Vec<u8>) -> Self {
        Self { kv, prefix, changes: BTreeMap::new(), failure: None }
    }

    fn absolute(&self, key: &[u8]) -> Vec<u8> {
        [&self.prefix, key].concat()
    }

    /// Makes the whole batch fail, and the replica stop: its state cannot be read, so its answers could differ from the
    /// others'.
    pub fn fail(&mut self, error: KvError) {
        self.failure.get_or_insert(error);
    }

    /// The value of `key`, own changes included. None also after an error of the store.
    pub fn get(&mut self, key: &[u8]) -> Option<Bytes> {
        if let Some(change) = self.changes.get(key) {
            return change.clone();
        }
        match self.kv.get(Space::State, &self.absolute(key)) {
            Ok(value) => value,
            Err(error) => {
                self.fail(error);
                None
            }
        }
    }

    /// Visits the keys of `range` in order, own changes included, until it ends or `visit` breaks.
    pub fn scan(&mut self, range: &KeyRange, visit: &mut Visit<'_>) {
        if range.is_empty() {
            return;
        }
        let own = self.changes.range::<[u8], _>(range.bounds()).map(|(key, value)| (key.as_slice(), value));
        let (kv, prefix) = (self.kv, &self.prefix);
        let base = |visit: &mut Visit<'_>| {
            kv.scan(Space::State, &absolute_range(prefix, range), &mut |key, value| {
                visit(key.get(prefix.len()..).unwrap_or_default(), value)
            })
        };
        if let Err(error) = scan_over(own, base, visit) {
            self.failure.get_or_insert(error);
        }
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Bytes>) {
        self.changes.insert(key.into(), Some(value.into()));
    }

    /// Deletes `key`, if it exists.
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) {
        self.changes.insert(key.into(), None);
    }

    /// Puts the collected changes into `batch` and starts anew.
    ///
    /// # Errors
    /// The first error of the store since the last call.
    pub(super) fn drain_into(&mut self, batch: &mut Batch) -> Result<(), KvError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        for (key, value) in std::mem::take(&mut self.changes) {
            let key = self.absolute(&key);
            match value {
                Some(value) => batch.put(Space::State, key, value),
                None => batch.delete(Space::State, key),
            }
        }
        Ok(())
    }
}

/// Visits in order what `changes` (sorted, one per key; none is a deletion) make of the pairs that `base` visits, until
/// both end or `visit` breaks.
pub(super) fn scan_over<'c>(
    changes: impl Iterator<Item = (&'c [u8], &'c Option<Bytes>)>,
    base: impl FnOnce(&mut Visit<'_>) -> Result<(), KvError>,
    visit: &mut Visit<'_>,
) -> Result<(), KvError> {
    let mut changes = changes.peekable();
    let mut broken = false;
    base(&mut |key, value| {
        while let Some((own_key, own_value)) = changes.next_if(|(own_key, _)| *own_key < key) {
            if let Some(own_value) = own_value
                && visit(own_key, own_value).is_break()
            {
                broken = true;
                return ControlFlow::Break(());
            }
        }
        let flow = match changes.next_if(|(own_key, _)| *own_key == key) {
            Some((_, Some(own_value))) => visit(key, own_value),
            Some((_, None)) => ControlFlow::Continue(()),
            None => visit(key, value),
        };
        broken = flow.is_break();
        flow
    })?;
    if broken {
        return Ok(());
    }
    for (key, value) in changes {
        if let Some(value) = value
            && visit(key, value).is_break()
        {
            return Ok(());
        }
    }
    Ok(())
}

/// `range` of relative keys as a range of absolute ones.
pub(super) fn absolute_range(prefix: &[u8], range: &KeyRange) -> KeyRange {
    let join = |key: &Vec<u8>| [prefix, key].concat();
    let all = KeyRange::prefix(prefix);
    let start = match &range.start {
        Bound::Included(key) => Bound::Included(join(key)),
        Bound::Excluded(key) => Bound::Excluded(join(key)),
        Bound::Unbounded => all.start,
    };
    let end = match &range.end {
        Bound::Included(key) => Bound::Included(join(key)),
        Bound::Excluded(key) => Bound::Excluded(join(key)),
        Bound::Unbounded => all.end,
    };
    KeyRange { start, end }
}
