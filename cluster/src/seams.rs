//! Time of day and randomness, handed down from whoever assembles a node. In production the system's; in simulation
//! seeded and virtual. Durations always come from `tokio::time`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

/// Tells the time of day.
pub trait WallClock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    fn now_ms(&self) -> u64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
    }
}

/// One source of randomness per node, seeded once. Ids drawn from it need uniqueness, not secrecy.
#[derive(Clone, Debug)]
pub struct Randomness(Arc<Mutex<StdRng>>);

impl Randomness {
    /// A source that repeats itself for the same seed.
    pub fn from_seed(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// A source seeded by the operating system.
    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    pub fn from_system() -> Self {
        Self(Arc::new(Mutex::new(StdRng::from_os_rng())))
    }

    /// Lends the source.
    pub fn with<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A source of its own, split from this one.
    pub fn split(&self) -> Self {
        Self::from_seed(self.with(RngCore::next_u64))
    }
}
