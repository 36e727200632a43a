//! How often a repeated event is logged: one that anybody who reaches a port can cause, or a rotting drive at every read,
//! must not fill the log. Metrics count all of them. Pure: takes the time as an argument. It lies in the lowest crate
//! that logs such events.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Lines of one window.
const LINES_MAX: u32 = 20;
/// The window: 20 lines a minute tell an operator what is wrong and fill no disk.
const WINDOW: Duration = Duration::from_secs(60);

/// Lets a few lines a minute through.
#[derive(Debug)]
pub struct LogLimit {
    lines_max: u32,
    said: Mutex<Said>,
}

impl Default for LogLimit {
    /// Twenty lines a minute: each is another event, such as another peer that is refused.
    fn default() -> Self {
        Self::of(LINES_MAX)
    }
}

/// What was said in the current window, and what was not.
#[derive(Debug, Default)]
struct Said {
    window_start: Option<Instant>,
    lines: u32,
    unsaid: u64,
}

impl LogLimit {
    /// Lets `lines_max` lines a minute through. One or two suit what comes again by itself and says the same each time.
    pub fn of(lines_max: u32) -> Self {
        Self { lines_max, said: Mutex::default() }
    }

    /// Notes an event at `now`: if it is worth a line, how many before it were not.
    pub fn note(&self, now: Instant) -> Option<u64> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.window_start.is_none_or(|start| now.duration_since(start) >= WINDOW) {
            (said.window_start, said.lines) = (Some(now), 0);
        }
        if said.lines >= self.lines_max {
            said.unsaid = said.unsaid.saturating_add(1);
            return None;
        }
        said.lines += 1;
        Some(std::mem::take(&mut said.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_lines_a_minute_and_a_number() {
        let start = Instant::now();
        let limit = LogLimit::default();
        let said = (0..1_000).filter_map(|_| limit.note(start)).collect::<Vec<_>>();
        assert_eq!(said, [0; 20]);
        assert_eq!(limit.note(start + Duration::from_secs(59)), None);
        assert_eq!(limit.note(start + WINDOW), Some(981));
        assert_eq!(limit.note(start + WINDOW), Some(0));
    }

    #[test]
    fn what_says_the_same_each_time_can_be_limited_further() {
        let start = Instant::now();
        let limit = LogLimit::of(1);
        assert_eq!([0; 4].map(|_| limit.note(start)), [Some(0), None, None, None]);
        assert_eq!(limit.note(start + WINDOW), Some(3));
    }
}
