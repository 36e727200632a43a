//! Listings of objects: version 1, version 2, and versions (of which every object has one).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use drystone_cluster::store::{BucketName, ChecksumAlgorithm, ChecksumKind, ListEntry, ListPage, ListQuery, Store};

use super::{Call, Encoding, Version, checksum_kind_xml, owner};
use crate::checksum;
use crate::error::S3Error;
use crate::response::{Answer, xml};
use crate::xml::XmlWriter;

/// AWS's bound on a page.
const PAGE_MAX: usize = 1000;

/// What all three have in common.
struct Request<'a> {
    prefix: &'a str,
    delimiter: Option<&'a str>,
    count_max: usize,
    encoding: Encoding,
}

impl<'a> Request<'a> {
    fn parse<S>(call: &'a Call<'_, S>) -> Result<Self, S3Error> {
        Ok(Self {
            prefix: call.query.get("prefix").unwrap_or_default(),
            delimiter: call.query.get("delimiter").filter(|text| !text.is_empty()),
            count_max: call.count("max-keys", PAGE_MAX, PAGE_MAX)?,
            encoding: call.encoding()?,
        })
    }

    async fn page<S: Store>(
        &self,
        call: &Call<'_, S>,
        bucket: &BucketName,
        after: Option<&str>,
    ) -> Result<ListPage, S3Error> {
        if self.count_max == 0 {
            call.store.bucket(call.context, bucket).await?;
            return Ok(ListPage { entries: Vec::new(), truncated: false });
        }
        let query = ListQuery {
            bucket: bucket.clone(),
            prefix: self.prefix.to_owned(),
            delimiter: self.delimiter.map(str::to_owned),
            after: after.filter(|text| !text.is_empty()).map(str::to_owned),
            entry_count_max: self.count_max,
        };
        Ok(call.store.list_objects(call.context, query).await?)
    }

    fn begin(&self, root: &str, bucket: &BucketName, page: &ListPage) -> XmlWriter {
        let mut out = XmlWriter::root(root);
        out.plain("Name", bucket);
        self.encoding.text(&mut out, "Prefix", self.prefix);
        out.plain("MaxKeys", self.count_max);
        self.encoding.text_if(&mut out, "Delimiter", self.delimiter);
        self.encoding.declare(&mut out);
        out.plain("IsTruncated", page.truncated);
        out
    }

    /// Objects first, then common prefixes, as AWS orders them.
    fn entries(&self, out: &mut XmlWriter, page: &ListPage, line: &Line<'_>) {
        for entry in &page.entries {
            if let ListEntry::Object { .. } = entry {
                line.write(out, entry, self.encoding);
            }
        }
        for entry in &page.entries {
            if let ListEntry::Prefix(prefix) = entry {
                out.open("CommonPrefixes");
                self.encoding.text(out, "Prefix", prefix);
                out.close("CommonPrefixes");
            }
        }
    }
}

/// How an object's line looks.
struct Line<'a> {
    element: &'static str,
    owner_id: Option<&'a str>,
    versions: bool,
}

impl Line<'_> {
    fn write(&self, out: &mut XmlWriter, entry: &ListEntry, encoding: Encoding) {
        let ListEntry::Object { key, len, etag, modified_ms, checksum } = entry else { return };
        out.open(self.element);
        encoding.text(out, "Key", key.as_str());
        if self.versions {
            out.plain("VersionId", "null");
            out.plain("IsLatest", true);
        }
        out.time("LastModified", *modified_ms);
        out.etag(*etag);
        checksum_algorithm(out, checksum.as_ref());
        out.plain("Size", len);
        if let Some(owner_id) = self.owner_id {
            owner(out, "Owner", owner_id);
        }
        out.plain("StorageClass", "STANDARD");
        out.close(self.element);
    }
}

/// Writes an algorithm and kind.
pub(super) fn checksum_algorithm(out: &mut XmlWriter, checksum: Option<&(ChecksumAlgorithm, ChecksumKind)>) {
    if let Some((algorithm, kind)) = checksum {
        out.plain("ChecksumAlgorithm", checksum::name(*algorithm));
        checksum_kind_xml(out, Some(*kind));
    }
}

fn last_name(page: &ListPage) -> Option<&str> {
    page.entries.last().filter(|_| page.truncated).map(ListEntry::name)
}

/// `ListObjects`.
pub(super) async fn objects_v1<S: Store>(call: &Call<'_, S>, bucket: &BucketName) -> Result<Answer, S3Error> {
    let request = Request::parse(call)?;
    let marker = call.query.get("marker").unwrap_or_default();
    let page = request.page(call, bucket, Some(marker)).await?;
    let mut out = request.begin("ListBucketResult", bucket, &page);
    request.encoding.text(&mut out, "Marker", marker);
    // Without a delimiter clients go on from the last key themselves, as with S3.
    request.encoding.text_if(&mut out, "NextMarker", last_name(&page).filter(|_| request.delimiter.is_some()));
    let line = Line { element: "Contents", owner_id: Some(&call.config.owner_id), versions: false };
    request.entries(&mut out, &page, &line);
    out.close("ListBucketResult");
    Ok(xml(out))
}

/// `ListObjectsV2`. The continuation token is the last name of the page before, not to be read by clients.
pub(super) async fn objects_v2<S: Store>(call: &Call<'_, S>, bucket: &BucketName) -> Result<Answer, S3Error> {
    let request = Request::parse(call)?;
    let token = call.query.get("continuation-token");
    let start_after = call.query.get("start-after").filter(|text| !text.is_empty());
    let continued = token.map(parse_token).transpose()?;
    let page = request.page(call, bucket, continued.as_deref().or(start_after)).await?;
    let mut out = request.begin("ListBucketResult", bucket, &page);
    out.plain("KeyCount", page.entries.len());
    out.text_if("ContinuationToken", token);
    if let Some(name) = last_name(&page) {
        out.plain("NextContinuationToken", URL_SAFE_NO_PAD.encode(name));
    }
    request.encoding.text_if(&mut out, "StartAfter", start_after);
    let fetch_owner = call.query.get("fetch-owner") == Some("true");
    let owner_id = fetch_owner.then_some(call.config.owner_id.as_str());
    request.entries(&mut out, &page, &Line { element: "Contents", owner_id, versions: false });
    out.close("ListBucketResult");
    Ok(xml(out))
}

fn parse_token(token: &str) -> Result<String, S3Error> {
    URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .filter(|name| !name.is_empty())
        .ok_or_else(|| S3Error::argument("continuation-token", token, "The continuation token provided is incorrect"))
}

/// `ListObjectVersions` of a bucket without versioning: each object is its only version, `null`.
pub(super) async fn versions<S: Store>(call: &Call<'_, S>, bucket: &BucketName) -> Result<Answer, S3Error> {
    let request = Request::parse(call)?;
    let marker = call.query.get("key-marker").unwrap_or_default();
    let version_marker = call.query.get("version-id-marker").unwrap_or_default();
    if marker.is_empty() && !version_marker.is_empty() {
        return Err(S3Error::argument(
            "version-id-marker",
            version_marker,
            "A version-id marker cannot be specified without a key marker.",
        ));
    }
    // Whichever version it names of the marker's key, none of that key follows.
    Version::parse(Some(version_marker).filter(|marker| !marker.is_empty()))
        .map_err(|_| S3Error::argument("version-id-marker", version_marker, "Invalid version id specified"))?;
    let page = request.page(call, bucket, Some(marker)).await?;
    let mut out = request.begin("ListVersionsResult", bucket, &page);
    request.encoding.text(&mut out, "KeyMarker", marker);
    out.text("VersionIdMarker", version_marker);
    if page.truncated {
        request.encoding.text_if(&mut out, "NextKeyMarker", last_name(&page));
        if let Some(ListEntry::Object { .. }) = page.entries.last() {
            out.plain("NextVersionIdMarker", "null");
        }
    }
    let line = Line { element: "Version", owner_id: Some(&call.config.owner_id), versions: true };
    request.entries(&mut out, &page, &line);
    out.close("ListVersionsResult");
    Ok(xml(out))
}
