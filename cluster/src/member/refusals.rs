//! How often refused peer connections are logged: anybody who reaches the peer port can cause one, so the log must not
//! grow with them. Pure: takes the time as an argument. All of them are counted in the transport's metrics.

use std::time::Duration;

use tokio::time::Instant;

/// Lines of one window.
const LINES_MAX: u32 = 20;
/// The window: 20 lines a minute tell an operator what is wrong and fill no disk.
const WINDOW: Duration = Duration::from_secs(60);

/// What was said in the current window, and what was not.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    window_start: Option<Instant>,
    lines: u32,
    unsaid: u64,
}

impl Refusals {
    /// Notes a refusal at `now`: if it is worth a line, how many before it were not.
    pub(super) fn note(&mut self, now: Instant) -> Option<u64> {
        if self.window_start.is_none_or(|start| now.duration_since(start) >= WINDOW) {
            (self.window_start, self.lines) = (Some(now), 0);
        }
        if self.lines == LINES_MAX {
            self.unsaid = self.unsaid.saturating_add(1);
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_a_few_lines_a_minute_and_a_number() {
        let start = Instant::now();
        let mut refusals = Refusals::default();
        let said = (0..1_000).filter_map(|_| refusals.note(start)).collect::<Vec<_>>();
        assert_eq!(said, [0; 20]);
        assert_eq!(refusals.note(start + Duration::from_secs(59)), None);
        assert_eq!(refusals.note(start + WINDOW), Some(981));
        assert_eq!(refusals.note(start + WINDOW), Some(0));
    }
}
