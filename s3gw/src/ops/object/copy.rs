//! `CopyObject`, and the source of `UploadPartCopy`: a read that streams back into the store.

use std::ops::Range;

use bytes::Bytes;
use drystone_cluster::store::{
    Body, BodyDigests, BodyError, BucketName, ChecksumAlgorithm, Key, ObjectHead, ObjectMetadata, PutObject, Read,
    Reader, Store, StoreError, Stored,
};

use crate::body::len_u64;
use crate::checksum::{self, DEFAULT_ALGORITHM, Digester};
use crate::error::{ErrorCode, S3Error};
use crate::ops::{Call, Version, checksum_kind_xml, checksum_xml};
use crate::response::{Answer, xml};
use crate::route::{Plus, decode_utf8, parse_key};
use crate::xml::XmlWriter;
use crate::{conditions, metadata};

const REDIRECT: &str = "x-amz-website-redirect-location";

/// What `x-amz-copy-source` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ops) struct CopySource {
    pub(in crate::ops) bucket: BucketName,
    pub(in crate::ops) key: Key,
    version: Version,
}

impl CopySource {
    /// Reads `[/]BUCKET/KEY[?versionId=ID]`, percent-encoded.
    ///
    /// # Errors
    /// `InvalidArgument`, `InvalidBucketName`; `NotImplemented` for access points.
    pub(in crate::ops) fn parse(header: &str) -> Result<Self, S3Error> {
        let invalid = |message: &'static str| S3Error::argument("x-amz-copy-source", header, message);
        let (path, version) = match header.split_once("?versionId=") {
            Some((path, version)) => (path, Some(version)),
            None => (header, None),
        };
        let path = decode_utf8(path, Plus::Kept).ok_or_else(|| invalid("Invalid copy source encoding."))?;
        if path.starts_with("arn:") {
            return Err(S3Error::not_implemented("Copying from an access point"));
        }
        let (bucket, key) = path
            .strip_prefix('/')
            .unwrap_or(&path)
            .split_once('/')
            .filter(|(_, key)| !key.is_empty())
            .ok_or_else(|| invalid("Copy Source must mention the source bucket and key: sourcebucket/sourcekey"))?;
        let bucket = BucketName::new(bucket)
            .map_err(|error| S3Error::from(ErrorCode::InvalidBucketName).with("BucketName", error.0))?;
        let key = parse_key(key.to_owned())?;
        Ok(Self { bucket, key, version: Version::parse(version)? })
    }

    /// Opens the source and decides the conditions on it.
    pub(in crate::ops) async fn open<S: Store>(&self, call: &Call<'_, S>) -> Result<S::Reader, S3Error> {
        self.version.check(call, &self.bucket, &self.key).await?;
        let reader = call.store.open_object(call.context, &self.bucket, &self.key).await?;
        conditions::check_copy_source(&call.head.headers, reader.head())?;
        Ok(reader)
    }
}

/// Bytes of an object on their way into another.
pub(in crate::ops) struct CopyBody<R> {
    read: R,
    len: u64,
    copied: u64,
    digester: Digester,
    kept: ChecksumAlgorithm,
    digests: BodyDigests,
}

impl<R: Read> CopyBody<R> {
    /// The bytes `range` of `reader`'s version, to be kept with a checksum by `kept`.
    pub(in crate::ops) fn new(reader: &impl Reader<Read = R>, range: Range<u64>, kept: ChecksumAlgorithm) -> Self {
        let mut digester = Digester::new();
        digester.want(kept);
        let len = range.end.saturating_sub(range.start);
        let digests = BodyDigests { md5: [0; 16], checksum: None };
        Self { read: reader.read(range), len, copied: 0, digester, kept, digests }
    }
}

impl<R: Read> Body for CopyBody<R> {
    fn len(&self) -> u64 {
        self.len
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        match self.read.chunk().await.map_err(|error| BodyError::Source(Box::new(error)))? {
            Some(bytes) => {
                self.copied = self.copied.saturating_add(len_u64(bytes.len()));
                if self.copied > self.len {
                    return Err(BodyError::TooLong { declared: self.len });
                }
                self.digester.update(&bytes);
                Ok(Some(bytes))
            }
            None if self.copied < self.len => {
                let short = format!("the source ended after {} of {} bytes", self.copied, self.len);
                Err(BodyError::Source(Box::new(StoreError::Internal(short))))
            }
            None => {
                let checksum = self.digester.checksum(self.kept);
                self.digests = BodyDigests { md5: self.digester.md5(), checksum };
                Ok(None)
            }
        }
    }

    fn digests(&self) -> BodyDigests {
        self.digests.clone()
    }
}

/// Whether a copy onto itself changes something all the same: S3 takes the same storage class again for a change.
fn changes_itself<S>(call: &Call<'_, S>) -> bool {
    ["x-amz-storage-class", REDIRECT].into_iter().any(|name| call.head.headers.contains_key(name))
}

/// What the copy carries.
fn copied_metadata<S>(call: &Call<'_, S>, same: bool, source: &ObjectHead) -> Result<ObjectMetadata, S3Error> {
    let given = metadata::parse(&call.head.headers)?;
    match call.header("x-amz-metadata-directive") {
        Some("REPLACE") => Ok(given),
        None | Some("COPY") if same && !changes_itself(call) => Err(S3Error::new(
            ErrorCode::InvalidRequest,
            "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes.",
        )),
        None | Some("COPY") => {
            let mut metadata = source.metadata.clone();
            // A redirect belongs to the place, not to the bytes: AWS never copies it.
            metadata.headers.remove(REDIRECT);
            metadata.headers.extend(given.headers.into_iter().filter(|(name, _)| name == REDIRECT));
            Ok(metadata)
        }
        Some(other) => Err(S3Error::argument("x-amz-metadata-directive", other, "Unknown metadata directive.")),
    }
}

/// Which checksum the copy keeps: the one asked for, else the source's, else the default.
fn kept_algorithm<S>(call: &Call<'_, S>, source: &ObjectHead) -> Result<ChecksumAlgorithm, S3Error> {
    match call.header("x-amz-checksum-algorithm") {
        Some(name) => checksum::parse_asked(name),
        None => Ok(source.checksum.as_ref().map_or(DEFAULT_ALGORITHM, |checksum| checksum.algorithm)),
    }
}

/// `CopyObject`.
pub(in crate::ops) async fn copy<S: Store>(
    call: &Call<'_, S>,
    bucket: &BucketName,
    key: &Key,
) -> Result<Answer, S3Error> {
    let source = CopySource::parse(call.header("x-amz-copy-source").unwrap_or_default())?;
    let condition = conditions::write_condition(&call.head.headers)?;
    let reader = source.open(call).await?;
    let head = reader.head();
    if head.len > call.config.put_len_max {
        return Err(S3Error::new(
            ErrorCode::InvalidRequest,
            format!(
                "The specified copy source is larger than the maximum allowable size for a copy source: {}",
                call.config.put_len_max
            ),
        ));
    }
    let same = source.bucket == *bucket && source.key == *key;
    let metadata = copied_metadata(call, same, head)?;
    let body = CopyBody::new(&reader, 0..head.len, kept_algorithm(call, head)?);
    let put = PutObject { bucket: bucket.clone(), key: key.clone(), metadata, condition };
    let stored = call.store.put_object(call.context, put, body).await?;
    Ok(xml(result_xml("CopyObjectResult", &stored)))
}

/// The result of a copy.
pub(in crate::ops) fn result_xml(root: &'static str, stored: &Stored) -> XmlWriter {
    let mut out = XmlWriter::root(root);
    out.etag(stored.etag);
    out.time("LastModified", stored.modified_ms);
    checksum_kind_xml(&mut out, stored.checksum.as_ref().map(|checksum| checksum.kind));
    checksum_xml(&mut out, stored.checksum.as_ref());
    out.close(root);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(header: &str) -> Result<(String, String), ErrorCode> {
        CopySource::parse(header)
            .map(|source| (source.bucket.to_string(), source.key.to_string()))
            .map_err(|error| error.code())
    }

    #[test]
    fn a_copy_source_names_bucket_and_key() {
        let ok = |bucket: &str, key: &str| Ok((bucket.to_owned(), key.to_owned()));
        assert_eq!(parsed("/src/a/b"), ok("src", "a/b"));
        assert_eq!(parsed("src/a%20b%3Fc+d"), ok("src", "a b?c+d"));
        assert_eq!(parsed("src%2Fkey?versionId=null"), ok("src", "key"));
        let unknown = CopySource::parse("src/key?versionId=3sL4kqtJlcpXroDTDmJ.rmSpXd3dIbrH").unwrap();
        assert_eq!(unknown.version, Version::Unknown("3sL4kqtJlcpXroDTDmJ.rmSpXd3dIbrH".to_owned()));
        assert_eq!(parsed("src/key?versionId=abc"), Err(ErrorCode::InvalidArgument));
        assert_eq!(parsed("src/key?versionId="), Err(ErrorCode::InvalidArgument));
        for header in ["", "/", "src", "src/", "src/%ff", "src/%zz"] {
            assert_eq!(parsed(header), Err(ErrorCode::InvalidArgument), "{header}");
        }
        assert_eq!(parsed("No_Bucket/key"), Err(ErrorCode::InvalidBucketName));
    }
}
