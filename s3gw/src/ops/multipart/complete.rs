//! `CompleteMultipartUpload`.

use bytes::Bytes;
use drystone_cluster::store::{
    BucketName, Checksum, ChecksumKind, CompleteUpload, CompletedPart, ETag, Key, Store, StoreError, Upload,
};
use http_body::Body as HttpBody;

use super::{asked_checksum, upload_id};
use crate::body::{Declared, Incoming, RequestBody};
use crate::checksum;
use crate::conditions;
use crate::error::{ErrorCode, S3Error};
use crate::ops::{Call, checksum_kind_xml, checksum_xml};
use crate::response::{Answer, xml};
use crate::route::{Slash, bucket_of_host, encode_into};
use crate::sig;
use crate::xml::{CompletedPartXml, XmlWriter, parse_complete};

/// A part's checksum as the store shall compare it.
///
/// Where none was asked for, one of another algorithm than is kept was verified when the part came (see `UploadPart`)
/// and is left out; so are all once the upload is gone and this is a repetition.
///
/// # Errors
/// `InvalidRequest` for a part without the checksum that its upload's composite is made of.
fn part_checksum(part: &CompletedPartXml, upload: Option<&Upload>) -> Result<Option<Checksum>, S3Error> {
    let Some(upload) = upload else { return Ok(None) };
    let kept = upload.checksum.map(|(algorithm, _)| algorithm);
    let declared = part.checksum.as_ref();
    let is_kept = declared.is_some_and(|checksum| Some(checksum.algorithm) == kept);
    match asked_checksum(upload) {
        Some((asked, ChecksumKind::Composite)) if !is_kept => Err(S3Error::new(
            ErrorCode::InvalidRequest,
            format!(
                "The upload was created using a {} checksum. The complete request must include the checksum for each \
                 part. It was missing for part {} in the request.",
                checksum::lower_name(asked),
                part.number
            ),
        )),
        Some(_) => Ok(declared.cloned()),
        None => Ok(declared.filter(|_| is_kept).cloned()),
    }
}

/// The parts as the store takes them.
///
/// # Errors
/// `InvalidPart` for a tag that cannot be ours, `InvalidPartOrder`, `InvalidRequest` for a missing checksum.
fn completed(parts: Vec<CompletedPartXml>, upload: Option<&Upload>) -> Result<Vec<CompletedPart>, S3Error> {
    let mut completed: Vec<CompletedPart> = Vec::with_capacity(parts.len());
    for part in parts {
        let number = part.number;
        if completed.last().is_some_and(|before| before.number >= number) {
            return Err(S3Error::from(ErrorCode::InvalidPartOrder));
        }
        let etag = ETag::parse(&part.etag).filter(|etag| etag.part_count == 0).ok_or_else(|| {
            S3Error::from(ErrorCode::InvalidPart).with("PartNumber", number.to_string()).with("ETag", part.etag.clone())
        })?;
        let checksum = part_checksum(&part, upload)?;
        completed.push(CompletedPart { number, etag, checksum });
    }
    Ok(completed)
}

/// The checksum declared for the whole object. A composite one may come without its `-N`.
fn whole_checksum<S>(
    call: &Call<'_, S>,
    upload: Option<&Upload>,
    part_count: usize,
) -> Result<Option<Checksum>, S3Error> {
    let kind = upload.and_then(|upload| upload.checksum).map(|(_, kind)| kind);
    if let (Some(text), Some(kind)) = (call.header("x-amz-checksum-type"), kind)
        && checksum::parse_kind(text) != Some(kind)
    {
        return Err(S3Error::new(
            ErrorCode::InvalidRequest,
            format!(
                "The upload was created using the {} checksum type. The complete request must use the same.",
                checksum::kind_name(kind)
            ),
        ));
    }
    let Some(mut declared) = checksum::declared(&call.head.headers)? else { return Ok(None) };
    if kind == Some(ChecksumKind::Composite) && declared.kind == ChecksumKind::FullObject {
        declared.kind = ChecksumKind::Composite;
        declared.part_count = u32::try_from(part_count).unwrap_or(u32::MAX);
    }
    Ok(Some(declared))
}

fn declared_len<S>(call: &Call<'_, S>) -> Result<Option<u64>, S3Error> {
    let Some(text) = call.header("x-amz-mp-object-size") else { return Ok(None) };
    let len: u64 = text
        .parse()
        .map_err(|_| S3Error::argument("x-amz-mp-object-size", text, "x-amz-mp-object-size is not a length."))?;
    if len > call.config.object_len_max {
        return Err(crate::error::too_large(len, call.config.object_len_max));
    }
    Ok(Some(len))
}

/// The XML, verified. Its checksum headers are about the object, not about this body.
async fn read_parts<S, B>(call: &Call<'_, S>, incoming: Incoming<B>) -> Result<Vec<CompletedPartXml>, S3Error>
where
    B: HttpBody<Data = Bytes> + Send + Unpin,
    B::Error: std::fmt::Display,
{
    let body = RequestBody::new(call.head, incoming, Declared::Nothing, None, call.terms.clone())?;
    parse_complete(&body.collect(call.config.xml_len_max).await?)
}

/// Where the object is, in the style the client addresses it by.
fn location<S>(call: &Call<'_, S>, bucket: &BucketName, key: &Key) -> String {
    let host = sig::host_of(&call.head.headers, &call.head.uri).unwrap_or_default();
    let scheme = if call.config.tls { "https" } else { "http" };
    let mut location = format!("{scheme}://{host}/");
    if bucket_of_host(host, &call.config.domains).is_none() {
        location.push_str(&format!("{bucket}/"));
    }
    encode_into(&mut location, key.as_str().as_bytes(), Slash::Kept);
    location
}

/// `CompleteMultipartUpload`. Repeating it gives the same answer.
pub(in crate::ops) async fn complete<S, B>(
    call: &Call<'_, S>,
    bucket: &BucketName,
    key: &Key,
    incoming: Incoming<B>,
) -> Result<Answer, S3Error>
where
    S: Store,
    B: HttpBody<Data = Bytes> + Send + Unpin,
    B::Error: std::fmt::Display,
{
    let upload = upload_id(call, bucket).await?;
    let parts = read_parts(call, incoming).await?;
    let opened = match call.store.upload(call.context, bucket, key, upload).await {
        Ok(opened) => Some(opened),
        // Perhaps completed already: the store knows.
        Err(StoreError::NoSuchUpload(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let parts = completed(parts, opened.as_ref())?;
    let complete = CompleteUpload {
        bucket: bucket.clone(),
        key: key.clone(),
        upload,
        condition: conditions::write_condition(&call.head.headers)?,
        checksum: whole_checksum(call, opened.as_ref(), parts.len())?,
        len: declared_len(call)?,
        parts,
    };
    let stored = call.store.complete_upload(call.context, complete).await?;
    let mut out = XmlWriter::root("CompleteMultipartUploadResult");
    out.text("Location", &location(call, bucket, key));
    out.plain("Bucket", bucket);
    out.text("Key", key.as_str());
    out.etag(stored.etag);
    checksum_xml(&mut out, stored.checksum.as_ref());
    checksum_kind_xml(&mut out, stored.checksum.as_ref().map(|checksum| checksum.kind));
    out.close("CompleteMultipartUploadResult");
    Ok(xml(out))
}
