//! The operations: each reads its request, asks the store, and shapes the answer. What all share is here.

mod bucket;
mod config;
mod delete_objects;
mod list;
mod multipart;
mod object;

use bytes::Bytes;
use drystone_cluster::store::{BucketName, Checksum, ChecksumKind, Context, Key, Store};
use http::HeaderName;
use http::request::Parts;
use http_body::Body as HttpBody;

use crate::body::{BodyTerms, Declared, Incoming, RequestBody};
use crate::checksum;
use crate::config::GatewayConfig;
use crate::error::{ErrorCode, S3Error};
use crate::features;
use crate::response::{Answer, set};
use crate::route::{Operation, Query, Target};
use crate::xml::XmlWriter;

/// One authenticated request, as handlers see it.
pub(crate) struct Call<'a, S> {
    pub(crate) store: &'a S,
    pub(crate) config: &'a GatewayConfig,
    pub(crate) head: &'a Parts,
    pub(crate) query: &'a Query,
    pub(crate) context: &'a Context,
    pub(crate) terms: BodyTerms,
    pub(crate) operation: Operation,
}

impl<S> Call<'_, S> {
    /// A header's text; what is not ASCII counts as empty.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).map(|value| value.to_str().unwrap_or_default().trim())
    }

    /// A parameter that counts something: `default` if it is missing, at most `max`.
    ///
    /// # Errors
    /// `InvalidArgument` for what is not a number of that size.
    pub(crate) fn count(&self, name: &str, default: usize, max: usize) -> Result<usize, S3Error> {
        match self.query.get(name) {
            None | Some("") => Ok(default.min(max)),
            Some(text) => match text.parse::<u32>() {
                Ok(count) if count <= i32::MAX.unsigned_abs() => {
                    Ok(usize::try_from(count).unwrap_or(usize::MAX).min(max))
                }
                _ => Err(S3Error::argument(
                    name,
                    text,
                    format!("Argument {name} must be an integer between 0 and 2147483647"),
                )),
            },
        }
    }

    /// Whether names in the answer go percent-encoded.
    ///
    /// # Errors
    /// `InvalidArgument` for an encoding other than `url`.
    pub(crate) fn encoding(&self) -> Result<Encoding, S3Error> {
        match self.query.get("encoding-type") {
            None | Some("") => Ok(Encoding::Plain),
            Some(text) if text.eq_ignore_ascii_case("url") => Ok(Encoding::Url),
            Some(text) => Err(S3Error::argument("encoding-type", text, "Invalid Encoding Method specified in Request")),
        }
    }

    /// Refuses a version where a new one is made.
    ///
    /// # Errors
    /// `InvalidArgument`.
    fn refuse_version(&self) -> Result<(), S3Error> {
        match self.query.get("versionId") {
            None => Ok(()),
            Some(version) => {
                Err(S3Error::argument("versionId", version, "This operation does not accept a version-id."))
            }
        }
    }

    /// Reads a small body, verified.
    async fn small_body<B>(&self, incoming: Incoming<B>) -> Result<Bytes, S3Error>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin,
        B::Error: std::fmt::Display,
    {
        let headers = &self.head.headers;
        let declared = Declared::parse(headers, &incoming.payload)?;
        let body = RequestBody::new(self.head, incoming, declared, None, self.terms.clone())?;
        body.collect(self.config.xml_len_max).await
    }
}

impl<S: Store> Call<'_, S> {
    /// Whether the version in the query is one there can be.
    ///
    /// # Errors
    /// `InvalidArgument`, `NoSuchBucket`, `NoSuchVersion`.
    pub(crate) async fn check_version(&self, bucket: &BucketName, key: &Key) -> Result<(), S3Error> {
        Version::parse(self.query.get("versionId"))?.check(self, bucket, key).await
    }
}

/// Which version of an object is meant. Each object has one, whose id is `null`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// The one there is.
    Current,
    /// One that another S3 might have.
    Unknown(String),
}

impl Version {
    /// Length of S3's version ids.
    const ID_LEN: usize = 32;

    /// Reads a `versionId`, if there is one.
    ///
    /// # Errors
    /// `InvalidArgument` for what is none of S3's.
    pub(crate) fn parse(id: Option<&str>) -> Result<Self, S3Error> {
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        match id {
            None | Some("null") => Ok(Self::Current),
            Some("") => Err(S3Error::argument("versionId", "", "Version id cannot be the empty string")),
            Some(id) if id.len() == Self::ID_LEN && id.bytes().all(is_valid) => Ok(Self::Unknown(id.to_owned())),
            Some(id) => Err(S3Error::argument("versionId", id, "Invalid version id specified")),
        }
    }

    /// Refuses what is not the current version, once it is certain that the bucket exists.
    ///
    /// # Errors
    /// `NoSuchBucket`, `NoSuchVersion`.
    pub(crate) async fn check<S: Store>(
        &self,
        call: &Call<'_, S>,
        bucket: &BucketName,
        key: &Key,
    ) -> Result<(), S3Error> {
        let Self::Unknown(id) = self else { return Ok(()) };
        call.store.bucket(call.context, bucket).await?;
        Err(no_such_version(key, id))
    }
}

pub(crate) fn no_such_version(key: &Key, version: &str) -> S3Error {
    S3Error::from(ErrorCode::NoSuchVersion).with("Key", key.as_str().to_owned()).with("VersionId", version.to_owned())
}

/// How names stand in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// As XML text.
    Plain,
    /// Percent-encoded, so that keys XML has no form for survive.
    Url,
}

impl Encoding {
    /// Writes a name.
    pub(crate) fn text(self, xml: &mut XmlWriter, name: &str, text: &str) {
        match self {
            Self::Plain => xml.text(name, text),
            Self::Url => {
                let mut encoded = String::with_capacity(text.len());
                crate::route::encode_into(&mut encoded, text.as_bytes(), crate::route::Slash::Kept);
                xml.plain(name, encoded);
            }
        }
    }

    /// Writes a name that is there.
    pub(crate) fn text_if(self, xml: &mut XmlWriter, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(xml, name, text);
        }
    }

    /// Says that names are encoded.
    pub(crate) fn declare(self, xml: &mut XmlWriter) {
        if self == Self::Url {
            xml.plain("EncodingType", "url");
        }
    }
}

/// Writes an `Owner` (or another element of that form).
pub(crate) fn owner(xml: &mut XmlWriter, element: &str, owner_id: &str) {
    xml.open(element);
    xml.text("ID", owner_id);
    xml.text("DisplayName", owner_id);
    xml.close(element);
}

/// Writes a checksum's elements.
pub(crate) fn checksum_xml(xml: &mut XmlWriter, checksum: Option<&Checksum>) {
    if let Some(checksum) = checksum {
        xml.plain(checksum::element(checksum.algorithm), checksum::format_value(checksum));
    }
}

/// Writes a checksum's kind.
pub(crate) fn checksum_kind_xml(xml: &mut XmlWriter, kind: Option<ChecksumKind>) {
    if let Some(kind) = kind {
        xml.plain("ChecksumType", checksum::kind_name(kind));
    }
}

/// Sets a checksum's headers.
pub(crate) fn set_checksum(answer: &mut Answer, checksum: Option<&Checksum>) {
    if let Some(checksum) = checksum {
        set(answer, checksum::header(checksum.algorithm), &checksum::format_value(checksum));
        set(answer, HeaderName::from_static("x-amz-checksum-type"), checksum::kind_name(checksum.kind));
    }
}

/// Hands a request to its operation.
pub(crate) async fn dispatch<S, B>(
    call: &Call<'_, S>,
    target: &Target,
    incoming: Incoming<B>,
) -> Result<Answer, S3Error>
where
    S: Store,
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::fmt::Display,
{
    features::check(&call.head.headers, &call.config.owner_id)?;
    match target {
        Target::Service if call.operation == Operation::ListBuckets => bucket::list(call).await,
        Target::Service | Target::ObjectLambda => Err(S3Error::not_implemented(call.operation.name())),
        Target::Bucket(bucket) => Box::pin(dispatch_bucket(call, bucket, incoming)).await,
        Target::Object(bucket, key) => dispatch_object(call, bucket, key, incoming).await,
    }
}

async fn dispatch_bucket<S, B>(
    call: &Call<'_, S>,
    bucket: &BucketName,
    incoming: Incoming<B>,
) -> Result<Answer, S3Error>
where
    S: Store,
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::fmt::Display,
{
    match call.operation {
        Operation::CreateBucket => bucket::create(call, bucket, incoming).await,
        Operation::HeadBucket => bucket::head(call, bucket).await,
        Operation::DeleteBucket => bucket::delete(call, bucket).await,
        Operation::GetBucketLocation => bucket::location(call, bucket).await,
        Operation::ListObjects => list::objects_v1(call, bucket).await,
        Operation::ListObjectsV2 => list::objects_v2(call, bucket).await,
        Operation::ListObjectVersions => list::versions(call, bucket).await,
        Operation::ListMultipartUploads => multipart::list_uploads(call, bucket).await,
        Operation::DeleteObjects => delete_objects::delete(call, bucket, incoming).await,
        _ => config::bucket(call, bucket).await,
    }
}

async fn dispatch_object<S, B>(
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
    if let Operation::PutObject
    | Operation::CopyObject
    | Operation::CreateMultipartUpload
    | Operation::CompleteMultipartUpload = call.operation
    {
        call.refuse_version()?;
    }
    match call.operation {
        Operation::PutObject => object::put(call, bucket, key, incoming).await,
        Operation::GetObject => object::get(call, bucket, key).await,
        Operation::HeadObject => object::head(call, bucket, key).await,
        Operation::DeleteObject => object::delete(call, bucket, key).await,
        Operation::CopyObject => Box::pin(object::copy(call, bucket, key)).await,
        Operation::GetObjectAttributes => Box::pin(object::attributes(call, bucket, key)).await,
        Operation::CreateMultipartUpload => Box::pin(multipart::create(call, bucket, key)).await,
        Operation::UploadPart => multipart::upload_part(call, bucket, key, incoming).await,
        Operation::UploadPartCopy => Box::pin(multipart::upload_part_copy(call, bucket, key)).await,
        Operation::CompleteMultipartUpload => Box::pin(multipart::complete(call, bucket, key, incoming)).await,
        Operation::AbortMultipartUpload => multipart::abort(call, bucket, key).await,
        Operation::ListParts => Box::pin(multipart::list_parts(call, bucket, key)).await,
        _ => Box::pin(config::object(call, bucket, key)).await,
    }
}
