//! What the gateway counts, and the one log line of each request. The registry is given; nothing is global.

use std::sync::Arc;

use drystone_cluster::log_limit::LogLimit;
use drystone_cluster::store::Context;
use http::StatusCode;
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tokio::time::Instant;
use tracing::Level;

use crate::error::S3Error;
use crate::response::BrokenOff;
use crate::route::{Operation, Target};

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
    limits: Arc<LogLimits>,
}

/// Anybody who reaches the port can have requests refused; a cluster without quorum fails all of them. Each has a limit
/// of its own, so that neither hides the other.
#[derive(Debug, Default)]
struct LogLimits {
    refused: LogLimit,
    failed: LogLimit,
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
            limits: Arc::default(),
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
    pub(crate) target: Option<Target>,
    status: StatusCode,
    code: Option<&'static str>,
    /// What the client was told.
    message: Option<Box<str>>,
    /// What only the log may say.
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
            target: None,
            // What a request gets whose future is dropped: nothing was sent.
            status: StatusCode::REQUEST_TIMEOUT,
            code: None,
            message: None,
            cause: None,
            bytes_in,
            bytes_out: 0,
        }
    }

    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = status;
    }

    pub(crate) fn refused(&mut self, error: &S3Error) {
        self.code = Some(error.code().as_str());
        self.message = Some(error.message().into());
        self.cause = error.cause().map(Into::into);
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

    fn has_failed(&self) -> bool {
        let is_failure = self.status.is_server_error() && self.status != StatusCode::NOT_IMPLEMENTED;
        is_failure || self.code == Some("BrokenOff")
    }

    /// Whether the client asked for what it may not have, or not in this way. What programs ask to find out is none.
    fn is_refused(&self) -> bool {
        self.code.is_some_and(|code| !matches!(code, "NoSuchKey" | "NotModified" | "PreconditionFailed"))
    }

    /// How loudly to log at `now`, and how many lines before this one were left out.
    fn loudness(&self, now: Instant) -> (Level, u64) {
        let limits = &self.metrics.limits;
        let said = match (self.has_failed(), self.is_refused()) {
            (true, _) => limits.failed.note(now).map(|unsaid| (Level::WARN, unsaid)),
            (false, true) => limits.refused.note(now).map(|unsaid| (Level::INFO, unsaid)),
            (false, false) => None,
        };
        said.unwrap_or((Level::DEBUG, 0))
    }

    /// Bucket and key as far as the request names them.
    fn names(&self) -> (&str, &str) {
        match &self.target {
            Some(Target::Bucket(bucket)) => (bucket.as_str(), "-"),
            Some(Target::Object(bucket, key)) => (bucket.as_str(), key.as_str()),
            Some(Target::Service | Target::ObjectLambda) | None => ("-", "-"),
        }
    }

    fn log(&self, operation: &'static str, seconds: f64) {
        let request_id = format_args!("{:016X}", self.context.request_id);
        let (status, code) = (self.status.as_u16(), self.code.unwrap_or("-"));
        let (message, cause) = (self.message.as_deref().unwrap_or("-"), self.cause.as_deref().unwrap_or("-"));
        let (bytes_in, bytes_out) = (self.bytes_in, self.bytes_out);
        let access_key = self.context.access_key.as_deref().unwrap_or("-");
        let (bucket, key) = self.names();
        let (level, unsaid) = self.loudness(Instant::now());
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    %request_id, operation, bucket, key, status, code, reason = message, cause, seconds, bytes_in,
                    bytes_out, access_key, unsaid, "s3 request"
                )
            };
        }
        match level {
            Level::WARN => line!(warn),
            Level::INFO => line!(info),
            _ => line!(debug),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;
    use drystone_cluster::store::Unavailable;

    fn meter(metrics: &GatewayMetrics, error: Option<S3Error>) -> Meter {
        let context = Context { request_id: 1, access_key: None, now_ms: 0 };
        let mut meter = Meter::start(metrics, context, 0);
        meter.answered(error.as_ref().map_or(StatusCode::OK, |error| error.code().status()));
        if let Some(error) = error {
            meter.refused(&error);
        }
        meter
    }

    #[test]
    fn a_flood_of_refusals_neither_fills_the_log_nor_hides_failures() {
        let metrics = GatewayMetrics::new(&Registry::new()).unwrap();
        let (now, later) = (Instant::now(), Instant::now() + std::time::Duration::from_secs(60));
        let refused = meter(&metrics, Some(ErrorCode::AccessDenied.into()));
        let said = (0..1_000).filter(|_| refused.loudness(now) == (Level::INFO, 0)).count();
        assert_eq!((said, refused.loudness(now)), (20, (Level::DEBUG, 0)));
        let failed = meter(&metrics, Some(Unavailable::NotServing("stopping").into()));
        assert_eq!(failed.loudness(now), (Level::WARN, 0));
        assert_eq!(failed.message.as_deref(), Some("Not now: the node is stopping."));
        assert_eq!(refused.loudness(later), (Level::INFO, 981));
        for quiet in [None, Some(ErrorCode::NoSuchKey.into()), Some(ErrorCode::NotModified.into())] {
            assert_eq!(meter(&metrics, quiet).loudness(later), (Level::DEBUG, 0));
        }
        let absent = meter(&metrics, Some(ErrorCode::NotImplemented.into()));
        assert_eq!(absent.loudness(later), (Level::INFO, 0));
    }
}
