//! `UploadPart` and `UploadPartCopy`.

use bytes::Bytes;
use drystone_cluster::store::{BucketName, ChecksumAlgorithm, ChecksumKind, Key, PutPart, Reader as _, Store, Upload};
use http::StatusCode;
use http_body::Body as HttpBody;

use super::{asked_checksum, part_number, upload_id};
use crate::body::{Declared, Incoming, RequestBody};
use crate::checksum::{self, DEFAULT_ALGORITHM};
use crate::error::{ErrorCode, S3Error, too_large};
use crate::ops::Call;
use crate::ops::object::{CopyBody, CopySource, result_xml};
use crate::range::{self, InvalidCopyRange};
use crate::response::{Answer, empty, set, set_etag, xml};

/// Which checksum a part keeps: that of its upload.
fn kept_algorithm(upload: &Upload) -> ChecksumAlgorithm {
    upload.checksum.map_or(DEFAULT_ALGORITHM, |(algorithm, _)| algorithm)
}

/// Whether a part may come with that checksum, or without one.
///
/// An upload whose client asked for none gets CRC64NVME over the whole, and its parts may declare whatever else they
/// like: it is verified and not kept. A composite checksum is made of what the client says of each part.
///
/// # Errors
/// `InvalidRequest` if the part declares another than its upload asks for.
fn check_declared(upload: &Upload, declared: Option<ChecksumAlgorithm>) -> Result<(), S3Error> {
    let Some((asked, kind)) = asked_checksum(upload) else { return Ok(()) };
    match declared {
        Some(declared) if declared == asked => Ok(()),
        None if kind == ChecksumKind::FullObject => Ok(()),
        _ => Err(S3Error::new(
            ErrorCode::InvalidRequest,
            format!(
                "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
                checksum::lower_name(asked),
                declared.map_or_else(|| "null".to_owned(), checksum::lower_name)
            ),
        )),
    }
}

/// `UploadPart`.
pub(in crate::ops) async fn upload_part<S, B>(
    call: &Call<'_, S>,
    bucket: &BucketName,
    key: &Key,
    incoming: Incoming<B>,
) -> Result<Answer, S3Error>
where
    S: Store,
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::fmt::Display,
{
    let headers = &call.head.headers;
    let (upload, number) = (upload_id(call, bucket).await?, part_number(call)?);
    let declared = Declared::parse(headers, &incoming.payload)?;
    let opened = call.store.upload(call.context, bucket, key, upload).await?;
    check_declared(&opened, declared.algorithm())?;
    let kept = kept_algorithm(&opened);
    let body = RequestBody::new(call.head, incoming, declared, Some(kept), call.terms.clone())?;
    body.require_len(call.config.put_len_max)?;
    let verified = body.verified();
    let part = PutPart { bucket: bucket.clone(), key: key.clone(), upload, number };
    let stored = call.store.put_part(call.context, part, body).await?;
    let mut answer = empty(StatusCode::OK);
    set_etag(&mut answer, stored.etag);
    // What the client said of the part is what it wants to read again, even where another checksum is kept.
    if let Some(checksum) = verified.checksum().or(stored.checksum.as_ref()) {
        set(&mut answer, checksum::header(checksum.algorithm), &checksum::format_value(checksum));
    }
    Ok(answer)
}

fn invalid_range(header: &str, error: InvalidCopyRange, len: u64) -> S3Error {
    let message = match error {
        InvalidCopyRange::Malformed => "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy".to_owned(),
        InvalidCopyRange::Outside => format!("Range specified is not valid for source object of size: {len}"),
    };
    S3Error::argument("x-amz-copy-source-range", header, message)
}

/// `UploadPartCopy`.
pub(in crate::ops) async fn upload_part_copy<S: Store>(
    call: &Call<'_, S>,
    bucket: &BucketName,
    key: &Key,
) -> Result<Answer, S3Error> {
    let (upload, number) = (upload_id(call, bucket).await?, part_number(call)?);
    let source = CopySource::parse(call.header("x-amz-copy-source").unwrap_or_default())?;
    let opened = call.store.upload(call.context, bucket, key, upload).await?;
    let reader = source.open(call).await?;
    let len = reader.head().len;
    let range = match call.header("x-amz-copy-source-range") {
        None => 0..len,
        Some(header) => range::select_copy(header, len).map_err(|error| invalid_range(header, error, len))?,
    };
    let part_len = range.end - range.start;
    if part_len > call.config.put_len_max {
        return Err(too_large(part_len, call.config.put_len_max));
    }
    let body = CopyBody::new(&reader, range, kept_algorithm(&opened));
    let part = PutPart { bucket: bucket.clone(), key: key.clone(), upload, number };
    let stored = call.store.put_part(call.context, part, body).await?;
    Ok(xml(result_xml("CopyPartResult", &stored)))
}
