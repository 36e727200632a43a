//! How often a repeated event is logged: one that anybody who reaches a port can cause, or a rotting drive at every read,
//! must not fill the log. Metrics count all of them. Pure: takes the time as an argument.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Lines of one window.
const LINES_MAX: u32 = 20;
/// The window: 20 lines a minute tell an operator what is wrong and fill no disk.
const WINDOW: Duration = Duration::from_secs(60);

/// Lets a few lines a minute through.
#[derive(Debug, Default)]
pub struct LogLimit(Mutex<Said>);

/// What was said in the current window, and what was not.
#[derive(Debug, Default)]
struct Said {
    window_start: Option<Instant>,
    lines: u32,
    unsaid: u64,
}

impl LogLimit {
    /// Notes an event at `now`: if it is worth a line, how many before it were not.
    pub fn note(&self, now: Instant) -> Option<u64> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.window_start.is_none_or(|start| now.duration_since(start) >= WINDOW) {
            (said.window_start, said.lines) = (Some(now), 0);
        }
        if said.lines == LINES_MAX {
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
}
