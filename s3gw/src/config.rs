//! What an operator may set about the S3 front. Plain values with defaults; reading them from a file is the node's.

use std::time::Duration;

/// Limits and names of the gateway. Every limit is enforced before the work it bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
    /// The region clients must sign for. Default `us-east-1`.
    pub region: String,
    /// Domains for virtual-host style: a request to `BUCKET.DOMAIN` names its bucket by host. Default none: path style only.
    pub domains: Vec<String>,
    /// Whether clients come over TLS, for the addresses they are told. Default no.
    pub tls: bool,
    /// The canonical user id shown as owner of everything, and what `x-amz-expected-bucket-owner` is compared with.
    /// Default `drystone`.
    pub owner_id: String,
    /// How far a client's clock may be off, either way. Default 15 minutes, as AWS.
    pub clock_skew_max: Duration,
    /// How long a request body may send nothing before the request is given up. Default 30 s.
    pub body_stall_max: Duration,
    /// Bytes of all request header names and values together. Default 8 KiB, as AWS.
    pub header_len_max: usize,
    /// Bytes of a request's path and query. Default 16 KiB: several keys of the greatest length, escaped throughout.
    pub uri_len_max: usize,
    /// Bytes of an XML request, held in memory while it is read. Default 2 MiB; a `DeleteObjects` of 1000 long keys
    /// and a completion of 10,000 parts fit.
    pub xml_len_max: usize,
    /// Bytes of a body put whole, and of one part. Default 5 GiB.
    pub put_len_max: u64,
    /// Bytes of an object. Default 5 TiB.
    pub object_len_max: u64,
    /// Deletions of one `DeleteObjects` that are under way at once. Default 16.
    pub delete_concurrency: usize,
    /// Signing keys kept derived, one per access key. Default 1024, about 200 bytes each.
    pub signing_key_count_max: usize,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            region: "us-east-1".to_owned(),
            domains: Vec::new(),
            tls: false,
            owner_id: "drystone".to_owned(),
            clock_skew_max: Duration::from_secs(15 * 60),
            body_stall_max: Duration::from_secs(30),
            header_len_max: 8 << 10,
            uri_len_max: 16 << 10,
            xml_len_max: 2 << 20,
            put_len_max: 5 << 30,
            object_len_max: 5 << 40,
            delete_concurrency: 16,
            signing_key_count_max: 1024,
        }
    }
}
