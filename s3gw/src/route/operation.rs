//! All operations of S3 and how a request names one.
//!
//! After <https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html>: the
//! method, what is named (service, bucket, object), one sub-resource in the query, and a header or two decide.

use http::{HeaderMap, Method};

use super::{Query, Target};
use crate::error::{ErrorCode, S3Error};

macro_rules! operations {
    ($($name:ident,)*) => {
        /// An operation of S3.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(missing_docs, reason = "each is named as in AWS's reference")]
        pub enum Operation {
            $($name,)*
        }

        impl Operation {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in AWS's reference.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

operations! {
    AbortMultipartUpload, CompleteMultipartUpload, CopyObject, CreateBucket, CreateBucketMetadataConfiguration,
    CreateBucketMetadataTableConfiguration, CreateMultipartUpload, CreateSession, DeleteBucket,
    DeleteBucketAnalyticsConfiguration, DeleteBucketCors, DeleteBucketEncryption,
    DeleteBucketIntelligentTieringConfiguration, DeleteBucketInventoryConfiguration, DeleteBucketLifecycle,
    DeleteBucketMetadataConfiguration, DeleteBucketMetadataTableConfiguration, DeleteBucketMetricsConfiguration,
    DeleteBucketOwnershipControls, DeleteBucketPolicy, DeleteBucketReplication, DeleteBucketTagging,
    DeleteBucketWebsite, DeleteObject, DeleteObjectTagging, DeleteObjects, DeletePublicAccessBlock, GetBucketAbac,
    GetBucketAccelerateConfiguration, GetBucketAcl, GetBucketAnalyticsConfiguration, GetBucketCors,
    GetBucketEncryption, GetBucketIntelligentTieringConfiguration, GetBucketInventoryConfiguration,
    GetBucketLifecycleConfiguration, GetBucketLocation, GetBucketLogging, GetBucketMetadataConfiguration,
    GetBucketMetadataTableConfiguration, GetBucketMetricsConfiguration, GetBucketNotificationConfiguration,
    GetBucketOwnershipControls, GetBucketPolicy, GetBucketPolicyStatus, GetBucketReplication,
    GetBucketRequestPayment, GetBucketTagging, GetBucketVersioning, GetBucketWebsite, GetObject, GetObjectAcl,
    GetObjectAttributes, GetObjectLegalHold, GetObjectLockConfiguration, GetObjectRetention, GetObjectTagging,
    GetObjectTorrent, GetPublicAccessBlock, HeadBucket, HeadObject, ListBucketAnalyticsConfigurations,
    ListBucketIntelligentTieringConfigurations, ListBucketInventoryConfigurations, ListBucketMetricsConfigurations,
    ListBuckets, ListDirectoryBuckets, ListMultipartUploads, ListObjectVersions, ListObjects, ListObjectsV2,
    ListParts, OptionsObject, PostObject, PutBucketAbac, PutBucketAccelerateConfiguration, PutBucketAcl,
    PutBucketAnalyticsConfiguration, PutBucketCors, PutBucketEncryption,
    PutBucketIntelligentTieringConfiguration, PutBucketInventoryConfiguration, PutBucketLifecycleConfiguration,
    PutBucketLogging, PutBucketMetricsConfiguration, PutBucketNotificationConfiguration,
    PutBucketOwnershipControls, PutBucketPolicy, PutBucketReplication, PutBucketRequestPayment, PutBucketTagging,
    PutBucketVersioning, PutBucketWebsite, PutObject, PutObjectAcl, PutObjectLegalHold,
    PutObjectLockConfiguration, PutObjectRetention, PutObjectTagging, PutPublicAccessBlock, RenameObject,
    RestoreObject, SelectObjectContent, UpdateBucketMetadataInventoryTableConfiguration,
    UpdateBucketMetadataJournalTableConfiguration, UpdateObjectEncryption, UploadPart, UploadPartCopy,
    WriteGetObjectResponse,
}

/// The operation a request asks for.
///
/// # Errors
/// `MethodNotAllowed` where S3 has no operation of that method.
pub(crate) fn resolve(
    method: &Method,
    target: &Target,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Operation, S3Error> {
    if *method == Method::OPTIONS {
        return Ok(Operation::OptionsObject);
    }
    let found = match target {
        Target::Service => service(method, query),
        Target::Bucket(_) => bucket(method, query),
        Target::Object(..) => object(method, query, headers),
    };
    found.ok_or_else(|| S3Error::from(ErrorCode::MethodNotAllowed).with("Method", method.as_str().to_owned()))
}

fn service(method: &Method, query: &Query) -> Option<Operation> {
    match *method {
        Method::GET if query.get("x-id") == Some("ListDirectoryBuckets") => Some(Operation::ListDirectoryBuckets),
        Method::GET => Some(Operation::ListBuckets),
        Method::POST => Some(Operation::WriteGetObjectResponse),
        _ => None,
    }
}

fn bucket(method: &Method, query: &Query) -> Option<Operation> {
    let sub = |table: &[(&str, Operation)]| table.iter().find(|(name, _)| query.has(name)).map(|(_, found)| *found);
    match *method {
        Method::GET => sub(GET_BUCKET_WITH_ID)
            .filter(|_| query.has("id"))
            .or_else(|| sub(GET_BUCKET))
            .or_else(|| (query.get("list-type") == Some("2")).then_some(Operation::ListObjectsV2))
            .or(Some(Operation::ListObjects)),
        Method::HEAD => Some(Operation::HeadBucket),
        Method::PUT => sub(PUT_BUCKET).or(Some(Operation::CreateBucket)),
        Method::DELETE => sub(DELETE_BUCKET).or(Some(Operation::DeleteBucket)),
        Method::POST => sub(POST_BUCKET).or(Some(Operation::PostObject)),
        _ => None,
    }
}

fn object(method: &Method, query: &Query, headers: &HeaderMap) -> Option<Operation> {
    let sub = |table: &[(&str, Operation)]| table.iter().find(|(name, _)| query.has(name)).map(|(_, found)| *found);
    match *method {
        Method::GET => sub(GET_OBJECT).or(Some(Operation::GetObject)),
        Method::HEAD => Some(Operation::HeadObject),
        Method::PUT => Some(sub(PUT_OBJECT).unwrap_or_else(|| {
            match (query.has("partNumber") || query.has("uploadId"), headers.contains_key("x-amz-copy-source")) {
                (true, true) => Operation::UploadPartCopy,
                (true, false) => Operation::UploadPart,
                (false, true) => Operation::CopyObject,
                (false, false) => Operation::PutObject,
            }
        })),
        Method::DELETE => sub(DELETE_OBJECT).or(Some(Operation::DeleteObject)),
        Method::POST => sub(POST_OBJECT),
        _ => None,
    }
}

const GET_BUCKET_WITH_ID: &[(&str, Operation)] = &[
    ("analytics", Operation::GetBucketAnalyticsConfiguration),
    ("intelligent-tiering", Operation::GetBucketIntelligentTieringConfiguration),
    ("inventory", Operation::GetBucketInventoryConfiguration),
    ("metrics", Operation::GetBucketMetricsConfiguration),
];

const GET_BUCKET: &[(&str, Operation)] = &[
    ("abac", Operation::GetBucketAbac),
    ("accelerate", Operation::GetBucketAccelerateConfiguration),
    ("acl", Operation::GetBucketAcl),
    ("analytics", Operation::ListBucketAnalyticsConfigurations),
    ("cors", Operation::GetBucketCors),
    ("encryption", Operation::GetBucketEncryption),
    ("intelligent-tiering", Operation::ListBucketIntelligentTieringConfigurations),
    ("inventory", Operation::ListBucketInventoryConfigurations),
    ("lifecycle", Operation::GetBucketLifecycleConfiguration),
    ("location", Operation::GetBucketLocation),
    ("logging", Operation::GetBucketLogging),
    ("metadataConfiguration", Operation::GetBucketMetadataConfiguration),
    ("metadataTable", Operation::GetBucketMetadataTableConfiguration),
    ("metrics", Operation::ListBucketMetricsConfigurations),
    ("notification", Operation::GetBucketNotificationConfiguration),
    ("object-lock", Operation::GetObjectLockConfiguration),
    ("ownershipControls", Operation::GetBucketOwnershipControls),
    ("policy", Operation::GetBucketPolicy),
    ("policyStatus", Operation::GetBucketPolicyStatus),
    ("publicAccessBlock", Operation::GetPublicAccessBlock),
    ("replication", Operation::GetBucketReplication),
    ("requestPayment", Operation::GetBucketRequestPayment),
    ("session", Operation::CreateSession),
    ("tagging", Operation::GetBucketTagging),
    ("uploads", Operation::ListMultipartUploads),
    ("versioning", Operation::GetBucketVersioning),
    ("versions", Operation::ListObjectVersions),
    ("website", Operation::GetBucketWebsite),
];

const PUT_BUCKET: &[(&str, Operation)] = &[
    ("abac", Operation::PutBucketAbac),
    ("accelerate", Operation::PutBucketAccelerateConfiguration),
    ("acl", Operation::PutBucketAcl),
    ("analytics", Operation::PutBucketAnalyticsConfiguration),
    ("cors", Operation::PutBucketCors),
    ("encryption", Operation::PutBucketEncryption),
    ("intelligent-tiering", Operation::PutBucketIntelligentTieringConfiguration),
    ("inventory", Operation::PutBucketInventoryConfiguration),
    ("lifecycle", Operation::PutBucketLifecycleConfiguration),
    ("logging", Operation::PutBucketLogging),
    ("metadataInventoryTable", Operation::UpdateBucketMetadataInventoryTableConfiguration),
    ("metadataJournalTable", Operation::UpdateBucketMetadataJournalTableConfiguration),
    ("metrics", Operation::PutBucketMetricsConfiguration),
    ("notification", Operation::PutBucketNotificationConfiguration),
    ("object-lock", Operation::PutObjectLockConfiguration),
    ("ownershipControls", Operation::PutBucketOwnershipControls),
    ("policy", Operation::PutBucketPolicy),
    ("publicAccessBlock", Operation::PutPublicAccessBlock),
    ("replication", Operation::PutBucketReplication),
    ("requestPayment", Operation::PutBucketRequestPayment),
    ("tagging", Operation::PutBucketTagging),
    ("versioning", Operation::PutBucketVersioning),
    ("website", Operation::PutBucketWebsite),
];

const DELETE_BUCKET: &[(&str, Operation)] = &[
    ("analytics", Operation::DeleteBucketAnalyticsConfiguration),
    ("cors", Operation::DeleteBucketCors),
    ("encryption", Operation::DeleteBucketEncryption),
    ("intelligent-tiering", Operation::DeleteBucketIntelligentTieringConfiguration),
    ("inventory", Operation::DeleteBucketInventoryConfiguration),
    ("lifecycle", Operation::DeleteBucketLifecycle),
    ("metadataConfiguration", Operation::DeleteBucketMetadataConfiguration),
    ("metadataTable", Operation::DeleteBucketMetadataTableConfiguration),
    ("metrics", Operation::DeleteBucketMetricsConfiguration),
    ("ownershipControls", Operation::DeleteBucketOwnershipControls),
    ("policy", Operation::DeleteBucketPolicy),
    ("publicAccessBlock", Operation::DeletePublicAccessBlock),
    ("replication", Operation::DeleteBucketReplication),
    ("tagging", Operation::DeleteBucketTagging),
    ("website", Operation::DeleteBucketWebsite),
];

const POST_BUCKET: &[(&str, Operation)] = &[
    ("delete", Operation::DeleteObjects),
    ("metadataConfiguration", Operation::CreateBucketMetadataConfiguration),
    ("metadataTable", Operation::CreateBucketMetadataTableConfiguration),
];

const GET_OBJECT: &[(&str, Operation)] = &[
    ("acl", Operation::GetObjectAcl),
    ("attributes", Operation::GetObjectAttributes),
    ("legal-hold", Operation::GetObjectLegalHold),
    ("retention", Operation::GetObjectRetention),
    ("tagging", Operation::GetObjectTagging),
    ("torrent", Operation::GetObjectTorrent),
    ("uploadId", Operation::ListParts),
];

const PUT_OBJECT: &[(&str, Operation)] = &[
    ("acl", Operation::PutObjectAcl),
    ("encryption", Operation::UpdateObjectEncryption),
    ("legal-hold", Operation::PutObjectLegalHold),
    ("renameObject", Operation::RenameObject),
    ("retention", Operation::PutObjectRetention),
    ("tagging", Operation::PutObjectTagging),
];

const DELETE_OBJECT: &[(&str, Operation)] =
    &[("tagging", Operation::DeleteObjectTagging), ("uploadId", Operation::AbortMultipartUpload)];

const POST_OBJECT: &[(&str, Operation)] = &[
    ("restore", Operation::RestoreObject),
    ("select", Operation::SelectObjectContent),
    ("uploads", Operation::CreateMultipartUpload),
    ("uploadId", Operation::CompleteMultipartUpload),
];

#[cfg(test)]
mod tests {
    use super::*;
    use drystone_cluster::store::{BucketName, Key};
    use http::HeaderValue;

    fn resolved(method: Method, key: Option<&str>, query: &str, copy: bool) -> Result<Operation, ErrorCode> {
        let bucket = BucketName::new("bkt").unwrap();
        let target = match key {
            Some(key) => Target::Object(bucket, Key::new(key).unwrap()),
            None => Target::Bucket(bucket),
        };
        let mut headers = HeaderMap::new();
        if copy {
            headers.insert("x-amz-copy-source", HeaderValue::from_static("/a/b"));
        }
        resolve(&method, &target, &Query::parse(Some(query)).unwrap(), &headers).map_err(|error| error.code())
    }

    #[test]
    fn requests_resolve_to_their_operations() {
        use Operation as Op;
        for (method, key, query, copy, operation) in [
            (Method::GET, None, "", false, Op::ListObjects),
            (Method::GET, None, "list-type=2&prefix=a", false, Op::ListObjectsV2),
            (Method::GET, None, "versions", false, Op::ListObjectVersions),
            (Method::GET, None, "inventory", false, Op::ListBucketInventoryConfigurations),
            (Method::GET, None, "inventory&id=x", false, Op::GetBucketInventoryConfiguration),
            (Method::POST, None, "delete", false, Op::DeleteObjects),
            (Method::POST, None, "", false, Op::PostObject),
            (Method::PUT, None, "", false, Op::CreateBucket),
            (Method::PUT, None, "versioning", false, Op::PutBucketVersioning),
            (Method::DELETE, None, "", false, Op::DeleteBucket),
            (Method::GET, Some("k"), "partNumber=1", false, Op::GetObject),
            (Method::GET, Some("k"), "uploadId=1", false, Op::ListParts),
            (Method::PUT, Some("k"), "", false, Op::PutObject),
            (Method::PUT, Some("k"), "", true, Op::CopyObject),
            (Method::PUT, Some("k"), "partNumber=1&uploadId=2", false, Op::UploadPart),
            (Method::PUT, Some("k"), "partNumber=1&uploadId=2", true, Op::UploadPartCopy),
            (Method::PUT, Some("k"), "tagging", false, Op::PutObjectTagging),
            (Method::POST, Some("k"), "uploads", false, Op::CreateMultipartUpload),
            (Method::POST, Some("k"), "uploadId=2", false, Op::CompleteMultipartUpload),
            (Method::DELETE, Some("k"), "uploadId=2", false, Op::AbortMultipartUpload),
            (Method::OPTIONS, Some("k"), "", false, Op::OptionsObject),
        ] {
            assert_eq!(resolved(method.clone(), key, query, copy), Ok(operation), "{method} {key:?} {query}");
        }
        assert_eq!(resolved(Method::POST, Some("k"), "", false), Err(ErrorCode::MethodNotAllowed));
        assert_eq!(resolved(Method::PATCH, None, "", false), Err(ErrorCode::MethodNotAllowed));
    }
}
