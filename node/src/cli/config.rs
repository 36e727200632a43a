//! `drystone config`: print the defaults, check a file.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::{CliError, Output};
use crate::config::document::{default_file, reference_page};
use crate::config::table::KEYS;
use crate::config::{Config, Environment};

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the documented configuration file with all defaults.
    Default {
        /// Print docs/configuration.md instead.
        #[arg(long)]
        markdown: bool,
    },
    /// Check a file together with the environment; report every problem.
    Check {
        /// The file. Default: $DRYSTONE_CONFIG, else only the environment is checked.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

pub(super) fn run(command: ConfigCommand, environment: &Environment, output: &mut Output<'_>) -> Result<(), CliError> {
    match command {
        ConfigCommand::Default { markdown } => {
            let rows: Vec<_> = KEYS
                .iter()
                .map(|key| json!({"key": key.name, "default": key.default, "environment": key.variable(), "doc": key.doc}))
                .collect();
            let text = if markdown { reference_page() } else { default_file() };
            output.result(&json!({ "keys": rows }), &text)
        }
        ConfigCommand::Check { config } => {
            Config::load(environment.config_file(config.as_deref()).as_deref(), environment)?;
            output.result(&json!({ "problems": [] }), "the configuration is good")
        }
    }
}
