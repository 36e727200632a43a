//! What a request says about who signed it, before anything of it is believed.

use http::header::{AUTHORIZATION, DATE};
use http::request::Parts;

use super::{ALGORITHM, EXPIRES_S_MAX, Mac256, UNSIGNED_PAYLOAD};
use crate::error::{ErrorCode, S3Error};
use crate::route::Query;
use crate::timestamp::{amz_date, parse_amz_date, parse_http_date};

/// How a request carries its signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// In the `Authorization` header.
    Header,
    /// In the query, for so many seconds.
    Query {
        /// `X-Amz-Expires`.
        expires_s: u64,
    },
}

/// The parts of a signature as the request states them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim<'a> {
    pub(crate) carrier: Carrier,
    pub(crate) access_key: &'a str,
    /// `YYYYMMDD` of the credential scope.
    pub(crate) date: &'a str,
    pub(crate) region: &'a str,
    pub(crate) signed_headers: &'a str,
    pub(crate) signature: Mac256,
    /// The time of signing as it goes into the string to sign.
    pub(crate) timestamp: String,
    /// The same in milliseconds.
    pub(crate) signed_ms: u64,
    /// The payload's hash or stand-in as declared.
    pub(crate) payload: &'a str,
}

/// Reads the claim of a request.
///
/// # Errors
/// `AccessDenied` for anonymous requests; `InvalidRequest` for Signature Version 2; `AuthorizationHeaderMalformed`,
/// `AuthorizationQueryParametersError`, `InvalidRequest` or `InvalidArgument` for what cannot be read.
pub(crate) fn parse_claim<'a>(head: &'a Parts, query: &'a Query) -> Result<Claim<'a>, S3Error> {
    let presigned = query.has("X-Amz-Algorithm") || query.has("X-Amz-Signature");
    match (head.headers.get(AUTHORIZATION), presigned) {
        (Some(_), true) => Err(S3Error::new(
            ErrorCode::InvalidArgument,
            "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the Authorization header should be specified",
        )),
        (None, true) => query_claim(head, query),
        (None, false) if query.has("Signature") || query.has("AWSAccessKeyId") => Err(version_2()),
        (None, false) => Err(S3Error::from(ErrorCode::AccessDenied)),
        (Some(value), false) => {
            let text = value.to_str().map_err(|_| malformed("it is not ASCII"))?.trim();
            match text.split_once(' ') {
                Some((ALGORITHM, fields)) => header_claim(head, fields),
                _ if text.starts_with("AWS ") => Err(version_2()),
                _ => Err(S3Error::new(ErrorCode::InvalidArgument, "Unsupported Authorization Type")),
            }
        }
    }
}

fn version_2() -> S3Error {
    S3Error::new(
        ErrorCode::InvalidRequest,
        "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
    )
}

fn malformed(what: &str) -> S3Error {
    S3Error::new(ErrorCode::AuthorizationHeaderMalformed, format!("The authorization header is malformed; {what}."))
}

fn query_error(what: &'static str) -> S3Error {
    S3Error::new(ErrorCode::AuthorizationQueryParametersError, what)
}

/// `(access key, date, region)` of `KEY/DATE/REGION/s3/aws4_request`. A key id may hold slashes.
fn split_credential(text: &str) -> Option<(&str, &str, &str)> {
    let mut fields = text.rsplitn(5, '/');
    let (terminal, service, region, date) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let access_key = fields.next()?;
    let well_formed = terminal == "aws4_request"
        && service == "s3"
        && date.len() == 8
        && date.bytes().all(|byte| byte.is_ascii_digit())
        && !access_key.is_empty();
    well_formed.then_some((access_key, date, region))
}

/// A signature that is not 64 hexadecimal digits matches nothing.
fn parse_signature(text: &str) -> Result<Mac256, S3Error> {
    let mut signature = Mac256::default();
    hex::decode_to_slice(text, &mut signature).map_err(|_| S3Error::from(ErrorCode::SignatureDoesNotMatch))?;
    Ok(signature)
}

fn header_claim<'a>(head: &'a Parts, fields: &'a str) -> Result<Claim<'a>, S3Error> {
    let (mut credential, mut signed_headers, mut signature) = (None, None, None);
    for field in fields.split(',') {
        let (name, value) = field.trim().split_once('=').ok_or_else(|| malformed("a field has no value"))?;
        let slot = match name {
            "Credential" => &mut credential,
            "SignedHeaders" => &mut signed_headers,
            "Signature" => &mut signature,
            _ => return Err(malformed("it has an unknown field")),
        };
        if slot.replace(value.trim()).is_some() {
            return Err(malformed("a field is there twice"));
        }
    }
    let credential = credential.ok_or_else(|| malformed("missing Credential"))?;
    let (access_key, date, region) = split_credential(credential).ok_or_else(|| {
        malformed("the Credential is mal-formed; expecting \"<YOUR-AKID>/YYYYMMDD/REGION/s3/aws4_request\"")
    })?;
    let signed_headers = signed_headers.ok_or_else(|| malformed("missing SignedHeaders"))?;
    let signature = parse_signature(signature.ok_or_else(|| malformed("missing Signature"))?)?;
    let (timestamp, signed_ms) = header_time(head)?;
    if !timestamp.starts_with(date) {
        return Err(malformed("Invalid credential date; it does not match the date of the request"));
    }
    let payload = head.headers.get("x-amz-content-sha256").and_then(|value| value.to_str().ok()).ok_or_else(|| {
        S3Error::new(ErrorCode::InvalidRequest, "Missing required header for this request: x-amz-content-sha256")
    })?;
    let carrier = Carrier::Header;
    Ok(Claim { carrier, access_key, date, region, signed_headers, signature, timestamp, signed_ms, payload })
}

fn header_time(head: &Parts) -> Result<(String, u64), S3Error> {
    let denied =
        || S3Error::new(ErrorCode::AccessDenied, "AWS authentication requires a valid Date or x-amz-date header");
    if let Some(value) = head.headers.get("x-amz-date") {
        let text = value.to_str().map_err(|_| denied())?.trim();
        let ms = parse_amz_date(text).or_else(|| parse_http_date(text)).ok_or_else(denied)?;
        return Ok((amz_date(ms), ms));
    }
    let value = head.headers.get(DATE).and_then(|value| value.to_str().ok()).ok_or_else(denied)?;
    let ms = parse_http_date(value).or_else(|| parse_amz_date(value.trim())).ok_or_else(denied)?;
    Ok((amz_date(ms), ms))
}

fn query_claim<'a>(head: &'a Parts, query: &'a Query) -> Result<Claim<'a>, S3Error> {
    let field = |name| {
        query.get(name).ok_or_else(|| {
            query_error("Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.")
        })
    };
    if field("X-Amz-Algorithm")? != ALGORITHM {
        return Err(query_error("X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256\""));
    }
    let (access_key, date, region) = split_credential(field("X-Amz-Credential")?).ok_or_else(|| {
        query_error("Error parsing the X-Amz-Credential parameter; the Credential is mal-formed; expecting \"<YOUR-AKID>/YYYYMMDD/REGION/s3/aws4_request\".")
    })?;
    let timestamp = field("X-Amz-Date")?.to_owned();
    let signed_ms = parse_amz_date(&timestamp)
        .ok_or_else(|| query_error("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\""))?;
    if !timestamp.starts_with(date) {
        return Err(query_error("Invalid credential date. This date is not the same as X-Amz-Date."));
    }
    let expires_s = field("X-Amz-Expires")?.parse().map_err(|_| query_error("X-Amz-Expires should be a number"))?;
    if !(1..=EXPIRES_S_MAX).contains(&expires_s) {
        return Err(query_error(
            "X-Amz-Expires must be between 1 second and a week (in seconds); that is, the given X-Amz-Expires must be less than 604800 seconds",
        ));
    }
    let signed_headers = field("X-Amz-SignedHeaders")?;
    let signature = parse_signature(field("X-Amz-Signature")?)?;
    let payload = head
        .headers
        .get("x-amz-content-sha256")
        .and_then(|value| value.to_str().ok())
        .or_else(|| query.get("X-Amz-Content-Sha256"))
        .unwrap_or(UNSIGNED_PAYLOAD);
    let carrier = Carrier::Query { expires_s };
    Ok(Claim { carrier, access_key, date, region, signed_headers, signature, timestamp, signed_ms, payload })
}
