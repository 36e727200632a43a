//! Reading a group's state: on any thread, without asking the consensus task.
//!
//! A view alone is not a linearizable read; [`super::Group::read_barrier`] before it makes it one.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::ids::GroupId;
use super::keys;
use super::pace::Pace;
use super::pending::{Frozen, Pending};
use super::transaction::absolute_range;
use crate::kv::{KeyRange, Kv, KvError, KvView, Space, Visit};

/// One installed state of a group. While anybody holds it, its keys stay.
pub(super) struct Generation {
    pub(super) number: u32,
    /// Whether its keys go when the last holder lets go.
    retired: AtomicBool,
    sweeper: mpsc::UnboundedSender<u32>,
}

impl Drop for Generation {
    fn drop(&mut self) {
        if self.retired.load(Ordering::Acquire) && self.sweeper.send(self.number).is_err() {
            // The group has ended; the next start removes what is left.
            tracing::debug!(generation = self.number, "left a retired generation behind");
        }
    }
}

/// The state of a group: which generation counts, and where it is.
pub(super) struct State {
    pub(super) kv: Arc<dyn Kv>,
    /// What readers of the state see: the store, and over it what is on its way there.
    pub(super) pending: Arc<Pending>,
    pub(super) group: GroupId,
    pace: Mutex<Pace>,
    current: Mutex<Arc<Generation>>,
    next_number: AtomicU32,
    sweeper: mpsc::UnboundedSender<u32>,
}

impl State {
    /// `next` is greater than the number of every generation of which a key exists.
    pub(super) fn new(
        kv: Arc<dyn Kv>,
        group: GroupId,
        current: u32,
        next: u32,
        sweeper: mpsc::UnboundedSender<u32>,
    ) -> Self {
        let generation = Generation { number: current, retired: AtomicBool::new(false), sweeper: sweeper.clone() };
        let pending = Arc::new(Pending::new(Arc::clone(&kv)));
        Self {
            kv,
            pending,
            group,
            pace: Mutex::new(Pace::new(Instant::now(), 0)),
            current: Mutex::new(Arc::new(generation)),
            next_number: AtomicU32::new(next),
            sweeper,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Generation>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn current(&self) -> Arc<Generation> {
        Arc::clone(&self.lock())
    }

    pub(super) fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new generation. Unless it becomes the current one, its keys go with its last holder.
    pub(super) fn begin(&self) -> Arc<Generation> {
        Arc::new(Generation {
            number: self.next_number.fetch_add(1, Ordering::AcqRel),
            retired: AtomicBool::new(true),
            sweeper: self.sweeper.clone(),
        })
    }

    /// Makes `generation` the current one for new views; the old one goes when its last view does.
    pub(super) fn switch(&self, generation: Arc<Generation>) {
        generation.retired.store(false, Ordering::Release);
        let old = std::mem::replace(&mut *self.lock(), generation);
        old.retired.store(true, Ordering::Release);
    }

    pub(super) fn view(&self) -> StateView {
        let generation = self.current();
        StateView {
            reader: Reader::Newest(Arc::clone(&self.pending)),
            prefix: keys::machine(self.group, generation.number),
            _generation: generation,
        }
    }

    pub(super) fn frozen_view(&self) -> StateView {
        let current = self.lock();
        StateView {
            reader: Reader::Frozen(self.pending.frozen()),
            prefix: keys::machine(self.group, current.number),
            _generation: Arc::clone(&current),
        }
    }
}

enum Reader {
    Newest(Arc<Pending>),
    Frozen(Frozen),
}

/// The state of a group, keys relative to it. Hold it for one request, not for minutes: it keeps a replaced state alive.
pub struct StateView {
    reader: Reader,
    prefix: Vec<u8>,
    _generation: Arc<Generation>,
}

impl StateView {
    /// The value of `key`.
    ///
    /// # Errors
    /// [`KvError::Read`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        let key = [&self.prefix, key].concat();
        match &self.reader {
            Reader::Newest(view) => view.get(Space::State, &key),
            Reader::Frozen(view) => view.get(Space::State, &key),
        }
    }

    /// Visits the keys of `range` in order until it ends or `visit` breaks. One call sees one consistent content.
    ///
    /// # Errors
    /// [`KvError::Read`].
    pub fn scan(&self, range: &KeyRange, visit: &mut Visit<'_>) -> Result<(), KvError> {
        if range.is_empty() {
            return Ok(());
        }
        let absolute = absolute_range(&self.prefix, range);
        let skip = self.prefix.len();
        let visit: &mut Visit<'_> = &mut |key, value| visit(key.get(skip..).unwrap_or_default(), value);
        match &self.reader {
            Reader::Newest(view) => view.scan(Space::State, &absolute, visit),
            Reader::Frozen(view) => view.scan(Space::State, &absolute, visit),
        }
    }
}
