//! `/-/health` and `/-/metrics` as a monitoring system reads them: by the documented names, ignorant of the rest.

use serde::Deserialize;

use crate::client::{Client, ClientError};

/// What the tests read of `/-/health`.
#[derive(Clone, Debug, Deserialize)]
pub struct Health {
    /// Cluster id.
    pub cluster: String,
    /// The node that answered.
    pub node: Node,
    /// All other nodes.
    pub peers: Vec<Peer>,
    /// Drives of the node.
    pub drives: Vec<Drive>,
    /// Consensus groups.
    pub groups: Vec<Group>,
    /// What reads and writes met.
    pub durability: Durability,
}

/// The node.
#[derive(Clone, Debug, Deserialize)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// A peer.
#[derive(Clone, Debug, Deserialize)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// `alive`, `suspect` or `down`.
    pub state: String,
    /// Milliseconds since its last answer.
    pub answer_age_ms: Option<u64>,
}

/// A drive.
#[derive(Clone, Debug, Deserialize)]
pub struct Drive {
    /// Its directory.
    pub path: String,
    /// `healthy`, `failed`, …
    pub state: String,
    /// Size of its file system.
    pub capacity_bytes: u64,
    /// Bytes of live chunks.
    pub used_bytes: u64,
    /// Input and output errors.
    pub io_errors: u64,
    /// Blocks that did not verify.
    pub corrupt_blocks: u64,
}

/// A consensus group.
#[derive(Clone, Debug, Deserialize)]
pub struct Group {
    /// `control` or `shard N`.
    pub group: String,
    /// Its leader.
    pub leader: Option<String>,
}

/// What a node met since it started.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Durability {
    /// Chunk reads that failed: missing, corrupt, or no answer from the drive.
    pub chunk_read_failures: u64,
    /// Chunk writes that failed.
    pub chunk_write_failures: u64,
    /// Reads that were rebuilt from parity.
    pub degraded_reads: u64,
}

/// Reads a node's health.
///
/// # Errors
/// No answer, or not one with the documented fields.
pub async fn health(client: &Client) -> Result<Health, ClientError> {
    let answer = client.get_plain("/-/health").await?;
    serde_json::from_slice(&answer.body)
        .map_err(|cause| ClientError::Nonsense { cause: format!("/-/health: {cause}: {}", answer.describe()) })
}

/// Reads a node's metrics.
///
/// # Errors
/// No answer, or not 200.
pub async fn metrics(client: &Client) -> Result<String, ClientError> {
    let answer = client.get_plain("/-/metrics").await?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    if answer.status.is_success() { Ok(text) } else { Err(ClientError::Nonsense { cause: answer.describe() }) }
}

/// The sum of all samples of metrics whose name contains `part`; `None` if there is none.
#[must_use]
pub fn sum_like(metrics: &str, part: &str) -> Option<f64> {
    let samples = metrics.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let name = series.split('{').next()?;
        name.contains(part).then(|| value.parse::<f64>().ok())?
    });
    samples.reduce(|sum, sample| sum + sample)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_part_of_their_name_and_not_of_their_labels() {
        let text = "# HELP drive_corrupt_total x\ndrive_corrupt_total{drive=\"a\"} 2\ndrive_corrupt_total{drive=\"b\"} 3\nother{corrupt=\"y\"} 9\n";
        assert_eq!(sum_like(text, "corrupt"), Some(5.0));
        assert_eq!(sum_like(text, "missing"), None);
    }
}
