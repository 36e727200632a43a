//! The table of all configuration keys: the default file, `docs/configuration.md` and the set of names that are
//! accepted all come from here.

use super::environment::PREFIX;

/// One configuration key.
#[derive(Debug)]
pub struct KeyRow {
    /// Dotted name, `s3.listen`.
    pub name: &'static str,
    /// Default as it stands in the file, in TOML.
    pub default: &'static str,
    /// What it does, its unit and range.
    pub doc: &'static str,
}

impl KeyRow {
    /// The environment variable that overrides it: `DRYSTONE_S3_LISTEN`.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.name.replace('.', "_").to_ascii_uppercase())
    }

    /// The section of the file it stands in (empty at the top) and its name there.
    pub fn section(&self) -> (&'static str, &'static str) {
        self.name.rsplit_once('.').unwrap_or(("", self.name))
    }
}

const fn key(name: &'static str, default: &'static str, doc: &'static str) -> KeyRow {
    KeyRow { name, default, doc }
}

/// All keys, grouped by section.
pub const KEYS: &[KeyRow] = &[
    key(
        "state_dir",
        r#""/var/lib/drystone/state""#,
        "Directory of this node's identity and control state, as made by `drystone cluster create`. One process at a time.",
    ),
    key(
        "drives",
        r#"["/var/lib/drystone/drive1"]"#,
        "Directories that hold objects, usually one mount point each. Each is a unit of loss. In the environment: separated by commas.",
    ),
    key(
        "workers",
        "0",
        "Threads that serve S3, each with its own listener and peer connections. 0: one per core. At most 256.",
    ),
    key(
        "cluster.id",
        r#""""#,
        "If set, the node refuses to start unless its identity belongs to this cluster (32 hexadecimal digits).",
    ),
    key(
        "peer.listen",
        r#""0.0.0.0:7400""#,
        "UDP address for the other nodes. The port must be the one given to `drystone cluster create`.",
    ),
    key(
        "peer.packet_bytes_max",
        "0",
        "Largest UDP payload sent to peers, 1200 to 65507 bytes. 0: follow the link (1452 on Ethernet, more where its MTU allows).",
    ),
    key("s3.listen", r#""0.0.0.0:9000""#, "TCP address for S3 clients and the `/-/` endpoints."),
    key("s3.region", r#""us-east-1""#, "Region that clients sign for."),
    key(
        "s3.domains",
        "[]",
        "Domains under which `BUCKET.DOMAIN` addresses a bucket (virtual-host style). Path style always works. In the environment: separated by commas.",
    ),
    key(
        "s3.connections_max",
        "4096",
        "Open client connections over all workers, 1 to 1000000. More wait unaccepted in the kernel's queue.",
    ),
    key(
        "s3.header_timeout",
        r#""20s""#,
        "Longest wait for a TLS handshake, for a request's headers, and over HTTP/1.1 for the next request on an idle connection. An idle HTTP/2 connection is pinged this often and lives as long as it answers. 1s to 10min.",
    ),
    key(
        "s3.stall_timeout",
        r#""60s""#,
        "A connection whose peer takes none of our bytes for so long is cut. 1s to 1h.",
    ),
    key(
        "s3.inflight_bytes_max",
        r#""256MiB""#,
        "Bytes of object bodies held in memory at once; requests beyond are answered SlowDown. 16MiB to 1TiB.",
    ),
    key("s3.tls.certificate", r#""""#, "PEM file with the certificate chain for S3 clients. Empty: plain HTTP."),
    key("s3.tls.key", r#""""#, "PEM file with the certificate's private key. Empty: plain HTTP."),
    key(
        "drive.reserve_bytes",
        r#""1GiB""#,
        "Space of each drive that ordinary writes leave alone, for deletes, healing and index work.",
    ),
    key(
        "drive.reserve_percent",
        "5",
        "The same as a share of the drive, 0 to 50 percent; the larger of the two holds.",
    ),
    key("drive.segment_bytes", r#""1GiB""#, "Length of a drive's segment files, 64MiB to 16GiB, a multiple of 1MiB."),
    key("log.format", r#""text""#, "`text` for people, `json` for machines; one line per event on standard error."),
    key(
        "log.level",
        r#""info""#,
        "`error`, `warn`, `info`, `debug`, or filters per module such as `info,drystone_cluster=debug`.",
    ),
    key(
        "shutdown.deadline",
        r#""30s""#,
        "Longest wait for requests under way when the node is asked to stop. 0s to 1h.",
    ),
];
