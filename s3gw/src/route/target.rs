//! What a request is about: the service, a bucket, or an object; by path or by host.

use drystone_cluster::store::{BucketName, InvalidKey, Key};
use http::Uri;

use super::uri::{Plus, decode_utf8};
use crate::error::{ErrorCode, S3Error};

/// What a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `/` in path style.
    Service,
    /// A bucket.
    Bucket(BucketName),
    /// An object.
    Object(BucketName, Key),
    /// Where functions of Object Lambda put their answers: no place of a bucket, though its path looks like one.
    ObjectLambda,
}

/// The one path of [`Target::ObjectLambda`]. No bucket's name has capitals.
const OBJECT_LAMBDA_PATH: &str = "WriteGetObjectResponse";

/// The bucket label of a virtual-host style `host`, if it is one of `domains`.
pub(crate) fn bucket_of_host<'a>(host: &'a str, domains: &[String]) -> Option<&'a str> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    domains.iter().find_map(|domain| {
        let cut = name.len().checked_sub(domain.len())?;
        let (label, rest) = (name.get(..cut)?, name.get(cut..)?);
        rest.eq_ignore_ascii_case(domain).then(|| label.strip_suffix('.')).flatten().filter(|label| !label.is_empty())
    })
}

fn parse_bucket(text: &str) -> Result<BucketName, S3Error> {
    BucketName::new(text).map_err(|error| S3Error::from(ErrorCode::InvalidBucketName).with("BucketName", error.0))
}

/// Reads a decoded key.
pub(crate) fn parse_key(text: String) -> Result<Key, S3Error> {
    Key::new(text).map_err(|error| match error {
        InvalidKey::TooLong { len } => S3Error::from(ErrorCode::KeyTooLongError)
            .with("Size", len.to_string())
            .with("MaxSizeAllowed", drystone_cluster::store::KEY_LEN_MAX.to_string()),
        InvalidKey::Empty => S3Error::new(ErrorCode::InvalidArgument, "The key is empty."),
    })
}

/// Resolves path and host. Keys are taken literally: `//`, `.` and `..` are characters like any other.
///
/// # Errors
/// `InvalidURI`, `InvalidBucketName`, `KeyTooLongError`.
pub(crate) fn parse_target(uri: &Uri, host: &str, domains: &[String]) -> Result<Target, S3Error> {
    let decoded = |text| decode_utf8(text, Plus::Kept).ok_or_else(|| S3Error::from(ErrorCode::InvalidURI));
    let path = uri.path().strip_prefix('/').unwrap_or(uri.path());
    let (bucket, key) = match bucket_of_host(host, domains) {
        Some(bucket) => (parse_bucket(&bucket.to_ascii_lowercase())?, path),
        None if path.is_empty() => return Ok(Target::Service),
        None if path == OBJECT_LAMBDA_PATH => return Ok(Target::ObjectLambda),
        None => {
            let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
            (parse_bucket(&decoded(bucket)?)?, key)
        }
    };
    if key.is_empty() {
        return Ok(Target::Bucket(bucket));
    }
    Ok(Target::Object(bucket, parse_key(decoded(key)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(uri: &str, host: &str) -> Result<Target, ErrorCode> {
        let domains = ["s3.example.com".to_owned(), "localhost".to_owned()];
        parse_target(&uri.parse().unwrap(), host, &domains).map_err(|error| error.code())
    }

    fn object(bucket: &str, key: &str) -> Result<Target, ErrorCode> {
        Ok(Target::Object(BucketName::new(bucket).unwrap(), Key::new(key).unwrap()))
    }

    #[test]
    fn keys_are_taken_literally() {
        for (path, key) in [
            ("/bkt/a/b/c", "a/b/c"),
            ("/bkt//a//b/", "/a//b/"),
            ("/bkt/../a/./b", "../a/./b"),
            ("/bkt/a+b%20c%2Bd", "a+b c+d"),
            ("/bkt/%E2%82%AC", "€"),
            ("/bkt/%2F", "/"),
            ("/bkt/a%00b", "a\0b"),
        ] {
            assert_eq!(target(path, "node:9000"), object("bkt", key), "{path}");
        }
    }

    #[test]
    fn a_host_may_name_the_bucket() {
        assert_eq!(target("/a/b", "bkt.s3.example.com"), object("bkt", "a/b"));
        assert_eq!(target("/a", "bkt.v2.LOCALHOST:9000"), object("bkt.v2", "a"));
        assert_eq!(target("/", "bkt.localhost"), Ok(Target::Bucket(BucketName::new("bkt").unwrap())));
        assert_eq!(target("/-/live", "bkt.localhost"), object("bkt", "-/live"));
        assert_eq!(target("/bkt/a", "s3.example.com"), object("bkt", "a"));
        assert_eq!(target("/", "s3.example.com"), Ok(Target::Service));
        assert_eq!(target("/WriteGetObjectResponse", "s3.example.com"), Ok(Target::ObjectLambda));
        assert_eq!(target("/WriteGetObjectResponse", "bkt.localhost"), object("bkt", "WriteGetObjectResponse"));
        assert_eq!(target("/bkt", "notlocalhost"), Ok(Target::Bucket(BucketName::new("bkt").unwrap())));
    }

    #[test]
    fn what_cannot_be_a_name_is_refused() {
        assert_eq!(target("/bkt/%ff", "h"), Err(ErrorCode::InvalidURI));
        assert_eq!(target("/bkt/%zz", "h"), Err(ErrorCode::InvalidURI));
        assert_eq!(target("/Bad_Name/k", "h"), Err(ErrorCode::InvalidBucketName));
        assert_eq!(target(&format!("/bkt/{}", "k".repeat(1025)), "h"), Err(ErrorCode::KeyTooLongError));
        assert!(target(&format!("/bkt/{}", "k".repeat(1024)), "h").is_ok());
    }

    proptest::proptest! {
        #[test]
        fn any_path_and_host_is_resolved_or_refused(path in "/[!-~]{0,60}", host in ".{0,30}") {
            if let Ok(uri) = path.parse::<Uri>() {
                drop(parse_target(&uri, &host, &["localhost".to_owned()]));
            }
        }
    }
}
