//! What a run is to do.

use std::time::Duration;

use super::client::{Credentials, Endpoint, Hashing, WallClock};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// Store objects under new keys.
    Put,
    /// Read objects stored before the run.
    Get,
    /// Delete objects stored before the run; ends when none is left.
    Delete,
    /// List pages of 1000 keys from random places of a bucket filled before the run.
    List,
    /// 60 % get, 25 % put, 10 % delete, 5 % list.
    Mixed,
}

/// A run.
#[derive(Debug, Clone)]
pub struct BenchPlan {
    /// What is measured.
    pub workload: Workload,
    /// Asked in turn; at least one.
    pub endpoints: Vec<Endpoint>,
    /// Who signs; `None` for anonymous requests.
    pub credentials: Option<Credentials>,
    /// Where objects go. Created if it does not exist.
    pub bucket: String,
    /// Bytes per object.
    pub size: u64,
    /// Requests under way at once, at least one.
    pub concurrency: usize,
    /// Length of the measured part.
    pub duration: Duration,
    /// End early after so many operations.
    pub operations_max: Option<u64>,
    /// Objects stored before the run; for put: how many different keys to write. `None` chooses.
    pub keys: Option<u64>,
    /// Check every byte read; read back every object written (outside the measured time of its operation).
    pub verify: bool,
    /// Whether bodies are hashed for the signature.
    pub hashing: Hashing,
    /// Delete what was made when the run ends.
    pub cleanup: bool,
    /// Tells runs apart: part of every key, and the seed of every choice.
    pub run: u64,
    /// Wall clock for signatures.
    pub clock: WallClock,
}

/// Bytes that objects stored before a run may take when the number of keys was not given.
const PREFILL_BYTES: u64 = 512 << 20;

impl BenchPlan {
    /// Objects to store before the run.
    pub fn prefill_count(&self) -> u64 {
        let usual = match self.workload {
            Workload::Put => return 0,
            Workload::Get | Workload::Mixed => 1_000,
            Workload::Delete | Workload::List => 20_000,
        };
        let fitting = (PREFILL_BYTES / self.size.max(1)).max(self.concurrency as u64);
        self.keys.unwrap_or(usual.min(fitting)).max(1)
    }

    /// Prefix of every key of this run.
    pub fn prefix(&self) -> String {
        format!("run-{:016x}/", self.run)
    }

    /// The key with this number. Keys sort as their numbers.
    pub fn key(&self, number: u64) -> String {
        format!("run-{:016x}/{number:012}", self.run)
    }
}

/// A well-mixed number from `seed` and `n` (SplitMix64, Steele et al. 2014).
pub(super) fn draw(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
