//! `drystone cluster`: make one offline, or ask a running one how it is.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use http::Method;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::admin::{ask, parse};
use super::connect::{ConnectArgs, read_secret};
use super::{CliError, Output};
use crate::assembly::{Assembly, FirstKey, FoundingNode, FoundingPlan};
use crate::config::Environment;
use crate::health::{DriveHealth, Durability, GroupHealth};
use crate::http::Status;
use crate::keys::{InvalidKey, check_id, check_secret};

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Make a new cluster offline: one directory per founding node, and the first access key.
    Create(CreateArgs),
    /// Show nodes, drives and groups as one node sees them.
    Status {
        #[command(flatten)]
        connect: ConnectArgs,
    },
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// A founding node: NAME=HOST:PORT[,zone=ZONE], where HOST:PORT is its peer address (UDP). Once per node.
    #[arg(long = "node", value_name = "NAME=HOST:PORT[,zone=ZONE]", required = true)]
    nodes: Vec<NodeArg>,
    /// Drives of each node.
    #[arg(long, value_name = "COUNT", default_value = "1")]
    drives: NonZeroUsize,
    /// Index shards: how many ways the index is cut, for ever, 1 to 256. One per drive if not given, but 8 to 16.
    #[arg(long, value_name = "COUNT")]
    shards: Option<u16>,
    /// Failures to survive, up to 3, if more than the number of nodes or zones gives by itself.
    #[arg(long, value_name = "COUNT")]
    failures: Option<u8>,
    /// Where to put the directories; DIR/NAME becomes that node's state_dir.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The first access key; drawn if not given.
    #[arg(long, value_name = "KEY", requires = "secret_key_file")]
    access_key: Option<String>,
    /// File with its secret.
    #[arg(long, value_name = "FILE", requires = "access_key")]
    secret_key_file: Option<PathBuf>,
}

/// `n1=10.0.0.1:7400,zone=a`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeArg(pub(super) FoundingNode);

/// A text that names no founding node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidNode {
    /// No name or address.
    #[error("write NAME=HOST:PORT, optionally followed by ,zone=ZONE")]
    Form,
    /// The name cannot be a directory of its own.
    #[error("name {0:?}: use 1 to 32 letters, digits, dots, hyphens and underscores, a letter or digit first")]
    Name(String),
    /// The address lacks a port that is not 0.
    #[error("address {0:?}: write HOST:PORT with a port from 1 to 65535")]
    Address(String),
    /// An attribute we do not know.
    #[error("{0:?}: the only attribute is zone=ZONE")]
    Attribute(String),
}

impl FromStr for NodeArg {
    type Err = InvalidNode;

    fn from_str(text: &str) -> Result<Self, InvalidNode> {
        let (name, rest) = text.split_once('=').ok_or(InvalidNode::Form)?;
        let mut rest = rest.split(',');
        let address = rest.next().ok_or(InvalidNode::Form)?;
        let mut zone = None;
        for attribute in rest {
            match attribute.split_once('=') {
                Some(("zone", value)) if is_name(value) && zone.is_none() => zone = Some(value.to_owned()),
                _ => return Err(InvalidNode::Attribute(attribute.to_owned())),
            }
        }
        if !is_name(name) {
            return Err(InvalidNode::Name(name.to_owned()));
        }
        let (host, port) = address.rsplit_once(':').ok_or_else(|| InvalidNode::Address(address.to_owned()))?;
        if host.is_empty() || port.parse::<u16>().unwrap_or(0) == 0 {
            return Err(InvalidNode::Address(address.to_owned()));
        }
        Ok(Self(FoundingNode { name: name.to_owned(), address: address.to_owned(), zone }))
    }
}

fn is_name(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

pub(super) fn run(
    command: ClusterCommand,
    environment: &Environment,
    assembly: &dyn Assembly,
    output: &mut Output<'_>,
) -> Result<(), CliError> {
    match command {
        ClusterCommand::Create(args) => create(args, assembly, output),
        ClusterCommand::Status { connect } => {
            let status: Status =
                parse(&ask(&connect, environment, &Method::GET, "/-/admin/v1/status", None)?, "a status")?;
            output.result(&json!(status), &render(&status))?;
            status.not_ready.map_or(Ok(()), |reason| Err(CliError::NotReady { reason }))
        }
    }
}

fn create(args: CreateArgs, assembly: &dyn Assembly, output: &mut Output<'_>) -> Result<(), CliError> {
    let nodes: Vec<FoundingNode> = args.nodes.into_iter().map(|node| node.0).collect();
    let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    if let Some(twice) = nodes.iter().find(|n| !names.insert(&n.name) || !addresses.insert(&n.address)) {
        let reason = format!("{}={}: a name or address is given twice", twice.name, twice.address);
        return Err(CliError::Argument { argument: "--node", reason });
    }
    let first_key = match (args.access_key, args.secret_key_file) {
        (Some(access_key), Some(file)) => FirstKey { access_key, secret_key: read_secret(&file)? },
        _ => draw_key(&mut StdRng::from_os_rng()),
    };
    check_key("--access-key", check_id(&first_key.access_key))?;
    check_key("--secret-key-file", check_secret(&first_key.secret_key))?;
    let plan = FoundingPlan {
        nodes,
        drive_count: args.drives,
        shard_count: args.shards,
        tolerated: args.failures,
        out: args.out,
        first_key,
    };
    let founded = assembly.create_cluster(&plan)?;
    let (access_key, secret_key) = (&plan.first_key.access_key, plan.first_key.secret_key.expose_secret());
    let states: Vec<_> = founded.nodes.iter().map(|(name, dir)| json!({ "name": name, "state_dir": dir })).collect();
    let mut text = format!("cluster {}\n", founded.cluster);
    for (name, dir) in &founded.nodes {
        text.push_str(&format!("  {name}: move {} to the node and set it as state_dir\n", dir.display()));
    }
    text.push_str(&format!(
        "AWS_ACCESS_KEY_ID={access_key}\nAWS_SECRET_ACCESS_KEY={secret_key}\nThe secret is not shown again."
    ));
    let key = json!({ "access_key": access_key, "secret_key": secret_key });
    output.result(&json!({ "cluster": founded.cluster, "nodes": states, "key": key }), &text)
}

/// Names the option that gave an unusable part of a key.
pub(super) fn check_key(argument: &'static str, checked: Result<(), InvalidKey>) -> Result<(), CliError> {
    checked.map_err(|error| CliError::Argument { argument, reason: error.to_string() })
}

/// Draws a key: 20 and 40 characters, about 93 and 238 bits.
pub(crate) fn draw_key(rng: &mut StdRng) -> FirstKey {
    const UPPER: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    const ANY: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut draw = |alphabet: &[u8], len: usize| -> String {
        (0..len).filter_map(|_| alphabet.get(rng.random_range(0..alphabet.len()))).map(|&b| char::from(b)).collect()
    };
    FirstKey { access_key: format!("D{}", draw(UPPER, 19)), secret_key: SecretString::from(draw(ANY, 40)) }
}

fn render(status: &Status) -> String {
    let health = &status.health;
    let mut text = String::new();
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        text.write_fmt(arguments).unwrap_or_default();
        text.push('\n');
    };
    line(format_args!("cluster {}  epoch {}  version {}", health.cluster, health.epoch, health.version));
    let ready = status.not_ready.as_deref().map_or("ready".to_owned(), |reason| format!("not ready: {reason}"));
    line(format_args!("node    {} {}  {ready}", health.node.name, health.node.id));
    for peer in &health.peers {
        let state = format!("{:?}", peer.state).to_lowercase();
        let age = peer.answer_age_ms.map_or("never answered".to_owned(), |age| format!("answered {age} ms ago"));
        line(format_args!("peer    {} {}  {}  {state}, {age}", peer.name, peer.id, peer.address));
    }
    for drive in &health.drives {
        line(format_args!("drive   {} {}  {}", drive.id, drive.path, drive_text(drive)));
    }
    for group in &health.groups {
        line(format_args!("group   {}  {}", group.group, group_text(group)));
    }
    let durability = &health.durability;
    let Durability { chunk_read_failures, chunk_write_failures, degraded_reads } = durability;
    line(format_args!(
        "chunks  {chunk_read_failures} reads failed, {degraded_reads} rebuilt, {chunk_write_failures} writes failed"
    ));
    text
}

fn drive_text(drive: &DriveHealth) -> String {
    let state = format!("{:?}", drive.state).to_lowercase();
    let (free, all) = (drive.free_bytes >> 20, drive.capacity_bytes >> 20);
    with_problem(format!("{state}, {free} of {all} MiB free"), drive.problem.as_deref())
}

fn group_text(group: &GroupHealth) -> String {
    let text = match group.lag {
        // A replica that does not run knows neither leader nor term.
        None => "does not run here".to_owned(),
        Some(lag) => {
            let leader = group.leader.as_deref().unwrap_or("none");
            let behind = if lag > 0 { format!(", {lag} entries behind") } else { String::new() };
            format!("leader {leader}, term {}{behind}", group.term)
        }
    };
    with_problem(text, group.problem.as_deref())
}

fn with_problem(text: String, problem: Option<&str>) -> String {
    match problem {
        Some(problem) => format!("{text}: {problem}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::DriveState;

    #[test]
    fn founding_nodes_are_name_address_and_zone() {
        let node = |name: &str, address: &str, zone: Option<&str>| {
            NodeArg(FoundingNode { name: name.into(), address: address.into(), zone: zone.map(str::to_owned) })
        };
        assert_eq!("n1=10.0.0.1:7400".parse(), Ok(node("n1", "10.0.0.1:7400", None)));
        assert_eq!("a.b=[::1]:1,zone=r1".parse(), Ok(node("a.b", "[::1]:1", Some("r1"))));
        for (text, problem) in [
            ("10.0.0.1:7400", InvalidNode::Form),
            ("../x=h:1", InvalidNode::Name("../x".into())),
            ("n1=host", InvalidNode::Address("host".into())),
            ("n1=host:0", InvalidNode::Address("host:0".into())),
            ("n1=:7", InvalidNode::Address(":7".into())),
            ("n1=h:1,rack=2", InvalidNode::Attribute("rack=2".into())),
            ("n1=h:1,zone=a,zone=b", InvalidNode::Attribute("zone=b".into())),
        ] {
            assert_eq!(text.parse::<NodeArg>(), Err(problem), "{text}");
        }
    }

    #[test]
    fn drawn_keys_have_their_form_and_differ_by_seed() {
        let key = |seed| draw_key(&mut StdRng::seed_from_u64(seed));
        assert_eq!(key(1).access_key.len(), 20);
        assert_eq!(key(1).secret_key.expose_secret().len(), 40);
        assert_eq!(key(1).access_key, key(1).access_key);
        assert_ne!(key(1).secret_key.expose_secret(), key(2).secret_key.expose_secret());
    }

    #[test]
    fn status_for_people_says_what_is_wrong_with_a_drive_and_how_far_a_replica_is_behind() {
        let group = |lag: Option<u64>, problem: Option<&str>| GroupHealth {
            group: "shard 3".to_owned(),
            leader: lag.map(|_| "8899aabbccddeeff".to_owned()),
            term: 7,
            lag,
            problem: problem.map(str::to_owned),
        };
        for (lag, problem, text) in [
            (Some(0), None, "leader 8899aabbccddeeff, term 7"),
            (Some(12), None, "leader 8899aabbccddeeff, term 7, 12 entries behind"),
            (Some(0), Some("its store failed"), "leader 8899aabbccddeeff, term 7: its store failed"),
            (None, Some("its drive is lost"), "does not run here: its drive is lost"),
        ] {
            assert_eq!(group_text(&group(lag, problem)), text);
        }
        let mut drive = crate::health::tests::example().drives.remove(0);
        drive.state = DriveState::Failed;
        drive.problem = Some("a sync failed: Input/output error (os error 5)".to_owned());
        let text = "failed, 0 of 0 MiB free: a sync failed: Input/output error (os error 5)";
        assert_eq!(drive_text(&drive), text);
    }

    #[test]
    fn status_for_people_names_every_peer_drive_and_group() {
        let status = Status { not_ready: Some("no quorum".into()), health: crate::health::tests::example() };
        let text = render(&status);
        for part in
            ["not ready: no quorum", "n2 8899aabbccddeeff", "suspect, answered 3200 ms ago", "/mnt/d1", "control"]
        {
            assert!(text.contains(part), "{part} not in {text}");
        }
    }
}
