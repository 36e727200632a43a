//! Listings.

use bincode::{Decode, Encode};

use super::{BucketName, ChecksumAlgorithm, ChecksumKind, ETag, Key, UploadId};

/// What to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListQuery {
    /// Where.
    pub bucket: BucketName,
    /// Only keys that begin so; may be empty.
    pub prefix: String,
    /// Groups keys that share the text up to and including its first occurrence after the prefix; `None` for none.
    pub delimiter: Option<String>,
    /// Only keys (and common prefixes) after this one. To skip all of a common prefix give the prefix itself.
    pub after: Option<String>,
    /// At most so many entries, `0..=1000`.
    pub entry_count_max: usize,
}

/// One line of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ListEntry {
    /// An object.
    Object {
        /// Its key.
        key: Key,
        /// Length in bytes.
        len: u64,
        /// Its entity tag.
        etag: ETag,
        /// Milliseconds since the Unix epoch.
        modified_ms: u64,
        /// Checksum algorithm and kind, if it has one.
        checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
    },
    /// Keys rolled up under a common prefix, which ends with the delimiter.
    Prefix(String),
}

impl ListEntry {
    /// The text that orders the entry.
    pub fn name(&self) -> &str {
        match self {
            Self::Object { key, .. } => key.as_str(),
            Self::Prefix(prefix) => prefix,
        }
    }
}

/// A page of a listing, in UTF-8 binary order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPage {
    /// The entries.
    pub entries: Vec<ListEntry>,
    /// Whether more follow after the last entry's name.
    pub truncated: bool,
}

/// Which open uploads to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadQuery {
    /// Where.
    pub bucket: BucketName,
    /// Only keys that begin so.
    pub prefix: String,
    /// Groups keys, as in listings of objects.
    pub delimiter: Option<String>,
    /// Only keys after this one; with `upload_after`, also uploads of this very key after that upload.
    pub key_after: Option<String>,
    /// See `key_after`.
    pub upload_after: Option<UploadId>,
    /// At most so many entries, `0..=1000`.
    pub entry_count_max: usize,
}

/// An open upload in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct UploadSummary {
    /// Its key.
    pub key: Key,
    /// Its id.
    pub upload: UploadId,
    /// Milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// Checksum algorithm and kind, if asked for.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
}

/// A page of open uploads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadPage {
    /// By key, then start time, then id.
    pub uploads: Vec<UploadSummary>,
    /// Common prefixes, in order.
    pub prefixes: Vec<String>,
    /// Whether more follow.
    pub truncated: bool,
    /// Where the next page begins, if truncated: the key (or common prefix) and, for a key, the last upload of it.
    pub next: Option<(String, Option<UploadId>)>,
}
