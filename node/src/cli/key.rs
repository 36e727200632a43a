//! `drystone key`: access keys of a running cluster, valid on every node at once.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::admin::{ask, parse};
use super::cluster::check_key;
use super::connect::{ConnectArgs, read_secret};
use super::{CliError, Output};
use crate::config::Environment;
use crate::http::KeyList;
use crate::keys::{check_id, check_secret};

const KEYS_PATH: &str = "/-/admin/v1/keys";

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make a key. Its secret is shown once, now.
    Create(CreateArgs),
    /// List keys, without secrets.
    List {
        #[command(flatten)]
        connect: ConnectArgs,
    },
    /// Delete a key.
    Delete {
        /// The key to delete.
        key: String,
        #[command(flatten)]
        connect: ConnectArgs,
    },
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// The new key's public part; drawn if not given.
    #[arg(long, value_name = "KEY")]
    new_access_key: Option<String>,
    /// File with the new key's secret; drawn if not given.
    #[arg(long, value_name = "FILE")]
    new_secret_key_file: Option<PathBuf>,
    /// What the key is for.
    #[arg(long, default_value = "")]
    note: String,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(super) fn run(command: KeyCommand, environment: &Environment, output: &mut Output<'_>) -> Result<(), CliError> {
    match command {
        KeyCommand::Create(args) => create(&args, environment, output),
        KeyCommand::List { connect } => {
            let list: KeyList = parse(&ask(&connect, environment, &Method::GET, KEYS_PATH, None)?, "a list of keys")?;
            let lines = list.keys.iter().map(|key| format!("{}  {}", key.access_key, key.note));
            output.result(&json!(list), &lines.collect::<Vec<_>>().join("\n"))
        }
        KeyCommand::Delete { key, connect } => {
            let path = format!("{KEYS_PATH}/{}", utf8_percent_encode(&key, NON_ALPHANUMERIC));
            ask(&connect, environment, &Method::DELETE, &path, None)?;
            output.result(&json!({ "deleted": key }), &format!("{key} is deleted"))
        }
    }
}

fn create(args: &CreateArgs, environment: &Environment, output: &mut Output<'_>) -> Result<(), CliError> {
    let mut body = json!({ "note": args.note });
    if let Some(key) = &args.new_access_key {
        check_key("--new-access-key", check_id(key))?;
        body["access_key"] = json!(key);
    }
    if let Some(path) = &args.new_secret_key_file {
        let secret = read_secret(path)?;
        check_key("--new-secret-key-file", check_secret(&secret))?;
        body["secret_key"] = json!(secret.expose_secret());
    }
    let created: Value = parse(&ask(&args.connect, environment, &Method::POST, KEYS_PATH, Some(&body))?, "a key")?;
    let field = |name: &str| created.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let text = format!(
        "AWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={}\nThe secret is not shown again.",
        field("access_key"),
        field("secret_key")
    );
    output.result(&created, &text)
}
