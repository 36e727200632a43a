//! `DeleteObject`.

use drystone_cluster::store::{BucketName, Key, Store};
use http::StatusCode;

use crate::conditions;
use crate::error::S3Error;
use crate::ops::Call;
use crate::response::{Answer, empty};

/// `DeleteObject`: 204 whether or not there was something to delete.
pub(in crate::ops) async fn delete<S: Store>(
    call: &Call<'_, S>,
    bucket: &BucketName,
    key: &Key,
) -> Result<Answer, S3Error> {
    call.check_version(bucket, key).await?;
    let condition = conditions::write_condition(&call.head.headers)?;
    call.store.delete_object(call.context, bucket, key, condition).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}
