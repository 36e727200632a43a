//! An answer: its head, and its body as it arrives.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::SendRequest;

use super::operations::tag;
use super::{ClientError, Payload, S3Client};

/// An answer whose body may still be on its way. Read to its end it gives its connection back for reuse; dropped
/// before, the connection is closed.
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    body: Incoming,
    client: S3Client,
    sender: Option<SendRequest<Payload>>,
}

impl Answer {
    pub(super) fn new(client: S3Client, sender: SendRequest<Payload>, response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        Self { status: head.status, headers: head.headers, body, client, sender: Some(sender) }
    }

    /// A header as text, empty when it is missing or not text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The next bytes of the body, `None` at its end.
    ///
    /// # Errors
    /// The body broke off, or nothing arrived within the stall time.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        while !self.body.is_end_stream() {
            let frame = tokio::time::timeout(self.client.inner.stall, self.body.frame()).await;
            match frame.map_err(|_| self.client.stalled())? {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => return Ok(Some(data)),
                    Err(_trailers) => {}
                },
                Some(Err(source)) => return Err(self.client.broken(source)),
                None => break,
            }
        }
        if let Some(sender) = self.sender.take() {
            self.client.give_back(sender);
        }
        Ok(None)
    }

    /// The whole body in memory.
    ///
    /// # Errors
    /// As [`Answer::next`].
    pub async fn bytes(&mut self) -> Result<Bytes, ClientError> {
        let Some(first) = self.next().await? else { return Ok(Bytes::new()) };
        let Some(second) = self.next().await? else { return Ok(first) };
        let mut all = BytesMut::from(first);
        all.extend_from_slice(&second);
        while let Some(bytes) = self.next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all.freeze())
    }

    /// Reads the body to its end and forgets it; returns its length.
    ///
    /// # Errors
    /// As [`Answer::next`].
    pub async fn discard(&mut self) -> Result<u64, ClientError> {
        let mut len = 0;
        while let Some(bytes) = self.next().await? {
            len += bytes.len() as u64;
        }
        Ok(len)
    }

    /// The answer itself when its status is a success, else what S3 said was wrong.
    ///
    /// # Errors
    /// [`ClientError::Refused`] for any other status.
    pub async fn success(mut self) -> Result<Self, ClientError> {
        if self.status.is_success() {
            return Ok(self);
        }
        let body = self.bytes().await.unwrap_or_default();
        let text = String::from_utf8_lossy(&body);
        Err(ClientError::Refused {
            endpoint: self.client.endpoint().clone(),
            status: self.status,
            code: tag(&text, "Code").unwrap_or_default(),
            message: tag(&text, "Message").unwrap_or_default(),
            request_id: self.header("x-amz-request-id").to_owned(),
        })
    }
}
