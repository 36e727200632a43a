//! Clusters of real processes for tests: started in a directory of their own on free ports, hurt as asked, always
//! taken down. Not for benchmarks: everything here polls and blocks freely.
//!
//! A test takes a [`Turn`] first, so that tests which each need the whole machine do not share it, whichever runner
//! starts them. A cluster that is dropped without [`Cluster::finish`] is one whose test failed: its logs are printed
//! and its directory is kept.

mod binary;
mod cluster;
mod failure;
pub mod founded;
mod job;
pub mod namespaces;
mod ports;
mod process;
pub mod python;
mod report;
mod turn;
mod wait;

pub use binary::{drystone, target_dir, workspace};
pub use cluster::{Cluster, Shape, read_environment as environment};
pub use failure::{Failure, Outcome, ensure};
pub use job::Job;
pub use ports::free_ports;
pub use process::{Process, ProcessUse};
pub use report::{note, skip, tail};
pub use turn::Turn;
pub use wait::{Expired, until};

use std::path::PathBuf;

/// What went wrong around a test, as opposed to in it.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// The system refused.
    #[error("{what}: {cause}")]
    System {
        /// What was attempted.
        what: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A command failed.
    #[error("`{command}` ended with {status}:\n{output}")]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// A file does not say what it must.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is missing or wrong.
        problem: String,
    },
    /// A condition did not come true in time.
    #[error(transparent)]
    Expired(#[from] Expired),
    /// A node's log tells of a panic.
    #[error("a node panicked: {0}")]
    Panicked(String),
}

impl HarnessError {
    /// A system error with what was attempted.
    pub fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |cause| Self::System { what, cause }
    }
}

/// Runs a command to its end; what it printed on standard output.
///
/// # Errors
/// It could not be started or did not end with 0.
pub fn run(command: &mut std::process::Command) -> Result<String, HarnessError> {
    let line = command_line(command);
    let output = command.output().map_err(HarnessError::system(line.clone()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let both = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&both);
    let status = output.status.to_string();
    Err(HarnessError::Command { command: line, status, output: report::last_lines(&text, 60) })
}

/// The program and its arguments; not its environment, which holds keys.
fn command_line(command: &std::process::Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
