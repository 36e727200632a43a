//! What `/-/health` and `drystone cluster status` show. Plain values with a stable JSON form: fields are added, never
//! renamed. Filled by whoever assembles the node; states are words of the design's glossary.

use serde::{Deserialize, Serialize};

/// Why a node cannot serve reads and writes now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// It has been asked to stop.
    #[error("the node is stopping")]
    Stopping,
    /// Something else, in words for an operator.
    #[error("{0}")]
    Because(String),
}

/// One node's view of the cluster and itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// The software's version.
    pub version: String,
    /// Cluster id, 32 hexadecimal digits.
    pub cluster: String,
    /// Epoch of the topology this node acts on.
    pub epoch: u64,
    /// Domains that may fail without loss of an acknowledged write.
    pub failures_tolerated: u8,
    /// This node.
    pub node: NodeHealth,
    /// All other nodes, by id.
    pub peers: Vec<PeerHealth>,
    /// Drives of this node, by id.
    pub drives: Vec<DriveHealth>,
    /// Consensus groups with a replica on this node: the control group first, then shards by index.
    pub groups: Vec<GroupHealth>,
    /// What reads and writes met since this node started.
    pub durability: Durability,
    /// Background workers, by name.
    pub workers: Vec<WorkerHealth>,
}

/// This node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeHealth {
    /// Node id, 16 hexadecimal digits.
    pub id: String,
    /// Name given at creation.
    pub name: String,
    /// Failure zone, if one was given.
    pub zone: Option<String>,
    /// Time since start in milliseconds.
    pub uptime_ms: u64,
}

/// State of a peer, as the failure detector says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// Answers.
    Alive,
    /// Missed several probes.
    Suspect,
    /// Has not answered for long.
    Down,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerHealth {
    /// Node id.
    pub id: String,
    /// Name given at creation.
    pub name: String,
    /// `HOST:PORT` of its peer port.
    pub address: String,
    /// What the detector says.
    pub state: PeerState,
    /// Milliseconds since its last answer; absent if it never answered this process.
    pub answer_age_ms: Option<u64>,
    /// Smoothed round trip of its heartbeats in microseconds, as it was when it last answered; absent if it never did.
    pub round_trip_us: Option<u64>,
    /// Epoch it reported last.
    pub epoch: Option<u64>,
}

/// State of a drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriveState {
    /// As it should be.
    Healthy,
    /// Its writes or reads take longer than 500 ms on average, or the present commit does.
    Slow,
    /// Eight reads since it was opened failed or found damage.
    Failing,
    /// Takes no changes after a failed write or sync until the node restarts, or could not be opened at all.
    Failed,
    /// Full up to its reserve.
    Full,
}

/// A drive of this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriveHealth {
    /// Drive id.
    pub id: String,
    /// Its directory.
    pub path: String,
    /// What the store says.
    pub state: DriveState,
    /// Bytes it may use in all; 0 if it could not be opened.
    pub capacity_bytes: u64,
    /// Bytes free for ordinary writes.
    pub free_bytes: u64,
    /// Bytes of live chunks.
    pub used_bytes: u64,
    /// Failed writes, syncs, name changes and reads since it was opened.
    pub io_errors: u64,
    /// Reads that found damage since it was opened; one read may find several blocks of it.
    pub corrupt_blocks: u64,
    /// Moving average of a durable write in microseconds.
    pub write_us: u64,
    /// Moving average of a read in microseconds.
    pub read_us: u64,
    /// Why it cannot be used; absent when it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A consensus group with a replica on this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupHealth {
    /// `control` or `shard N`.
    pub group: String,
    /// Node id of the leader, if one is known.
    pub leader: Option<String>,
    /// The term; 0 if the replica does not run.
    pub term: u64,
    /// Entries this node's replica is behind the commit it knows of; absent if the replica does not run.
    pub lag: Option<u64>,
    /// Why this node's replica does not run; absent when it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What is not as redundant as promised, as far as this node knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durability {
    /// Chunk reads that failed since this node started: missing, corrupt, or no answer from the drive.
    pub chunk_read_failures: u64,
    /// Chunk writes that failed since this node started; each went to another drive or was refused.
    pub chunk_write_failures: u64,
    /// Reads since this node started that had to be rebuilt from parity.
    pub degraded_reads: u64,
}

/// State of a background worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerHealth {
    /// Its name; there is one, `garbage`.
    pub name: String,
    /// Units done since start: extents whose chunks were deleted.
    pub done: u64,
    /// Units that failed since start: chunks that could not be deleted when tried. They are tried again.
    pub failed: u64,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn example() -> Health {
        Health {
            version: "0.1.0".into(),
            cluster: "00112233445566778899aabbccddeeff".into(),
            epoch: 3,
            failures_tolerated: 1,
            node: NodeHealth { id: "0011223344556677".into(), name: "n1".into(), zone: None, uptime_ms: 1500 },
            peers: vec![PeerHealth {
                id: "8899aabbccddeeff".into(),
                name: "n2".into(),
                address: "10.0.0.2:7400".into(),
                state: PeerState::Suspect,
                answer_age_ms: Some(3200),
                round_trip_us: None,
                epoch: Some(3),
            }],
            drives: vec![DriveHealth {
                id: "d1".into(),
                path: "/mnt/d1".into(),
                state: DriveState::Healthy,
                capacity_bytes: 1000,
                free_bytes: 600,
                used_bytes: 300,
                io_errors: 0,
                corrupt_blocks: 2,
                write_us: 900,
                read_us: 80,
                problem: None,
            }],
            groups: vec![GroupHealth { group: "control".into(), leader: None, term: 7, lag: Some(0), problem: None }],
            durability: Durability { chunk_read_failures: 1, chunk_write_failures: 2, degraded_reads: 5 },
            workers: vec![WorkerHealth { name: "garbage".into(), done: 9, failed: 0 }],
        }
    }

    #[test]
    fn the_json_of_health_is_what_operators_have_built_on() {
        let golden = r#"{"version":"0.1.0","cluster":"00112233445566778899aabbccddeeff","epoch":3,"failures_tolerated":1,"node":{"id":"0011223344556677","name":"n1","zone":null,"uptime_ms":1500},"peers":[{"id":"8899aabbccddeeff","name":"n2","address":"10.0.0.2:7400","state":"suspect","answer_age_ms":3200,"round_trip_us":null,"epoch":3}],"drives":[{"id":"d1","path":"/mnt/d1","state":"healthy","capacity_bytes":1000,"free_bytes":600,"used_bytes":300,"io_errors":0,"corrupt_blocks":2,"write_us":900,"read_us":80}],"groups":[{"group":"control","leader":null,"term":7,"lag":0}],"durability":{"chunk_read_failures":1,"chunk_write_failures":2,"degraded_reads":5},"workers":[{"name":"garbage","done":9,"failed":0}]}"#;
        assert_eq!(serde_json::to_string(&example()).unwrap(), golden);
        assert_eq!(serde_json::from_str::<Health>(golden).unwrap(), example());
    }
}
