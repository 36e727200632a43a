//! `PutObject`.

use bytes::Bytes;
use drystone_cluster::store::{BucketName, Key, PutObject, Store};
use http::StatusCode;
use http_body::Body as HttpBody;

use crate::body::{Declared, Incoming, RequestBody};
use crate::checksum::DEFAULT_ALGORITHM;
use crate::error::S3Error;
use crate::ops::{Call, set_checksum};
use crate::response::{Answer, empty, set_etag};
use crate::{conditions, metadata};

/// `PutObject`: the body streams through its checks into the store.
pub(in crate::ops) async fn put<S, B>(
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
    let declared = Declared::parse(headers, &incoming.payload)?;
    let kept = declared.algorithm().unwrap_or(DEFAULT_ALGORITHM);
    let body = RequestBody::new(call.head, incoming, declared, Some(kept), call.terms.clone())?;
    body.require_len(call.config.put_len_max)?;
    let put = PutObject {
        bucket: bucket.clone(),
        key: key.clone(),
        metadata: metadata::parse(headers)?,
        condition: conditions::write_condition(headers)?,
    };
    let stored = call.store.put_object(call.context, put, body).await?;
    let mut answer = empty(StatusCode::OK);
    set_etag(&mut answer, stored.etag);
    set_checksum(&mut answer, stored.checksum.as_ref());
    Ok(answer)
}
