//! Access keys for operators, on the cluster.

use bytes::Bytes;
use drystone_cluster::engine::{ClusterStore, KeyDeletion};
use drystone_cluster::store::{AccessKey, StoreError};
use drystone_s3gw::{Gateway, S3Error};
use futures_util::future::BoxFuture;
use http::StatusCode;
use http::request::Parts;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::assembly::FirstKey;
use crate::cli::draw_key;
use crate::http::{AccessKeySummary, Admin, AdminError, CreateKey, CreatedKey};

/// The operator's side of one worker's store.
pub(super) struct ClusterAdmin {
    gateway: Gateway<ClusterStore>,
    store: ClusterStore,
}

impl ClusterAdmin {
    pub(super) fn new(gateway: Gateway<ClusterStore>, store: ClusterStore) -> Self {
        Self { gateway, store }
    }

    async fn create(&self, key: CreateKey) -> Result<CreatedKey, AdminError> {
        let FirstKey { access_key, secret_key } = draw_key(&mut StdRng::from_os_rng());
        let created = CreatedKey {
            access_key: key.access_key.unwrap_or(access_key),
            secret_key: key.secret_key.unwrap_or(secret_key),
        };
        let stored = AccessKey { id: created.access_key.clone(), secret: created.secret_key.clone() };
        if self.store.put_access_key(&stored, key.note).await.map_err(admin_error)? {
            Ok(created)
        } else {
            Err(AdminError::KeyExists(created.access_key))
        }
    }

    async fn list(&self) -> Result<Vec<AccessKeySummary>, AdminError> {
        let keys = self.store.access_keys().await.map_err(admin_error)?.into_iter();
        Ok(keys
            .map(|key| AccessKeySummary { access_key: key.id, created_ms: key.created_ms, note: key.note })
            .collect())
    }

    async fn delete(&self, id: &str) -> Result<(), AdminError> {
        match self.store.delete_access_key(id).await.map_err(admin_error)? {
            KeyDeletion::Deleted => Ok(()),
            KeyDeletion::NoSuchKey => Err(AdminError::NoSuchKey(id.to_owned())),
            KeyDeletion::LastKey => Err(AdminError::LastKey(id.to_owned())),
        }
    }
}

impl Admin for ClusterAdmin {
    fn authenticate<'a>(&'a self, request: &'a Parts, body: &'a Bytes) -> BoxFuture<'a, Result<String, AdminError>> {
        Box::pin(async move {
            let verified = self.gateway.authenticate_whole(request, body).await;
            verified.map_err(|error| refusal(&error))
        })
    }

    fn create_key(&self, key: CreateKey) -> BoxFuture<'_, Result<CreatedKey, AdminError>> {
        Box::pin(self.create(key))
    }

    fn list_keys(&self) -> BoxFuture<'_, Result<Vec<AccessKeySummary>, AdminError>> {
        Box::pin(self.list())
    }

    fn delete_key<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), AdminError>> {
        Box::pin(self.delete(id))
    }
}

/// Why a request was not taken as signed. That it cannot be decided now is no refusal of the key.
fn refusal(error: &S3Error) -> AdminError {
    let reason = || error.message().to_owned();
    match error.code().status() {
        StatusCode::SERVICE_UNAVAILABLE => AdminError::Unavailable { reason: reason() },
        StatusCode::INTERNAL_SERVER_ERROR => {
            tracing::error!(?error, "the signature of an admin request could not be checked");
            AdminError::Internal
        }
        _ => AdminError::Unauthenticated { reason: reason() },
    }
}

fn admin_error(error: StoreError) -> AdminError {
    match error {
        StoreError::Unavailable(_) | StoreError::Full => AdminError::Unavailable { reason: error.to_string() },
        other => {
            tracing::error!(error = %other, "an admin request failed");
            AdminError::Internal
        }
    }
}

#[cfg(test)]
mod tests {
    use drystone_cluster::store::Unavailable;
    use drystone_s3gw::ErrorCode;

    use super::*;

    #[test]
    fn what_cannot_be_decided_now_is_no_refusal_and_a_defect_is_neither() {
        let status = |error: AdminError| error.status().0.as_u16();
        let not_now = || StoreError::from(Unavailable::Busy);
        let defect = || StoreError::Internal("a secret does not open".to_owned());
        assert_eq!(status(refusal(&S3Error::from(not_now()))), 503);
        assert_eq!(status(refusal(&S3Error::from(defect()))), 500);
        assert_eq!(status(refusal(&S3Error::from(ErrorCode::SignatureDoesNotMatch))), 403);
        assert_eq!(status(refusal(&S3Error::from(ErrorCode::AuthorizationHeaderMalformed))), 403);
        assert_eq!(status(admin_error(not_now())), 503);
        assert_eq!(status(admin_error(defect())), 500);
        assert!(!admin_error(defect()).to_string().contains("secret"), "the text is for the log only");
    }
}
