//! The one table of S3 errors: code, HTTP status, message; and how the store's answers map onto it.
//!
//! Codes and statuses are those of <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>. Two choices
//! are ours: full drives are `InsufficientStorage` with 507 (clients do not retry it, and retrying would not help), and
//! everything the cluster cannot decide now is `ServiceUnavailable` with 503 and the reason in the message.

use std::borrow::Cow;

use drystone_cluster::store::{BodyError, StoreError, Unavailable};
use http::header::HeaderName;
use http::{HeaderValue, StatusCode};

use crate::checksum;
use crate::xml::XmlWriter;

macro_rules! error_codes {
    ($($variant:ident $status:ident $message:literal,)*) => {
        /// The error codes this gateway answers with.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            $(#[doc = $message] $variant,)*
        }

        impl ErrorCode {
            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code as clients see it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)* }
            }

            /// The HTTP status that goes with it.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)* }
            }

            /// What is said when there is nothing more precise to say.
            pub const fn message(self) -> &'static str {
                match self { $(Self::$variant => $message,)* }
            }
        }
    };
}

error_codes! {
    AccessDenied FORBIDDEN "Access Denied",
    AccessForbidden FORBIDDEN "CORSResponse: CORS is not enabled for this bucket.",
    AuthorizationHeaderMalformed BAD_REQUEST "The authorization header that you provided is not valid.",
    AuthorizationQueryParametersError BAD_REQUEST "The authorization query parameters that you provided are not valid.",
    BadDigest BAD_REQUEST "The Content-MD5 or checksum value that you specified did not match what the server received.",
    BadRequest BAD_REQUEST "Insufficient information. Origin request header needed.",
    BucketAlreadyOwnedByYou CONFLICT "Your previous request to create the named bucket succeeded and you already own it.",
    BucketNotEmpty CONFLICT "The bucket you tried to delete is not empty.",
    EntityTooLarge BAD_REQUEST "Your proposed upload exceeds the maximum allowed object size.",
    EntityTooSmall BAD_REQUEST "Your proposed upload is smaller than the minimum allowed size.",
    IncompleteBody BAD_REQUEST "You did not provide the number of bytes specified by the Content-Length HTTP header.",
    InsufficientStorage INSUFFICIENT_STORAGE "The cluster has no space left for a durable write.",
    InternalError INTERNAL_SERVER_ERROR "We encountered an internal error. Please try again.",
    InvalidAccessKeyId FORBIDDEN "The AWS access key ID that you provided does not exist in our records.",
    InvalidArgument BAD_REQUEST "Invalid Argument",
    InvalidBucketName BAD_REQUEST "The specified bucket is not valid.",
    InvalidDigest BAD_REQUEST "The Content-MD5 you specified is not valid.",
    InvalidLocationConstraint BAD_REQUEST "The specified location-constraint is not valid.",
    InvalidPart BAD_REQUEST "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.",
    InvalidPartNumber RANGE_NOT_SATISFIABLE "The requested partnumber is not satisfiable.",
    InvalidPartOrder BAD_REQUEST "The list of parts was not in ascending order. Parts must be ordered by part number.",
    InvalidRange RANGE_NOT_SATISFIABLE "The requested range is not satisfiable.",
    OperationAborted CONFLICT "A conflicting conditional operation is currently in progress against this resource. Try again.",
    InvalidRequest BAD_REQUEST "Invalid Request",
    InvalidStorageClass BAD_REQUEST "The storage class you specified is not valid.",
    InvalidToken BAD_REQUEST "The provided token is malformed or otherwise not valid.",
    InvalidURI BAD_REQUEST "Couldn't parse the specified URI.",
    KeyTooLongError BAD_REQUEST "Your key is too long.",
    MalformedTrailerError BAD_REQUEST "The request contained trailing data that was not well-formed or did not conform to our published schema.",
    MalformedXML BAD_REQUEST "The XML you provided was not well-formed or did not validate against our published schema.",
    MaxMessageLengthExceeded BAD_REQUEST "Your request was too big.",
    MetadataTooLarge BAD_REQUEST "Your metadata headers exceed the maximum allowed metadata size.",
    MethodNotAllowed METHOD_NOT_ALLOWED "The specified method is not allowed against this resource.",
    MissingContentLength LENGTH_REQUIRED "You must provide the Content-Length HTTP header.",
    NoSuchBucket NOT_FOUND "The specified bucket does not exist.",
    NoSuchBucketPolicy NOT_FOUND "The bucket policy does not exist.",
    NoSuchConfiguration NOT_FOUND "The specified configuration does not exist.",
    NoSuchCORSConfiguration NOT_FOUND "The CORS configuration does not exist.",
    NoSuchKey NOT_FOUND "The specified key does not exist.",
    NoSuchLifecycleConfiguration NOT_FOUND "The lifecycle configuration does not exist.",
    NoSuchPublicAccessBlockConfiguration NOT_FOUND "The public access block configuration was not found.",
    NoSuchTagSet NOT_FOUND "The TagSet does not exist.",
    NoSuchUpload NOT_FOUND "The specified multipart upload does not exist. The upload ID might not be valid, or the multipart upload might have been aborted or completed.",
    NoSuchVersion NOT_FOUND "The specified version does not exist.",
    NoSuchWebsiteConfiguration NOT_FOUND "The specified bucket does not have a website configuration.",
    NotImplemented NOT_IMPLEMENTED "A header or operation you provided implies functionality that is not implemented.",
    NotModified NOT_MODIFIED "Not Modified",
    ObjectLockConfigurationNotFoundError NOT_FOUND "Object Lock configuration does not exist for this bucket.",
    OwnershipControlsNotFoundError NOT_FOUND "The bucket ownership controls were not found.",
    PreconditionFailed PRECONDITION_FAILED "At least one of the pre-conditions you specified did not hold.",
    ReplicationConfigurationNotFoundError NOT_FOUND "The replication configuration was not found.",
    RequestHeaderSectionTooLarge BAD_REQUEST "Your request header section exceeds the maximum allowed size.",
    RequestTimeout BAD_REQUEST "Your socket connection to the server was not read from or written to within the timeout period.",
    RequestTimeTooSkewed FORBIDDEN "The difference between the request time and the server's time is too large.",
    ServerSideEncryptionConfigurationNotFoundError NOT_FOUND "The server side encryption configuration was not found.",
    ServiceUnavailable SERVICE_UNAVAILABLE "Service is unable to handle request.",
    SignatureDoesNotMatch FORBIDDEN "The request signature we calculated does not match the signature you provided. Check your key and signing method.",
    SlowDown SERVICE_UNAVAILABLE "Please reduce your request rate.",
    XAmzContentSHA256Mismatch BAD_REQUEST "The provided 'x-amz-content-sha256' header does not match what was computed.",
}

/// An error on its way to the client.
#[derive(Clone, Debug)]
pub struct S3Error {
    code: ErrorCode,
    message: Cow<'static, str>,
    /// Further elements of the error's XML.
    details: Vec<(&'static str, String)>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// What only the log may say.
    cause: Option<Box<str>>,
}

impl From<ErrorCode> for S3Error {
    fn from(code: ErrorCode) -> Self {
        Self { code, message: Cow::Borrowed(code.message()), details: Vec::new(), headers: Vec::new(), cause: None }
    }
}

impl S3Error {
    /// An error with a message of its own.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), ..Self::from(code) }
    }

    /// `InvalidArgument` for a header or query parameter, with AWS's details.
    pub(crate) fn argument(name: &str, value: &str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::InvalidArgument, message)
            .with("ArgumentName", name.to_owned())
            .with("ArgumentValue", value.to_owned())
    }

    /// `NotImplemented` naming what is not there.
    pub(crate) fn not_implemented(what: &str) -> Self {
        Self::new(ErrorCode::NotImplemented, format!("{what} is not implemented.")).with("Feature", what.to_owned())
    }

    /// Adds an element to the XML.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: String) -> Self {
        self.details.push((name, value));
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    fn caused_by(mut self, cause: &dyn std::fmt::Display) -> Self {
        self.cause = Some(cause.to_string().into_boxed_str());
        self
    }

    /// The code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// What the client is told.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What only the log may say.
    pub(crate) fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// Headers that go with the answer.
    pub(crate) fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// The XML body.
    pub(crate) fn to_xml(&self, resource: &str, request_id: &str, host_id: &str) -> String {
        let mut xml = XmlWriter::new();
        xml.open("Error");
        xml.text("Code", self.code.as_str());
        xml.text("Message", &self.message);
        for (name, value) in &self.details {
            xml.text(name, value);
        }
        xml.text("Resource", resource);
        xml.text("RequestId", request_id);
        xml.text("HostId", host_id);
        xml.close("Error");
        xml.finish()
    }
}

impl From<StoreError> for S3Error {
    fn from(error: StoreError) -> Self {
        use ErrorCode as Code;
        match error {
            StoreError::NoSuchBucket(name) => Self::from(Code::NoSuchBucket).with("BucketName", name.to_string()),
            StoreError::BucketExists(name) => {
                Self::from(Code::BucketAlreadyOwnedByYou).with("BucketName", name.to_string())
            }
            StoreError::BucketNotEmpty(name) => Self::from(Code::BucketNotEmpty).with("BucketName", name.to_string()),
            StoreError::BucketBusy(name) => Self::new(
                Code::OperationAborted,
                "A conflicting operation is in progress against this bucket: it is being deleted.",
            )
            .with("BucketName", name.to_string()),
            StoreError::NoSuchKey(key) => Self::from(Code::NoSuchKey).with("Key", key.as_str().to_owned()),
            StoreError::NoSuchUpload(upload) => Self::from(Code::NoSuchUpload).with("UploadId", upload.to_string()),
            StoreError::PreconditionFailed { header } => {
                Self::from(Code::PreconditionFailed).with("Condition", header.to_owned())
            }
            StoreError::InvalidPart { number } => Self::from(Code::InvalidPart).with("PartNumber", number.to_string()),
            StoreError::InvalidPartOrder => Self::from(Code::InvalidPartOrder),
            StoreError::PartTooSmall { number, len, min } => Self::from(Code::EntityTooSmall)
                .with("ProposedSize", len.to_string())
                .with("MinSizeAllowed", min.to_string())
                .with("PartNumber", number.to_string()),
            StoreError::TooLarge { len, max } => too_large(len, max),
            StoreError::LenMismatch { declared, actual } => Self::new(
                Code::InvalidRequest,
                format!("The parts have {actual} bytes, not the {declared} given in x-amz-mp-object-size."),
            ),
            StoreError::ChecksumMismatch => {
                Self::new(Code::BadDigest, "The checksum you specified did not match that of the object's parts.")
            }
            StoreError::Body(error) => Self::from(error),
            StoreError::Full => Self::from(Code::InsufficientStorage),
            StoreError::Unavailable(reason) => Self::from(reason),
            error @ (StoreError::Damaged { .. } | StoreError::Internal(_)) => {
                Self::from(Code::InternalError).caused_by(&error)
            }
        }
    }
}

impl From<Unavailable> for S3Error {
    fn from(reason: Unavailable) -> Self {
        match reason {
            Unavailable::Busy => Self::from(ErrorCode::SlowDown),
            reason @ (Unavailable::NoQuorum { .. }
            | Unavailable::TooFewDomains { .. }
            | Unavailable::TooFewChunks { .. }
            | Unavailable::Deadline { .. }
            | Unavailable::Replaced
            | Unavailable::NotServing(_)) => Self::new(ErrorCode::ServiceUnavailable, format!("Not now: {reason}.")),
        }
    }
}

impl From<BodyError> for S3Error {
    fn from(error: BodyError) -> Self {
        use ErrorCode as Code;
        match error {
            BodyError::Incomplete { received, declared } => Self::from(Code::IncompleteBody)
                .with("NumberBytesExpected", declared.to_string())
                .with("NumberBytesProvided", received.to_string()),
            BodyError::TooLong { declared } => Self::new(Code::IncompleteBody, "The body is longer than declared.")
                .with("NumberBytesExpected", declared.to_string()),
            BodyError::Md5Mismatch => {
                Self::new(Code::BadDigest, "The Content-MD5 you specified did not match what we received.")
            }
            BodyError::Sha256Mismatch => Self::from(Code::XAmzContentSHA256Mismatch),
            BodyError::ChecksumMismatch(algorithm) => Self::new(
                Code::BadDigest,
                format!("The {} you specified did not match the calculated checksum.", checksum::name(algorithm)),
            ),
            BodyError::SignatureMismatch => Self::from(Code::SignatureDoesNotMatch),
            BodyError::Malformed(what) => {
                Self::new(Code::IncompleteBody, format!("The chunked body is malformed: {what}."))
            }
            error @ BodyError::MalformedTrailer(_) => Self::from(Code::MalformedTrailerError).caused_by(&error),
            error @ BodyError::Transport(_) => Self::from(Code::RequestTimeout).caused_by(&error),
            // Why a source cannot be read is what a GET of it would be told.
            BodyError::Source(error) => Self::from(*error),
        }
    }
}

/// A body or object that is too large.
pub(crate) fn too_large(len: u64, max: u64) -> S3Error {
    S3Error::from(ErrorCode::EntityTooLarge)
        .with("ProposedSize", len.to_string())
        .with("MaxSizeAllowed", max.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_text_never_reaches_the_client() {
        let error = S3Error::from(StoreError::Internal("secret detail <path>".to_owned()));
        let xml = error.to_xml("/b/k", "1", "2");
        assert!(!xml.contains("secret"), "{xml}");
        assert_eq!(error.cause(), Some("internal error: secret detail <path>"));
        assert_eq!(error.code().status(), StatusCode::INTERNAL_SERVER_ERROR);
    }

    #[test]
    fn what_is_unavailable_says_why_and_may_be_retried() {
        let error = S3Error::from(StoreError::from(Unavailable::TooFewDomains { up: 1, needed: 2 }));
        assert_eq!(error.code().status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(error.message(), "Not now: 1 of the 2 domains a durable write needs are up.");
        assert_eq!(S3Error::from(Unavailable::Busy).code(), ErrorCode::SlowDown);
        assert_eq!(S3Error::from(StoreError::Full).code().status(), StatusCode::INSUFFICIENT_STORAGE);
    }

    #[test]
    fn an_error_body_has_aws_s_elements_escaped() {
        let error = S3Error::from(ErrorCode::NoSuchKey).with("Key", "a<b&\u{1}".to_owned());
        assert_eq!(
            error.to_xml("/bucket/a<b", "ID", "HOST"),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>NoSuchKey</Code><Message>The specified key does \
             not exist.</Message><Key>a&lt;b&amp;&#x1;</Key><Resource>/bucket/a&lt;b</Resource>\
             <RequestId>ID</RequestId><HostId>HOST</HostId></Error>"
        );
    }
}
