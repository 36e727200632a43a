//! S3 for one worker.

use drystone_cluster::engine::ClusterStore;
use drystone_s3gw::Gateway;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::http::{BoxBody, BoxError, Service};

/// The gateway behind the node's HTTP.
pub(super) struct GatewayService(pub(super) Gateway<ClusterStore>);

impl Service for GatewayService {
    fn serve(&self, request: Request<Incoming>) -> BoxFuture<'_, Response<BoxBody>> {
        Box::pin(async { self.0.serve(request).await.map(|body| body.map_err(BoxError::from).boxed_unsync()) })
    }
}
