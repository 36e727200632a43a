//! The requests that come as XML: what they must hold, and nothing of what it means.

use super::reader::{Element, Malformed, parse};
use crate::checksum::{self, ALGORITHMS};
use crate::error::{ErrorCode, S3Error};
use drystone_cluster::store::{Checksum, PART_NUMBER_MAX};

/// AWS's bound on one `DeleteObjects`.
const DELETE_COUNT_MAX: usize = 1000;

impl From<Malformed> for S3Error {
    fn from(Malformed: Malformed) -> Self {
        Self::from(ErrorCode::MalformedXML)
    }
}

fn parse_root(bytes: &[u8], name: &str) -> Result<Element, S3Error> {
    let root = parse(bytes)?;
    if &*root.name == name { Ok(root) } else { Err(S3Error::from(ErrorCode::MalformedXML)) }
}

/// The location constraint of a `CreateBucketConfiguration`; an empty body is one without.
///
/// # Errors
/// `MalformedXML`; `NotImplemented` for directory buckets and tags.
pub(crate) fn parse_create_bucket(bytes: &[u8]) -> Result<Option<String>, S3Error> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let root = parse_root(bytes, "CreateBucketConfiguration")?;
    let mut location = None;
    for child in &root.children {
        match &*child.name {
            "LocationConstraint" => location = Some(child.text.clone()),
            "Tags" if child.children.is_empty() => {}
            "Tags" => return Err(S3Error::not_implemented("Tagging a bucket")),
            "Location" | "Bucket" => return Err(S3Error::not_implemented("A directory bucket")),
            _ => return Err(S3Error::from(ErrorCode::MalformedXML)),
        }
    }
    Ok(location)
}

/// A `Delete` request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeleteXml {
    /// Whether only errors are answered.
    pub(crate) quiet: bool,
    /// The objects.
    pub(crate) objects: Vec<DeleteObjectXml>,
}

/// One object of a `Delete` request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeleteObjectXml {
    /// Its key, unchecked.
    pub(crate) key: String,
    /// Which version, if named.
    pub(crate) version: Option<String>,
    /// The tag it must have, if named.
    pub(crate) etag: Option<String>,
}

/// Reads a `Delete` of 1 to 1000 objects.
///
/// # Errors
/// `MalformedXML`; `NotImplemented` for conditions of directory buckets.
pub(crate) fn parse_delete(bytes: &[u8]) -> Result<DeleteXml, S3Error> {
    let malformed = || S3Error::from(ErrorCode::MalformedXML);
    let root = parse_root(bytes, "Delete")?;
    let mut request = DeleteXml { quiet: false, objects: Vec::new() };
    for child in &root.children {
        match &*child.name {
            "Quiet" => request.quiet = child.text.trim().eq_ignore_ascii_case("true"),
            "Object" => {
                if child.child("LastModifiedTime").is_some() || child.child("Size").is_some() {
                    return Err(S3Error::not_implemented("Deleting by time or size"));
                }
                request.objects.push(DeleteObjectXml {
                    key: child.text_of("Key").ok_or_else(malformed)?.to_owned(),
                    version: child.text_of("VersionId").filter(|text| !text.is_empty()).map(str::to_owned),
                    etag: child.text_of("ETag").map(str::to_owned),
                });
            }
            _ => return Err(malformed()),
        }
    }
    if (1..=DELETE_COUNT_MAX).contains(&request.objects.len()) { Ok(request) } else { Err(malformed()) }
}

/// One part of a `CompleteMultipartUpload`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CompletedPartXml {
    /// `1..=10_000`.
    pub(crate) number: u32,
    /// Its entity tag as the client wrote it.
    pub(crate) etag: String,
    /// Its checksum, if the client says one.
    pub(crate) checksum: Option<Checksum>,
}

/// Reads a `CompleteMultipartUpload` of 1 to 10,000 parts, in the order given.
///
/// # Errors
/// `MalformedXML`; `InvalidArgument` for a part number out of range; `InvalidRequest` for a checksum that cannot be one.
pub(crate) fn parse_complete(bytes: &[u8]) -> Result<Vec<CompletedPartXml>, S3Error> {
    let malformed = || S3Error::from(ErrorCode::MalformedXML);
    let root = parse_root(bytes, "CompleteMultipartUpload")?;
    let mut parts = Vec::with_capacity(root.children.len());
    for child in &root.children {
        if &*child.name != "Part" {
            return Err(malformed());
        }
        let text = child.text_of("PartNumber").ok_or_else(malformed)?.trim();
        let number = text.parse().map_err(|_| malformed())?;
        if !(1..=PART_NUMBER_MAX).contains(&number) {
            return Err(S3Error::argument(
                "partNumber",
                text,
                "Part number must be an integer between 1 and 10000, inclusive",
            ));
        }
        let etag = child.text_of("ETag").ok_or_else(malformed)?.to_owned();
        parts.push(CompletedPartXml { number, etag, checksum: part_checksum(child)? });
    }
    let count_max = usize::try_from(PART_NUMBER_MAX).unwrap_or(usize::MAX);
    if (1..=count_max).contains(&parts.len()) { Ok(parts) } else { Err(malformed()) }
}

fn part_checksum(part: &Element) -> Result<Option<Checksum>, S3Error> {
    for algorithm in ALGORITHMS {
        if let Some(text) = part.text_of(checksum::element(algorithm)) {
            let checksum = checksum::parse_value(algorithm, text).ok_or_else(|| {
                S3Error::new(
                    ErrorCode::InvalidRequest,
                    format!("Value for {} is invalid.", checksum::element(algorithm)),
                )
            })?;
            return Ok(Some(checksum));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delete_keeps_keys_and_versions() {
        let request = parse_delete(
            b"<Delete xmlns='http://s3.amazonaws.com/doc/2006-03-01/'><Quiet>true</Quiet><Object><Key> a&lt; </Key></Object>\
              <Object><Key>b</Key><VersionId>null</VersionId><ETag>&quot;x&quot;</ETag></Object></Delete>",
        )
        .unwrap();
        assert!(request.quiet);
        assert_eq!(request.objects[0], DeleteObjectXml { key: " a< ".into(), version: None, etag: None });
        assert_eq!(
            request.objects[1],
            DeleteObjectXml { key: "b".into(), version: Some("null".into()), etag: Some("\"x\"".into()) }
        );
    }

    #[test]
    fn deletes_of_none_or_too_many_are_malformed() {
        let many = format!("<Delete>{}</Delete>", "<Object><Key>k</Key></Object>".repeat(1001));
        for body in ["<Delete/>", "<Delete><Object/></Delete>", "<Other/>", &many] {
            assert_eq!(parse_delete(body.as_bytes()).unwrap_err().code(), ErrorCode::MalformedXML);
        }
    }

    #[test]
    fn a_completion_lists_parts_with_checksums() {
        let parts = parse_complete(
            b"<CompleteMultipartUpload><Part><PartNumber>2</PartNumber><ETag>\"e\"</ETag>\
              <ChecksumCRC32>AAAAAA==</ChecksumCRC32></Part></CompleteMultipartUpload>",
        )
        .unwrap();
        assert_eq!((parts[0].number, parts[0].etag.as_str()), (2, "\"e\""));
        assert_eq!(parts[0].checksum.as_ref().unwrap().value, [0; 4]);
        for (body, code) in [
            ("<CompleteMultipartUpload/>", ErrorCode::MalformedXML),
            (
                "<CompleteMultipartUpload><Part><PartNumber>x</PartNumber><ETag>e</ETag></Part></CompleteMultipartUpload>",
                ErrorCode::MalformedXML,
            ),
            (
                "<CompleteMultipartUpload><Part><PartNumber>0</PartNumber><ETag>e</ETag></Part></CompleteMultipartUpload>",
                ErrorCode::InvalidArgument,
            ),
            (
                "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber></Part></CompleteMultipartUpload>",
                ErrorCode::MalformedXML,
            ),
        ] {
            assert_eq!(parse_complete(body.as_bytes()).unwrap_err().code(), code, "{body}");
        }
    }

    #[test]
    fn a_new_bucket_names_its_region_or_nothing() {
        assert_eq!(parse_create_bucket(b"").unwrap(), None);
        let body = b"<CreateBucketConfiguration><LocationConstraint>eu-west-1</LocationConstraint></CreateBucketConfiguration>";
        assert_eq!(parse_create_bucket(body).unwrap().as_deref(), Some("eu-west-1"));
        assert_eq!(parse_create_bucket(b"<nonsense").unwrap_err().code(), ErrorCode::MalformedXML);
    }
}
