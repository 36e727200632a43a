//! AWS Signature Version 4, written for the tests alone (AWS, "Authenticating Requests (AWS Signature Version 4)").
//!
//! Shares nothing with the product's verifier. Signs exactly what it is told, wrong hashes and times included.

use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::macros::format_description;

/// What RFC 3986 leaves as it is, and nothing else.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same for a path, whose slashes stay.
const PATH: &AsciiSet = &UNRESERVED.remove(b'/');

/// A key pair. Its `Debug` shows the public part only.
#[derive(Clone)]
pub struct Credentials {
    /// The access key id.
    pub access_key: String,
    /// The secret.
    pub secret_key: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("access_key", &self.access_key).finish_non_exhaustive()
    }
}

/// What is signed.
pub struct Signing<'a> {
    /// Who signs.
    pub credentials: &'a Credentials,
    /// The region of the scope.
    pub region: &'a str,
    /// The time of the signature.
    pub at: OffsetDateTime,
    /// The method.
    pub method: &'a str,
    /// The path, encoded already by [`encode_path`].
    pub path: &'a str,
    /// The query, not encoded.
    pub query: &'a [(String, String)],
    /// The headers to sign, names in lower case.
    pub headers: &'a [(String, String)],
    /// The payload's hash, or one of the words that stand for it.
    pub payload_hash: &'a str,
}

/// Percent-encodes a path as S3 does: once, slashes kept.
#[must_use]
pub fn encode_path(path: &str) -> String {
    utf8_percent_encode(path, PATH).to_string()
}

/// Percent-encodes one name or value of a query.
#[must_use]
pub fn encode_component(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// The query as it goes on the wire and into the canonical request: encoded and sorted.
#[must_use]
pub fn encode_query(query: &[(String, String)]) -> String {
    let mut pairs: Vec<(String, String)> =
        query.iter().map(|(name, value)| (encode_component(name), encode_component(value))).collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// SHA-256 as lower-case hexadecimal.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A time as `20130524T000000Z`.
#[must_use]
pub fn amz_date(at: OffsetDateTime) -> String {
    at.format(format_description!("[year][month][day]T[hour][minute][second]Z")).unwrap_or_default()
}

impl Signing<'_> {
    fn scope(&self) -> String {
        format!("{}/{}/s3/aws4_request", &amz_date(self.at)[..8], self.region)
    }

    fn signed_headers(&self) -> String {
        let mut names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.join(";")
    }

    fn canonical_request(&self, query: &[(String, String)]) -> String {
        let mut headers = self.headers.to_vec();
        headers.sort();
        let headers: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
        let (signed, query) = (self.signed_headers(), encode_query(query));
        format!("{}\n{}\n{query}\n{headers}\n{signed}\n{}", self.method, self.path, self.payload_hash)
    }

    fn signature(&self, query: &[(String, String)]) -> String {
        let canonical = sha256_hex(self.canonical_request(query).as_bytes());
        let (date, scope) = (amz_date(self.at), self.scope());
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{canonical}");
        let mut key = hmac(format!("AWS4{}", self.credentials.secret_key).as_bytes(), &date.as_bytes()[..8]);
        for part in [self.region, "s3", "aws4_request"] {
            key = hmac(&key, part.as_bytes());
        }
        hex::encode(hmac(&key, text.as_bytes()))
    }

    /// The value of the `Authorization` header.
    #[must_use]
    pub fn authorization(&self) -> String {
        let (id, scope, signed) = (&self.credentials.access_key, self.scope(), self.signed_headers());
        let signature = self.signature(self.query);
        format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={signed}, Signature={signature}")
    }

    /// The whole query of a presigned URL, valid for `expires_s` seconds from [`Signing::at`].
    #[must_use]
    pub fn presigned_query(&self, expires_s: u64) -> Vec<(String, String)> {
        let mut query = self.query.to_vec();
        let mut add = |name: &str, value: String| query.push((name.to_owned(), value));
        add("X-Amz-Algorithm", "AWS4-HMAC-SHA256".to_owned());
        add("X-Amz-Credential", format!("{}/{}", self.credentials.access_key, self.scope()));
        add("X-Amz-Date", amz_date(self.at));
        add("X-Amz-Expires", expires_s.to_string());
        add("X-Amz-SignedHeaders", self.signed_headers());
        let signature = self.signature(&query);
        query.push(("X-Amz-Signature".to_owned(), signature));
        query
    }
}

fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    fn example() -> Credentials {
        Credentials {
            access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
        }
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn the_example_of_a_ranged_get_in_awss_documentation_is_reproduced() {
        let empty = sha256_hex(b"");
        let headers = [
            pair("host", "examplebucket.s3.amazonaws.com"),
            pair("range", "bytes=0-9"),
            pair("x-amz-content-sha256", &empty),
            pair("x-amz-date", "20130524T000000Z"),
        ];
        let signing = Signing {
            credentials: &example(),
            region: "us-east-1",
            at: datetime!(2013-05-24 0:00 UTC),
            method: "GET",
            path: "/test.txt",
            query: &[],
            headers: &headers,
            payload_hash: &empty,
        };
        let expected = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        assert!(signing.authorization().ends_with(expected), "{}", signing.authorization());
    }

    #[test]
    fn the_example_of_a_presigned_url_in_awss_documentation_is_reproduced() {
        let signing = Signing {
            credentials: &example(),
            region: "us-east-1",
            at: datetime!(2013-05-24 0:00 UTC),
            method: "GET",
            path: "/test.txt",
            query: &[],
            headers: &[pair("host", "examplebucket.s3.amazonaws.com")],
            payload_hash: "UNSIGNED-PAYLOAD",
        };
        let query = signing.presigned_query(86_400);
        let expected = "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
        assert_eq!(query.last().unwrap().1, expected);
    }
}
