//! Headers that ask for what this gateway does not have. They are refused, never ignored: a client that asks for
//! encryption or a lock must not believe it got them.

use http::HeaderMap;

use crate::error::{ErrorCode, S3Error};

/// Refused wherever they stand, whatever their value.
const REFUSED: [&str; 5] = [
    "x-amz-mfa",
    "x-amz-write-offset-bytes",
    "x-amz-bypass-governance-retention",
    "x-amz-server-side-encryption",
    "x-amz-rename-source",
];

/// Refused by the beginning of their name.
const REFUSED_PREFIXES: [&str; 5] = [
    "x-amz-server-side-encryption-",
    "x-amz-copy-source-server-side-encryption-",
    "x-amz-object-lock-",
    "x-amz-grant-",
    "x-amz-object-annotation-",
];

/// Canned ACLs that say what is the case anyway: everything belongs to one owner, who may do everything.
const TRUE_ACLS: [&str; 2] = ["private", "bucket-owner-full-control"];
const OTHER_ACLS: [&str; 6] = [
    "public-read",
    "public-read-write",
    "authenticated-read",
    "aws-exec-read",
    "bucket-owner-read",
    "log-delivery-write",
];

const OTHER_STORAGE_CLASSES: [&str; 10] = [
    "REDUCED_REDUNDANCY",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER",
    "DEEP_ARCHIVE",
    "OUTPOSTS",
    "GLACIER_IR",
    "SNOW",
    "EXPRESS_ONEZONE",
];

/// Checks all headers of a request against what is not there.
///
/// # Errors
/// `NotImplemented`, `InvalidArgument`, `InvalidStorageClass`; `AccessDenied` for another expected owner.
pub(crate) fn check(headers: &HeaderMap, owner_id: &str) -> Result<(), S3Error> {
    for (name, value) in headers {
        let name = name.as_str();
        if !name.starts_with("x-amz-") {
            continue;
        }
        let value = value.to_str().unwrap_or_default();
        if REFUSED.contains(&name) || REFUSED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            return Err(S3Error::not_implemented(name));
        }
        check_value(name, value, owner_id)?;
    }
    Ok(())
}

fn check_value(name: &str, value: &str, owner_id: &str) -> Result<(), S3Error> {
    match name {
        "x-amz-acl" if TRUE_ACLS.contains(&value) => Ok(()),
        "x-amz-acl" if OTHER_ACLS.contains(&value) => Err(S3Error::not_implemented(&format!("The ACL {value}"))),
        "x-amz-acl" => Err(S3Error::argument(name, value, "The canned ACL is not known.")),
        "x-amz-storage-class" if value == "STANDARD" => Ok(()),
        "x-amz-storage-class" if OTHER_STORAGE_CLASSES.contains(&value) => {
            Err(S3Error::not_implemented(&format!("The storage class {value}")))
        }
        "x-amz-storage-class" => Err(S3Error::from(ErrorCode::InvalidStorageClass)),
        "x-amz-tagging" if value.is_empty() => Ok(()),
        "x-amz-tagging" => Err(S3Error::not_implemented("Tagging")),
        "x-amz-tagging-directive" if matches!(value, "COPY" | "REPLACE") => Ok(()),
        "x-amz-tagging-directive" => Err(S3Error::argument(name, value, "Unknown tagging directive.")),
        "x-amz-bucket-object-lock-enabled" if value.eq_ignore_ascii_case("false") => Ok(()),
        "x-amz-bucket-object-lock-enabled" => Err(S3Error::not_implemented("Object Lock")),
        "x-amz-object-ownership" if value == "BucketOwnerEnforced" => Ok(()),
        "x-amz-object-ownership" => Err(S3Error::not_implemented(&format!("The object ownership {value}"))),
        "x-amz-request-payer" if value == "requester" => Ok(()),
        "x-amz-request-payer" => Err(S3Error::argument(name, value, "Unknown request payer.")),
        "x-amz-expected-bucket-owner" | "x-amz-source-expected-bucket-owner" if value == owner_id => Ok(()),
        "x-amz-expected-bucket-owner" | "x-amz-source-expected-bucket-owner" => {
            Err(S3Error::from(ErrorCode::AccessDenied))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn what_is_not_there_is_refused_and_what_is_true_is_not() {
        for (name, value, code) in [
            ("x-amz-acl", "private", None),
            ("x-amz-acl", "public-read", Some(ErrorCode::NotImplemented)),
            ("x-amz-acl", "nonsense", Some(ErrorCode::InvalidArgument)),
            ("x-amz-storage-class", "STANDARD", None),
            ("x-amz-storage-class", "GLACIER", Some(ErrorCode::NotImplemented)),
            ("x-amz-storage-class", "nonsense", Some(ErrorCode::InvalidStorageClass)),
            ("x-amz-server-side-encryption", "AES256", Some(ErrorCode::NotImplemented)),
            ("x-amz-server-side-encryption-customer-key", "k", Some(ErrorCode::NotImplemented)),
            ("x-amz-object-lock-mode", "GOVERNANCE", Some(ErrorCode::NotImplemented)),
            ("x-amz-tagging", "a=b", Some(ErrorCode::NotImplemented)),
            ("x-amz-grant-read", "id=1", Some(ErrorCode::NotImplemented)),
            ("x-amz-expected-bucket-owner", "me", None),
            ("x-amz-expected-bucket-owner", "123456789012", Some(ErrorCode::AccessDenied)),
            ("x-amz-meta-anything", "x", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            assert_eq!(check(&headers, "me").err().map(|error| error.code()), code, "{name}: {value}");
        }
    }
}
