//! What an operator may set of a member.

use std::path::PathBuf;
use std::time::Duration;

/// Settings of a node's membership. All have defaults except the places.
#[derive(Clone, Debug)]
pub struct MemberConfig {
    /// The state directory: identity, topology, the control group's replica.
    pub state_dir: PathBuf,
    /// One directory per drive, usually mount points.
    pub drives: Vec<PathBuf>,
    /// Bytes of bodies held in memory at once, over all requests of this node. Default 256 MiB. A body waits for its
    /// turn; what does not get one within `admission_wait` is refused with `SlowDown`.
    pub inflight_bytes_max: u64,
    /// How long a body waits for memory. Default 5 s.
    pub admission_wait: Duration,
    /// How long chunks of a replaced or deleted body stay readable for readers that began before. Default 60 s.
    pub garbage_delay: Duration,
    /// Percent of a drive kept free for tombstones, healing and the index. Default 5.
    pub reserve_percent: u8,
    /// The least reserve per drive in bytes. Default 1 GiB.
    pub reserve_bytes_min: u64,
    /// Size of a segment file in bytes. Default 1 GiB.
    pub segment_bytes: u32,
    /// Commands of a group after which its state counts as a snapshot and older log entries may go. Default 20,000.
    pub snapshot_every: u64,
    /// Log entries kept behind the snapshot: a replica that missed more is sent the whole state. Default 5,000.
    pub log_keep: u64,
}

impl MemberConfig {
    /// The defaults for these places.
    pub fn new(state_dir: PathBuf, drives: Vec<PathBuf>) -> Self {
        Self {
            state_dir,
            drives,
            inflight_bytes_max: 256 << 20,
            admission_wait: Duration::from_secs(5),
            garbage_delay: Duration::from_secs(60),
            reserve_percent: 5,
            reserve_bytes_min: 1 << 30,
            segment_bytes: 1 << 30,
            snapshot_every: 20_000,
            log_keep: 5_000,
        }
    }
}
