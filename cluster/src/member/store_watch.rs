//! Watches the stores of this node: says when one fails, and gives up one that does not answer.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::kv::LogWriter;

/// How long one write or sync of a store may take. A healthy drive under the worst load takes a second or two; until it is
/// given up, what the node leads on this drive cannot be written.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often is looked.
const INTERVAL: Duration = Duration::from_secs(5);

/// Watches one store until it fails or `stop`. `place` is its directory.
pub(super) async fn watch_store(place: String, writer: LogWriter, stop: CancellationToken) {
    let mut failure = writer.watch_failure();
    let mut looks = interval(INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = async { failure.wait_for(Option::is_some).await.is_ok() } => {
                if let Some(error) = writer.failure() {
                    tracing::error!(
                        store = %place, %error,
                        "a store of consensus logs and index failed; its replicas have stopped. Check or replace the \
                         drive, then restart the node"
                    );
                }
                return;
            }
            _ = looks.tick() => writer.fail_if_stuck(PATIENCE),
        }
    }
}
