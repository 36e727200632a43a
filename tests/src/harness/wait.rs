//! Bounded waiting on conditions.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Time between two looks at a condition.
const INTERVAL: Duration = Duration::from_millis(50);

/// A condition that did not come true in time.
#[derive(Clone, Debug, thiserror::Error)]
#[error("not within {deadline:?}: {what}; last seen: {last}")]
pub struct Expired {
    /// What was waited for.
    pub what: String,
    /// How long.
    pub deadline: Duration,
    /// Why it was not true when last looked at.
    pub last: String,
}

/// Looks again and again until `condition` gives a value, at most for `deadline`. The condition says why it is not
/// true yet, which the error repeats.
///
/// # Errors
/// It never did.
pub async fn until<T, F, C>(deadline: Duration, what: &str, mut condition: C) -> Result<T, Expired>
where
    C: FnMut() -> F,
    F: Future<Output = Result<T, String>>,
{
    let end = Instant::now() + deadline;
    loop {
        match condition().await {
            Ok(value) => return Ok(value),
            Err(last) if Instant::now() >= end => return Err(Expired { what: what.to_owned(), deadline, last }),
            Err(_) => sleep(INTERVAL).await,
        }
    }
}
