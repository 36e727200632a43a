//! A process seen through /proc: memory and processor time.

use std::fs;
use std::time::Duration;

use super::HarnessError;

/// A process by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// The id.
    pub id: u32,
}

/// What a process uses at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessUse {
    /// Resident memory now, bytes.
    pub resident_bytes: u64,
    /// The most it ever was, bytes.
    pub resident_peak_bytes: u64,
    /// Processor time of all threads since the start.
    pub processor: Duration,
    /// Open file descriptors.
    pub files: usize,
}

impl Process {
    /// Whether it exists and still holds something. The first thread of a killed process is a zombie while another one
    /// waits for a disk; locks and ports are held until the last thread has ended.
    #[must_use]
    pub fn is_running(self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id)).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        match state {
            None | Some('X') => false,
            Some('Z') => fs::read_dir(format!("/proc/{}/task", self.id)).map_or(0, Iterator::count) > 1,
            Some(_) => true,
        }
    }

    /// What it uses now.
    ///
    /// # Errors
    /// It does not exist.
    pub fn measure(self) -> Result<ProcessUse, HarnessError> {
        let read = |name: &str| {
            let path = format!("/proc/{}/{name}", self.id);
            fs::read_to_string(&path).map_err(HarnessError::system(path))
        };
        let status = read("status")?;
        let kilobytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) * 1024
        };
        let stat = read("stat")?;
        let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
        let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let files = fs::read_dir(format!("/proc/{}/fd", self.id)).map_or(0, Iterator::count);
        Ok(ProcessUse {
            resident_bytes: kilobytes("VmRSS:"),
            resident_peak_bytes: kilobytes("VmHWM:"),
            // utime and stime, fields 14 and 15 of proc(5), in ticks of 1/100 s on Linux.
            processor: Duration::from_millis((ticks(11) + ticks(12)) * 10),
            files,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let this = Process { id: std::process::id() };
        let seen = this.measure().unwrap();
        assert!(this.is_running() && seen.resident_bytes > 100_000 && seen.files > 2, "{seen:?}");
        assert!(seen.resident_peak_bytes >= seen.resident_bytes);
        assert!(!Process { id: u32::MAX }.is_running());
    }
}
