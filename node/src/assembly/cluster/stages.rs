//! How the member stops, step by step.

use std::sync::Arc;

use drystone_cluster::member::Running;
use futures_util::future::BoxFuture;

use crate::shutdown::Stages;

/// The steps of the member's own stop.
pub(super) struct MemberStages(pub(super) Arc<Running>);

impl Stages for MemberStages {
    fn hand_over_leadership(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.hand_over_leadership())
    }

    fn stop_workers(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.stop_workers())
    }

    fn flush_drives(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.close_drives())
    }

    fn close_peers(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.close_peers())
    }
}
