//! Buckets: list, create, find, remove.

use bytes::Bytes;
use drystone_cluster::store::{BucketName, Store};
use http::header::LOCATION;
use http::{HeaderName, StatusCode};
use http_body::Body as HttpBody;

use super::{Call, owner};
use crate::body::Incoming;
use crate::error::{ErrorCode, S3Error};
use crate::response::{Answer, empty, set, xml};
use crate::xml::{XmlWriter, parse_create_bucket};

const REGION: HeaderName = HeaderName::from_static("x-amz-bucket-region");
/// AWS's bound on one page of buckets.
const PAGE_MAX: usize = 10_000;

/// `ListBuckets`, by name, in pages if asked.
pub(super) async fn list<S: Store>(call: &Call<'_, S>) -> Result<Answer, S3Error> {
    let count_max = call.count("max-buckets", PAGE_MAX, PAGE_MAX)?;
    if count_max == 0 {
        return Err(S3Error::argument("max-buckets", "0", "max-buckets must be between 1 and 10000"));
    }
    let prefix = call.query.get("prefix").unwrap_or_default();
    let after = call.query.get("continuation-token").unwrap_or_default();
    let elsewhere = call.query.get("bucket-region").is_some_and(|region| region != call.config.region);
    let mut buckets = call.store.buckets(call.context).await?;
    buckets.retain(|bucket| {
        !elsewhere && bucket.name.as_str().starts_with(prefix) && (after.is_empty() || bucket.name.as_str() > after)
    });
    let more = buckets.len() > count_max;
    buckets.truncate(count_max);
    let mut out = XmlWriter::root("ListAllMyBucketsResult");
    owner(&mut out, "Owner", &call.config.owner_id);
    out.open("Buckets");
    for bucket in &buckets {
        out.open("Bucket");
        out.plain("Name", &bucket.name);
        out.time("CreationDate", bucket.created_ms);
        out.plain("BucketRegion", &call.config.region);
        out.close("Bucket");
    }
    out.close("Buckets");
    out.text_if("Prefix", call.query.get("prefix"));
    if let Some(last) = buckets.last().filter(|_| more) {
        out.plain("ContinuationToken", &last.name);
    }
    out.close("ListAllMyBucketsResult");
    Ok(xml(out))
}

/// `CreateBucket`. A bucket that is there is `BucketAlreadyOwnedByYou`, in every region.
pub(super) async fn create<S, B>(
    call: &Call<'_, S>,
    bucket: &BucketName,
    incoming: Incoming<B>,
) -> Result<Answer, S3Error>
where
    S: Store,
    B: HttpBody<Data = Bytes> + Send + Unpin,
    B::Error: std::fmt::Display,
{
    let body = call.small_body(incoming).await?;
    let location = parse_create_bucket(&body)?;
    if let Some(location) = location.filter(|location| !location.is_empty() && *location != call.config.region) {
        return Err(S3Error::from(ErrorCode::InvalidLocationConstraint).with("LocationConstraint", location));
    }
    call.store.create_bucket(call.context, bucket).await?;
    let mut answer = empty(StatusCode::OK);
    set(&mut answer, LOCATION, &format!("/{bucket}"));
    Ok(answer)
}

/// `HeadBucket`.
pub(super) async fn head<S: Store>(call: &Call<'_, S>, bucket: &BucketName) -> Result<Answer, S3Error> {
    call.store.bucket(call.context, bucket).await?;
    let mut answer = empty(StatusCode::OK);
    set(&mut answer, REGION, &call.config.region);
    set(&mut answer, HeaderName::from_static("x-amz-access-point-alias"), "false");
    Ok(answer)
}

/// `DeleteBucket`.
pub(super) async fn delete<S: Store>(call: &Call<'_, S>, bucket: &BucketName) -> Result<Answer, S3Error> {
    call.store.delete_bucket(call.context, bucket).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `GetBucketLocation`; `us-east-1` is the empty string, as AWS has it.
pub(super) async fn location<S: Store>(call: &Call<'_, S>, bucket: &BucketName) -> Result<Answer, S3Error> {
    call.store.bucket(call.context, bucket).await?;
    let mut out = XmlWriter::root("LocationConstraint");
    if call.config.region != "us-east-1" {
        out.characters(&call.config.region);
    }
    out.close("LocationConstraint");
    Ok(xml(out))
}
