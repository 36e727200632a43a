//! The admin API: keys and status, every request signed with an access key of the cluster.
//!
//! HTTP and JSON are here; what keys are and who may do what is behind [`Admin`].

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Json, Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Limited};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::operator::Operator;
use crate::health::Health;

/// Most bytes of a request body.
const BODY_BYTES_MAX: usize = 64 << 10;

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
    let invalid = |error| AdminError::Invalid { reason: format!("the body cannot be read: {error}") };
    Limited::new(body, BODY_BYTES_MAX).collect().await.map(|body| body.to_bytes()).map_err(invalid)
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
