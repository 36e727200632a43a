//! What happened, when: a running hash of all of it, the events as text, and the simulated time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use drystone_transport::sim::Traffic;

/// A handle: clones share the trace.
#[derive(Clone, Default)]
pub struct Trace {
    inner: Arc<Mutex<Inner>>,
    now_ms: Arc<AtomicU64>,
}

#[derive(Default)]
struct Inner {
    hasher: blake3::Hasher,
    events: Vec<String>,
    violations: Vec<String>,
    fired: BTreeMap<&'static str, u64>,
    traffic: Traffic,
}

impl Trace {
    /// Simulated milliseconds since the start.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    /// Notes an event.
    pub fn event(&self, text: &str) {
        let line = format!("{:>6} ms  {text}", self.now_ms());
        let mut inner = self.lock();
        inner.hasher.update(line.as_bytes());
        inner.events.push(line);
    }

    /// Notes that something the simulation is for has really happened.
    pub fn fired(&self, what: &'static str) {
        self.fired_times(what, 1);
    }

    /// As [`Trace::fired`], so many times.
    pub fn fired_times(&self, what: &'static str, times: u64) {
        if times > 0 {
            *self.lock().fired.entry(what).or_default() += times;
        }
    }

    /// Notes that an invariant does not hold.
    pub fn violated(&self, what: String) {
        self.event(&format!("VIOLATION {what}"));
        self.lock().violations.push(what);
    }

    /// Moves time on; the traffic so far becomes part of the hash.
    pub(super) fn tick(&self, now_ms: u64, traffic: Traffic) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
        let mut inner = self.lock();
        if inner.traffic != traffic {
            inner.traffic = traffic;
            let numbers = [now_ms, traffic.sent, traffic.lost, traffic.received, traffic.received_bytes];
            numbers.iter().for_each(|number| {
                inner.hasher.update(&number.to_le_bytes());
            });
        }
    }

    /// The first invariant that did not hold.
    #[must_use]
    pub fn violation(&self) -> Option<String> {
        self.lock().violations.first().cloned()
    }

    /// What has happened how often.
    #[must_use]
    pub fn fired_counts(&self) -> BTreeMap<&'static str, u64> {
        self.lock().fired.clone()
    }

    /// The last events, at most so many, one per line.
    #[must_use]
    pub fn last_events(&self, count_max: usize) -> String {
        let events = &self.lock().events;
        let skipped = events.len().saturating_sub(count_max);
        events[skipped..].iter().fold(String::new(), |text, line| text + line + "\n")
    }

    /// The hash of everything so far.
    #[must_use]
    pub fn digest(&self) -> String {
        self.lock().hasher.finalize().to_hex()[..16].to_owned()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
