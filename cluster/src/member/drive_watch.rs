//! Says in the log when a drive of this node changes its state. That a drive fails, it says itself, with the cause.

use std::collections::BTreeMap;

use drystone_erasure::DriveState;

use super::Member;
use crate::ids::DriveId;

/// The states of the drives as they were seen last. One line per change, and a look per heartbeat, bound the log.
#[derive(Debug, Default)]
pub(super) struct DriveWatch(BTreeMap<DriveId, DriveState>);

impl DriveWatch {
    /// Looks at all open drives and says what has changed.
    pub(super) fn look(&mut self, member: &Member) {
        for (drive, opened) in &member.drives {
            let to = opened.status().state;
            let Some(from) = self.changed(*drive, to) else { continue };
            let path = member.drive_paths.get(drive).map(|path| path.display().to_string()).unwrap_or_default();
            if let Some(meaning) = meaning(to) {
                tracing::warn!(%drive, path, ?from, ?to, meaning, "drive state changed");
            }
        }
    }

    /// The state before, if it is another than `to`. A drive begins as healthy.
    fn changed(&mut self, drive: DriveId, to: DriveState) -> Option<DriveState> {
        let from = self.0.insert(drive, to).unwrap_or(DriveState::Healthy);
        (from != to).then_some(from)
    }
}

/// What follows from a state; nothing where the drive itself has said more.
fn meaning(state: DriveState) -> Option<&'static str> {
    match state {
        DriveState::Healthy => Some("it takes everything again"),
        DriveState::Slow => Some("new chunks go to other drives while there are enough of them"),
        DriveState::Failing => Some(
            "reads fail or find damage: check the drive; new chunks go to other drives while there are enough of them",
        ),
        DriveState::Full => Some("it takes only deletions: make room, or lower drive.reserve_bytes and _percent"),
        DriveState::Failed { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use drystone_erasure::drive::FailReason;

    use super::*;

    #[test]
    fn each_change_is_seen_once_and_the_first_state_only_if_it_is_not_healthy() {
        let (one, two) = (DriveId::from_bytes([1; 8]), DriveId::from_bytes([2; 8]));
        let mut watch = DriveWatch::default();
        let failed = DriveState::Failed { reason: FailReason::Index };
        let looks = [
            (one, DriveState::Healthy, None),
            (two, DriveState::Full, Some(DriveState::Healthy)),
            (one, DriveState::Slow, Some(DriveState::Healthy)),
            (one, DriveState::Slow, None),
            (two, DriveState::Full, None),
            (one, DriveState::Healthy, Some(DriveState::Slow)),
            (two, failed, Some(DriveState::Full)),
        ];
        for (drive, to, from) in looks {
            assert_eq!(watch.changed(drive, to), from, "{drive} to {to:?}");
        }
        assert_eq!(meaning(failed), None, "the drive says it with the cause");
    }
}
