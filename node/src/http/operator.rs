//! The operator's endpoints below `/-/`: liveness, readiness, health, metrics, and the admin API.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{delete, get};
use prometheus::{Registry, TextEncoder};

use super::admin::{self, Admin};
use crate::health::{Health, NotReady};

/// What a node says about itself. Answers come from memory at once: a probe must not wait for a peer or a drive.
pub trait NodeView: Send + Sync + 'static {
    /// Whether the node can serve reads and writes now.
    ///
    /// # Errors
    /// Why not, in words for an operator.
    fn ready(&self) -> Result<(), NotReady>;

    /// All that `/-/health` shows.
    fn health(&self) -> Health;

    /// Where the node's metrics are registered.
    fn registry(&self) -> &Registry;
}

/// What the handlers share.
pub(super) struct Operator {
    pub(super) view: Arc<dyn NodeView>,
    pub(super) admin: Arc<dyn Admin>,
    stopping: Arc<AtomicBool>,
}

impl Operator {
    pub(super) fn ready(&self) -> Result<(), NotReady> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(NotReady::Stopping);
        }
        self.view.ready()
    }
}

/// The router of everything below `/-/`. Once `stopping` is set, readiness fails whatever the view says.
pub fn operator_routes(view: Arc<dyn NodeView>, admin: Arc<dyn Admin>, stopping: Arc<AtomicBool>) -> Router {
    Router::new()
        .route("/-/live", get(async || "alive\n"))
        .route("/-/ready", get(ready))
        .route("/-/health", get(async |State(operator): State<Arc<Operator>>| Json(operator.view.health())))
        .route("/-/metrics", get(metrics))
        .route("/-/admin/v1/status", get(admin::status))
        .route("/-/admin/v1/keys", get(admin::list_keys).post(admin::create_key))
        .route("/-/admin/v1/keys/{id}", delete(admin::delete_key))
        .fallback(async || (StatusCode::NOT_FOUND, "there is no such endpoint\n"))
        .with_state(Arc::new(Operator { view, admin, stopping }))
}

async fn ready(State(operator): State<Arc<Operator>>) -> Response {
    match operator.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response(),
    }
}

async fn metrics(State(operator): State<Arc<Operator>>) -> Response {
    let mut text = String::new();
    match TextEncoder::new().encode_utf8(&operator.view.registry().gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
