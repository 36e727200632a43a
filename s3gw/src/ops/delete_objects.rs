//! `DeleteObjects`: up to 1000 deletions in one request, each with an outcome of its own.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use drystone_cluster::store::{BucketName, Condition, ETag, EntityTag, Store};
use futures_util::stream::{StreamExt as _, iter};
use http_body::Body as HttpBody;

use super::{Call, no_such_version};
use crate::body::{Declared, Incoming};
use crate::error::{ErrorCode, S3Error};
use crate::response::{Answer, xml};
use crate::route::parse_key;
use crate::xml::{DeleteObjectXml, XmlWriter, parse_delete};

/// `DeleteObjects`. The body must be covered by `Content-MD5` or a checksum, as AWS asks.
pub(super) async fn delete<S, B>(
    call: &Call<'_, S>,
    bucket: &BucketName,
    incoming: Incoming<B>,
) -> Result<Answer, S3Error>
where
    S: Store,
    B: HttpBody<Data = Bytes> + Send + Unpin,
    B::Error: std::fmt::Display,
{
    let headers = &call.head.headers;
    let declared = Declared::parse(headers, &incoming.payload)?;
    if declared == Declared::Nothing && !headers.contains_key("content-md5") {
        return Err(S3Error::new(ErrorCode::InvalidRequest, "Missing required header for this request: Content-MD5"));
    }
    let request = parse_delete(&call.small_body(incoming).await?)?;
    call.store.bucket(call.context, bucket).await?;
    let deletions: Vec<_> = request.objects.iter().map(|object| delete_boxed(call, bucket, object)).collect();
    let outcomes: Vec<_> = iter(deletions).buffered(call.config.delete_concurrency.max(1)).collect().await;
    let mut out = XmlWriter::root("DeleteResult");
    for (object, outcome) in request.objects.iter().zip(outcomes) {
        match outcome {
            Ok(()) if request.quiet => {}
            Ok(()) => {
                out.open("Deleted");
                out.text("Key", &object.key);
                out.text_if("VersionId", object.version.as_deref());
                out.close("Deleted");
            }
            Err(error) => {
                out.open("Error");
                out.text("Key", &object.key);
                out.text_if("VersionId", object.version.as_deref());
                out.plain("Code", error.code().as_str());
                out.text("Message", error.message());
                out.close("Error");
            }
        }
    }
    out.close("DeleteResult");
    Ok(xml(out))
}

type Deletion<'a> = Pin<Box<dyn Future<Output = Result<(), S3Error>> + Send + 'a>>;

fn delete_boxed<'a, S: Store>(
    call: &'a Call<'_, S>,
    bucket: &'a BucketName,
    object: &'a DeleteObjectXml,
) -> Deletion<'a> {
    Box::pin(delete_one(call, bucket, object))
}

async fn delete_one<S: Store>(
    call: &Call<'_, S>,
    bucket: &BucketName,
    object: &DeleteObjectXml,
) -> Result<(), S3Error> {
    let key = parse_key(object.key.clone())?;
    if let Some(version) = object.version.as_deref().filter(|version| *version != "null") {
        return Err(no_such_version(&key, version));
    }
    let if_match = object.etag.as_deref().map(|etag| match etag.trim() {
        "*" => EntityTag::Any,
        etag => EntityTag::OneOf(ETag::parse(etag).into_iter().collect()),
    });
    let condition = Condition { if_match, if_none_match: None };
    call.store.delete_object(call.context, bucket, &key, condition).await?;
    Ok(())
}
