//! The command line. The only place that writes to standard output; everything below returns values.

mod admin;
mod bench;
mod cluster;
mod config;
mod connect;
mod dev;
mod error;
mod key;
mod output;
mod server;

use clap::{Parser, Subcommand};

pub use error::{CliError, Exit};
pub use output::Output;

pub(crate) use cluster::draw_key;

use crate::assembly::Assembly;
use crate::config::Environment;

/// Drystone: a clustered S3-compatible object store.
///
/// Exit status: 0 done, 1 failed, 2 wrong usage, 3 wrong configuration, 4 nobody answered or not ready, 5 refused
/// (signature or key).
#[derive(Debug, Parser)]
#[command(name = "drystone", version, max_term_width = 100)]
pub struct Cli {
    /// Print results as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole cluster in this process, for development.
    Dev(dev::DevArgs),
    /// Run one node.
    Server(server::ServerArgs),
    /// Make a cluster, or ask one how it is.
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Make, list and delete access keys.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Print or check configuration.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Generate load against any S3 endpoint and measure it.
    Bench(bench::BenchArgs),
}

impl Cli {
    /// Whether results are to be JSON.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Does what the command says. Returns when it is done; servers return when they have stopped.
    ///
    /// # Errors
    /// Why not, with the exit status that goes with it.
    pub fn run(
        self,
        environment: &Environment,
        assembly: &dyn Assembly,
        output: &mut Output<'_>,
    ) -> Result<(), CliError> {
        match self.command {
            Command::Dev(args) => dev::run(&args, environment, assembly, output),
            Command::Server(args) => server::run(&args, environment, assembly),
            Command::Cluster(command) => cluster::run(command, environment, assembly, output),
            Command::Key(command) => key::run(command, environment, output),
            Command::Config(command) => config::run(command, environment, output),
            Command::Bench(args) => bench::run(args, environment, output),
        }
    }
}

/// The runtime of a command: everything on this thread.
fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::Runtime)
}

#[cfg(test)]
mod tests;
