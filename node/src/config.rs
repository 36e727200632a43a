//! A node's configuration: one TOML file, every key overridable by the environment, all problems reported at once.
//!
//! The keys stand in one table (`config/table.rs`), from which the default file and the reference page are written.
//! Reading is pure; only [`Environment::read`] and [`Config::load`] touch the world. Whether directories exist and
//! ports are free is found out when the node starts, not here.

pub mod document;
pub mod environment;
mod problem;
mod reader;
pub mod table;
pub mod units;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use drystone_certs::ids::ClusterId;
pub use environment::Environment;
pub use problem::{Problem, Problems, Source};
use reader::Reader;

/// Everything an operator can set, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Identity and control state of this node.
    pub state_dir: PathBuf,
    /// Directories that hold objects, at least one, all different.
    pub drives: Vec<PathBuf>,
    /// Threads that serve S3, at least one.
    pub workers: usize,
    /// The cluster this node must belong to, if the operator insists.
    pub cluster_id: Option<ClusterId>,
    /// The side that faces other nodes.
    pub peer: PeerConfig,
    /// The side that faces clients.
    pub s3: S3Config,
    /// Drive stores.
    pub drive: DriveConfig,
    /// Logs.
    pub log: LogConfig,
    /// Longest wait for requests under way at shutdown.
    pub shutdown_deadline: Duration,
}

/// The side that faces other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// UDP address.
    pub listen: SocketAddr,
    /// Largest UDP payload in bytes, 1200 to 65507; `None` follows the link.
    pub packet_bytes_max: Option<u16>,
}

/// The side that faces clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Config {
    /// TCP address.
    pub listen: SocketAddr,
    /// Region that clients sign for.
    pub region: String,
    /// Domains for virtual-host style, lower case, without leading dots.
    pub domains: Vec<String>,
    /// Certificate and key; `None` serves plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Open connections over all workers.
    pub connections_max: usize,
    /// Longest wait for a TLS handshake or a request's headers.
    pub header_timeout: Duration,
    /// Longest time without progress while writing to a client.
    pub stall_timeout: Duration,
    /// Bytes of object bodies in memory at once.
    pub inflight_bytes_max: u64,
}

/// Where the S3 port's certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM file with the chain.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// Drive stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriveConfig {
    /// Bytes that ordinary writes leave alone.
    pub reserve_bytes: u64,
    /// The same in percent of the drive.
    pub reserve_percent: u8,
    /// Length of segment files in bytes.
    pub segment_bytes: u64,
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// For people or for machines.
    pub format: LogFormat,
    /// Level or filter, valid for `tracing_subscriber::EnvFilter`.
    pub level: String,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

impl Config {
    /// Reads the file, if one is given, and lays the environment over it.
    ///
    /// # Errors
    /// All problems at once, each naming its key.
    pub fn load(path: Option<&Path>, environment: &Environment) -> Result<Self, Problems> {
        let text = path.map(std::fs::read_to_string).transpose().map_err(|error| {
            let path = path.map(Path::to_path_buf).unwrap_or_default();
            Problems(vec![Problem::Unreadable { path, reason: error.to_string() }])
        })?;
        Self::parse(text.as_deref(), environment)
    }

    /// The same for a text in memory; pure.
    ///
    /// # Errors
    /// All problems at once, each naming its key.
    pub fn parse(file: Option<&str>, environment: &Environment) -> Result<Self, Problems> {
        let mut reader = Reader::new(file, environment);
        let config = Self {
            state_dir: read_path(&mut reader, "state_dir").unwrap_or_default(),
            drives: read_drives(&mut reader),
            workers: read_workers(&mut reader),
            cluster_id: reader.parsed("cluster.id", "`drystone cluster status` prints it"),
            peer: read_peer(&mut reader),
            s3: read_s3(&mut reader),
            drive: read_drive(&mut reader),
            log: read_log(&mut reader),
            shutdown_deadline: reader.duration("shutdown.deadline", Duration::ZERO, Duration::from_secs(3600)),
        };
        if config.drives.contains(&config.state_dir) {
            reader.refuse("drives", "one of them is state_dir; give each drive a directory of its own");
        }
        if reader.problems.is_empty() { Ok(config) } else { Err(Problems(reader.problems)) }
    }
}

fn read_path(reader: &mut Reader, key: &'static str) -> Option<PathBuf> {
    let text = reader.text(key);
    if text.is_empty() {
        if key == "state_dir" {
            reader.refuse(key, "must name a directory");
        }
        return None;
    }
    Some(PathBuf::from(text))
}

fn read_drives(reader: &mut Reader) -> Vec<PathBuf> {
    let drives: Vec<PathBuf> = reader.list("drives").into_iter().map(PathBuf::from).collect();
    let mut seen = std::collections::BTreeSet::new();
    if let Some(twice) = drives.iter().find(|drive| !seen.insert(*drive)) {
        reader.refuse("drives", format!("{} is listed twice; each drive is a directory of its own", twice.display()));
    }
    if drives.is_empty() {
        reader.refuse("drives", "must list at least one directory");
    }
    drives
}

fn read_workers(reader: &mut Reader) -> usize {
    match reader.number("workers", 0, 256) {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        count => usize::try_from(count).unwrap_or(1),
    }
}

/// What stands in for an address that was refused: never used, because a refused configuration is never returned.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

fn read_address(reader: &mut Reader, key: &'static str) -> SocketAddr {
    let advice = "write IP:PORT, such as \"0.0.0.0:9000\" or \"[::]:9000\"";
    if reader.text(key).is_empty() {
        reader.refuse(key, advice);
        return NOWHERE;
    }
    reader.parsed(key, advice).unwrap_or(NOWHERE)
}

fn read_peer(reader: &mut Reader) -> PeerConfig {
    let listen = read_address(reader, "peer.listen");
    let packet = reader.number("peer.packet_bytes_max", 0, 65_507);
    if packet != 0 && packet < 1200 {
        reader.refuse("peer.packet_bytes_max", format!("{packet} is outside 1200 to 65507 (0 follows the link)"));
    }
    PeerConfig { listen, packet_bytes_max: u16::try_from(packet).ok().filter(|bytes| *bytes != 0) }
}

fn read_s3(reader: &mut Reader) -> S3Config {
    let region = reader.text("s3.region");
    if region.is_empty() || !region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        reader.refuse("s3.region", format!("{region:?} must be lower-case letters, digits and hyphens"));
    }
    let domains: Vec<String> =
        reader.list("s3.domains").into_iter().map(|domain| domain.to_ascii_lowercase()).collect();
    for domain in &domains {
        let valid = |label: &str| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if !domain.split('.').all(valid) {
            reader
                .refuse("s3.domains", format!("{domain:?} is not a domain name; write it without port or leading dot"));
        }
    }
    S3Config {
        listen: read_address(reader, "s3.listen"),
        region,
        domains,
        tls: read_tls(reader),
        connections_max: usize::try_from(reader.number("s3.connections_max", 1, 1_000_000)).unwrap_or(1),
        header_timeout: reader.duration("s3.header_timeout", Duration::from_secs(1), Duration::from_secs(600)),
        stall_timeout: reader.duration("s3.stall_timeout", Duration::from_secs(1), Duration::from_secs(3600)),
        inflight_bytes_max: reader.bytes("s3.inflight_bytes_max", 16 * MIB, 1024 * GIB),
    }
}

fn read_tls(reader: &mut Reader) -> Option<TlsFiles> {
    match (read_path(reader, "s3.tls.certificate"), read_path(reader, "s3.tls.key")) {
        (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
        (None, None) => None,
        (Some(_), None) => {
            reader.refuse("s3.tls.key", "must be set too when s3.tls.certificate is");
            None
        }
        (None, Some(_)) => {
            reader.refuse("s3.tls.certificate", "must be set too when s3.tls.key is");
            None
        }
    }
}

fn read_drive(reader: &mut Reader) -> DriveConfig {
    let segment_bytes = reader.bytes("drive.segment_bytes", 64 * MIB, 16 * GIB);
    if !segment_bytes.is_multiple_of(MIB) {
        reader.refuse("drive.segment_bytes", format!("{segment_bytes} is not a multiple of 1MiB"));
    }
    DriveConfig {
        reserve_bytes: reader.bytes("drive.reserve_bytes", 0, u64::MAX),
        reserve_percent: u8::try_from(reader.number("drive.reserve_percent", 0, 50)).unwrap_or(0),
        segment_bytes,
    }
}

fn read_log(reader: &mut Reader) -> LogConfig {
    let format = match reader.text("log.format").as_str() {
        "json" => LogFormat::Json,
        "text" => LogFormat::Text,
        other => {
            reader.refuse("log.format", format!("{other:?} must be \"text\" or \"json\""));
            LogFormat::Text
        }
    };
    let level = reader.text("log.level");
    if let Err(error) = tracing_subscriber::EnvFilter::builder().parse(&level) {
        reader.refuse("log.level", format!("{level:?}: {error}; write error, warn, info or debug"));
    }
    LogConfig { format, level }
}

#[cfg(test)]
mod tests;
