//! The right to use the whole machine: one test at a time, across threads and processes.

use std::fs::{self, File};

use super::{HarnessError, target_dir};

/// Held while a test runs a cluster. Given back when dropped, or when the process dies.
pub struct Turn {
    _lock: File,
}

impl Turn {
    /// Waits for the turn.
    ///
    /// # Errors
    /// The lock file cannot be made or locked.
    pub fn wait() -> Result<Self, HarnessError> {
        let path = target_dir()?.join("drystone-tests.lock");
        let what = format!("lock {}", path.display());
        fs::create_dir_all(target_dir()?).map_err(HarnessError::system(what.clone()))?;
        let lock = File::create(&path).map_err(HarnessError::system(what.clone()))?;
        lock.lock().map_err(HarnessError::system(what))?;
        Ok(Self { _lock: lock })
    }
}
