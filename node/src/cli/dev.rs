//! `drystone dev`: a whole cluster in one process, with everything real but the machines: certificates, QUIC between the
//! nodes, consensus, drives that are directories.

mod directory;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use secrecy::ExposeSecret;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::server::{install_log, stop_all};
use super::{CliError, Output};
use crate::assembly::Assembly;
use crate::config::{Environment, LogConfig, LogFormat};
use crate::running::{RunningNode, StartError};
use crate::shutdown::Signals;
use directory::DevDirectory;

/// Longest wait for all nodes to be ready before the endpoints are printed anyway.
const READY_WAIT: Duration = Duration::from_secs(60);
/// Pause between two looks at readiness.
const READY_LOOK: Duration = Duration::from_millis(20);

#[derive(Debug, Args)]
pub(super) struct DevArgs {
    /// Nodes of a new cluster [default: 3]. An existing one keeps its own.
    #[arg(long, value_name = "COUNT")]
    nodes: Option<NonZeroUsize>,
    /// Drives per node of a new cluster [default: 2]. An existing one keeps its own.
    #[arg(long, value_name = "COUNT")]
    drives: Option<NonZeroUsize>,
    /// Where everything is kept. Started again there, it is the same cluster with all data.
    #[arg(long, value_name = "DIR", default_value = "./drystone-data")]
    dir: PathBuf,
    /// Port of the first node's S3 endpoint; the others follow. 0 takes free ports.
    #[arg(long, value_name = "PORT", default_value_t = 9000)]
    s3_port: u16,
    /// Level of the log on standard error.
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    log_level: String,
}

pub(super) fn run(
    args: &DevArgs,
    environment: &Environment,
    assembly: &dyn Assembly,
    output: &mut Output<'_>,
) -> Result<(), CliError> {
    if let Err(error) = tracing_subscriber::EnvFilter::builder().parse(&args.log_level) {
        return Err(CliError::Argument { argument: "--log-level", reason: error.to_string() });
    }
    install_log(&LogConfig { format: LogFormat::Text, level: args.log_level.clone() });
    let directory = DevDirectory::open_or_create(&args.dir, args.nodes, args.drives, assembly)?;
    let configs = directory.configs(args.s3_port, environment)?;
    super::runtime()?.block_on(async {
        let mut signals = Signals::listen().map_err(CliError::Runtime)?;
        let starting = async {
            let starts = configs.iter().map(|(name, config)| RunningNode::start(name, config, assembly));
            let mut nodes = Vec::new();
            for started in futures_util::future::join_all(starts).await {
                nodes.push(started.map_err(dev_error)?);
            }
            Ok::<_, CliError>(nodes)
        };
        let nodes = tokio::select! {
            biased;
            _ = signals.next() => return Ok(()),
            nodes = starting => nodes?,
        };
        directory.write_env(&nodes)?;
        let stopped = tokio::select! {
            biased;
            _ = signals.next() => true,
            () = all_ready(&nodes) => false,
        };
        if !stopped {
            announce(&directory, &nodes, output)?;
            signals.next().await;
        }
        output.progress("stopping");
        stop_all(nodes, &mut signals).await
    })
}

/// Here the S3 port is an option, not a key of a configuration that the user has seen.
fn dev_error(error: StartError) -> CliError {
    match error {
        StartError::Listen(listen) => CliError::DevPort(listen),
        other => CliError::Start(other),
    }
}

async fn all_ready(nodes: &[RunningNode]) {
    let started = Instant::now();
    while nodes.iter().any(|node| node.ready().is_err()) && started.elapsed() < READY_WAIT {
        sleep(READY_LOOK).await;
    }
}

fn announce(directory: &DevDirectory, nodes: &[RunningNode], output: &mut Output<'_>) -> Result<(), CliError> {
    for node in nodes {
        if let Err(reason) = node.ready() {
            output.progress(&format!("{} is not ready: {reason}", node.s3_address()));
        }
    }
    let endpoints: Vec<String> = nodes.iter().map(|node| format!("http://{}", node.s3_address())).collect();
    let (access_key, secret_key) = (&directory.key.access_key, directory.key.secret_key.expose_secret());
    let (env, first) = (directory.env_file(), endpoints.first().cloned().unwrap_or_default());
    let text = format!(
        "Drystone runs {count} nodes in {dir}. Ctrl-C stops it.\n\n  {list}\n\n  export AWS_ACCESS_KEY_ID={access_key}\n  \
         export AWS_SECRET_ACCESS_KEY={secret_key}\n  export AWS_DEFAULT_REGION=us-east-1\n\n  \
         aws --endpoint-url {first} s3 mb s3://first\n\nThe same is in {env}.",
        count = nodes.len(),
        dir = directory.dir.display(),
        list = endpoints.join("\n  "),
        env = env.display(),
    );
    let key = json!({ "access_key": access_key, "secret_key": secret_key });
    output.result(&json!({ "endpoints": endpoints, "key": key, "env": env }), &text)
}
