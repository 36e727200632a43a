//! Listings of one shard: objects and open uploads in key order, with common prefixes rolled up.
//!
//! The cost is that of the page: a common prefix is left by seeking to its end once a few of its keys have been passed.
//! Only keys and the heads of entries are decoded. Merging the shards of a bucket is `merge`'s task.
//!
//! One rule covers all markers: an entry is listed if its name, a key or a common prefix, comes after the marker. So a
//! common prefix as a marker skips all keys under it.

use std::borrow::Cow;
use std::ops::ControlFlow;

use bincode::{Decode, Encode};

use super::entry::{EntryHead, UploadRecord};
use super::keys;
use crate::codec::DecodeError;
use crate::ids::{BucketId, UploadId};
use crate::state::{StateError, StateRead, decode_stored, prefix_end};
use crate::store::{Key, ListEntry, UploadSummary};

/// What one shard has for a page.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ShardPage<E = ListEntry> {
    /// Its next entries in order.
    pub entries: Vec<E>,
    /// Whether it has more after them.
    pub end: PageEnd,
}

/// Whether a shard has more entries after those of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum PageEnd {
    /// None.
    Exhausted,
    /// At least one.
    More,
}

/// One line of a listing of open uploads.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum UploadEntry {
    /// An upload.
    Upload(UploadSummary),
    /// Keys rolled up under a common prefix, which ends with the delimiter.
    Prefix(String),
}

/// Which part of a bucket to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope<'s> {
    /// The bucket.
    pub bucket: BucketId,
    /// Only keys that begin so; may be empty.
    pub prefix: &'s str,
    /// Groups keys that share the text up to and including its first occurrence after the prefix; empty is none.
    pub delimiter: Option<&'s str>,
}

impl Scope<'_> {
    /// The common prefix that a key (which begins with the prefix) is rolled up under.
    fn rolled_up<'k>(&self, key: &'k str) -> Option<&'k str> {
        let delimiter = self.delimiter.filter(|delimiter| !delimiter.is_empty())?;
        let at = key.get(self.prefix.len()..)?.find(delimiter)?;
        key.get(..self.prefix.len() + at + delimiter.len())
    }
}

/// At most `limit` objects and common prefixes of a shard whose names come after `after`.
///
/// # Errors
/// The state cannot be read.
pub fn list_shard(
    state: &dyn StateRead,
    scope: &Scope<'_>,
    after: Option<&str>,
    limit: usize,
) -> Result<ShardPage, StateError> {
    let from = match begin(keys::OBJECTS, scope, after) {
        Begin::At(from) => from,
        Begin::Nowhere => return Ok(ShardPage { entries: Vec::new(), end: PageEnd::Exhausted }),
        Begin::After(key) => end_of(&keys::key_prefix(keys::OBJECTS, scope.bucket, key)),
    };
    collect(state, keys::OBJECTS, scope, from, limit, ListEntry::Prefix, |raw, key, _, value| {
        let head = EntryHead::decode(value).map_err(|cause| StateError::Damaged { key: raw.to_vec(), cause })?;
        let EntryHead { len, etag, modified_ms, checksum_type: checksum, .. } = head;
        Ok(ListEntry::Object { key: checked(raw, key)?, len, etag, modified_ms, checksum })
    })
}

/// At most `limit` open uploads and common prefixes of a shard after `key_after`; with `upload_after`, also uploads of
/// that very key after that upload. By key, then id, which is by start time (`UploadId::started`).
///
/// # Errors
/// The state cannot be read.
pub fn list_uploads_shard(
    state: &dyn StateRead,
    scope: &Scope<'_>,
    key_after: Option<&str>,
    upload_after: Option<UploadId>,
    limit: usize,
) -> Result<ShardPage<UploadEntry>, StateError> {
    let from = match (begin(keys::UPLOADS, scope, key_after), upload_after) {
        (Begin::At(from), _) => from,
        (Begin::Nowhere, _) => return Ok(ShardPage { entries: Vec::new(), end: PageEnd::Exhausted }),
        (Begin::After(key), None) => end_of(&keys::key_prefix(keys::UPLOADS, scope.bucket, key)),
        (Begin::After(key), Some(upload)) => end_of(&keys::upload_key(scope.bucket, key, upload)),
    };
    collect(state, keys::UPLOADS, scope, from, limit, UploadEntry::Prefix, |raw, key, rest, value| {
        let record: UploadRecord = decode_stored(raw, value)?;
        let (upload, _) = keys::parse_upload(rest).ok_or_else(|| damaged(raw))?;
        let UploadRecord { started_ms, checksum, .. } = record;
        Ok(UploadEntry::Upload(UploadSummary { key: checked(raw, key)?, upload, started_ms, checksum }))
    })
}

fn checked(raw: &[u8], key: &str) -> Result<Key, StateError> {
    Key::new(key).map_err(|_| damaged(raw))
}

fn damaged(raw: &[u8]) -> StateError {
    let cause = DecodeError::Malformed { what: "key of an index record", cause: "wrong layout".to_owned() };
    StateError::Damaged { key: raw.to_vec(), cause }
}

/// Where a scan begins.
enum Begin<'a> {
    /// At this raw key.
    At(Vec<u8>),
    /// After what this object key has.
    After(&'a str),
    /// Nothing in scope comes after the marker.
    Nowhere,
}

fn begin<'a>(table: u8, scope: &Scope<'_>, after: Option<&'a str>) -> Begin<'a> {
    let whole = || Begin::At(keys::prefix_key(table, scope.bucket, scope.prefix));
    match after {
        None => whole(),
        Some(after) if after.starts_with(scope.prefix) => match scope.rolled_up(after) {
            Some(prefix) => Begin::At(end_of(&keys::prefix_key(table, scope.bucket, prefix))),
            None if after.is_empty() => whole(),
            None => Begin::After(after),
        },
        Some(after) if after < scope.prefix => whole(),
        Some(_) => Begin::Nowhere,
    }
}

/// The first raw key after all that begin so. A raw key begins with its table's byte, so there always is one.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    prefix_end(prefix).unwrap_or_else(|| vec![u8::MAX])
}

/// So many keys of a common prefix are passed one by one before its end is sought: a seek costs about as much.
const STEP_COUNT_MAX: usize = 16;

/// How a record becomes a line: raw key, object key, what follows it, value.
trait Line<E>: Fn(&[u8], &str, &[u8], &[u8]) -> Result<E, StateError> {}
impl<E, F: Fn(&[u8], &str, &[u8], &[u8]) -> Result<E, StateError>> Line<E> for F {}

fn collect<E>(
    state: &dyn StateRead,
    table: u8,
    scope: &Scope<'_>,
    mut from: Vec<u8>,
    limit: usize,
    prefix_line: impl Fn(String) -> E,
    line: impl Line<E>,
) -> Result<ShardPage<E>, StateError> {
    let to = end_of(&keys::prefix_key(table, scope.bucket, scope.prefix));
    let mut page = Page { entries: Vec::new(), limit, rolled_up: None, stepped: 0, prefix_line, line };
    loop {
        let mut stop = Ok(Stop::End);
        state.scan(&from, Some(&to), &mut |raw, value| match page.visit(scope, raw, value) {
            Ok(None) => ControlFlow::Continue(()),
            other => {
                stop = other.map(|stop| stop.unwrap_or(Stop::End));
                ControlFlow::Break(())
            }
        })?;
        let end = match stop? {
            Stop::End => PageEnd::Exhausted,
            Stop::Full => PageEnd::More,
            Stop::Seek(prefix) => {
                from = end_of(&keys::prefix_key(table, scope.bucket, &prefix));
                continue;
            }
        };
        return Ok(ShardPage { entries: page.entries, end });
    }
}

/// Why a scan ended.
enum Stop {
    /// There are no more keys.
    End,
    /// The page is full, and more follows.
    Full,
    /// The rest of this common prefix is to be skipped.
    Seek(String),
}

struct Page<E, P, L> {
    entries: Vec<E>,
    limit: usize,
    /// The common prefix listed last, and how many of its keys were passed since.
    rolled_up: Option<String>,
    stepped: usize,
    prefix_line: P,
    line: L,
}

impl<E, P: Fn(String) -> E, L: Line<E>> Page<E, P, L> {
    fn visit(&mut self, scope: &Scope<'_>, raw: &[u8], value: &[u8]) -> Result<Option<Stop>, StateError> {
        let (_, key, rest): (_, Cow<'_, str>, _) = keys::parse(raw).ok_or_else(|| damaged(raw))?;
        if let Some(prefix) =
            self.rolled_up.take_if(|prefix| !key.starts_with(prefix.as_str()) || self.stepped == STEP_COUNT_MAX)
        {
            if key.starts_with(&prefix) {
                return Ok(Some(Stop::Seek(prefix)));
            }
        } else if self.rolled_up.is_some() {
            self.stepped += 1;
            return Ok(None);
        }
        if self.entries.len() == self.limit {
            return Ok(Some(Stop::Full));
        }
        match scope.rolled_up(&key) {
            Some(prefix) => {
                self.entries.push((self.prefix_line)(prefix.to_owned()));
                self.rolled_up = Some(prefix.to_owned());
                self.stepped = 0;
            }
            None => self.entries.push((self.line)(raw, &key, rest, value)?),
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use bytes::Bytes;

    use super::super::state::fixture::*;
    use super::*;
    use crate::state::{MemoryState, Visit};

    fn state_of(keys: &[&str]) -> MemoryState {
        let mut state = MemoryState::new();
        for key in keys {
            run(&mut state, &put(key, 1));
        }
        state
    }

    fn names(
        state: &dyn StateRead,
        prefix: &str,
        delimiter: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> (Vec<String>, PageEnd) {
        let scope = Scope { bucket: BUCKET, prefix, delimiter };
        let page = list_shard(state, &scope, after, limit).unwrap();
        (page.entries.iter().map(|entry| entry.name().to_owned()).collect(), page.end)
    }

    #[test]
    fn keys_are_rolled_up_under_their_common_prefixes() {
        let state = state_of(&["a", "a/b", "a/c/d", "ab", "b/x", "b/y", "c"]);
        let all = |prefix, delimiter, after| names(&state, prefix, delimiter, after, 100).0;
        assert_eq!(all("", None, None), ["a", "a/b", "a/c/d", "ab", "b/x", "b/y", "c"]);
        assert_eq!(all("", Some("/"), None), ["a", "a/", "ab", "b/", "c"]);
        assert_eq!(all("a/", Some("/"), None), ["a/b", "a/c/"]);
        assert_eq!(all("a", Some("/"), Some("a")), ["a/", "ab"]);
        assert_eq!(all("", Some("/"), Some("a/")), ["ab", "b/", "c"]);
        assert_eq!(all("", Some("/"), Some("b/x")), ["c"]);
        assert_eq!(all("", None, Some("b/x")), ["b/y", "c"]);
        assert_eq!(all("b", None, Some("a")), ["b/x", "b/y"]);
        assert_eq!(all("a", None, Some("b")), Vec::<String>::new());
        assert_eq!(all("", Some(""), Some("")), all("", None, None));
        assert_eq!(all("", Some("/c/"), None), ["a", "a/b", "a/c/", "ab", "b/x", "b/y", "c"]);
    }

    #[test]
    fn a_page_says_exactly_whether_more_follows() {
        let state = state_of(&["a", "b/1", "b/2", "c"]);
        let page = |limit| names(&state, "", Some("/"), None, limit);
        assert_eq!(page(2), (vec!["a".to_owned(), "b/".to_owned()], PageEnd::More));
        assert_eq!(page(3).1, PageEnd::Exhausted);
        assert_eq!(names(&state, "b", Some("/"), None, 1), (vec!["b/".to_owned()], PageEnd::Exhausted));
        assert_eq!(page(0), (vec![], PageEnd::More));
    }

    #[test]
    fn a_listed_object_has_what_its_entry_says() {
        let state = state_of(&["a"]);
        let page = list_shard(&state, &Scope { bucket: BUCKET, prefix: "", delimiter: None }, None, 1).unwrap();
        let entry = entry(1);
        let checksum = entry.head().checksum_type;
        let (key, len, etag, modified_ms) = (key("a"), entry.len, entry.etag, entry.modified_ms);
        assert_eq!(page.entries, [ListEntry::Object { key, len, etag, modified_ms, checksum }]);
    }

    /// Counts what a listing visits.
    struct Counting(MemoryState, Cell<usize>);

    impl StateRead for Counting {
        fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
            self.0.get(key)
        }

        fn scan(&self, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), StateError> {
            self.0.scan(from, to, &mut |key, value| {
                self.1.set(self.1.get() + 1);
                visit(key, value)
            })
        }
    }

    #[test]
    fn the_cost_of_a_page_does_not_grow_with_the_keys_under_its_prefixes() {
        let keys: Vec<String> = (0..5).flat_map(|dir| (0..1000).map(move |file| format!("d{dir}/{file}"))).collect();
        let counting = Counting(state_of(&keys.iter().map(String::as_str).collect::<Vec<_>>()), Cell::new(0));
        let (names, end) = names(&counting, "", Some("/"), Some("d0/"), 3);
        assert_eq!((names, end), (vec!["d1/".to_owned(), "d2/".to_owned(), "d3/".to_owned()], PageEnd::More));
        assert!(counting.1.get() <= 4 * (STEP_COUNT_MAX + 2), "{}", counting.1.get());
    }

    #[test]
    fn uploads_are_listed_by_key_then_id() {
        let mut state = MemoryState::new();
        for (key, id) in [("a", 2), ("a", 1), ("b/1", 1), ("b/2", 1), ("c", 1)] {
            run(&mut state, &create_upload_as(key, UploadId([id; 16])));
        }
        let list = |delimiter, key_after, upload_after: Option<u8>, limit| {
            let scope = Scope { bucket: BUCKET, prefix: "", delimiter };
            let upload_after = upload_after.map(|id| UploadId([id; 16]));
            let page = list_uploads_shard(&state, &scope, key_after, upload_after, limit).unwrap();
            let line = |entry: UploadEntry| match entry {
                UploadEntry::Upload(upload) => format!("{}#{}", upload.key, upload.upload.0[0]),
                UploadEntry::Prefix(prefix) => prefix,
            };
            (page.entries.into_iter().map(line).collect::<Vec<_>>(), page.end)
        };
        assert_eq!(list(Some("/"), None, None, 9).0, ["a#1", "a#2", "b/", "c#1"]);
        assert_eq!(list(None, Some("a"), Some(1), 9).0, ["a#2", "b/1#1", "b/2#1", "c#1"]);
        assert_eq!(list(None, Some("a"), None, 9).0, ["b/1#1", "b/2#1", "c#1"]);
        assert_eq!(list(Some("/"), Some("b/"), None, 9), (vec!["c#1".to_owned()], PageEnd::Exhausted));
        assert_eq!(list(None, None, None, 1), (vec!["a#1".to_owned()], PageEnd::More));
    }
}
