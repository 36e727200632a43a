//! All operations of S3 and how a request names one.
//!
//! After <https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html>: the
//! method, what is named (service, bucket, object), one sub-resource in the query, and a header or two decide.

use http::header::ALLOW;
use http::{HeaderMap, HeaderValue, Method};

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
/// `MethodNotAllowed` where S3 has no operation of that method; `InvalidArgument` for a part of no upload.
pub(crate) fn resolve(
    method: &Method,
    target: &Target,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Operation, S3Error> {
    if *method == Method::OPTIONS {
        return Ok(Operation::OptionsObject);
    }
    if let Some(operation) = on_sub_resource(method, target, query) {
        return Ok(operation);
    }
    let level = Level::of(target);
    let puts_part = *method == Method::PUT && level == Some(Level::Object) && query.has("partNumber");
    if puts_part && !query.has("uploadId") {
        let text = query.get("partNumber").unwrap_or_default();
        return Err(S3Error::argument(
            "partNumber",
            text,
            "This operation does not accept partNumber without uploadId",
        ));
    }
    // A sub-resource is never passed over: `DELETE /bucket/key?acl` must not delete the object.
    let stray = sub_resources(query).find(|name| !(puts_part && *name == "uploadId"));
    if let Some(name) = stray {
        return Err(not_allowed(method, |allowed| has_sub_resource(allowed, name)));
    }
    on_itself(method, level, query, headers)
        .ok_or_else(|| not_allowed(method, |allowed| on_itself(allowed, level, query, headers).is_some()))
}

/// The methods of S3, in the order AWS lists them in `Allow`.
static METHODS: [Method; 5] = [Method::DELETE, Method::POST, Method::GET, Method::PUT, Method::HEAD];

fn not_allowed(method: &Method, is_allowed: impl Fn(&Method) -> bool) -> S3Error {
    let allowed: Vec<&str> = METHODS.iter().filter(|method| is_allowed(method)).map(Method::as_str).collect();
    let error = S3Error::from(ErrorCode::MethodNotAllowed).with("Method", method.as_str().to_owned());
    match HeaderValue::try_from(allowed.join(", ")) {
        Ok(allow) => error.with_header(ALLOW, allow),
        Err(_) => error,
    }
}

/// What has sub-resources, or operations of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Service,
    Bucket,
    Object,
}

impl Level {
    /// `None` for what is no place of objects.
    fn of(target: &Target) -> Option<Self> {
        match target {
            Target::Service => Some(Self::Service),
            Target::Bucket(_) => Some(Self::Bucket),
            Target::Object(..) => Some(Self::Object),
            Target::ObjectLambda => None,
        }
    }
}

/// The operation of `method` on the sub-resource that the query names.
fn on_sub_resource(method: &Method, target: &Target, query: &Query) -> Option<Operation> {
    let level = Level::of(target)?;
    let of_one = query.has("id") && *method == Method::GET && level == Level::Bucket;
    let configurations = if of_one { GET_BUCKET_WITH_ID } else { &[] };
    let tables = TABLES.iter().filter(|table| table.method == *method && table.level == level);
    let mut entries = configurations.iter().chain(tables.flat_map(|table| table.operations));
    entries.find(|(name, _)| query.has(name)).map(|(_, found)| *found)
}

/// The sub-resources the query names, of whatever method and level.
fn sub_resources(query: &Query) -> impl Iterator<Item = &'static str> {
    TABLES.iter().flat_map(|table| table.operations).map(|(name, _)| *name).filter(|name| query.has(name))
}

fn has_sub_resource(method: &Method, sub_resource: &str) -> bool {
    let mut tables = TABLES.iter().filter(|table| table.method == *method);
    tables.any(|table| table.operations.iter().any(|(name, _)| *name == sub_resource))
}

/// The operation of `method` on what is named itself, where the query names no sub-resource.
fn on_itself(method: &Method, level: Option<Level>, query: &Query, headers: &HeaderMap) -> Option<Operation> {
    match level {
        Some(Level::Service) => on_service(method, query),
        Some(Level::Bucket) => on_bucket(method, query),
        Some(Level::Object) => on_object(method, query, headers),
        None => (*method == Method::POST).then_some(Operation::WriteGetObjectResponse),
    }
}

fn on_service(method: &Method, query: &Query) -> Option<Operation> {
    match *method {
        Method::GET if query.get("x-id") == Some("ListDirectoryBuckets") => Some(Operation::ListDirectoryBuckets),
        Method::GET => Some(Operation::ListBuckets),
        _ => None,
    }
}

fn on_bucket(method: &Method, query: &Query) -> Option<Operation> {
    match *method {
        Method::GET if query.get("list-type") == Some("2") => Some(Operation::ListObjectsV2),
        Method::GET => Some(Operation::ListObjects),
        Method::HEAD => Some(Operation::HeadBucket),
        Method::PUT => Some(Operation::CreateBucket),
        Method::DELETE => Some(Operation::DeleteBucket),
        Method::POST => Some(Operation::PostObject),
        _ => None,
    }
}

fn on_object(method: &Method, query: &Query, headers: &HeaderMap) -> Option<Operation> {
    match *method {
        Method::GET => Some(Operation::GetObject),
        Method::HEAD => Some(Operation::HeadObject),
        Method::PUT => Some(match (query.has("partNumber"), headers.contains_key("x-amz-copy-source")) {
            (true, true) => Operation::UploadPartCopy,
            (true, false) => Operation::UploadPart,
            (false, true) => Operation::CopyObject,
            (false, false) => Operation::PutObject,
        }),
        Method::DELETE => Some(Operation::DeleteObject),
        _ => None,
    }
}

/// The sub-resources that a method has an operation for.
struct Table {
    method: Method,
    level: Level,
    operations: &'static [(&'static str, Operation)],
}

static TABLES: [Table; 8] = [
    Table { method: Method::GET, level: Level::Bucket, operations: GET_BUCKET },
    Table { method: Method::PUT, level: Level::Bucket, operations: PUT_BUCKET },
    Table { method: Method::DELETE, level: Level::Bucket, operations: DELETE_BUCKET },
    Table { method: Method::POST, level: Level::Bucket, operations: POST_BUCKET },
    Table { method: Method::GET, level: Level::Object, operations: GET_OBJECT },
    Table { method: Method::PUT, level: Level::Object, operations: PUT_OBJECT },
    Table { method: Method::DELETE, level: Level::Object, operations: DELETE_OBJECT },
    Table { method: Method::POST, level: Level::Object, operations: POST_OBJECT },
];

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

    #[test]
    fn a_sub_resource_of_another_method_is_never_passed_over() {
        let object =
            ["acl", "attributes", "legal-hold", "retention", "torrent", "uploads", "restore", "select", "delete"];
        let bucket = ["acl", "versioning", "logging", "notification", "uploads", "versions", "object-lock", "location"];
        for (method, key, names) in [
            (Method::DELETE, Some("k"), &object[..]),
            (Method::DELETE, None, &bucket),
            (
                Method::PUT,
                Some("k"),
                &["attributes", "uploads", "restore", "select", "torrent", "uploadId", "versions"],
            ),
            (Method::PUT, Some("k"), &["uploads&partNumber=1&uploadId=2", "restore&partNumber=1&uploadId=2"]),
            (Method::PUT, None, &["location", "uploads", "versions", "policyStatus"]),
            (Method::GET, Some("k"), &["uploads", "restore", "select&select-type=2", "versioning"]),
            (Method::HEAD, Some("k"), &["acl", "tagging", "uploadId=2"]),
            (Method::HEAD, None, &bucket),
            (Method::POST, None, &["uploads", "acl"]),
        ] {
            for query in names {
                let found = resolved(method.clone(), key, query, false);
                assert_eq!(found, Err(ErrorCode::MethodNotAllowed), "{method} {key:?} {query}");
            }
        }
        assert_eq!(resolved(Method::PUT, Some("k"), "partNumber=1", false), Err(ErrorCode::InvalidArgument));
        assert_eq!(resolved(Method::HEAD, Some("k"), "partNumber=1", false), Ok(Operation::HeadObject));
        assert_eq!(resolved(Method::PUT, Some("k"), "x-id=PutObject&versionId=null", false), Ok(Operation::PutObject));
    }

    #[test]
    fn a_refusal_says_what_would_be_allowed() {
        let allow = |method: Method, target: &Target, query: &str| {
            let query = Query::parse(Some(query)).unwrap();
            let error = resolve(&method, target, &query, &HeaderMap::new()).unwrap_err();
            let [(ALLOW, value)] = error.headers() else { panic!("{error:?}") };
            value.to_str().unwrap().to_owned()
        };
        let bucket = Target::Bucket(BucketName::new("bkt").unwrap());
        let object = Target::Object(BucketName::new("bkt").unwrap(), Key::new("k").unwrap());
        // As AWS answers each of these.
        for (query, allowed) in [
            ("location", "GET"),
            ("uploads", "POST, GET"),
            ("versioning", "GET, PUT"),
            ("acl", "GET, PUT"),
            ("tagging", "DELETE, GET, PUT"),
            ("uploadId=1", "DELETE, POST, GET"),
        ] {
            assert_eq!(allow(Method::HEAD, &bucket, query), allowed);
            assert_eq!(allow(Method::HEAD, &object, query), allowed);
        }
        assert_eq!(allow(Method::POST, &object, ""), "DELETE, GET, PUT, HEAD");
        assert_eq!(allow(Method::POST, &Target::Service, ""), "GET");
        assert_eq!(allow(Method::GET, &Target::ObjectLambda, ""), "POST");
    }
}
