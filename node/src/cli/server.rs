//! `drystone server`: one node until a signal stops it.

use std::path::PathBuf;

use clap::Args;

use super::CliError;
use crate::assembly::Assembly;
use crate::config::{Config, Environment, LogConfig};
use crate::running::RunningNode;
use crate::shutdown::{Signals, Stopped};

#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// The configuration file. Default: $DRYSTONE_CONFIG, else built-in defaults and the environment.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: &ServerArgs, environment: &Environment, assembly: &dyn Assembly) -> Result<(), CliError> {
    let config = Config::load(environment.config_file(args.config.as_deref()).as_deref(), environment)?;
    install_log(&config.log);
    super::runtime()?.block_on(async {
        let mut signals = Signals::listen().map_err(CliError::Runtime)?;
        let starting = RunningNode::start("node", &config, assembly);
        let node = tokio::select! {
            biased;
            signal = signals.next() => {
                tracing::info!(signal, "stopped while starting");
                return Ok(());
            }
            node = starting => node?,
        };
        let signal = signals.next().await;
        tracing::info!(signal, "asked to stop");
        stop_all(vec![node], &mut signals).await
    })
}

/// Stops nodes together; a second signal ends it at once.
pub(super) async fn stop_all(nodes: Vec<RunningNode>, signals: &mut Signals) -> Result<(), CliError> {
    let stops = futures_util::future::join_all(nodes.into_iter().map(RunningNode::stop));
    let stopped = tokio::select! {
        biased;
        _ = signals.next() => return Err(CliError::Killed),
        stopped = stops => stopped,
    };
    if stopped.contains(&Stopped::CutShort) { Err(CliError::CutShort) } else { Ok(()) }
}

/// Installs the log for the process. A log that is installed already (by a test) stays.
pub(super) fn install_log(config: &LogConfig) {
    if tracing::subscriber::set_global_default(crate::log::subscriber(config, std::io::stderr)).is_err() {
        tracing::debug!("a log is installed already");
    }
}
