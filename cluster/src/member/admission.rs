//! Memory for bodies: bounded per node, whatever the number and size of requests.
//!
//! Three kinds of holders share it so that none starves another. Bodies on their way in queue in order for what they
//! are about to fill. Small ones have a reserve besides, for which no large body queues. Reading ahead of a client
//! never waits, and leaves half of the memory to bodies on their way in, however many clients are slow to take theirs.

use std::sync::Arc;
use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::Member;
use crate::store::{StoreError, Unavailable};

/// The budget is counted in KiB, because a semaphore's permits are.
const UNIT_BYTES: u64 = 1 << 10;
/// Bodies up to this length are small.
const SMALL_LEN_MAX: u64 = 1 << 20;
/// The part of the memory that only small bodies get: an eighth. 2 MiB of the least budget, 32 MiB of the default.
const SMALL_SHARE: u64 = 8;
/// How long a body that has extents on drives already waits for memory for the next: refusing it wastes what it wrote.
/// Half of what clients commonly wait for an answer.
const LATER_EXTENT_WAIT: Duration = Duration::from_secs(30);

/// A share of the memory for bodies; given back when dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    inflight_bytes: IntGauge,
    bytes: i64,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.inflight_bytes.sub(self.bytes);
    }
}

/// Whether a body has anything to lose yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing of it is stored.
    First,
    /// Earlier extents are on drives, or on their way.
    Later,
}

/// The memory of a node for bodies.
pub(super) struct BodyMemory {
    open: Pool,
    small: Pool,
    inflight_bytes: IntGauge,
}

struct Pool {
    permits: Arc<Semaphore>,
    units: u32,
}

impl Pool {
    fn new(bytes: u64) -> Self {
        let units = units(bytes).min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        Self { permits: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// Waits for `units`, at most all there are. `None` if the semaphore were closed, which it never is.
    async fn take(&self, units: u32) -> Option<(OwnedSemaphorePermit, u32)> {
        let units = units.min(self.units);
        let permit = Arc::clone(&self.permits).acquire_many_owned(units).await.ok()?;
        Some((permit, units))
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

impl BodyMemory {
    /// Memory of `bytes_max`; `inflight_bytes` shows how much of it is held.
    pub(super) fn new(bytes_max: u64, inflight_bytes: IntGauge) -> Self {
        let small = bytes_max / SMALL_SHARE;
        Self { open: Pool::new(bytes_max - small), small: Pool::new(small), inflight_bytes }
    }

    /// Waits for `bytes`, at most all there are, for a body of `body_len`. `None` when none came free in time.
    async fn admit(&self, bytes: u64, body_len: u64, wait: Duration) -> Option<Admitted> {
        let units = units(bytes);
        let taken = async {
            if body_len > SMALL_LEN_MAX {
                return self.open.take(units).await;
            }
            tokio::select! {
                biased;
                taken = self.open.take(units) => taken,
                taken = self.small.take(units) => taken,
            }
        };
        timeout(wait, taken).await.ok().flatten().map(|(permit, units)| self.admitted(permit, units))
    }

    /// Takes `bytes` if half of the memory stays free and nobody queues for it.
    fn try_admit_ahead(&self, bytes: u64) -> Option<Admitted> {
        let units = units(bytes);
        let reserved = (self.open.units / 2).saturating_add(units);
        if self.open.permits.available_permits() < reserved as usize {
            return None;
        }
        let permit = Arc::clone(&self.open.permits).try_acquire_many_owned(units).ok()?;
        Some(self.admitted(permit, units))
    }

    fn admitted(&self, permit: OwnedSemaphorePermit, units: u32) -> Admitted {
        let bytes = i64::from(units) * i64::try_from(UNIT_BYTES).unwrap_or(i64::MAX);
        self.inflight_bytes.add(bytes);
        Admitted { inflight_bytes: self.inflight_bytes.clone(), bytes, _permit: permit }
    }
}

impl Member {
    /// Waits for memory for `extent_len` bytes of a body of `body_len`, with their parity; at most all there is.
    ///
    /// # Errors
    /// [`Unavailable::Busy`] when none came free in time: the client should slow down.
    pub(crate) async fn admit(
        &self,
        extent_len: u64,
        body_len: u64,
        progress: Progress,
    ) -> Result<Admitted, StoreError> {
        let held = held_bytes(extent_len, self.topology().tolerated);
        let wait = match progress {
            Progress::First => self.config.admission_wait,
            Progress::Later => self.config.admission_wait.max(LATER_EXTENT_WAIT),
        };
        self.body_memory.admit(held, body_len, wait).await.ok_or_else(|| Unavailable::Busy.into())
    }

    /// Memory for `bytes` read ahead of a client, if there is plenty.
    pub(crate) fn try_admit_ahead(&self, bytes: u64) -> Option<Admitted> {
        self.body_memory.try_admit_ahead(bytes)
    }
}

/// Most memory that an extent and its `parity` chunks take: copies share the extent's own, and with two data chunks,
/// the worst case after them, each parity chunk is half as long as the extent.
fn held_bytes(extent_len: u64, parity: u8) -> u64 {
    extent_len + extent_len.div_ceil(2) * u64::from(parity)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const WAIT: Duration = Duration::from_secs(5);

    fn memory(bytes_max: u64) -> BodyMemory {
        BodyMemory::new(bytes_max, IntGauge::new("inflight_bytes", "test").unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_body_is_refused_when_no_memory_comes_free_in_time() {
        let memory = memory(16 * MIB);
        let held = memory.admit(12 * MIB, 5 << 30, WAIT).await.unwrap();
        assert!(memory.admit(12 * MIB, 5 << 30, WAIT).await.is_none());
        assert_eq!(memory.inflight_bytes.get(), 12 << 20);
        drop(held);
        assert!(memory.admit(12 * MIB, 5 << 30, WAIT).await.is_some());
        assert_eq!(memory.inflight_bytes.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_larger_than_the_memory_gets_all_of_it() {
        let memory = memory(16 * MIB);
        assert_eq!(memory.admit(24 * MIB, 5 << 30, WAIT).await.unwrap().bytes, 14 << 20);
    }

    #[tokio::test(start_paused = true)]
    async fn small_bodies_do_not_starve_behind_large_ones() {
        let memory = memory(16 * MIB);
        let _hog = memory.admit(14 * MIB, 5 << 30, WAIT).await.unwrap();
        let (small, large) = tokio::join!(memory.admit(2 * MIB, MIB, WAIT), memory.admit(2 * MIB, 2 * MIB, WAIT));
        assert!(small.is_some());
        assert!(large.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn small_bodies_use_the_open_memory_first() {
        let memory = memory(16 * MIB);
        let mut held = Vec::new();
        for _ in 0..8 {
            held.push(memory.admit(2 * MIB, MIB, WAIT).await.unwrap());
        }
        assert!(memory.admit(2 * MIB, MIB, WAIT).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn reading_ahead_leaves_half_of_the_memory_to_bodies_on_their_way_in() {
        let memory = memory(16 * MIB);
        let ahead: Vec<_> = std::iter::from_fn(|| memory.try_admit_ahead(MIB)).collect();
        assert_eq!(ahead.len(), 7);
        assert!(memory.admit(7 * MIB, 5 << 30, WAIT).await.is_some());
    }

    #[test]
    fn an_extent_holds_its_parity_too() {
        assert_eq!(held_bytes(8 * MIB, 0), 8 * MIB);
        assert_eq!(held_bytes(8 * MIB, 1), 12 * MIB);
        assert_eq!(held_bytes(8 * MIB, 2), 16 * MIB);
    }
}
