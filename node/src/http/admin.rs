//! The admin API: keys and status, every request signed with an access key of the cluster.
//!
//! HTTP and JSON are here; what keys are and who may do what is behind [`Admin`].

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Json, Response};
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Limited};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::operator::Operator;
use crate::health::Health;
use crate::keys::{InvalidKey, check_id, check_secret};

/// Most bytes of a request body.
const BODY_BYTES_MAX: usize = 64 << 10;
/// A body of which nothing arrives for so long is given up, as S3's bodies are.
const BODY_STALL_MAX: Duration = Duration::from_secs(30);

/// What the cluster does for the admin API.
pub trait Admin: Send + Sync + 'static {
    /// Verifies the request's signature and returns the access key that made it. `body` is the whole body.
    fn authenticate<'a>(&'a self, request: &'a Parts, body: &'a Bytes) -> BoxFuture<'a, Result<String, AdminError>>;

    /// Creates a key, agreed by the cluster when it returns. Dropped: of unknown outcome.
    fn create_key(&self, key: CreateKey) -> BoxFuture<'_, Result<CreatedKey, AdminError>>;

    /// All keys, without secrets.
    fn list_keys(&self) -> BoxFuture<'_, Result<Vec<AccessKeySummary>, AdminError>>;

    /// Deletes a key, agreed by the cluster when it returns. Dropped: of unknown outcome.
    fn delete_key<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), AdminError>>;
}

/// What a new key is to be.
#[derive(Debug, Default)]
pub struct CreateKey {
    /// Its public part; drawn if not given.
    pub access_key: Option<String>,
    /// Its secret; drawn if not given.
    pub secret_key: Option<SecretString>,
    /// What it is for.
    pub note: String,
}

/// A key just made: the only time its secret is shown.
#[derive(Debug)]
pub struct CreatedKey {
    /// The public part.
    pub access_key: String,
    /// The secret part.
    pub secret_key: SecretString,
}

/// A key in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessKeySummary {
    /// The public part.
    pub access_key: String,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// What it is for.
    pub note: String,
}

/// The answer of `GET /-/admin/v1/keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyList {
    /// The keys by their public part.
    pub keys: Vec<AccessKeySummary>,
}

/// The answer of `GET /-/admin/v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Why the node cannot serve now; absent when it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_ready: Option<String>,
    /// What `/-/health` shows.
    pub health: Health,
}

/// Why an admin request was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// The signature is missing, wrong or too old, or the key is unknown.
    #[error("the request is not signed by an access key of this cluster: {reason}")]
    Unauthenticated {
        /// What is wrong with it.
        reason: String,
    },
    /// No key of that name.
    #[error("there is no access key {0}")]
    NoSuchKey(String),
    /// A key of that name exists.
    #[error("there is an access key {0} already")]
    KeyExists(String),
    /// The key is the only one.
    #[error("{0} is the only access key, and without one nobody could make another: make another first")]
    LastKey(String),
    /// The request is malformed.
    #[error("{reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// The cluster cannot decide now.
    #[error("the cluster cannot decide now: {reason}")]
    Unavailable {
        /// Why not.
        reason: String,
    },
    /// A defect or damage on this side, which the log tells more of.
    #[error("the node could not do it: its log says why")]
    Internal,
}

impl From<InvalidKey> for AdminError {
    fn from(error: InvalidKey) -> Self {
        Self::Invalid { reason: error.to_string() }
    }
}

impl AdminError {
    /// Status and code, in one table.
    pub fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Unauthenticated { .. } => (StatusCode::FORBIDDEN, "Unauthenticated"),
            Self::NoSuchKey(_) => (StatusCode::NOT_FOUND, "NoSuchKey"),
            Self::KeyExists(_) => (StatusCode::CONFLICT, "KeyExists"),
            Self::LastKey(_) => (StatusCode::CONFLICT, "LastKey"),
            Self::Invalid { .. } => (StatusCode::BAD_REQUEST, "Invalid"),
            Self::Unavailable { .. } => (StatusCode::SERVICE_UNAVAILABLE, "Unavailable"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "Internal"),
        }
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        let (status, code) = self.status();
        (status, Json(serde_json::json!({ "code": code, "message": self.to_string() }))).into_response()
    }
}

/// Reads the body and verifies who signed the request.
async fn authenticate(operator: &Operator, request: Request) -> Result<(String, Bytes), AdminError> {
    let (head, body) = request.into_parts();
    let body = read(body).await?;
    let who = operator.admin.authenticate(&head, &body).await?;
    Ok((who, body))
}

async fn read(body: Body) -> Result<Bytes, AdminError> {
    let mut body = Limited::new(body, BODY_BYTES_MAX);
    let mut read = BytesMut::new();
    loop {
        let stalled = |_elapsed| AdminError::Invalid {
            reason: format!("nothing of the body arrived for {} s", BODY_STALL_MAX.as_secs()),
        };
        let Some(frame) = timeout(BODY_STALL_MAX, body.frame()).await.map_err(stalled)? else {
            return Ok(read.freeze());
        };
        let invalid = |error| AdminError::Invalid { reason: format!("the body cannot be read: {error}") };
        if let Ok(data) = frame.map_err(invalid)?.into_data() {
            read.extend_from_slice(&data);
        }
    }
}

pub(super) async fn status(
    State(operator): State<Arc<Operator>>,
    request: Request,
) -> Result<Json<Status>, AdminError> {
    authenticate(&operator, request).await?;
    let not_ready = operator.ready().err().map(|reason| reason.to_string());
    Ok(Json(Status { not_ready, health: operator.view.health() }))
}

pub(super) async fn list_keys(
    State(operator): State<Arc<Operator>>,
    request: Request,
) -> Result<Json<KeyList>, AdminError> {
    authenticate(&operator, request).await?;
    Ok(Json(KeyList { keys: operator.admin.list_keys().await? }))
}

/// The body of `POST /-/admin/v1/keys`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    access_key: Option<String>,
    secret_key: Option<String>,
    #[serde(default)]
    note: String,
}

pub(super) async fn create_key(
    State(operator): State<Arc<Operator>>,
    request: Request,
) -> Result<Response, AdminError> {
    let (who, body) = authenticate(&operator, request).await?;
    let wanted: CreateBody =
        serde_json::from_slice(&body).map_err(|error| AdminError::Invalid { reason: error.to_string() })?;
    let secret_key = wanted.secret_key.map(SecretString::from);
    wanted.access_key.as_deref().map_or(Ok(()), check_id)?;
    secret_key.as_ref().map_or(Ok(()), check_secret)?;
    let wanted = CreateKey { access_key: wanted.access_key, secret_key, note: wanted.note };
    let created = operator.admin.create_key(wanted).await?;
    tracing::info!(target: "drystone::audit", by = who, access_key = created.access_key, "access key created");
    let secret_key = created.secret_key.expose_secret();
    let body = serde_json::json!({ "access_key": created.access_key, "secret_key": secret_key });
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

pub(super) async fn delete_key(
    State(operator): State<Arc<Operator>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<StatusCode, AdminError> {
    let (who, _) = authenticate(&operator, request).await?;
    operator.admin.delete_key(&id).await?;
    tracing::info!(target: "drystone::audit", by = who, access_key = id, "access key deleted");
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use futures_util::stream;
    use tokio::time::{Instant, sleep};

    use super::*;

    fn piece(text: &'static str) -> Result<Bytes, std::io::Error> {
        Ok(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_given_up_and_a_slow_one_is_not() {
        let started = Instant::now();
        let stalled = stream::iter([piece("{")]).chain(stream::pending());
        let error = read(Body::from_stream(stalled)).await.unwrap_err();
        assert_eq!(error, AdminError::Invalid { reason: "nothing of the body arrived for 30 s".to_owned() });
        assert_eq!(started.elapsed(), Duration::from_secs(30));
        let slow = stream::iter([piece("{"), piece("}")]).then(|piece| async {
            sleep(Duration::from_secs(29)).await;
            piece
        });
        assert_eq!(read(Body::from_stream(slow)).await.unwrap(), "{}");
        let long = read(Body::from(vec![b'x'; BODY_BYTES_MAX + 1])).await.unwrap_err();
        assert!(matches!(&long, AdminError::Invalid { reason } if reason.contains("cannot be read")), "{long:?}");
    }
}
