//! Sub-resources that configure what this gateway does not have. Reading one gives what AWS gives for a bucket or object
//! without that configuration, which is the truth; writing one is `NotImplemented`.

use drystone_cluster::store::{BucketName, Key, Store};

use super::{Call, owner};
use crate::error::{ErrorCode, S3Error};
use crate::response::{Answer, xml};
use crate::route::Operation;
use crate::xml::XmlWriter;

/// What a read of a configuration that was never made gives.
enum Unconfigured {
    Error(ErrorCode),
    /// A document with nothing in it.
    Document(&'static str),
    /// A list of configurations with nothing in it.
    List(&'static str),
    Payer,
    Acl,
}

fn unconfigured(operation: Operation) -> Option<Unconfigured> {
    use ErrorCode as Code;
    use Unconfigured::{Document, Error, List};
    Some(match operation {
        Operation::GetBucketAcl => Unconfigured::Acl,
        Operation::GetBucketRequestPayment => Unconfigured::Payer,
        Operation::GetBucketVersioning => Document("VersioningConfiguration"),
        Operation::GetBucketLogging => Document("BucketLoggingStatus"),
        Operation::GetBucketNotificationConfiguration => Document("NotificationConfiguration"),
        Operation::GetBucketAccelerateConfiguration => Document("AccelerateConfiguration"),
        Operation::ListBucketAnalyticsConfigurations => List("ListBucketAnalyticsConfigurationsResult"),
        Operation::ListBucketIntelligentTieringConfigurations => {
            List("ListBucketIntelligentTieringConfigurationsOutput")
        }
        Operation::ListBucketInventoryConfigurations => List("ListInventoryConfigurationsResult"),
        Operation::ListBucketMetricsConfigurations => List("ListMetricsConfigurationsResult"),
        Operation::GetBucketAnalyticsConfiguration
        | Operation::GetBucketIntelligentTieringConfiguration
        | Operation::GetBucketInventoryConfiguration
        | Operation::GetBucketMetricsConfiguration => Error(Code::NoSuchConfiguration),
        Operation::GetBucketPolicy | Operation::GetBucketPolicyStatus => Error(Code::NoSuchBucketPolicy),
        Operation::GetBucketTagging => Error(Code::NoSuchTagSet),
        Operation::GetBucketCors => Error(Code::NoSuchCORSConfiguration),
        Operation::GetBucketLifecycleConfiguration => Error(Code::NoSuchLifecycleConfiguration),
        Operation::GetBucketEncryption => Error(Code::ServerSideEncryptionConfigurationNotFoundError),
        Operation::GetBucketReplication => Error(Code::ReplicationConfigurationNotFoundError),
        Operation::GetBucketWebsite => Error(Code::NoSuchWebsiteConfiguration),
        Operation::GetBucketOwnershipControls => Error(Code::OwnershipControlsNotFoundError),
        Operation::GetPublicAccessBlock => Error(Code::NoSuchPublicAccessBlockConfiguration),
        Operation::GetObjectLockConfiguration => Error(Code::ObjectLockConfigurationNotFoundError),
        _ => return None,
    })
}

/// Any operation on a bucket that has no handler of its own.
pub(super) async fn bucket<S: Store>(call: &Call<'_, S>, bucket: &BucketName) -> Result<Answer, S3Error> {
    let Some(found) = unconfigured(call.operation) else {
        return Err(S3Error::not_implemented(call.operation.name()));
    };
    call.store.bucket(call.context, bucket).await?;
    Ok(xml(match found {
        Unconfigured::Error(code) => return Err(S3Error::from(code).with("BucketName", bucket.to_string())),
        Unconfigured::Acl => acl(&call.config.owner_id),
        Unconfigured::Document(root) => {
            let mut out = XmlWriter::root(root);
            out.close(root);
            out
        }
        Unconfigured::List(root) => {
            let mut out = XmlWriter::root(root);
            out.plain("IsTruncated", false);
            out.close(root);
            out
        }
        Unconfigured::Payer => {
            let mut out = XmlWriter::root("RequestPaymentConfiguration");
            out.plain("Payer", "BucketOwner");
            out.close("RequestPaymentConfiguration");
            out
        }
    }))
}

/// Any operation on an object that has no handler of its own.
pub(super) async fn object<S: Store>(call: &Call<'_, S>, bucket: &BucketName, key: &Key) -> Result<Answer, S3Error> {
    let operation = call.operation;
    if !matches!(
        operation,
        Operation::GetObjectAcl
            | Operation::GetObjectTagging
            | Operation::GetObjectLegalHold
            | Operation::GetObjectRetention
    ) {
        return Err(S3Error::not_implemented(operation.name()));
    }
    call.check_version(bucket, key).await?;
    // Only to know whether it exists.
    call.store.open_object(call.context, bucket, key).await?;
    match operation {
        Operation::GetObjectAcl => Ok(xml(acl(&call.config.owner_id))),
        Operation::GetObjectTagging => {
            let mut out = XmlWriter::root("Tagging");
            out.open("TagSet");
            out.close("TagSet");
            out.close("Tagging");
            Ok(xml(out))
        }
        _ => {
            let message = "Bucket is missing Object Lock Configuration";
            Err(S3Error::new(ErrorCode::InvalidRequest, message))
        }
    }
}

/// The one owner may do everything.
fn acl(owner_id: &str) -> XmlWriter {
    let mut out = XmlWriter::root("AccessControlPolicy");
    owner(&mut out, "Owner", owner_id);
    out.open("AccessControlList");
    out.open("Grant");
    out.open("Grantee xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:type=\"CanonicalUser\"");
    out.text("ID", owner_id);
    out.text("DisplayName", owner_id);
    out.close("Grantee");
    out.plain("Permission", "FULL_CONTROL");
    out.close("Grant");
    out.close("AccessControlList");
    out.close("AccessControlPolicy");
    out
}
