//! Why a request of the client came to nothing.

use http::StatusCode;

use super::Endpoint;

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection.
    #[error("cannot connect to {endpoint}: {source}")]
    Connect {
        /// Whom we tried.
        endpoint: Endpoint,
        /// Why not.
        source: std::io::Error,
    },
    /// The connection broke or the answer is not HTTP. Whether the request took effect is unknown.
    #[error("{endpoint}: {source}")]
    Broken {
        /// Whom we asked.
        endpoint: Endpoint,
        /// What happened.
        source: hyper::Error,
    },
    /// No progress within the deadline. Whether the request took effect is unknown.
    #[error("{endpoint} made no progress for {seconds} s")]
    Deadline {
        /// Whom we asked.
        endpoint: Endpoint,
        /// The deadline.
        seconds: u64,
    },
    /// The request cannot be written as HTTP.
    #[error("the request cannot be written: {0}")]
    Request(#[from] http::Error),
    /// An answer with a status other than the wanted ones.
    #[error("{endpoint} answered {status} {code}: {message} (request {request_id})")]
    Refused {
        /// Who answered.
        endpoint: Endpoint,
        /// The status.
        status: StatusCode,
        /// S3's error code, empty when there is none.
        code: String,
        /// S3's message.
        message: String,
        /// The answer's request id.
        request_id: String,
    },
    /// A good status with a body that lacks something.
    #[error("{endpoint} answered without {what}")]
    Incomplete {
        /// Who answered.
        endpoint: Endpoint,
        /// What is missing.
        what: &'static str,
    },
    /// The body is not what was stored under the key.
    #[error("{endpoint} answered wrong bytes for {key}")]
    WrongBytes {
        /// Who answered.
        endpoint: Endpoint,
        /// The object.
        key: String,
    },
}

impl ClientError {
    /// The status of the answer, if there was one.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// A short name for counting: the S3 code or status, or what kind of failure it was.
    pub fn label(&self) -> String {
        match self {
            Self::Connect { .. } => "connect".into(),
            Self::Broken { .. } => "broken".into(),
            Self::Deadline { .. } => "deadline".into(),
            Self::Request(_) => "request".into(),
            Self::Refused { status, code, .. } if code.is_empty() => status.as_u16().to_string(),
            Self::Refused { code, .. } => code.clone(),
            Self::Incomplete { .. } => "incomplete".into(),
            Self::WrongBytes { .. } => "wrong-bytes".into(),
        }
    }
}
