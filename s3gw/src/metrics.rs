//! What the gateway counts, and the one log line of each request. The registry is given; nothing is global.

use drystone_cluster::store::Context;
use http::StatusCode;
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tokio::time::Instant;

use crate::response::BrokenOff;
use crate::route::Operation;

/// Upper bounds in seconds: from a cached 4 KiB read to a slow large upload.
const DURATION_BUCKETS_S: [f64; 14] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// The gateway's metrics. Cheap to clone: a handle.
#[derive(Clone, Debug)]
pub struct GatewayMetrics {
    requests: IntCounterVec,
    duration: HistogramVec,
    pub(crate) received: IntCounter,
    sent: IntCounter,
    broken_off: IntCounter,
    under_way: IntGauge,
}

impl GatewayMetrics {
    /// Registers all of them.
    ///
    /// # Errors
    /// The registry has some of these names already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            requests: IntCounterVec::new(
                Opts::new("drystone_s3_requests_total", "S3 requests answered, by operation and class of status."),
                &["operation", "status"],
            )?,
            duration: HistogramVec::new(
                HistogramOpts::new(
                    "drystone_s3_request_duration_seconds",
                    "From the request's head to the last byte of the answer, by operation.",
                )
                .buckets(DURATION_BUCKETS_S.to_vec()),
                &["operation"],
            )?,
            received: IntCounter::new("drystone_s3_received_bytes_total", "Bytes of request bodies received.")?,
            sent: IntCounter::new(
                "drystone_s3_sent_bytes_total",
                "Bytes of answers' bodies handed to the connection.",
            )?,
            broken_off: IntCounter::new(
                "drystone_s3_broken_off_total",
                "Answers whose body was broken off because the object could not be read on.",
            )?,
            under_way: IntGauge::new("drystone_s3_requests_inflight", "S3 requests under way.")?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.duration.clone()))?;
        registry.register(Box::new(metrics.received.clone()))?;
        registry.register(Box::new(metrics.sent.clone()))?;
        registry.register(Box::new(metrics.broken_off.clone()))?;
        registry.register(Box::new(metrics.under_way.clone()))?;
        Ok(metrics)
    }
}

/// Follows one request from its head to the last byte of its answer; counts and logs it when dropped.
pub(crate) struct Meter {
    metrics: GatewayMetrics,
    started: Instant,
    pub(crate) context: Context,
    pub(crate) operation: Option<Operation>,
    status: StatusCode,
    code: Option<&'static str>,
    cause: Option<Box<str>>,
    bytes_in: u64,
    bytes_out: u64,
}

impl Meter {
    pub(crate) fn start(metrics: &GatewayMetrics, context: Context, bytes_in: u64) -> Self {
        metrics.under_way.inc();
        Self {
            metrics: metrics.clone(),
            started: Instant::now(),
            context,
            operation: None,
            // What a request gets whose future is dropped: nothing was sent.
            status: StatusCode::REQUEST_TIMEOUT,
            code: None,
            cause: None,
            bytes_in,
            bytes_out: 0,
        }
    }

    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = status;
    }

    pub(crate) fn refused(&mut self, code: &'static str, cause: Option<&str>) {
        self.code = Some(code);
        self.cause = cause.map(Into::into);
    }

    pub(crate) fn sent(&mut self, len: u64) {
        self.bytes_out += len;
        self.metrics.sent.inc_by(len);
    }

    pub(crate) fn broke_off(&mut self, error: &BrokenOff) {
        self.metrics.broken_off.inc();
        self.code = Some("BrokenOff");
        self.cause = Some(error.to_string().into_boxed_str());
    }

    fn class(&self) -> &'static str {
        match self.status.as_u16() / 100 {
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        }
    }

    fn log(&self, operation: &'static str, seconds: f64) {
        let request_id = format_args!("{:016X}", self.context.request_id);
        let (status, code, cause) =
            (self.status.as_u16(), self.code.unwrap_or("-"), self.cause.as_deref().unwrap_or("-"));
        let (bytes_in, bytes_out) = (self.bytes_in, self.bytes_out);
        let access_key = self.context.access_key.as_deref().unwrap_or("-");
        if self.status.is_server_error() && self.status != StatusCode::NOT_IMPLEMENTED || code == "BrokenOff" {
            tracing::warn!(%request_id, operation, status, code, cause, seconds, bytes_in, bytes_out, access_key, "s3 request");
        } else if self.code.is_some_and(|code| !matches!(code, "NoSuchKey" | "NotModified" | "PreconditionFailed")) {
            tracing::info!(%request_id, operation, status, code, cause, seconds, bytes_in, bytes_out, access_key, "s3 request");
        } else {
            tracing::debug!(%request_id, operation, status, code, seconds, bytes_in, bytes_out, access_key, "s3 request");
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let seconds = self.started.elapsed().as_secs_f64();
        let operation = self.operation.map_or("Unresolved", Operation::name);
        self.metrics.requests.with_label_values(&[operation, self.class()]).inc();
        self.metrics.duration.with_label_values(&[operation]).observe(seconds);
        self.metrics.under_way.dec();
        self.log(operation, seconds);
    }
}
