//! The state a replica's commands read and change: ordered bytes behind two small traits, versioned records in them,
//! and an in-memory form for tests and simulation.
//!
//! Not here: consensus, durability, snapshots. Whoever applies a command gives it a transaction that implements
//! [`StateWrite`]; if applying fails with a [`StateError`] the transaction must be dropped and the replica stopped,
//! because its answer could differ from the other replicas'.

use std::collections::BTreeMap;
use std::error::Error;
use std::ops::ControlFlow;
use std::sync::Arc;

use bincode::{Decode, Encode};
use bytes::Bytes;

use crate::codec::{self, DecodeError};

/// State that cannot be read. Never an ordinary answer: the replica that meets it must stop.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StateError {
    /// The storage below failed.
    #[error("state cannot be read: {0}")]
    Storage(Arc<dyn Error + Send + Sync>),
    /// A stored record does not decode.
    #[error("the state's record under {key:02x?} is damaged: {cause}")]
    Damaged {
        /// Its key.
        key: Vec<u8>,
        /// What is wrong.
        cause: DecodeError,
    },
}

impl StateError {
    /// The failure of a storage below.
    pub fn storage(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Storage(Arc::new(error))
    }
}

/// Called with each key and value of a scan; says whether to go on.
pub type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'v;

/// Ordered bytes to read.
pub trait StateRead {
    /// The value under `key`.
    ///
    /// # Errors
    /// [`StateError::Storage`].
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError>;

    /// Visits keys in byte order, from `from` (inclusive) to `to` (exclusive; `None` is the end), until told to stop.
    ///
    /// # Errors
    /// [`StateError::Storage`].
    fn scan(&self, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), StateError>;
}

/// Ordered bytes to read and change. Reads see the writes made before.
pub trait StateWrite: StateRead {
    /// Sets the value under `key`.
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>);

    /// Removes `key`; removing what is not there is no error.
    fn delete(&mut self, key: Vec<u8>);
}

/// State in memory, for tests and simulation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryState(BTreeMap<Vec<u8>, Bytes>);

impl MemoryState {
    /// Empty state.
    pub fn new() -> Self {
        Self::default()
    }

    /// All keys and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Bytes)> {
        self.0.iter().map(|(key, value)| (key.as_slice(), value))
    }
}

impl StateRead for MemoryState {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), StateError> {
        let ended = |key: &[u8]| to.is_some_and(|to| key >= to);
        for (key, value) in self.0.range::<[u8], _>((std::ops::Bound::Included(from), std::ops::Bound::Unbounded)) {
            if ended(key) || visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl StateWrite for MemoryState {
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.0.insert(key, Bytes::from(value));
    }

    fn delete(&mut self, key: Vec<u8>) {
        self.0.remove(&key);
    }
}

/// The version byte that begins every record, command and answer of this release.
pub(crate) const FORMAT_V1: u8 = 1;

/// Encodes a record of format 1: the version byte, then the body.
pub(crate) fn encode_record<T: Encode>(value: &T) -> Vec<u8> {
    codec::encode(&(FORMAT_V1, value))
}

/// Decodes what [`encode_record`] made; the version is read first and never guessed.
pub(crate) fn decode_record<T: Decode<()>>(bytes: &[u8]) -> Result<T, DecodeError> {
    let what = std::any::type_name::<T>();
    match bytes.split_first() {
        Some((&FORMAT_V1, body)) => codec::decode(body),
        Some((version, _)) => Err(DecodeError::Malformed { what, cause: format!("unknown version {version}") }),
        None => Err(DecodeError::Malformed { what, cause: "empty".to_owned() }),
    }
}

/// Decodes the record stored under `key`.
pub(crate) fn decode_stored<T: Decode<()>>(key: &[u8], bytes: &[u8]) -> Result<T, StateError> {
    decode_record(bytes).map_err(|cause| StateError::Damaged { key: key.to_vec(), cause })
}

/// Reads and decodes the record under `key`.
pub(crate) fn read_record<T: Decode<()>>(state: &dyn StateRead, key: &[u8]) -> Result<Option<T>, StateError> {
    state.get(key)?.map(|bytes| decode_stored(key, &bytes)).transpose()
}

/// Encodes and stores a record under `key`.
pub(crate) fn put_record<T: Encode>(state: &mut dyn StateWrite, key: Vec<u8>, value: &T) {
    state.put(key, encode_record(value));
}

/// The first key after all keys that begin with `prefix`; `None` if there is none.
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=kept].to_vec();
    end[kept] += 1;
    Some(end)
}

/// Visits decoded records whose keys begin with `prefix`, from `from` on.
pub(crate) fn scan_records<T: Decode<()>>(
    state: &dyn StateRead,
    prefix: &[u8],
    from: &[u8],
    mut visit: impl FnMut(&[u8], T) -> ControlFlow<()>,
) -> Result<(), StateError> {
    let mut failed = None;
    let end = prefix_end(prefix);
    state.scan(from, end.as_deref(), &mut |key, value| match decode_stored(key, value) {
        Ok(record) => visit(key, record),
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    })?;
    failed.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_first_key_beyond_it() {
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b"\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }

    #[test]
    fn scans_are_ordered_bounded_and_can_be_stopped() {
        let mut state = MemoryState::new();
        for key in ["d", "b", "a", "c"] {
            state.put(key.as_bytes().to_vec(), vec![1]);
        }
        let mut seen = Vec::new();
        let mut visit = |key: &[u8], _: &[u8]| {
            seen.push(key.to_vec());
            if seen.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        state.scan(b"b", None, &mut visit).unwrap();
        assert_eq!(seen, [b"b", b"c"]);
        let mut count = 0;
        let mut visit = |_: &[u8], _: &[u8]| {
            count += 1;
            ControlFlow::Continue(())
        };
        state.scan(b"a", Some(b"c"), &mut visit).unwrap();
        assert_eq!(count, 2);
    }

    #[test]
    fn records_say_their_version_and_others_are_refused() {
        let bytes = encode_record(&300_u32);
        assert_eq!(bytes, [1, 251, 44, 1]);
        assert_eq!(decode_record::<u32>(&bytes), Ok(300));
        assert!(decode_record::<u32>(&[2, 251, 44, 1]).is_err());
        assert!(decode_record::<u32>(&[]).is_err());
    }
}
