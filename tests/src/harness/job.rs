//! A client program running beside the test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::{HarnessError, tail, until};

/// A running program, its output in a file. Killed when dropped.
pub struct Job {
    child: Child,
    line: String,
    log: PathBuf,
}

impl Job {
    /// Starts it. Standard output and standard error both go to `log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self, HarnessError> {
        let what = || HarnessError::system(log.display().to_string());
        let file = File::create(log).map_err(what())?;
        let again = file.try_clone().map_err(what())?;
        let line = super::command_line(command);
        let child = command.stdin(Stdio::null()).stdout(file).stderr(again).spawn();
        Ok(Self { child: child.map_err(HarnessError::system(line.clone()))?, line, log: log.to_owned() })
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// The system cannot say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, HarnessError> {
        self.child.try_wait().map_err(HarnessError::system(self.line.clone()))
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The end of what it printed.
    #[must_use]
    pub fn output(&self) -> String {
        tail(&self.log, 60)
    }

    /// Waits for its end, at most for `deadline`; what it printed.
    ///
    /// # Errors
    /// It did not end, or not with 0.
    pub async fn succeed(mut self, deadline: Duration) -> Result<String, HarnessError> {
        let status = self.end(deadline).await?;
        if status.success() {
            return Ok(self.output());
        }
        Err(HarnessError::Command { command: self.line.clone(), status: status.to_string(), output: self.output() })
    }

    /// Waits for its end, at most for `deadline`.
    ///
    /// # Errors
    /// It did not end.
    pub async fn end(&mut self, deadline: Duration) -> Result<ExitStatus, HarnessError> {
        let what = self.line.clone();
        let log = self.log.clone();
        let ended = || {
            let ended = self.child.try_wait();
            let log = log.clone();
            async move {
                match ended {
                    Ok(Some(status)) => Ok(status),
                    Ok(None) => Err(format!("still running: {}", tail(&log, 10))),
                    Err(cause) => Err(cause.to_string()),
                }
            }
        };
        Ok(until(deadline, &what, ended).await?)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // One that has ended cannot be killed; its status is collected so that it is no zombie.
        self.child.kill().unwrap_or_default();
        drop(self.child.wait());
    }
}
