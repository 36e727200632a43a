//! `GetObjectAttributes`.

use drystone_cluster::store::{BucketName, Checksum, ChecksumKind, Key, ObjectHead, Reader as _, Store};
use http::HeaderMap;
use http::header::LAST_MODIFIED;

use crate::checksum;
use crate::conditions;
use crate::error::{ErrorCode, S3Error};
use crate::ops::{Call, checksum_kind_xml, checksum_xml};
use crate::response::{Answer, set, xml};
use crate::timestamp::http_date;
use crate::xml::XmlWriter;

const ASKED: &str = "x-amz-object-attributes";
const NAMES: [&str; 5] = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"];
const PART_COUNT_MAX: usize = 1000;

/// The attributes asked for: in one header, or in several, as the SDK for Go sends them.
///
/// # Errors
/// `InvalidRequest` for none, `InvalidArgument` for one there is not.
fn asked(headers: &HeaderMap) -> Result<Vec<&str>, S3Error> {
    let values = headers.get_all(ASKED).iter().map(|value| value.to_str().unwrap_or_default());
    let names: Vec<&str> =
        values.flat_map(|value| value.split(',')).map(str::trim).filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Err(S3Error::new(
            ErrorCode::InvalidRequest,
            "The x-amz-object-attributes header specifying the attributes to be retrieved is either missing or empty",
        ));
    }
    match names.iter().find(|name| !NAMES.contains(name)) {
        Some(unknown) => Err(S3Error::argument(ASKED, unknown, "Invalid attribute name specified.")),
        None => Ok(names),
    }
}

/// `GetObjectAttributes`.
pub(in crate::ops) async fn attributes<S: Store>(
    call: &Call<'_, S>,
    bucket: &BucketName,
    key: &Key,
) -> Result<Answer, S3Error> {
    call.check_version(bucket, key).await?;
    let names = asked(&call.head.headers)?;
    let reader = call.store.open_object(call.context, bucket, key).await?;
    let head = reader.head();
    conditions::check_read(&call.head.headers, head)?;
    let mut out = XmlWriter::root("GetObjectAttributesResponse");
    for name in NAMES.into_iter().filter(|name| names.contains(name)) {
        match name {
            "ETag" => out.plain("ETag", head.etag),
            "Checksum" => whole_checksum(head.checksum.as_ref(), &mut out),
            "ObjectParts" if !head.parts.is_empty() => parts(call, head, &mut out),
            "StorageClass" => out.plain("StorageClass", "STANDARD"),
            "ObjectSize" => out.plain("ObjectSize", head.len),
            _ => {}
        }
    }
    out.close("GetObjectAttributesResponse");
    let mut answer = xml(out);
    set(&mut answer, LAST_MODIFIED, &http_date(head.modified_ms));
    Ok(answer)
}

/// Here alone S3 writes a composite checksum without its number of parts.
fn whole_checksum(checksum: Option<&Checksum>, out: &mut XmlWriter) {
    let Some(checksum) = checksum else { return };
    out.open("Checksum");
    out.plain(checksum::element(checksum.algorithm), checksum::format_digest(checksum));
    checksum_kind_xml(out, Some(checksum.kind));
    out.close("Checksum");
}

/// A number in a header; S3 passes over what is none.
fn number<S>(call: &Call<'_, S>, name: &str, default: usize) -> usize {
    call.header(name).and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// How many parts the object has, and of one with a composite checksum a page of them. S3 keeps the parts of no other.
fn parts<S>(call: &Call<'_, S>, head: &ObjectHead, out: &mut XmlWriter) {
    out.open("ObjectParts");
    out.plain("PartsCount", head.parts.len());
    if head.checksum.as_ref().is_some_and(|checksum| checksum.kind == ChecksumKind::Composite) {
        page_of_parts(call, head, out);
    }
    out.close("ObjectParts");
}

fn page_of_parts<S>(call: &Call<'_, S>, head: &ObjectHead, out: &mut XmlWriter) {
    let count_max = number(call, "x-amz-max-parts", PART_COUNT_MAX).min(PART_COUNT_MAX);
    let marker = number(call, "x-amz-part-number-marker", 0);
    let after = |number: u32| usize::try_from(number).unwrap_or(usize::MAX) > marker;
    let mut rest = head.parts.iter().filter(|part| after(part.number));
    let page: Vec<_> = rest.by_ref().take(count_max).collect();
    out.plain("PartNumberMarker", marker);
    if let Some(last) = page.last() {
        out.plain("NextPartNumberMarker", last.number);
    }
    out.plain("MaxParts", count_max);
    // A page of none leads nowhere, so nothing follows it.
    out.plain("IsTruncated", count_max > 0 && rest.next().is_some());
    for part in page {
        out.open("Part");
        checksum_xml(out, part.checksum.as_ref());
        out.plain("PartNumber", part.number);
        out.plain("Size", part.len);
        out.close("Part");
    }
}
