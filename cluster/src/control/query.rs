//! Reads of the control state: local and as fresh as the replica they are made on.

use std::ops::ControlFlow;

use super::command::{AccessKeyRecord, BucketPhase, BucketRecord};
use super::state::{ACCESS_KEYS, BUCKET_NAMES, BUCKETS, INSTANCES, TOPOLOGY, bucket_key, deletion_key, table_key};
use crate::codec::DecodeError;
use crate::ids::{BucketId, DeletionAttempt, InstanceId, NodeId};
use crate::state::{StateError, StateRead, prefix_end, read_record, scan_records};
use crate::store::BucketName;
use crate::topology::{Topology, decode_snapshot};

/// A bucket, also one that is being deleted: its phase tells.
///
/// # Errors
/// The state cannot be read; so for all queries here.
pub fn bucket(state: &dyn StateRead, name: &BucketName) -> Result<Option<BucketRecord>, StateError> {
    read_record(state, &bucket_key(name))
}

/// The name of the bucket with this id, also of one that is being deleted.
///
/// # Errors
/// As [`bucket`].
pub fn bucket_name(state: &dyn StateRead, id: BucketId) -> Result<Option<BucketName>, StateError> {
    read_record(state, &table_key(BUCKET_NAMES, &id.0.to_be_bytes()))
}

/// All buckets by name, also those being deleted.
///
/// # Errors
/// As [`bucket`].
pub fn buckets(state: &dyn StateRead) -> Result<Vec<(BucketName, BucketRecord)>, StateError> {
    let mut buckets = Vec::new();
    scan_records(state, &[BUCKETS], &[BUCKETS], |key, record: BucketRecord| {
        let name = str::from_utf8(&key[1..]).ok().and_then(|text| BucketName::new(text).ok());
        buckets.extend(name.map(|name| (name, record)));
        ControlFlow::Continue(())
    })?;
    Ok(buckets)
}

/// All buckets whose deletion has begun and not ended: whoever leads finishes or cancels it.
///
/// # Errors
/// As [`bucket`].
pub fn deleting_buckets(state: &dyn StateRead) -> Result<Vec<(BucketName, BucketRecord)>, StateError> {
    let mut buckets = buckets(state)?;
    buckets.retain(|(_, record)| record.phase == BucketPhase::Deleting);
    Ok(buckets)
}

/// The latest attempt at the bucket's deletion; 0 if nobody ever began one.
///
/// # Errors
/// As [`bucket`].
pub fn deletion_attempt(state: &dyn StateRead, id: BucketId) -> Result<DeletionAttempt, StateError> {
    Ok(read_record(state, &deletion_key(id))?.unwrap_or_default())
}

/// An access key by its public part.
///
/// # Errors
/// As [`bucket`].
pub fn access_key(state: &dyn StateRead, id: &str) -> Result<Option<AccessKeyRecord>, StateError> {
    read_record(state, &table_key(ACCESS_KEYS, id.as_bytes()))
}

/// All access keys by their public parts.
///
/// # Errors
/// As [`bucket`].
pub fn access_keys(state: &dyn StateRead) -> Result<Vec<(String, AccessKeyRecord)>, StateError> {
    let mut keys = Vec::new();
    scan_records(state, &[ACCESS_KEYS], &[ACCESS_KEYS], |key, record: AccessKeyRecord| {
        keys.push((String::from_utf8_lossy(&key[1..]).into_owned(), record));
        ControlFlow::Continue(())
    })?;
    Ok(keys)
}

/// How many access keys there are.
///
/// # Errors
/// As [`bucket`].
pub fn access_key_count(state: &dyn StateRead) -> Result<usize, StateError> {
    let mut count = 0;
    let end = prefix_end(&[ACCESS_KEYS]);
    state.scan(&[ACCESS_KEYS], end.as_deref(), &mut |_, _| {
        count += 1;
        ControlFlow::Continue(())
    })?;
    Ok(count)
}

/// The current topology; `None` before the first was agreed.
///
/// # Errors
/// As [`bucket`].
pub fn topology(state: &dyn StateRead) -> Result<Option<Topology>, StateError> {
    let Some(bytes) = state.get(&[TOPOLOGY])? else { return Ok(None) };
    decode_snapshot(&bytes).map(Some).map_err(|error| {
        let cause = DecodeError::Malformed { what: "topology snapshot", cause: error.to_string() };
        StateError::Damaged { key: vec![TOPOLOGY], cause }
    })
}

/// The remembered life of a node's state directory.
///
/// # Errors
/// As [`bucket`].
pub fn instance(state: &dyn StateRead, node: NodeId) -> Result<Option<InstanceId>, StateError> {
    read_record(state, &table_key(INSTANCES, node.as_bytes()))
}
