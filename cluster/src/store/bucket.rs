//! Buckets and their names.

use std::fmt;

use bincode::{Decode, Encode};

use crate::ids::BucketId;

/// A bucket as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its name.
    pub name: BucketName,
    /// Its identity: differs after deletion and re-creation.
    pub id: BucketId,
    /// When it was created, milliseconds since the Unix epoch.
    pub created_ms: u64,
}

/// A valid bucket name: 3–63 characters of lower-case letters, digits, dots and hyphens, beginning and ending with a
/// letter or digit, no two dots in a row, not formatted as an IPv4 address, without S3's reserved prefixes and suffixes
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct BucketName(String);

/// A text that cannot name a bucket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a valid bucket name")]
pub struct InvalidBucketName(pub String);

const RESERVED_PREFIXES: [&str; 3] = ["xn--", "sthree-", "amzn-s3-demo-"];
const RESERVED_SUFFIXES: [&str; 4] = ["-s3alias", "--ol-s3", ".mrap", "--x-s3"];

impl BucketName {
    /// Checks `text` against the rules above.
    ///
    /// # Errors
    /// The rejected text.
    pub fn new(text: &str) -> Result<Self, InvalidBucketName> {
        let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let bytes = text.as_bytes();
        let valid = (3..=63).contains(&bytes.len())
            && bytes
                .iter()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-'))
            && edge(bytes.first())
            && edge(bytes.last())
            && !text.contains("..")
            && text.parse::<std::net::Ipv4Addr>().is_err()
            && !RESERVED_PREFIXES.iter().any(|prefix| text.starts_with(prefix))
            && !RESERVED_SUFFIXES.iter().any(|suffix| text.ends_with(suffix));
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidBucketName(text.to_owned())) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_s3() {
        for valid in ["abc", "my-bucket.v2", "0a0", &"a".repeat(63)] {
            assert!(BucketName::new(valid).is_ok(), "{valid}");
        }
        for invalid in
            ["ab", "Abc", "a_b", "-abc", "abc-", "a..b", "192.168.0.1", "xn--abc", "abc-s3alias", "", &"a".repeat(64)]
        {
            assert!(BucketName::new(invalid).is_err(), "{invalid}");
        }
    }
}
