//! Access keys: kept sealed by the control group, opened where a signature is checked.

use drystone_certs::{SealingError, sealing};
use rand::CryptoRng;
use secrecy::{ExposeSecret as _, SecretString};

use super::{ClusterStore, Engine};
use crate::codec::Blob;
use crate::control::{AccessKeyRecord, ControlAnswer, ControlCommand};
use crate::store::{AccessKey, StoreError};

/// What a seal is bound to: a sealed secret does not open under another key's id.
fn seal_context(id: &str) -> Vec<u8> {
    [b"drystone access key ", id.as_bytes()].concat()
}

/// Seals the secret of the access key `id` for the control state: it opens only under this id and sealing key.
///
/// # Errors
/// The cipher refused.
pub fn seal_access_key(
    sealing_key: &[u8; 32],
    id: &str,
    secret: &SecretString,
    rng: &mut impl CryptoRng,
) -> Result<Blob, SealingError> {
    let sealed = sealing::seal(sealing_key, &seal_context(id), secret.expose_secret().as_bytes(), rng)?;
    Ok(Blob(sealed.into()))
}

/// An access key without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessKeySummary {
    /// The public part.
    pub id: String,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// What whoever made it noted.
    pub note: String,
}

/// What became of an access key that was to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyDeletion {
    /// It is gone.
    Deleted,
    /// There was none.
    NoSuchKey,
    /// It is the only one, and stays: without a key nobody could make another.
    LastKey,
}

impl Engine {
    pub(super) async fn access_key(&self, id: &str) -> Result<Option<AccessKey>, StoreError> {
        let Some(record) = self.control.access_key(id).await? else { return Ok(None) };
        let plain = sealing::open(self.member.sealing_key(), &seal_context(id), &record.sealed.0)
            .map_err(|error| StoreError::Internal(format!("access key {id} does not open: {error}")))?;
        let secret = String::from_utf8(plain.to_vec())
            .map_err(|_| StoreError::Internal(format!("the secret of access key {id} is not text")))?;
        Ok(Some(AccessKey { id: id.to_owned(), secret: SecretString::from(secret) }))
    }

    pub(super) async fn has_access_keys(&self) -> Result<bool, StoreError> {
        Ok(self.member.has_local_access_key() || !self.control.access_keys().await?.is_empty())
    }

    pub(super) async fn put_access_key(&self, key: &AccessKey, note: String) -> Result<bool, StoreError> {
        let record = AccessKeyRecord { sealed: self.seal(key)?, created_ms: self.member.now_ms(), note };
        match self.control.propose(&ControlCommand::PutAccessKey { id: key.id.clone(), record }).await? {
            ControlAnswer::Done => Ok(true),
            ControlAnswer::AccessKeyExists => Ok(false),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn delete_access_key(&self, id: &str) -> Result<KeyDeletion, StoreError> {
        match self.control.propose(&ControlCommand::DeleteAccessKey { id: id.to_owned() }).await? {
            ControlAnswer::Done => Ok(KeyDeletion::Deleted),
            ControlAnswer::NoSuchAccessKey => Ok(KeyDeletion::NoSuchKey),
            ControlAnswer::LastAccessKey => Ok(KeyDeletion::LastKey),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn access_keys(&self) -> Result<Vec<AccessKeySummary>, StoreError> {
        let keys = self.control.access_keys().await?.into_iter();
        Ok(keys.map(|(id, created_ms, note)| AccessKeySummary { id, created_ms, note }).collect())
    }

    fn seal(&self, key: &AccessKey) -> Result<Blob, StoreError> {
        let sealing_key = self.member.sealing_key();
        let sealed = self.member.randomness().with(|rng| seal_access_key(sealing_key, &key.id, &key.secret, rng));
        sealed.map_err(|error| StoreError::Internal(format!("sealing access key {}: {error}", key.id)))
    }
}

pub(super) fn unexpected(answer: &impl std::fmt::Debug) -> StoreError {
    StoreError::Internal(format!("the control group answered {answer:?}"))
}

impl ClusterStore {
    /// Stores an access key, valid on every node at once and durable on return; false if there is one of that id.
    ///
    /// # Errors
    /// Below quorum, [`StoreError::Unavailable`].
    pub async fn put_access_key(&self, key: &AccessKey, note: String) -> Result<bool, StoreError> {
        self.0.put_access_key(key, note).await
    }

    /// Removes an access key, unless it is the only one. A node that lags may accept it for as long as it lags.
    ///
    /// # Errors
    /// Below quorum, [`StoreError::Unavailable`].
    pub async fn delete_access_key(&self, id: &str) -> Result<KeyDeletion, StoreError> {
        self.0.delete_access_key(id).await
    }

    /// All access keys, without their secrets.
    ///
    /// # Errors
    /// Below quorum, [`StoreError::Unavailable`].
    pub async fn access_keys(&self) -> Result<Vec<AccessKeySummary>, StoreError> {
        self.0.access_keys().await
    }
}
