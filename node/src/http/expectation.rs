//! `Expect: 100-continue`, as clients in use understand it.
//!
//! hyper says `100 Continue` when a handler first asks for the body, as RFC 9110 §10.1.1 has it. A final answer without
//! one (there is no body, or the request is refused by its head) is right as well, but some clients then keep the status
//! they saw early and read the next answer on the connection with it: botocore before 1.43.77 loses that answer's ETag, or
//! waits for a minute (boto/botocore#3755). A connection that is closed is not read from again.

use http::header::{CONNECTION, EXPECT};
use http::{HeaderValue, Request, Response, Version};
use http_body::Body;

/// What a request said of its body before sending it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expectation {
    /// Nothing, or it cannot matter.
    None,
    /// The client waits for `100 Continue`, and for a body that has bytes it comes once they are wanted.
    Continue,
    /// The client waits for `100 Continue`, which does not come, since there is no body.
    ContinueWithoutBody,
}

impl Expectation {
    pub(super) fn of<B: Body>(request: &Request<B>) -> Self {
        let expects =
            request.headers().get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        match expects && request.version() == Version::HTTP_11 {
            false => Self::None,
            true if request.body().is_end_stream() => Self::ContinueWithoutBody,
            true => Self::Continue,
        }
    }

    /// Announces that the connection ends with this answer if the client may have seen it in place of `100 Continue`.
    pub(super) fn settle<B>(self, answer: &mut Response<B>) {
        let may_be_early = match self {
            Self::None => false,
            // What succeeds has read the body.
            Self::Continue => !answer.status().is_success(),
            Self::ContinueWithoutBody => true,
        };
        if may_be_early {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::StatusCode;
    use http_body_util::Full;

    use super::*;

    fn closes(expect: Option<&str>, version: Version, body: &'static str, status: StatusCode) -> bool {
        let mut request = Request::put("/b/k").version(version);
        if let Some(expect) = expect {
            request = request.header(EXPECT, expect);
        }
        let request = request.body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap();
        let mut answer = Response::builder().status(status).body(()).unwrap();
        Expectation::of(&request).settle(&mut answer);
        answer.headers().contains_key(CONNECTION)
    }

    #[test]
    fn a_connection_ends_with_an_answer_that_came_instead_of_continue() {
        let (expect, http_1, http_2) = (Some("100-continue"), Version::HTTP_11, Version::HTTP_2);
        assert!(closes(expect, http_1, "", StatusCode::OK));
        assert!(closes(Some("100-Continue"), http_1, "body", StatusCode::SERVICE_UNAVAILABLE));
        assert!(!closes(expect, http_1, "body", StatusCode::OK));
        assert!(!closes(None, http_1, "", StatusCode::OK));
        assert!(!closes(None, http_1, "body", StatusCode::NOT_FOUND));
        assert!(!closes(expect, http_2, "", StatusCode::OK));
        assert!(!closes(expect, Version::HTTP_10, "", StatusCode::OK));
    }
}
