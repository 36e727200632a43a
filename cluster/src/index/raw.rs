//! Records as stored, for nodes that ask the shard's leader: they travel without being decoded on the way.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{keys, object};
use crate::ids::{BucketId, UploadId};
use crate::state::{StateError, StateRead, prefix_end};

/// The current entry of a key.
///
/// # Errors
/// [`StateError::Storage`].
pub(crate) fn entry(state: &dyn StateRead, bucket: BucketId, key: &str) -> Result<Option<Bytes>, StateError> {
    object::read(state, bucket, key)
}

/// The record of an open upload.
///
/// # Errors
/// [`StateError::Storage`].
pub(crate) fn upload(
    state: &dyn StateRead,
    bucket: BucketId,
    key: &str,
    upload: UploadId,
) -> Result<Option<Bytes>, StateError> {
    state.get(&keys::upload_key(bucket, key, upload))
}

/// At most `limit` part records of an open or completed upload with numbers above `after`, in order.
///
/// # Errors
/// [`StateError::Storage`].
pub(crate) fn parts(
    state: &dyn StateRead,
    bucket: BucketId,
    key: &str,
    upload: UploadId,
    after: u32,
    limit: usize,
) -> Result<Vec<(u32, Bytes)>, StateError> {
    let prefix = keys::parts_prefix(bucket, key, upload);
    let mut parts = Vec::new();
    let Some(first) = after.checked_add(1) else { return Ok(parts) };
    let from = keys::part_key(bucket, key, upload, first);
    state.scan(&from, prefix_end(&prefix).as_deref(), &mut |raw, record| {
        if parts.len() == limit {
            return ControlFlow::Break(());
        }
        let number = raw.get(prefix.len()..).and_then(|number| number.try_into().ok()).map(u32::from_be_bytes);
        parts.extend(number.map(|number| (number, Bytes::copy_from_slice(record))));
        ControlFlow::Continue(())
    })?;
    Ok(parts)
}
