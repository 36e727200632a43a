//! What a bucket must look like: a map in memory with S3's meaning of listing. The reference the cluster is compared
//! with; it knows no faults, no time, no concurrency.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::client::{Listed, Listing, etag_of};

/// A bucket without versions.
#[derive(Clone, Debug, Default)]
pub struct Bucket {
    objects: BTreeMap<String, Bytes>,
}

impl Bucket {
    /// An empty bucket.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Stores a body, replacing what was there.
    pub fn put(&mut self, key: &str, body: Bytes) {
        self.objects.insert(key.to_owned(), body);
    }

    /// The body of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Bytes> {
        self.objects.get(key)
    }

    /// Removes a key, whether it was there or not.
    pub fn delete(&mut self, key: &str) {
        self.objects.remove(key);
    }

    /// All keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.objects.keys().map(String::as_str)
    }

    /// Everything a listing gives, over all its pages, in the order of keys and prefixes taken together. The page
    /// size plays no part.
    #[must_use]
    pub fn list(&self, listing: &Listing<'_>) -> Vec<Listed> {
        let mut objects = BTreeMap::new();
        let mut prefixes = BTreeSet::new();
        for (key, body) in self.objects.range(listing.prefix.to_owned()..) {
            let Some(rest) = key.strip_prefix(listing.prefix) else { break };
            let group = match listing.delimiter {
                "" => None,
                delimiter => rest.find(delimiter).map(|at| &key[..listing.prefix.len() + at + delimiter.len()]),
            };
            match group {
                // A group is one entry; it is after `start-after` unless `start-after` is in it or beyond it.
                Some(group) if group > listing.start_after && !listing.start_after.starts_with(group) => {
                    prefixes.insert(group.to_owned());
                }
                None if key.as_str() > listing.start_after => {
                    let entry = Listed::Object { key: key.clone(), len: body.len() as u64, etag: etag_of(body) };
                    objects.insert(key.clone(), entry);
                }
                _ => {}
            }
        }
        let prefixes = prefixes.into_iter().map(|prefix| (prefix.clone(), Listed::Prefix(prefix)));
        let all: BTreeMap<String, Listed> = objects.into_iter().chain(prefixes).collect();
        all.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(keys: &[&str]) -> Bucket {
        let mut bucket = Bucket::new();
        keys.iter().for_each(|key| bucket.put(key, Bytes::from_static(b"x")));
        bucket
    }

    fn names(bucket: &Bucket, prefix: &str, delimiter: &str, start_after: &str) -> Vec<String> {
        let listing = Listing { prefix, delimiter, start_after, page: 0 };
        let name = |entry| match entry {
            Listed::Object { key, .. } => key,
            Listed::Prefix(prefix) => format!("[{prefix}]"),
        };
        bucket.list(&listing).into_iter().map(name).collect()
    }

    #[test]
    fn groups_take_the_place_of_their_keys() {
        let bucket = bucket(&["a", "a/b", "a/b/c", "a0", "b/1", "b/2", "c"]);
        assert_eq!(names(&bucket, "", "/", ""), ["a", "[a/]", "a0", "[b/]", "c"]);
        assert_eq!(names(&bucket, "a/", "/", ""), ["a/b", "[a/b/]"]);
        assert_eq!(names(&bucket, "b", "", ""), ["b/1", "b/2"]);
        assert_eq!(names(&bucket, "", "", "a/b"), ["a/b/c", "a0", "b/1", "b/2", "c"]);
    }

    #[test]
    fn a_group_is_passed_when_the_start_is_in_it() {
        let bucket = bucket(&["a/1", "a/2", "b/1", "c"]);
        assert_eq!(names(&bucket, "", "/", "a/1"), ["[b/]", "c"]);
        assert_eq!(names(&bucket, "", "/", "a/"), ["[b/]", "c"]);
        assert_eq!(names(&bucket, "", "/", "b"), ["[b/]", "c"]);
        assert_eq!(names(&bucket, "", "/", "b0"), ["c"]);
    }
}
