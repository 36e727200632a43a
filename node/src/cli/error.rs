//! Why a command failed, and the exit status that tells scripts.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::assembly::AssemblyError;
use crate::bench::client::{ClientError, InvalidEndpoint};
use crate::bench::run::BenchError;
use crate::config::Problems;
use crate::running::{ListenError, StartError};

/// Exit status of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It failed.
    Failed = 1,
    /// The command line makes no sense (also clap's own status).
    Usage = 2,
    /// The configuration has problems.
    Config = 3,
    /// Nobody answered, or the node is not ready.
    Unreachable = 4,
    /// The signature or the key was refused.
    Refused = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// An argument that clap cannot judge.
    #[error("{argument}: {reason}")]
    Argument {
        /// The option or variable.
        argument: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// Not an endpoint.
    #[error(transparent)]
    Endpoint(#[from] InvalidEndpoint),
    /// Problems of the configuration.
    #[error(transparent)]
    Config(#[from] Problems),
    /// A file or directory.
    #[error("{path}: {source}")]
    File {
        /// Which one.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// The directory of a development cluster cannot be used.
    #[error("{dir}: {reason}")]
    DevDir {
        /// The directory.
        dir: PathBuf,
        /// Why not, and what to do.
        reason: String,
    },
    /// No result can be printed.
    #[error("cannot print the result: {0}")]
    Output(io::Error),
    /// No runtime or signal handler.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
    /// A node did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The S3 port of a node of a development cluster is taken.
    #[error("{0}; `drystone dev --s3-port 0` takes free ports, --s3-port PORT counts up from PORT")]
    DevPort(ListenError),
    /// The cluster could not be made.
    #[error(transparent)]
    Assembly(#[from] AssemblyError),
    /// A node did not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A node answered with an error.
    #[error("{endpoint} answered {status} {code}: {message}")]
    Admin {
        /// Who answered.
        endpoint: String,
        /// The HTTP status.
        status: u16,
        /// The code.
        code: String,
        /// The message.
        message: String,
    },
    /// A node answered what we do not understand.
    #[error("{endpoint} answered something that is not {wanted}")]
    Answer {
        /// Who answered.
        endpoint: String,
        /// What was expected.
        wanted: &'static str,
    },
    /// A load run could not be done.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// The node did not become ready or is not.
    #[error("not ready: {reason}")]
    NotReady {
        /// Why not.
        reason: String,
    },
    /// Requests or steps were cut short while stopping.
    #[error("stopped, but not everything under way could be finished; the log says what")]
    CutShort,
    /// Asked to stop a second time.
    #[error("stopped at once at the second signal")]
    Killed,
    /// The load run saw wrong bytes.
    #[error("{count} wrong answers: bytes or keys were not what was stored")]
    WrongAnswers {
        /// How many.
        count: u64,
    },
}

impl CliError {
    /// The exit status that goes with it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Argument { .. } | Self::Endpoint(_) => Exit::Usage,
            Self::Config(_) => Exit::Config,
            Self::Client(error) => exit_of(error),
            Self::Bench(BenchError::Bucket { source, .. } | BenchError::Fill { source, .. }) => exit_of(source),
            Self::NotReady { .. } => Exit::Unreachable,
            Self::Admin { status: 401 | 403, .. } => Exit::Refused,
            Self::Admin { status: 503, .. } => Exit::Unreachable,
            Self::File { .. }
            | Self::DevDir { .. }
            | Self::Output(_)
            | Self::Runtime(_)
            | Self::Start(_)
            | Self::DevPort(_)
            | Self::Assembly(_)
            | Self::Admin { .. }
            | Self::Answer { .. }
            | Self::Bench(BenchError::NoEndpoint | BenchError::Panicked)
            | Self::CutShort
            | Self::Killed
            | Self::WrongAnswers { .. } => Exit::Failed,
        }
    }
}

/// The same status for the same answer, whichever command asked.
fn exit_of(error: &ClientError) -> Exit {
    match error {
        ClientError::Connect { .. } | ClientError::Broken { .. } | ClientError::Deadline { .. } => Exit::Unreachable,
        ClientError::Refused { status, .. } => match status.as_u16() {
            401 | 403 => Exit::Refused,
            503 => Exit::Unreachable,
            _ => Exit::Failed,
        },
        ClientError::Request(_) | ClientError::Incomplete { .. } | ClientError::WrongBytes { .. } => Exit::Failed,
    }
}
