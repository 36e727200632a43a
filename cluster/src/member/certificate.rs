//! Tells in time that this node's certificate ends: nothing renews it yet, and peers refuse an expired one.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use drystone_certs::moment;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Member;

/// From so long before its end it is said.
const WARNING: Duration = Duration::from_secs(60 * 86_400);
/// How often: an operator who does not look at the metric should stumble over it.
const INTERVAL: Duration = Duration::from_secs(86_400);

/// Where a certificate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Its end is far.
    Good,
    /// It ends in so many whole days.
    Ends { days: u64 },
    /// It has ended.
    Ended,
}

/// Shows when the certificate ends, and says so once a day from two months before, until `stop`.
pub(super) async fn watch_certificate(member: Arc<Member>, stop: CancellationToken) {
    let end =
        member.identity.valid_until().ok().and_then(|end| end.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    member.metrics.certificate_expiry.set(i64::try_from(end.as_secs()).unwrap_or(i64::MAX));
    loop {
        say(end, Duration::from_millis(member.now_ms()));
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = sleep(INTERVAL) => {}
        }
    }
}

/// Both times since the Unix epoch.
fn standing(end: Duration, now: Duration) -> Standing {
    match end.checked_sub(now) {
        None => Standing::Ended,
        Some(left) if left < WARNING => Standing::Ends { days: left.as_secs() / 86_400 },
        Some(_) => Standing::Good,
    }
}

fn say(end: Duration, now: Duration) {
    let date = moment(UNIX_EPOCH + end);
    match standing(end, now) {
        Standing::Good => {}
        Standing::Ends { days } => tracing::warn!(
            ends = date,
            days_left = days,
            "this node's certificate ends soon: from then on peers refuse it, and nothing renews it yet \
             (docs/durability.md, Certificate renewal)"
        ),
        Standing::Ended => tracing::error!(
            ended = date,
            "this node's certificate has ended: peers refuse it, and nothing renews it yet (docs/durability.md, Certificate \
             renewal)"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_months_before_the_end_it_ends_and_after_it_it_has_ended() {
        let day = Duration::from_secs(86_400);
        let end = day * 20_365;
        for (now, expected) in [
            (end - day * 365, Standing::Good),
            (end - day * 60, Standing::Good),
            (end - day * 60 + Duration::from_secs(1), Standing::Ends { days: 59 }),
            (end - day, Standing::Ends { days: 1 }),
            (end, Standing::Ends { days: 0 }),
            (end + Duration::from_millis(1), Standing::Ended),
            (end + day * 40, Standing::Ended),
        ] {
            assert_eq!(standing(end, now), expected, "{:?} before the end", end.checked_sub(now));
        }
        assert_eq!(moment(UNIX_EPOCH + end), "2025-10-04T00:00:00Z");
    }
}
