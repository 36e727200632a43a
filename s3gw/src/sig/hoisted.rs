//! `x-amz-…` headers that signers put into the query of a presigned URL, back where everybody looks for them.

use std::borrow::Cow;

use http::request::Parts;
use http::{HeaderName, HeaderValue};

use crate::checksum;
use crate::route::Query;

/// Parameters that belong to the signature itself.
const OF_THE_SIGNATURE: [&str; 8] = [
    "x-amz-algorithm",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-signedheaders",
    "x-amz-signature",
    "x-amz-security-token",
    "x-amz-content-sha256",
];

/// The head of a presigned request with its hoisted headers; any other as it is.
///
/// Checksum values are left out, as S3 does: SDKs hoist the checksum of the empty body they sign with, which no upload
/// could match.
pub(crate) fn unhoisted<'a>(head: &'a Parts, query: &Query) -> Cow<'a, Parts> {
    let mut out = Cow::Borrowed(head);
    if !query.has("X-Amz-Signature") {
        return out;
    }
    for (name, value) in query.pairs() {
        let name = name.to_ascii_lowercase();
        let ignored = !name.starts_with("x-amz-")
            || OF_THE_SIGNATURE.contains(&name.as_str())
            || name == "x-amz-sdk-checksum-algorithm"
            || checksum::parse_header_name(&name).is_some();
        if ignored || head.headers.contains_key(&name) {
            continue;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value.as_bytes())) {
            out.to_mut().headers.insert(name, value);
        }
    }
    out
}
