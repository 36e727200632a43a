//! Signs requests with AWS Signature Version 4 in headers (AWS General Reference, "Create a signed AWS API request").
//! Not a verifier, and no presigned URLs or chunk signatures: a load generator needs neither.
//!
//! The derived key is kept for the day it is good for, so that a request costs two hashes and one HMAC.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

/// All but the unreserved characters of RFC 3986, as AWS's UriEncode.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same, but a key's slashes stay.
const PATH: &AsciiSet = &QUERY.remove(b'/');

/// Declared in `x-amz-content-sha256` when the body's hash is not part of the signature.
pub const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";
/// SHA-256 of nothing.
pub const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Who signs.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The public part of the key.
    pub access_key: String,
    /// The secret part.
    pub secret_key: SecretString,
    /// Region to sign for.
    pub region: String,
}

/// What is signed. Everything is in the form in which it goes over the wire.
pub struct Signable<'a> {
    /// `GET`, `PUT`, …
    pub method: &'a str,
    /// Percent-encoded path from [`encode_path`].
    pub path: &'a str,
    /// Sorted, percent-encoded query from [`encode_query`]; empty for none.
    pub query: &'a str,
    /// Lower-case names with trimmed values, sorted by name, `host` and all `x-amz-*` among them.
    pub headers: &'a [(&'a str, &'a str)],
    /// Hex SHA-256 of the body or [`UNSIGNED_PAYLOAD`].
    pub payload: &'a str,
}

/// Signs with one set of credentials.
#[derive(Debug)]
pub struct Signer {
    credentials: Credentials,
    day: Mutex<Option<Arc<Day>>>,
}

/// What is the same for a whole day.
struct Day {
    date: String,
    scope: String,
    key: Hmac<Sha256>,
}

impl std::fmt::Debug for Day {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Day").field("scope", &self.scope).finish_non_exhaustive()
    }
}

/// `20130524T000000Z`.
pub fn amz_date(now: SystemTime) -> String {
    let at = OffsetDateTime::from(UNIX_EPOCH + now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO));
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", at.hour(), at.minute(), at.second())
}

/// The path of a request in wire form: `/`, `/bucket`, `/bucket/key`.
pub fn encode_path(bucket: Option<&str>, key: Option<&str>) -> String {
    let mut path = String::with_capacity(64);
    for part in [bucket, key].into_iter().flatten() {
        path.push('/');
        path.extend(utf8_percent_encode(part, PATH));
    }
    if path.is_empty() {
        path.push('/');
    }
    path
}

/// A query in wire form, sorted as the signature needs it.
pub fn encode_query(pairs: &[(&str, &str)]) -> String {
    let encode = |text| utf8_percent_encode(text, QUERY).to_string();
    let mut pairs: Vec<(String, String)> = pairs.iter().map(|(name, value)| (encode(name), encode(value))).collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// Hex SHA-256.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

impl Signer {
    /// A signer for these credentials.
    pub fn new(credentials: Credentials) -> Self {
        Self { credentials, day: Mutex::new(None) }
    }

    /// The value of `Authorization`. `date` is the request's `x-amz-date`, which must be among the headers.
    pub fn authorization(&self, date: &str, request: &Signable<'_>) -> String {
        let day = self.day(date.get(..8).unwrap_or_default());
        let mut names = String::with_capacity(96);
        let mut canonical = String::with_capacity(512);
        push(&mut canonical, format_args!("{}\n{}\n{}\n", request.method, request.path, request.query));
        for (name, value) in request.headers {
            push(&mut canonical, format_args!("{name}:{value}\n"));
            if !names.is_empty() {
                names.push(';');
            }
            names.push_str(name);
        }
        push(&mut canonical, format_args!("\n{names}\n{}", request.payload));
        let mut mac = day.key.clone();
        for part in ["AWS4-HMAC-SHA256\n", date, "\n", &day.scope, "\n", &sha256_hex(canonical.as_bytes())] {
            mac.update(part.as_bytes());
        }
        let signature = hex::encode(mac.finalize().into_bytes());
        format!(
            "AWS4-HMAC-SHA256 Credential={}/{},SignedHeaders={names},Signature={signature}",
            self.credentials.access_key, day.scope
        )
    }

    fn day(&self, date: &str) -> Arc<Day> {
        let mut kept = self.day.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(day) = kept.as_ref().filter(|day| day.date == date) {
            return Arc::clone(day);
        }
        let secret = format!("AWS4{}", self.credentials.secret_key.expose_secret());
        let secret = zeroize::Zeroizing::new(secret.into_bytes());
        let key = [date, &self.credentials.region, "s3", "aws4_request"]
            .iter()
            .fold(keyed(&secret), |key, part| keyed(&key.chain_update(part.as_bytes()).finalize().into_bytes()));
        let scope = format!("{date}/{}/s3/aws4_request", self.credentials.region);
        let day = Arc::new(Day { date: date.to_owned(), scope, key });
        *kept = Some(Arc::clone(&day));
        day
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    // HMAC takes keys of any length, so this cannot fail; the fallback keeps the function total.
    Hmac::new_from_slice(key).unwrap_or_else(|_| <Hmac<Sha256> as KeyInit>::new(&Default::default()))
}

fn push(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    out.write_fmt(arguments).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published() -> Signer {
        Signer::new(Credentials {
            access_key: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned().into(),
            region: "us-east-1".into(),
        })
    }

    /// The examples of "Authenticating Requests: Using the Authorization Header" in the S3 API reference.
    #[test]
    fn aws_published_examples_give_the_published_signatures() {
        let get = Signable {
            method: "GET",
            path: "/test.txt",
            query: "",
            headers: &[
                ("host", "examplebucket.s3.amazonaws.com"),
                ("range", "bytes=0-9"),
                ("x-amz-content-sha256", EMPTY_SHA256),
                ("x-amz-date", "20130524T000000Z"),
            ],
            payload: EMPTY_SHA256,
        };
        let signed = published().authorization("20130524T000000Z", &get);
        assert!(signed.ends_with("f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"), "{signed}");

        let list = Signable {
            path: "/",
            query: &encode_query(&[("prefix", "J"), ("max-keys", "2")]),
            headers: &[
                ("host", "examplebucket.s3.amazonaws.com"),
                ("x-amz-content-sha256", EMPTY_SHA256),
                ("x-amz-date", "20130524T000000Z"),
            ],
            ..get
        };
        let signed = published().authorization("20130524T000000Z", &list);
        assert!(signed.ends_with("34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"), "{signed}");
    }

    #[test]
    fn dates_and_paths_have_their_wire_form() {
        assert_eq!(amz_date(UNIX_EPOCH + Duration::from_secs(1_369_353_600)), "20130524T000000Z");
        assert_eq!(encode_path(Some("b"), Some("a b/ü+~//.")), "/b/a%20b/%C3%BC%2B~//.");
        assert_eq!(encode_path(None, None), "/");
        assert_eq!(encode_query(&[("b", "x/y"), ("a", "")]), "a=&b=x%2Fy");
    }

    #[test]
    fn a_new_day_gets_a_new_key() {
        let signer = published();
        let request = Signable { method: "GET", path: "/", query: "", headers: &[], payload: EMPTY_SHA256 };
        let first = signer.authorization("20130524T000000Z", &request);
        let second = signer.authorization("20130525T000000Z", &request);
        assert_ne!(first, second);
        assert_eq!(first, signer.authorization("20130524T000000Z", &request));
    }
}
