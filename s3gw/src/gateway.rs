//! The gateway itself: every request passes here once, from its head to its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use drystone_cluster::store::{Context, Store};
use http::header::{CONTENT_TYPE, DATE, EXPECT, ORIGIN, SERVER};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body::Body as HttpBody;
use sha2::{Digest, Sha256};

use crate::body::{BodyTerms, Incoming, SharedBody, drain};
use crate::config::GatewayConfig;
use crate::error::{ErrorCode, S3Error};
use crate::metrics::{GatewayMetrics, Meter};
use crate::ops::{self, Call};
use crate::response::{Answer, GatewayBody};
use crate::route::{Operation, Query, parse_target, resolve};
use crate::sig::{self, Payload, SigningKeys};
use crate::timestamp::http_date;

/// Wall-clock milliseconds since the Unix epoch, whenever asked.
pub type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What is read off of a refused request's body, so that its client gets to read the answer.
const DRAIN_LEN_MAX: u64 = 1 << 20;
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(2);

struct Inner<S> {
    store: S,
    config: GatewayConfig,
    metrics: GatewayMetrics,
    clock: WallClock,
    seed: u64,
    count: AtomicU64,
    keys: SigningKeys,
}

/// The S3 front of a store. Cheap to clone: a handle.
pub struct Gateway<S> {
    inner: Arc<Inner<S>>,
}

impl<S> Clone for Gateway<S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<S> std::fmt::Debug for Gateway<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl<S: Store> Gateway<S> {
    /// A gateway to `store`. `clock` gives the time requests are judged by, `seed` makes request ids differ between
    /// gateways and runs.
    pub fn new(store: S, config: GatewayConfig, metrics: GatewayMetrics, clock: WallClock, seed: u64) -> Self {
        let keys = SigningKeys::new(config.region.clone(), config.signing_key_count_max);
        Self { inner: Arc::new(Inner { store, config, metrics, clock, seed, count: AtomicU64::new(0), keys }) }
    }

    /// Answers one request. Always answers: what goes wrong becomes an S3 error.
    ///
    /// The answer's body may still be reading from the store. Dropping this future leaves a write of unknown outcome,
    /// never half done.
    pub async fn serve<B>(&self, request: Request<B>) -> Response<GatewayBody>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::fmt::Display,
    {
        let (head, body) = request.into_parts();
        let request_id = self.next_request_id();
        let context = Context { request_id, access_key: None, now_ms: (self.inner.clock)() };
        let bytes_in = body.size_hint().lower();
        let mut meter = Meter::start(&self.inner.metrics, context, bytes_in);
        let body = SharedBody::new(body);
        let rest = body.clone();
        let outcome = self.handle(&head, body, &mut meter).await;
        let refused = outcome.is_err();
        let mut answer = outcome.unwrap_or_else(|error| self.refusal(&head, &error, &mut meter));
        meter.answered(answer.status());
        self.stamp(&mut answer, &meter.context);
        if refused && !rest.is_end_stream() && !head.headers.contains_key(EXPECT) {
            drain(rest, DRAIN_LEN_MAX, DRAIN_WAIT_MAX).await;
        }
        answer.map(|body| body.metered(meter))
    }

    /// Verifies the signature of a request that is not S3's, such as one of an operator, whose whole body is `body`.
    /// Returns the access key that signed it.
    ///
    /// # Errors
    /// As S3 would answer the request; a body that is not signed whole is refused.
    pub async fn authenticate_whole(&self, head: &Parts, body: &Bytes) -> Result<String, S3Error> {
        let query = Query::parse(head.uri.query())?;
        let mut context =
            Context { request_id: self.next_request_id(), access_key: None, now_ms: (self.inner.clock)() };
        match self.authenticate(head, &query, &mut context).await? {
            Payload::Sha256(digest) if digest == sha256(body) => {}
            _ => return Err(S3Error::from(ErrorCode::XAmzContentSHA256Mismatch)),
        }
        context.access_key.ok_or_else(|| S3Error::from(ErrorCode::AccessDenied))
    }

    /// SplitMix64 (Steele, Lea, Flood 2014) over a counter: ids that do not repeat and tell nothing of the load.
    fn next_request_id(&self) -> u64 {
        let count = self.inner.count.fetch_add(1, Ordering::Relaxed);
        mix(self.inner.seed.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    async fn handle<B>(&self, head: &Parts, body: SharedBody<B>, meter: &mut Meter) -> Result<Answer, S3Error>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::fmt::Display,
    {
        let Inner { store, config, metrics, .. } = &*self.inner;
        check_head_len(head, config)?;
        let host = sig::host_of(&head.headers, &head.uri).unwrap_or_default();
        let target = &*meter.target.insert(parse_target(&head.uri, host, &config.domains)?);
        let query = Query::parse(head.uri.query())?;
        // The signature is over what came; everything else looks at what was meant.
        let meant = sig::unhoisted(head, &query);
        let operation = resolve(&meant.method, target, &query, &meant.headers)?;
        meter.operation = Some(operation);
        refuse_unsigned(operation, &head.headers)?;
        let payload = self.authenticate(head, &query, &mut meter.context).await?;
        let terms = BodyTerms { stall_max: config.body_stall_max, received: metrics.received.clone() };
        let call = Call { store, config, head: &meant, query: &query, context: &meter.context, terms, operation };
        ops::dispatch(&call, target, Incoming { body, payload }).await
    }

    async fn authenticate(&self, head: &Parts, query: &Query, context: &mut Context) -> Result<Payload, S3Error> {
        let Inner { store, config, keys, .. } = &*self.inner;
        let claim = sig::parse_claim(head, query)?;
        // Keys here are never temporary, so a session token can belong to none of them.
        if query.has("X-Amz-Security-Token") || head.headers.contains_key("x-amz-security-token") {
            return Err(S3Error::from(ErrorCode::InvalidToken));
        }
        let Some(key) = store.access_key(claim.access_key).await? else {
            let unknown = S3Error::from(ErrorCode::InvalidAccessKeyId);
            if store.has_access_keys().await? {
                return Err(unknown.with("AWSAccessKeyId", claim.access_key.to_owned()));
            }
            return Err(S3Error::new(
                ErrorCode::InvalidAccessKeyId,
                "This cluster has no access key yet. The one that `drystone cluster create` made is installed once the control group has a quorum.",
            ));
        };
        let skew_ms_max = u64::try_from(config.clock_skew_max.as_millis()).unwrap_or(u64::MAX);
        let terms = sig::Terms { region: &config.region, now_ms: context.now_ms, skew_ms_max };
        let payload = sig::verify(&claim, head, query, keys.get(&key, claim.date), &terms)?;
        context.access_key = Some(key.id);
        Ok(payload)
    }

    fn host_id(&self, request_id: u64) -> String {
        format!("{:016x}{:016x}", mix(self.inner.seed), mix(request_id))
    }

    fn refusal(&self, head: &Parts, error: &S3Error, meter: &mut Meter) -> Answer {
        let code = error.code();
        meter.refused(error);
        let request_id = meter.context.request_id;
        let bodiless = head.method == Method::HEAD || code == ErrorCode::NotModified;
        let body = if bodiless {
            GatewayBody::empty()
        } else {
            let id = format!("{request_id:016X}");
            GatewayBody::whole(error.to_xml(head.uri.path(), &id, &self.host_id(request_id)))
        };
        let mut answer = Response::new(body);
        *answer.status_mut() = code.status();
        if code != ErrorCode::NotModified {
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        }
        for (name, value) in error.headers() {
            answer.headers_mut().insert(name, value.clone());
        }
        answer
    }

    fn stamp(&self, answer: &mut Answer, context: &Context) {
        let headers = answer.headers_mut();
        let request_id = format!("{:016X}", context.request_id);
        for (name, text) in [
            (HeaderName::from_static("x-amz-request-id"), request_id),
            (HeaderName::from_static("x-amz-id-2"), self.host_id(context.request_id)),
            (DATE, http_date(context.now_ms)),
        ] {
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(name, value);
            }
        }
        headers.insert(SERVER, HeaderValue::from_static("Drystone"));
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Refuses the operations whose requests carry no signature that could be verified: browsers and functions make them.
fn refuse_unsigned(operation: Operation, headers: &HeaderMap) -> Result<(), S3Error> {
    match operation {
        Operation::PostObject | Operation::WriteGetObjectResponse => Err(S3Error::not_implemented(operation.name())),
        Operation::OptionsObject if headers.contains_key(ORIGIN) => {
            Err(S3Error::from(ErrorCode::AccessForbidden).with("Method", "OPTIONS".to_owned()))
        }
        Operation::OptionsObject => Err(S3Error::from(ErrorCode::BadRequest)),
        _ => Ok(()),
    }
}

fn check_head_len(head: &Parts, config: &GatewayConfig) -> Result<(), S3Error> {
    let headers_len: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let uri_len = head.uri.path().len() + head.uri.query().map_or(0, str::len);
    for (len, len_max, code) in [
        (headers_len, config.header_len_max, ErrorCode::RequestHeaderSectionTooLarge),
        (uri_len, config.uri_len_max, ErrorCode::InvalidURI),
    ] {
        if len > len_max {
            return Err(S3Error::from(code).with("MaxSizeAllowed", len_max.to_string()));
        }
    }
    Ok(())
}
