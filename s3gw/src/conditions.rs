//! Conditional requests: deciding those of reads, and reading those of writes, which the store decides at its commit.
//!
//! RFC 9110 §13.2.2 gives the precedence: `If-Match` before `If-Unmodified-Since`, `If-None-Match` before
//! `If-Modified-Since`, a tag making the date beside it void.

use drystone_cluster::store::{Condition, ETag, EntityTag, ObjectHead};
use http::header::{CACHE_CONTROL, ETAG, EXPIRES, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue};

use crate::error::{ErrorCode, S3Error};
use crate::timestamp::{http_date, parse_http_date};

/// The headers a set of conditions is read from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConditionNames {
    if_match: &'static str,
    if_none_match: &'static str,
    if_modified_since: &'static str,
    if_unmodified_since: &'static str,
}

/// Of the object that is read.
pub(crate) const READ: ConditionNames = ConditionNames {
    if_match: "if-match",
    if_none_match: "if-none-match",
    if_modified_since: "if-modified-since",
    if_unmodified_since: "if-unmodified-since",
};

/// Of the source of a copy.
pub(crate) const COPY_SOURCE: ConditionNames = ConditionNames {
    if_match: "x-amz-copy-source-if-match",
    if_none_match: "x-amz-copy-source-if-none-match",
    if_modified_since: "x-amz-copy-source-if-modified-since",
    if_unmodified_since: "x-amz-copy-source-if-unmodified-since",
};

/// What the conditions of a read come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Go on.
    Proceed,
    /// The client has it already.
    NotModified,
    /// This header's condition does not hold.
    Failed(&'static str),
}

/// Whether a list of tags (or `*`) names `etag`; weak tags are compared by their text.
fn names_tag(list: &str, etag: &str) -> bool {
    list.split(',').any(|tag| {
        let tag = tag.trim();
        let tag = tag.strip_prefix("W/").unwrap_or(tag);
        tag == "*" || tag.trim_matches('"') == etag
    })
}

/// Decides the conditions of a read of a version with this tag and time.
pub(crate) fn decide(names: &ConditionNames, headers: &HeaderMap, etag: ETag, modified_ms: u64) -> Decision {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    // HTTP dates have whole seconds; a date that cannot be read is as if it were not there.
    let date = |name| text(name).and_then(parse_http_date);
    let modified_ms = modified_ms / 1000 * 1000;
    let etag = etag.to_string();
    if let Some(list) = text(names.if_match) {
        if !names_tag(list, &etag) {
            return Decision::Failed("If-Match");
        }
    } else if date(names.if_unmodified_since).is_some_and(|since| modified_ms > since) {
        return Decision::Failed("If-Unmodified-Since");
    }
    if let Some(list) = text(names.if_none_match) {
        if names_tag(list, &etag) {
            return Decision::NotModified;
        }
    } else if date(names.if_modified_since).is_some_and(|since| modified_ms <= since) {
        return Decision::NotModified;
    }
    Decision::Proceed
}

/// [`decide`] for GET and HEAD.
///
/// # Errors
/// `NotModified` (304, with what a cache needs of the head), `PreconditionFailed`.
pub(crate) fn check_read(headers: &HeaderMap, head: &ObjectHead) -> Result<(), S3Error> {
    match decide(&READ, headers, head.etag, head.modified_ms) {
        Decision::Proceed => Ok(()),
        Decision::Failed(header) => Err(failed(header)),
        Decision::NotModified => {
            let mut error = S3Error::from(ErrorCode::NotModified);
            let own = [(ETAG, format!("\"{}\"", head.etag)), (LAST_MODIFIED, http_date(head.modified_ms))];
            // RFC 9110 §15.4.5: what a cache needs to renew its copy.
            let kept = [CACHE_CONTROL, EXPIRES].map(|name| {
                let text = head.metadata.headers.get(name.as_str()).cloned();
                text.map(|text| (name, text))
            });
            for (name, text) in own.into_iter().chain(kept.into_iter().flatten()) {
                if let Ok(value) = HeaderValue::try_from(text) {
                    error = error.with_header(name, value);
                }
            }
            Err(error)
        }
    }
}

/// [`decide`] for the source of a copy, where nothing is ever "not modified".
///
/// # Errors
/// `PreconditionFailed`.
pub(crate) fn check_copy_source(headers: &HeaderMap, head: &ObjectHead) -> Result<(), S3Error> {
    match decide(&COPY_SOURCE, headers, head.etag, head.modified_ms) {
        Decision::Proceed => Ok(()),
        Decision::Failed(_) | Decision::NotModified => Err(failed("x-amz-copy-source-If")),
    }
}

fn failed(header: &str) -> S3Error {
    S3Error::from(ErrorCode::PreconditionFailed).with("Condition", header.to_owned())
}

/// Whether `If-Range` lets a range be served: its tag or date must be exactly the version's.
pub(crate) fn if_range_holds(headers: &HeaderMap, head: &ObjectHead) -> bool {
    match headers.get(http::header::IF_RANGE).map(|value| value.to_str().unwrap_or_default().trim()) {
        None => true,
        Some(tag) if tag.starts_with('"') => tag.trim_matches('"') == head.etag.to_string(),
        Some(date) => parse_http_date(date).is_some_and(|date| date == head.modified_ms / 1000 * 1000),
    }
}

/// The tags of a write's condition. Tags that cannot be ours match nothing.
fn entity_tag(list: &str) -> EntityTag {
    if list.split(',').any(|tag| tag.trim() == "*") {
        return EntityTag::Any;
    }
    EntityTag::OneOf(list.split(',').filter_map(ETag::parse).collect())
}

/// The conditions of a write, for the store to decide.
///
/// # Errors
/// `NotImplemented` for conditions on time, which S3 does not have for writes either.
pub(crate) fn write_condition(headers: &HeaderMap) -> Result<Condition, S3Error> {
    let tags = |name| match headers.get(name) {
        None => Ok(None),
        Some(value) => match value.to_str() {
            Ok(text) => Ok(Some(entity_tag(text))),
            Err(_) => Err(S3Error::argument(name, "", "The condition is not ASCII.")),
        },
    };
    for name in ["if-modified-since", "if-unmodified-since", "x-amz-if-match-last-modified-time", "x-amz-if-match-size"]
    {
        if headers.contains_key(name) {
            return Err(S3Error::not_implemented(name));
        }
    }
    Ok(Condition { if_match: tags("if-match")?, if_none_match: tags("if-none-match")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: ETag = ETag { md5: [0xab; 16], part_count: 2 };
    const MODIFIED_MS: u64 = 1_445_412_480_500;
    const SAME: &str = "Wed, 21 Oct 2015 07:28:00 GMT";
    const BEFORE: &str = "Wed, 21 Oct 2015 07:27:59 GMT";

    fn decided(conditions: &[(&'static str, &str)]) -> Decision {
        let mut headers = HeaderMap::new();
        for (name, value) in conditions {
            headers.insert(*name, HeaderValue::from_str(value).unwrap());
        }
        decide(&READ, &headers, TAG, MODIFIED_MS)
    }

    #[test]
    fn tags_come_before_dates() {
        let tag = format!("\"{TAG}\"");
        let other = "\"00000000000000000000000000000000\"";
        for (conditions, decision) in [
            (&[][..], Decision::Proceed),
            (&[("if-match", &*tag)], Decision::Proceed),
            (&[("if-match", "*")], Decision::Proceed),
            (&[("if-match", other)], Decision::Failed("If-Match")),
            (&[("if-match", &format!("{other}, {tag}"))], Decision::Proceed),
            (&[("if-match", &*tag), ("if-unmodified-since", BEFORE)], Decision::Proceed),
            (&[("if-unmodified-since", BEFORE)], Decision::Failed("If-Unmodified-Since")),
            (&[("if-unmodified-since", SAME)], Decision::Proceed),
            (&[("if-none-match", &*tag)], Decision::NotModified),
            (&[("if-none-match", &*format!("W/{tag}"))], Decision::NotModified),
            (&[("if-none-match", "*")], Decision::NotModified),
            (&[("if-none-match", other)], Decision::Proceed),
            (&[("if-none-match", other), ("if-modified-since", SAME)], Decision::Proceed),
            (&[("if-modified-since", SAME)], Decision::NotModified),
            (&[("if-modified-since", BEFORE)], Decision::Proceed),
            (&[("if-modified-since", "nonsense")], Decision::Proceed),
            (&[("if-match", other), ("if-none-match", &*tag)], Decision::Failed("If-Match")),
        ] {
            assert_eq!(decided(conditions), decision, "{conditions:?}");
        }
    }

    #[test]
    fn conditions_of_writes_are_for_the_store() {
        let mut headers = HeaderMap::new();
        headers.insert("if-none-match", HeaderValue::from_static("*"));
        headers.insert("if-match", HeaderValue::from_str(&format!("\"{TAG}\", nonsense")).unwrap());
        let condition = write_condition(&headers).unwrap();
        assert_eq!(condition.if_none_match, Some(EntityTag::Any));
        assert_eq!(condition.if_match, Some(EntityTag::OneOf(vec![TAG])));
        headers.insert("if-modified-since", HeaderValue::from_static(SAME));
        assert_eq!(write_condition(&headers).unwrap_err().code(), ErrorCode::NotImplemented);
    }
}
