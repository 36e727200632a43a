//! `ListParts` and `ListMultipartUploads`.

use drystone_cluster::store::{BucketName, Key, PartQuery, Store, UploadId, UploadPage, UploadQuery};

use super::upload_id;
use crate::error::S3Error;
use crate::ops::list::checksum_algorithm;
use crate::ops::{Call, checksum_xml, owner};
use crate::response::{Answer, xml};
use crate::xml::XmlWriter;

/// AWS's bound on a page of either.
const PAGE_MAX: usize = 1000;

/// `ListParts`.
pub(in crate::ops) async fn list_parts<S: Store>(
    call: &Call<'_, S>,
    bucket: &BucketName,
    key: &Key,
) -> Result<Answer, S3Error> {
    let upload = upload_id(call, bucket).await?;
    let encoding = call.encoding()?;
    let part_count_max = call.count("max-parts", PAGE_MAX, PAGE_MAX)?;
    let marker = call.count("part-number-marker", 0, usize::MAX)?;
    let after = u32::try_from(marker).unwrap_or(u32::MAX);
    let query = PartQuery { bucket: bucket.clone(), key: key.clone(), upload, after, part_count_max };
    let page = call.store.list_parts(call.context, query).await?;
    let mut out = XmlWriter::root("ListPartsResult");
    out.plain("Bucket", bucket);
    encoding.declare(&mut out);
    encoding.text(&mut out, "Key", key.as_str());
    out.plain("UploadId", upload);
    owner(&mut out, "Initiator", &call.config.owner_id);
    owner(&mut out, "Owner", &call.config.owner_id);
    out.plain("StorageClass", "STANDARD");
    out.plain("PartNumberMarker", after);
    out.plain("NextPartNumberMarker", page.parts.last().map_or(after, |part| part.number));
    out.plain("MaxParts", part_count_max);
    // A page of none leads nowhere: a client that followed it would never end.
    out.plain("IsTruncated", page.truncated && part_count_max > 0);
    checksum_algorithm(&mut out, page.upload.checksum.as_ref());
    for part in &page.parts {
        out.open("Part");
        out.plain("PartNumber", part.number);
        out.time("LastModified", part.modified_ms);
        out.etag(part.etag);
        out.plain("Size", part.len);
        checksum_xml(&mut out, part.checksum.as_ref());
        out.close("Part");
    }
    out.close("ListPartsResult");
    Ok(xml(out))
}

/// `ListMultipartUploads`.
pub(in crate::ops) async fn list_uploads<S: Store>(call: &Call<'_, S>, bucket: &BucketName) -> Result<Answer, S3Error> {
    let text = |name| call.query.get(name).filter(|text| !text.is_empty());
    let encoding = call.encoding()?;
    let entry_count_max = call.count("max-uploads", PAGE_MAX, PAGE_MAX)?;
    let (prefix, delimiter) = (text("prefix").unwrap_or_default(), text("delimiter"));
    let (key_marker, upload_marker) = (text("key-marker"), text("upload-id-marker"));
    // Without a key marker an upload marker means nothing, as AWS has it.
    let upload_after = match upload_marker.filter(|_| key_marker.is_some()) {
        None => None,
        Some(marker) => Some(
            UploadId::parse(marker)
                .ok_or_else(|| S3Error::argument("upload-id-marker", marker, "Invalid uploadId marker"))?,
        ),
    };
    let page = if entry_count_max == 0 {
        call.store.bucket(call.context, bucket).await?;
        UploadPage { uploads: Vec::new(), prefixes: Vec::new(), truncated: false, next: None }
    } else {
        let query = UploadQuery {
            bucket: bucket.clone(),
            prefix: prefix.to_owned(),
            delimiter: delimiter.map(str::to_owned),
            key_after: key_marker.map(str::to_owned),
            upload_after,
            entry_count_max,
        };
        call.store.list_uploads(call.context, query).await?
    };
    let mut out = XmlWriter::root("ListMultipartUploadsResult");
    out.plain("Bucket", bucket);
    encoding.declare(&mut out);
    encoding.text(&mut out, "KeyMarker", key_marker.unwrap_or_default());
    out.text("UploadIdMarker", upload_marker.unwrap_or_default());
    if let Some((key, upload)) = page.next.as_ref().filter(|_| page.truncated) {
        encoding.text(&mut out, "NextKeyMarker", key);
        if let Some(upload) = upload {
            out.plain("NextUploadIdMarker", upload);
        }
    }
    encoding.text(&mut out, "Prefix", prefix);
    encoding.text_if(&mut out, "Delimiter", delimiter);
    out.plain("MaxUploads", entry_count_max);
    out.plain("IsTruncated", page.truncated);
    for upload in &page.uploads {
        out.open("Upload");
        encoding.text(&mut out, "Key", upload.key.as_str());
        out.plain("UploadId", upload.upload);
        owner(&mut out, "Initiator", &call.config.owner_id);
        owner(&mut out, "Owner", &call.config.owner_id);
        out.plain("StorageClass", "STANDARD");
        out.time("Initiated", upload.started_ms);
        checksum_algorithm(&mut out, upload.checksum.as_ref());
        out.close("Upload");
    }
    for prefix in &page.prefixes {
        out.open("CommonPrefixes");
        encoding.text(&mut out, "Prefix", prefix);
        out.close("CommonPrefixes");
    }
    out.close("ListMultipartUploadsResult");
    Ok(xml(out))
}
