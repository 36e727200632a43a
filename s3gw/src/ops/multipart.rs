//! The multipart family.

mod complete;
mod listing;
mod part;

use drystone_cluster::store::{BucketName, ChecksumAlgorithm, ChecksumKind, Key, NewUpload, Store, Upload, UploadId};
use http::{HeaderName, StatusCode};

pub(super) use complete::complete;
pub(super) use listing::{list_parts, list_uploads};
pub(super) use part::{upload_part, upload_part_copy};

use super::Call;
use crate::checksum::{self, DEFAULT_ALGORITHM};
use crate::error::{ErrorCode, S3Error};
use crate::metadata;
use crate::response::{Answer, empty, set, xml};
use crate::xml::XmlWriter;

/// The upload a request names. What cannot be an id names no upload; but that there is no such bucket comes first.
///
/// # Errors
/// `NoSuchBucket`, `NoSuchUpload`.
async fn upload_id<S: Store>(call: &Call<'_, S>, bucket: &BucketName) -> Result<UploadId, S3Error> {
    let text = call.query.get("uploadId").unwrap_or_default();
    if let Some(upload) = UploadId::parse(text) {
        return Ok(upload);
    }
    call.store.bucket(call.context, bucket).await?;
    Err(S3Error::from(ErrorCode::NoSuchUpload).with("UploadId", text.to_owned()))
}

/// The part a request names.
fn part_number<S>(call: &Call<'_, S>) -> Result<u32, S3Error> {
    let text = call.query.get("partNumber").unwrap_or_default();
    let number = text.parse().ok().filter(|number| (1..=drystone_cluster::store::PART_NUMBER_MAX).contains(number));
    number.ok_or_else(|| {
        S3Error::argument("partNumber", text, "Part number must be an integer between 1 and 10000, inclusive")
    })
}

/// The checksum an upload's client asked for. Full-object CRC64NVME is also what an upload gets whose client asked for
/// none, and the two cannot be told apart.
fn asked_checksum(upload: &Upload) -> Option<(ChecksumAlgorithm, ChecksumKind)> {
    upload.checksum.filter(|checksum| *checksum != (DEFAULT_ALGORITHM, ChecksumKind::FullObject))
}

/// The checksum the object shall have; `None` if the client says nothing.
///
/// # Errors
/// `InvalidRequest` for what S3 does not combine: SHA digests cover no whole object, CRC64NVME no parts.
fn parse_asked_checksum<S>(call: &Call<'_, S>) -> Result<Option<(ChecksumAlgorithm, ChecksumKind)>, S3Error> {
    let invalid = |message: String| S3Error::new(ErrorCode::InvalidRequest, message);
    let kind = match call.header("x-amz-checksum-type") {
        None => None,
        Some(text) => Some(
            checksum::parse_kind(text)
                .ok_or_else(|| invalid("Value for x-amz-checksum-type header is invalid.".to_owned()))?,
        ),
    };
    let Some(name) = call.header("x-amz-checksum-algorithm") else {
        return match kind {
            None => Ok(None),
            Some(_) => Err(invalid(
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.".to_owned(),
            )),
        };
    };
    let algorithm = checksum::parse_asked(name)?;
    let kind = kind.unwrap_or(match algorithm {
        ChecksumAlgorithm::Crc64Nvme => ChecksumKind::FullObject,
        ChecksumAlgorithm::Crc32 | ChecksumAlgorithm::Crc32c | ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256 => {
            ChecksumKind::Composite
        }
    });
    match (algorithm, kind) {
        (ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256, ChecksumKind::FullObject)
        | (ChecksumAlgorithm::Crc64Nvme, ChecksumKind::Composite) => Err(invalid(format!(
            "The {} checksum type cannot be used with the {} checksum algorithm.",
            checksum::kind_name(kind),
            checksum::name(algorithm)
        ))),
        found => Ok(Some(found)),
    }
}

/// `CreateMultipartUpload`.
pub(super) async fn create<S: Store>(call: &Call<'_, S>, bucket: &BucketName, key: &Key) -> Result<Answer, S3Error> {
    let asked = parse_asked_checksum(call)?;
    let new = NewUpload {
        bucket: bucket.clone(),
        key: key.clone(),
        metadata: metadata::parse(&call.head.headers)?,
        checksum: Some(asked.unwrap_or((DEFAULT_ALGORITHM, ChecksumKind::FullObject))),
    };
    let upload = call.store.create_upload(call.context, new).await?;
    let mut out = XmlWriter::root("InitiateMultipartUploadResult");
    out.plain("Bucket", bucket);
    out.text("Key", key.as_str());
    out.plain("UploadId", upload);
    out.close("InitiateMultipartUploadResult");
    let mut answer = xml(out);
    if let Some((algorithm, kind)) = asked {
        set(&mut answer, HeaderName::from_static("x-amz-checksum-algorithm"), checksum::name(algorithm));
        set(&mut answer, HeaderName::from_static("x-amz-checksum-type"), checksum::kind_name(kind));
    }
    Ok(answer)
}

/// `AbortMultipartUpload`.
pub(super) async fn abort<S: Store>(call: &Call<'_, S>, bucket: &BucketName, key: &Key) -> Result<Answer, S3Error> {
    let upload = upload_id(call, bucket).await?;
    call.store.abort_upload(call.context, bucket, key, upload).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}
