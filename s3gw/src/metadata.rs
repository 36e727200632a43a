//! What an object carries besides its bytes: from the headers of a write, to the headers of a read.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use drystone_cluster::store::ObjectMetadata;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::error::{ErrorCode, S3Error};
use crate::response::{Answer, set};
use crate::route::Query;

/// AWS's bound on names and values of user metadata together
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html>).
const USER_LEN_MAX: usize = 2048;
const USER_PREFIX: &str = "x-amz-meta-";

/// The standard headers that are kept.
const KEPT: [&str; 7] = [
    "content-type",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
    "x-amz-website-redirect-location",
];

/// What an object has if its client names no type, as AWS.
const DEFAULT_CONTENT_TYPE: &str = "binary/octet-stream";

/// `response-…` parameters and the headers they replace.
const OVERRIDES: [(&str, &str); 6] = [
    ("response-cache-control", "cache-control"),
    ("response-content-disposition", "content-disposition"),
    ("response-content-encoding", "content-encoding"),
    ("response-content-language", "content-language"),
    ("response-content-type", "content-type"),
    ("response-expires", "expires"),
];

/// Text of a header: UTF-8 as it is, anything else read as Latin-1.
fn text(value: &HeaderValue) -> String {
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => text.to_owned(),
        Err(_) => value.as_bytes().iter().map(|byte| char::from(*byte)).collect(),
    }
}

/// The value of `Content-Encoding` without `aws-chunked`, which is the transfer's and not the object's.
fn object_encoding(value: &str) -> Option<String> {
    let kept: Vec<&str> = value
        .split(',')
        .map(str::trim)
        .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("aws-chunked"))
        .collect();
    (!kept.is_empty()).then(|| kept.join(", "))
}

/// Reads what a write's headers say about the object.
///
/// # Errors
/// `MetadataTooLarge`; `InvalidArgument` for a redirect that is none.
pub(crate) fn parse(headers: &HeaderMap) -> Result<ObjectMetadata, S3Error> {
    let mut metadata = ObjectMetadata::default();
    for name in KEPT {
        let Some(value) = headers.get(name) else { continue };
        let value = match name {
            "content-encoding" => object_encoding(&text(value)),
            _ => Some(text(value)),
        };
        if let Some(value) = value {
            metadata.headers.insert(name.to_owned(), value);
        }
    }
    if let Some(redirect) = metadata.headers.get("x-amz-website-redirect-location")
        && !["/", "http://", "https://"].iter().any(|start| redirect.starts_with(start))
    {
        return Err(S3Error::argument(
            "x-amz-website-redirect-location",
            redirect,
            "The website redirect location must have a prefix of 'http://' or 'https://' or '/'.",
        ));
    }
    metadata.user = parse_user(headers)?;
    Ok(metadata)
}

fn parse_user(headers: &HeaderMap) -> Result<BTreeMap<String, String>, S3Error> {
    let mut user: BTreeMap<String, String> = BTreeMap::new();
    let mut len = 0;
    for (name, value) in headers {
        let Some(short) = name.as_str().strip_prefix(USER_PREFIX).filter(|short| !short.is_empty()) else { continue };
        len += short.len() + value.len();
        let value = text(value);
        // A header given twice is one with both values, as HTTP has it.
        match user.get_mut(short) {
            Some(found) => {
                found.push(',');
                found.push_str(&value);
            }
            None => {
                user.insert(short.to_owned(), value);
            }
        }
    }
    if len > USER_LEN_MAX {
        return Err(S3Error::from(ErrorCode::MetadataTooLarge)
            .with("Size", len.to_string())
            .with("MaxSizeAllowed", USER_LEN_MAX.to_string()));
    }
    Ok(user)
}

/// Bytes of text in one encoded word, which has at most 75 characters (RFC 2047 §2).
const WORD_TEXT_MAX: usize = 45;

/// Text as RFC 2047 has it in headers: ASCII as it is, else in words of base64. S3 takes UTF-8 and answers this.
fn mail_safe(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut words = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.floor_char_boundary(WORD_TEXT_MAX));
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str("=?UTF-8?B?");
        BASE64.encode_string(word, &mut words);
        words.push_str("?=");
        rest = after;
    }
    Cow::Owned(words)
}

/// Puts metadata on the answer of a read.
pub(crate) fn write(answer: &mut Answer, metadata: &ObjectMetadata) {
    if !metadata.headers.contains_key("content-type") {
        set(answer, http::header::CONTENT_TYPE, DEFAULT_CONTENT_TYPE);
    }
    for (name, value) in &metadata.headers {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            set(answer, name, value);
        }
    }
    for (name, value) in &metadata.user {
        if let Ok(name) = HeaderName::try_from(format!("{USER_PREFIX}{name}")) {
            set(answer, name, &mail_safe(value));
        }
    }
}

/// Replaces headers by the `response-…` parameters of a (signed) request.
///
/// # Errors
/// `InvalidArgument` for a value that cannot stand in a header.
pub(crate) fn apply_overrides(answer: &mut Answer, query: &Query) -> Result<(), S3Error> {
    for (parameter, header) in OVERRIDES {
        let Some(value) = query.get(parameter) else { continue };
        let value = HeaderValue::from_bytes(value.as_bytes())
            .map_err(|_| S3Error::argument(parameter, value, "The value cannot stand in a header."))?;
        answer.headers_mut().insert(HeaderName::from_static(header), value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn metadata_keeps_what_clients_gave() {
        let metadata = parse(&headers(&[
            ("content-type", b"text/plain"),
            ("content-encoding", b"aws-chunked,gzip"),
            ("x-amz-meta-a", b"one"),
            ("x-amz-meta-a", b"two"),
            ("x-amz-meta-utf8", "grün".as_bytes()),
            ("x-amz-meta-latin1", b"gr\xfcn"),
            ("host", b"h"),
        ]))
        .unwrap();
        assert_eq!(metadata.headers["content-encoding"], "gzip");
        assert_eq!(metadata.headers.len(), 2);
        assert_eq!(metadata.user["a"], "one,two");
        assert_eq!(metadata.user["utf8"], "grün");
        assert_eq!(metadata.user["latin1"], "grün");
        let mut answer = crate::response::empty(http::StatusCode::OK);
        write(&mut answer, &metadata);
        assert_eq!(answer.headers()["x-amz-meta-a"], "one,two");
        assert_eq!(answer.headers()["x-amz-meta-utf8"], "=?UTF-8?B?Z3LDvG4=?=");
        assert_eq!(answer.headers()["content-type"], "text/plain");
    }

    #[test]
    fn long_text_is_several_words_of_whole_characters() {
        assert_eq!(mail_safe("=?UTF-8?Q?as_given?= x"), "=?UTF-8?Q?as_given?= x");
        let text = "a€".repeat(30);
        let words = mail_safe(&text);
        let decoded: String = words
            .split(' ')
            .map(|word| {
                assert!(word.len() <= 75, "{word}");
                let base64 = word.strip_prefix("=?UTF-8?B?").unwrap().strip_suffix("?=").unwrap();
                String::from_utf8(BASE64.decode(base64).unwrap()).unwrap()
            })
            .collect();
        assert_eq!(decoded, text);
        assert_eq!(words.split(' ').count(), 3);
    }

    #[test]
    fn a_transfer_encoding_is_not_the_objects() {
        assert_eq!(object_encoding("aws-chunked"), None);
        assert_eq!(object_encoding("gzip, AWS-Chunked").as_deref(), Some("gzip"));
        assert_eq!(object_encoding(""), None);
    }

    #[test]
    fn more_than_2_kib_of_user_metadata_are_too_large() {
        let fits = vec![b'v'; USER_LEN_MAX - 1];
        assert!(parse(&headers(&[("x-amz-meta-k", &fits)])).is_ok());
        let over = vec![b'v'; USER_LEN_MAX];
        let error = parse(&headers(&[("x-amz-meta-k", &over)])).unwrap_err();
        assert_eq!(error.code(), ErrorCode::MetadataTooLarge);
    }
}
