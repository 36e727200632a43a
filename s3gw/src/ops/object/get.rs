//! `GetObject` and `HeadObject`: the same but for the body.

use std::ops::Range;

use bytes::Bytes;
use drystone_cluster::store::{BucketName, Checksum, Key, ObjectHead, Read as _, Reader as _, Store, StoreError};
use http::header::{ACCEPT_RANGES, CONTENT_RANGE, LAST_MODIFIED};
use http::{HeaderName, HeaderValue, StatusCode};

use crate::error::{ErrorCode, S3Error};
use crate::ops::{Call, set_checksum};
use crate::range::{self, Selection};
use crate::response::{Answer, GatewayBody, empty, set, set_etag, set_len};
use crate::timestamp::http_date;
use crate::{conditions, metadata};

const PARTS_COUNT: HeaderName = HeaderName::from_static("x-amz-mp-parts-count");

/// Which bytes a read is answered with, and how that is said.
#[derive(Debug)]
struct View<'a> {
    range: Range<u64>,
    /// Whether the answer is 206 with `Content-Range`.
    partial: bool,
    /// The checksum of just these bytes, if there is one.
    checksum: Option<&'a Checksum>,
    /// Said only when a part was asked for.
    part_count: Option<usize>,
}

/// `GetObject`.
pub(in crate::ops) async fn get<S: Store>(
    call: &Call<'_, S>,
    bucket: &BucketName,
    key: &Key,
) -> Result<Answer, S3Error> {
    call.check_version(bucket, key).await?;
    let reader = call.store.open_object(call.context, bucket, key).await?;
    let head = reader.head();
    conditions::check_read(&call.head.headers, head)?;
    let view = view(call, head)?;
    let mut answer = answer(call, head, &view)?;
    let len = view.range.end - view.range.start;
    if len > 0 {
        let mut read = reader.read(view.range);
        // The first bytes are awaited before the status goes out, so that an object that cannot be read is an error and
        // not a broken transfer.
        let first = read.chunk().await?.ok_or_else(|| StoreError::Internal(format!("no bytes of {len}")))?;
        *answer.body_mut() = GatewayBody::stored(first, read, len);
    }
    Ok(answer)
}

/// `HeadObject`.
pub(in crate::ops) async fn head<S: Store>(
    call: &Call<'_, S>,
    bucket: &BucketName,
    key: &Key,
) -> Result<Answer, S3Error> {
    call.check_version(bucket, key).await?;
    let reader = call.store.open_object(call.context, bucket, key).await?;
    let head = reader.head();
    conditions::check_read(&call.head.headers, head)?;
    let view = view(call, head)?;
    let mut answer = answer(call, head, &view)?;
    set_len(&mut answer, view.range.end - view.range.start);
    *answer.body_mut() = GatewayBody::whole(Bytes::new());
    Ok(answer)
}

fn view<'a, S>(call: &Call<'_, S>, head: &'a ObjectHead) -> Result<View<'a>, S3Error> {
    let range = call.header("range");
    if let Some(number) = call.query.get("partNumber") {
        if range.is_some() {
            return Err(S3Error::new(
                ErrorCode::InvalidRequest,
                "Cannot specify both Range header and partNumber query parameter",
            ));
        }
        return part_view(number, head);
    }
    let whole = View { range: 0..head.len, partial: false, checksum: head.checksum.as_ref(), part_count: None };
    let Some(header) = range.filter(|_| conditions::if_range_holds(&call.head.headers, head)) else { return Ok(whole) };
    match range::select(header, head.len) {
        Selection::Whole => Ok(whole),
        Selection::Part(range) => Ok(View { range, partial: true, checksum: None, part_count: None }),
        Selection::Unsatisfiable => Err(unsatisfiable(header, head.len)),
    }
}

fn unsatisfiable(header: &str, len: u64) -> S3Error {
    let error = S3Error::from(ErrorCode::InvalidRange)
        .with("RangeRequested", header.to_owned())
        .with("ActualObjectSize", len.to_string());
    match HeaderValue::try_from(format!("bytes */{len}")) {
        Ok(value) => error.with_header(CONTENT_RANGE, value),
        Err(_) => error,
    }
}

/// A part by the number it was uploaded with. An object put whole is its own part 1.
fn part_view<'a>(text: &str, head: &'a ObjectHead) -> Result<View<'a>, S3Error> {
    let number: u32 = text.parse().ok().filter(|number| (1..=10_000).contains(number)).ok_or_else(|| {
        S3Error::argument("partNumber", text, "Part number must be an integer between 1 and 10000, inclusive")
    })?;
    if head.parts.is_empty() && number == 1 {
        let checksum = head.checksum.as_ref();
        return Ok(View { range: 0..head.len, partial: head.len > 0, checksum, part_count: None });
    }
    let found = head.parts.iter().find(|part| part.number == number);
    let part = found
        .ok_or_else(|| S3Error::from(ErrorCode::InvalidPartNumber).with("PartNumberRequested", text.to_owned()))?;
    let end = part.offset.saturating_add(part.len).min(head.len);
    Ok(View {
        range: part.offset.min(end)..end,
        partial: end > part.offset,
        checksum: part.checksum.as_ref(),
        part_count: Some(head.parts.len()),
    })
}

fn answer<S>(call: &Call<'_, S>, head: &ObjectHead, view: &View<'_>) -> Result<Answer, S3Error> {
    let mut answer = empty(if view.partial { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK });
    metadata::write(&mut answer, &head.metadata);
    metadata::apply_overrides(&mut answer, call.query)?;
    set_etag(&mut answer, head.etag);
    set(&mut answer, LAST_MODIFIED, &http_date(head.modified_ms));
    answer.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if view.partial {
        let Range { start, end } = view.range;
        set(&mut answer, CONTENT_RANGE, &format!("bytes {start}-{}/{}", end.saturating_sub(1), head.len));
    }
    if let Some(count) = view.part_count {
        answer.headers_mut().insert(PARTS_COUNT, HeaderValue::from(count));
    }
    if call.header("x-amz-checksum-mode").is_some_and(|mode| mode.eq_ignore_ascii_case("enabled")) {
        set_checksum(&mut answer, view.checksum);
    }
    Ok(answer)
}
