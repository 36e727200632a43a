//! The operations the tests use, each one request (a whole listing: one per page).

use bytes::Bytes;
use http::Method;
use md5::{Digest, Md5};

use super::xml::{Element, escape};
use super::{Client, ClientError, Request, Response};

/// The ETag S3 gives to a body put in one piece, with its quotes.
#[must_use]
pub fn etag_of(body: &[u8]) -> String {
    format!("\"{}\"", hex::encode(Md5::digest(body)))
}

/// A part for [`Client::complete_multipart`].
#[derive(Clone, Debug)]
pub struct CompletedPart {
    /// From 1 on.
    pub number: u32,
    /// As UploadPart returned it.
    pub etag: String,
}

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct Listing<'a> {
    /// Only keys that start with this.
    pub prefix: &'a str,
    /// Groups keys up to this, if not empty.
    pub delimiter: &'a str,
    /// Only keys after this.
    pub start_after: &'a str,
    /// Entries in a page; 0 means the server's default.
    pub page: usize,
}

/// One entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Listed {
    /// An object.
    Object {
        /// Its key.
        key: String,
        /// Its length in bytes.
        len: u64,
        /// Its ETag with quotes.
        etag: String,
    },
    /// A common prefix.
    Prefix(String),
}

/// One page of a listing.
#[derive(Clone, Debug, Default)]
pub struct ListPage {
    /// Objects, then common prefixes, each in order.
    pub entries: Vec<Listed>,
    /// Where the next page starts, if there is one.
    pub token: Option<String>,
}

fn path(bucket: &str, key: &str) -> String {
    format!("/{bucket}/{key}")
}

impl Client {
    /// PUT bucket.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn create_bucket(&self, bucket: &str) -> Result<Response, ClientError> {
        self.send(Request::new(Method::PUT, format!("/{bucket}"))).await
    }

    /// PUT.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn put(&self, bucket: &str, key: &str, body: Bytes) -> Result<Response, ClientError> {
        self.send(Request::new(Method::PUT, path(bucket, key)).body(body)).await
    }

    /// PUT with `If-None-Match: *`.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn put_if_absent(&self, bucket: &str, key: &str, body: Bytes) -> Result<Response, ClientError> {
        self.send(Request::new(Method::PUT, path(bucket, key)).header("if-none-match", "*").body(body)).await
    }

    /// PUT with `If-Match`.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn put_if_match(
        &self,
        bucket: &str,
        key: &str,
        etag: &str,
        body: Bytes,
    ) -> Result<Response, ClientError> {
        self.send(Request::new(Method::PUT, path(bucket, key)).header("if-match", etag).body(body)).await
    }

    /// GET.
    ///
    /// # Errors
    /// There was no whole answer.
    pub async fn get(&self, bucket: &str, key: &str) -> Result<Response, ClientError> {
        self.send(Request::new(Method::GET, path(bucket, key))).await
    }

    /// GET of the bytes from `first` to `last`, both included.
    ///
    /// # Errors
    /// There was no whole answer.
    pub async fn get_range(&self, bucket: &str, key: &str, first: u64, last: u64) -> Result<Response, ClientError> {
        self.send(Request::new(Method::GET, path(bucket, key)).header("range", format!("bytes={first}-{last}"))).await
    }

    /// HEAD.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn head(&self, bucket: &str, key: &str) -> Result<Response, ClientError> {
        self.send(Request::new(Method::HEAD, path(bucket, key))).await
    }

    /// DELETE.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn delete(&self, bucket: &str, key: &str) -> Result<Response, ClientError> {
        self.send(Request::new(Method::DELETE, path(bucket, key))).await
    }

    /// An unsigned GET of a path such as `/-/health`.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn get_plain(&self, path: &str) -> Result<Response, ClientError> {
        self.send(Request::new(Method::GET, path).authentication(super::Authentication::Anonymous)).await
    }

    /// One page of ListObjectsV2, from the start or from a token.
    ///
    /// # Errors
    /// There was no answer, it was not 200, or it was not a listing.
    pub async fn list_page(
        &self,
        bucket: &str,
        listing: &Listing<'_>,
        token: Option<&str>,
    ) -> Result<ListPage, ClientError> {
        let mut request = Request::new(Method::GET, format!("/{bucket}")).query("list-type", "2");
        let words =
            [("prefix", listing.prefix), ("delimiter", listing.delimiter), ("start-after", listing.start_after)];
        for (name, value) in words.into_iter().filter(|(_, value)| !value.is_empty()) {
            request = request.query(name, value);
        }
        if listing.page > 0 {
            request = request.query("max-keys", listing.page.to_string());
        }
        if let Some(token) = token {
            request = request.query("continuation-token", token);
        }
        let answer = self.send(request).await?;
        if !answer.status.is_success() {
            return Err(ClientError::Nonsense { cause: format!("listing: {}", answer.describe()) });
        }
        let root = Element::parse(&answer.body).map_err(|cause| ClientError::Nonsense { cause: cause.to_string() })?;
        Ok(read_page(&root))
    }

    /// All pages of a listing.
    ///
    /// # Errors
    /// As [`Client::list_page`]; a page that says there is more but not where.
    pub async fn list(&self, bucket: &str, listing: &Listing<'_>) -> Result<Vec<Listed>, ClientError> {
        let mut all = Vec::new();
        let mut token = None;
        loop {
            let page = self.list_page(bucket, listing, token.as_deref()).await?;
            all.extend(page.entries);
            token = page.token;
            if token.is_none() {
                return Ok(all);
            }
        }
    }

    /// CreateMultipartUpload: the upload id.
    ///
    /// # Errors
    /// There was no answer, or it named no upload.
    pub async fn create_multipart(&self, bucket: &str, key: &str) -> Result<String, ClientError> {
        let answer = self.send(Request::new(Method::POST, path(bucket, key)).query("uploads", "")).await?;
        let root = Element::parse(&answer.body).unwrap_or_default();
        let upload = root.text_of("UploadId").to_owned();
        if upload.is_empty() { Err(ClientError::Nonsense { cause: answer.describe() }) } else { Ok(upload) }
    }

    /// UploadPart.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn upload_part(
        &self,
        bucket: &str,
        key: &str,
        upload: &str,
        number: u32,
        body: Bytes,
    ) -> Result<Response, ClientError> {
        let request = Request::new(Method::PUT, path(bucket, key));
        self.send(request.query("partNumber", number.to_string()).query("uploadId", upload).body(body)).await
    }

    /// CompleteMultipartUpload.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn complete_multipart(
        &self,
        bucket: &str,
        key: &str,
        upload: &str,
        parts: &[CompletedPart],
    ) -> Result<Response, ClientError> {
        let parts: String = parts
            .iter()
            .map(|part| {
                format!("<Part><PartNumber>{}</PartNumber><ETag>{}</ETag></Part>", part.number, escape(&part.etag))
            })
            .collect();
        let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
        self.send(Request::new(Method::POST, path(bucket, key)).query("uploadId", upload).body(body)).await
    }
}

fn read_page(root: &Element) -> ListPage {
    let objects = root.children_named("Contents").map(|entry| Listed::Object {
        key: entry.text_of("Key").to_owned(),
        len: entry.text_of("Size").parse().unwrap_or(u64::MAX),
        etag: entry.text_of("ETag").to_owned(),
    });
    let prefixes =
        root.children_named("CommonPrefixes").map(|entry| Listed::Prefix(entry.text_of("Prefix").to_owned()));
    let token = root.text_of("NextContinuationToken");
    let token = (root.text_of("IsTruncated") == "true").then(|| token.to_owned());
    ListPage { entries: objects.chain(prefixes).collect(), token }
}
