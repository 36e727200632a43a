//! `GetObjectAttributes`.

use drystone_cluster::store::{BucketName, Key, ObjectHead, Reader as _, Store};
use http::header::LAST_MODIFIED;

use crate::conditions;
use crate::error::{ErrorCode, S3Error};
use crate::ops::{Call, checksum_kind_xml, checksum_xml};
use crate::response::{Answer, set, xml};
use crate::timestamp::http_date;
use crate::xml::XmlWriter;

const NAMES: [&str; 5] = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"];
const PART_COUNT_MAX: usize = 1000;

/// `GetObjectAttributes`.
pub(in crate::ops) async fn attributes<S: Store>(
    call: &Call<'_, S>,
    bucket: &BucketName,
    key: &Key,
) -> Result<Answer, S3Error> {
    call.check_version(key)?;
    let asked = call.header("x-amz-object-attributes").unwrap_or_default();
    let names: Vec<&str> = asked.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if names.is_empty() || names.iter().any(|name| !NAMES.contains(name)) {
        return Err(S3Error::argument("x-amz-object-attributes", asked, "Invalid attribute name specified."));
    }
    let reader = call.store.open_object(call.context, bucket, key).await?;
    let head = reader.head();
    conditions::check_read(&call.head.headers, head)?;
    let mut out = XmlWriter::root("GetObjectAttributesResponse");
    for name in NAMES.into_iter().filter(|name| names.contains(name)) {
        match name {
            "ETag" => out.plain("ETag", head.etag),
            "Checksum" if head.checksum.is_some() => {
                out.open("Checksum");
                checksum_xml(&mut out, head.checksum.as_ref());
                checksum_kind_xml(&mut out, head.checksum.as_ref().map(|checksum| checksum.kind));
                out.close("Checksum");
            }
            "ObjectParts" if !head.parts.is_empty() => parts(call, head, &mut out)?,
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

fn number<S>(call: &Call<'_, S>, name: &str, default: usize) -> Result<usize, S3Error> {
    match call.header(name) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| {
            S3Error::new(ErrorCode::InvalidArgument, format!("{name} must be a number"))
                .with("ArgumentValue", text.to_owned())
        }),
    }
}

fn parts<S>(call: &Call<'_, S>, head: &ObjectHead, out: &mut XmlWriter) -> Result<(), S3Error> {
    let count_max = number(call, "x-amz-max-parts", PART_COUNT_MAX)?.min(PART_COUNT_MAX);
    let marker = number(call, "x-amz-part-number-marker", 0)?;
    let after = |number: u32| usize::try_from(number).unwrap_or(usize::MAX) > marker;
    let mut rest = head.parts.iter().filter(|part| after(part.number));
    let page: Vec<_> = rest.by_ref().take(count_max).collect();
    out.open("ObjectParts");
    out.plain("PartsCount", head.parts.len());
    out.plain("PartNumberMarker", marker);
    if let Some(last) = page.last() {
        out.plain("NextPartNumberMarker", last.number);
    }
    out.plain("MaxParts", count_max);
    out.plain("IsTruncated", rest.next().is_some());
    for part in page {
        out.open("Part");
        checksum_xml(out, part.checksum.as_ref());
        out.plain("PartNumber", part.number);
        out.plain("Size", part.len);
        out.close("Part");
    }
    out.close("ObjectParts");
    Ok(())
}
