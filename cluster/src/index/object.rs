//! How the current entry of a key is stored: its record, and apart from it a body of some size.
//!
//! A listing reads a thousand records; bodies among them would be fifteen sixteenths of what it reads. The record of an
//! entry whose body lies apart ends where the body begins, and begins with [`CUT`] in place of its version.

use bytes::Bytes;

use super::entry::{Content, ObjectEntry};
use super::keys;
use crate::codec::DecodeError;
use crate::ids::BucketId;
use crate::state::{FORMAT_V1, StateError, StateRead, StateWrite};

/// The first byte of a record of format 1 whose last bytes, those of an inline body, lie in the table of bodies.
pub(super) const CUT: u8 = 0x81;

/// Bodies below this many bytes stay in the record: less than another key and its record would take.
const APART_LEN_MIN: usize = 256;

/// The whole record of a key's current entry, as [`ObjectEntry::encode`] made it.
///
/// `state` may change between two reads of it. So the record is looked at again after the body: it names its version,
/// which never comes twice, hence if it is the same the body is that version's.
pub(super) fn read(state: &dyn StateRead, bucket: BucketId, key: &str) -> Result<Option<Bytes>, StateError> {
    let entry_key = keys::object_key(bucket, key);
    let mut stored = state.get(&entry_key)?;
    loop {
        let Some(record) = &stored else { return Ok(None) };
        let Some((&CUT, fields)) = record.split_first() else { return Ok(stored) };
        let body = state.get(&keys::body_key(bucket, key))?;
        let again = state.get(&entry_key)?;
        if again != stored {
            stored = again;
            continue;
        }
        let Some(body) = body else {
            let cause = DecodeError::Malformed { what: "object entry", cause: "its body is missing".to_owned() };
            return Err(StateError::Damaged { key: entry_key, cause });
        };
        return Ok(Some([&[FORMAT_V1], fields, &body].concat().into()));
    }
}

/// Makes `entry` the current one, in place of `replaced`.
pub(super) fn put(
    state: &mut dyn StateWrite,
    bucket: BucketId,
    key: &str,
    entry: &ObjectEntry,
    replaced: Option<&ObjectEntry>,
) {
    let mut record = entry.encode();
    match len_apart(entry) {
        Some(len) => {
            state.put(keys::body_key(bucket, key), record.split_off(record.len() - len));
            record[0] = CUT;
        }
        None => drop_body(state, bucket, key, replaced),
    }
    state.put(keys::object_key(bucket, key), record);
}

/// Removes the current entry, which is `current`.
pub(super) fn delete(state: &mut dyn StateWrite, bucket: BucketId, key: &str, current: &ObjectEntry) {
    state.delete(keys::object_key(bucket, key));
    drop_body(state, bucket, key, Some(current));
}

fn drop_body(state: &mut dyn StateWrite, bucket: BucketId, key: &str, entry: Option<&ObjectEntry>) {
    if entry.and_then(len_apart).is_some() {
        state.delete(keys::body_key(bucket, key));
    }
}

/// The length of a body that lies apart.
fn len_apart(entry: &ObjectEntry) -> Option<usize> {
    match &entry.content {
        Content::Inline(body) => Some(body.0.len()).filter(|len| *len >= APART_LEN_MIN),
        Content::Extents(_) | Content::Parts { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::codec::Blob;
    use crate::ids::VersionId;
    use crate::index::EntryHead;
    use crate::index::entry::tests::entry;
    use crate::state::{MemoryState, Visit};

    const BUCKET: BucketId = BucketId(7);

    fn inline(len: usize) -> ObjectEntry {
        ObjectEntry { content: Content::Inline(Blob(vec![5; len].into())), ..entry(1) }
    }

    #[test]
    fn a_body_lies_apart_and_comes_back_and_goes_with_its_entry() {
        let mut state = MemoryState::new();
        let mut before = None;
        for (len, records) in [(0, 1), (255, 1), (256, 2), (4096, 2), (300, 2), (3, 1), (1000, 2)] {
            let now = inline(len);
            put(&mut state, BUCKET, "k", &now, before.as_ref());
            assert_eq!(state.iter().count(), records, "a body of {len}");
            assert_eq!(read(&state, BUCKET, "k").unwrap().unwrap(), now.encode());
            let stored = state.get(&keys::object_key(BUCKET, "k")).unwrap().unwrap();
            assert!(stored.len() < 400);
            assert_eq!(EntryHead::decode(&stored), Ok(now.head()));
            before = Some(now);
        }
        let on_drives = entry(2);
        put(&mut state, BUCKET, "k", &on_drives, before.as_ref());
        assert_eq!(state.iter().count(), 1);
        put(&mut state, BUCKET, "k", &inline(500), Some(&on_drives));
        delete(&mut state, BUCKET, "k", &inline(500));
        assert_eq!(state, MemoryState::new());
        assert_eq!(read(&state, BUCKET, "k").unwrap(), None);
    }

    /// A state into which `next` is put after the first read.
    struct Overwritten {
        state: RefCell<MemoryState>,
        next: RefCell<Option<Option<ObjectEntry>>>,
        current: ObjectEntry,
    }

    impl StateRead for Overwritten {
        fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
            let value = self.state.borrow().get(key);
            match self.next.take() {
                Some(Some(next)) => put(&mut *self.state.borrow_mut(), BUCKET, "k", &next, Some(&self.current)),
                Some(None) => delete(&mut *self.state.borrow_mut(), BUCKET, "k", &self.current),
                None => {}
            }
            value
        }

        fn scan(&self, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), StateError> {
            self.state.borrow().scan(from, to, visit)
        }
    }

    #[test]
    fn an_entry_that_is_replaced_while_it_is_read_is_old_or_new_and_never_a_mix() {
        let other = |len| ObjectEntry { version: VersionId([9; 16]), ..inline(len) };
        for next in [Some(other(500)), Some(other(600)), Some(other(3)), Some(entry(2)), None] {
            let (mut state, current) = (MemoryState::new(), inline(500));
            put(&mut state, BUCKET, "k", &current, None);
            let expected = next.as_ref().map(|entry| Bytes::from(entry.encode()));
            let state = Overwritten { state: RefCell::new(state), next: RefCell::new(Some(next)), current };
            assert_eq!(read(&state, BUCKET, "k").unwrap(), expected);
        }
    }

    #[test]
    fn a_missing_body_is_damage_not_an_empty_object() {
        let mut state = MemoryState::new();
        put(&mut state, BUCKET, "k", &inline(500), None);
        state.delete(keys::body_key(BUCKET, "k"));
        assert!(matches!(read(&state, BUCKET, "k"), Err(StateError::Damaged { .. })));
    }
}
