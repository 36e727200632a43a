//! The operations that load and tests need, on top of [`S3Client::send`].

use bytes::Bytes;
use http::Method;
use percent_encoding::percent_decode_str;

use super::{Answer, Call, ClientError, Payload, S3Client};

/// One page of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// Keys in the order of the answer.
    pub keys: Vec<String>,
    /// Common prefixes in the order of the answer.
    pub prefixes: Vec<String>,
    /// Where the next page begins; `None` on the last.
    pub continuation: Option<String>,
}

impl S3Client {
    /// Creates a bucket. One that is ours already counts as created.
    ///
    /// # Errors
    /// Any other answer than success.
    pub async fn create_bucket(&self, bucket: &str) -> Result<(), ClientError> {
        match self.send(Call::bucket(Method::PUT, bucket)).await?.success().await {
            Ok(mut answer) => answer.discard().await.map(drop),
            Err(ClientError::Refused { code, .. }) if code == "BucketAlreadyOwnedByYou" => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Deletes an empty bucket.
    ///
    /// # Errors
    /// Any other answer than success.
    pub async fn delete_bucket(&self, bucket: &str) -> Result<(), ClientError> {
        self.done(Call::bucket(Method::DELETE, bucket)).await.map(drop)
    }

    /// Stores an object and returns its `ETag` with the quotes.
    ///
    /// # Errors
    /// Any other answer than success.
    pub async fn put(&self, bucket: &str, key: &str, body: Payload) -> Result<String, ClientError> {
        let answer = self.done(Call::object(Method::PUT, bucket, key).body(body)).await?;
        Ok(answer.header("etag").to_owned())
    }

    /// Opens an object; its body is in the answer.
    ///
    /// # Errors
    /// Any other answer than success.
    pub async fn get(&self, bucket: &str, key: &str) -> Result<Answer, ClientError> {
        self.send(Call::object(Method::GET, bucket, key)).await?.success().await
    }

    /// Reads an object into memory.
    ///
    /// # Errors
    /// Any other answer than success, or a body that breaks off.
    pub async fn get_bytes(&self, bucket: &str, key: &str) -> Result<Bytes, ClientError> {
        self.get(bucket, key).await?.bytes().await
    }

    /// The head of an object.
    ///
    /// # Errors
    /// Any other answer than success.
    pub async fn head(&self, bucket: &str, key: &str) -> Result<Answer, ClientError> {
        self.done(Call::object(Method::HEAD, bucket, key)).await
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// Any other answer than success.
    pub async fn delete(&self, bucket: &str, key: &str) -> Result<(), ClientError> {
        self.done(Call::object(Method::DELETE, bucket, key)).await.map(drop)
    }

    /// Lists a page of at most 1000 keys (`ListObjectsV2`). Pass on `continuation` of the page before, or nothing.
    ///
    /// # Errors
    /// Any other answer than success.
    pub async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        delimiter: &str,
        continuation: Option<&str>,
    ) -> Result<ListPage, ClientError> {
        let mut query = vec![("list-type", "2"), ("encoding-type", "url"), ("prefix", prefix)];
        if !delimiter.is_empty() {
            query.push(("delimiter", delimiter));
        }
        query.extend(continuation.map(|token| ("continuation-token", token)));
        let body = self.body(Call::bucket(Method::GET, bucket).query(&query)).await?;
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let prefixes = tags(&body, "CommonPrefixes").filter_map(|inner| tag(inner, "Prefix")).map(|p| decode(&p));
        Ok(ListPage {
            keys: tags(&body, "Key").map(decode).collect(),
            prefixes: prefixes.collect(),
            continuation: tag(&body, "NextContinuationToken"),
        })
    }

    /// Starts a multipart upload and returns its id.
    ///
    /// # Errors
    /// Any other answer than success, or one without an id.
    pub async fn create_upload(&self, bucket: &str, key: &str) -> Result<String, ClientError> {
        let call = Call::object(Method::POST, bucket, key).query(&[("uploads", "")]);
        let body = self.body(call).await?;
        tag(&body, "UploadId").ok_or_else(|| self.incomplete("an UploadId"))
    }

    /// Uploads a part, numbered from 1, and returns its `ETag` with the quotes.
    ///
    /// # Errors
    /// Any other answer than success.
    pub async fn upload_part(
        &self,
        bucket: &str,
        key: &str,
        upload: &str,
        number: u32,
        body: Payload,
    ) -> Result<String, ClientError> {
        let query = [("partNumber", &*number.to_string()), ("uploadId", upload)];
        let answer = self.done(Call::object(Method::PUT, bucket, key).query(&query).body(body)).await?;
        Ok(answer.header("etag").to_owned())
    }

    /// Completes an upload from its parts' numbers and `ETag`s; returns the object's `ETag`.
    ///
    /// # Errors
    /// Any other answer than success; S3 may report a failure with status 200, which is an error here too.
    pub async fn complete_upload(
        &self,
        bucket: &str,
        key: &str,
        upload: &str,
        parts: &[(u32, String)],
    ) -> Result<String, ClientError> {
        let parts: String = parts
            .iter()
            .map(|(number, etag)| format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"))
            .collect();
        let body = Payload::bytes(format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>"));
        let call = Call::object(Method::POST, bucket, key).query(&[("uploadId", upload)]).body(body);
        let body = self.body(call).await?;
        tag(&body, "ETag").ok_or_else(|| self.incomplete("an ETag"))
    }

    /// Aborts an upload.
    ///
    /// # Errors
    /// Any other answer than success.
    pub async fn abort_upload(&self, bucket: &str, key: &str, upload: &str) -> Result<(), ClientError> {
        self.done(Call::object(Method::DELETE, bucket, key).query(&[("uploadId", upload)])).await.map(drop)
    }

    /// Sends, wants a success, and reads the body to its end so that the connection is free again.
    async fn done(&self, call: Call) -> Result<Answer, ClientError> {
        let mut answer = self.send(call).await?.success().await?;
        answer.discard().await?;
        Ok(answer)
    }

    async fn body(&self, call: Call) -> Result<String, ClientError> {
        let body = self.send(call).await?.success().await?.bytes().await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    fn incomplete(&self, what: &'static str) -> ClientError {
        ClientError::Incomplete { endpoint: self.endpoint().clone(), what }
    }
}

/// The text inside the first `<name>`, with the five XML entities resolved. Finds, does not parse: good for answers
/// of a service under test, not for untrusted documents.
pub fn tag(text: &str, name: &str) -> Option<String> {
    tags(text, name).next().map(unescape)
}

/// The raw text inside every `<name>`.
pub fn tags<'a>(text: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = text;
    std::iter::from_fn(move || {
        let start = rest.find(&open)? + open.len();
        let end = start + rest[start..].find(&close)?;
        let inner = &rest[start..end];
        rest = &rest[end + close.len()..];
        Some(inner)
    })
}

fn unescape(text: &str) -> String {
    [("&quot;", "\""), ("&#34;", "\""), ("&apos;", "'"), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")]
        .iter()
        .fold(text.to_owned(), |text, (entity, character)| text.replace(entity, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_found_in_order_and_unescaped() {
        let text = "<R><Key>a</Key><ETag>&quot;x&amp;lt;&quot;</ETag><Key>b</Key><Key>cut";
        assert_eq!(tags(text, "Key").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(tag(text, "ETag").as_deref(), Some("\"x&lt;\""));
        assert_eq!(tag(text, "Absent"), None);
    }
}
