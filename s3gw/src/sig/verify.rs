//! Whether a claim is true, and what it says about the body.

use http::request::Parts;

use super::canonical::{CanonicalInput, canonical_request};
use super::claim::{Carrier, Claim};
use super::{
    ChunkVerifier, Mac256, STREAMING_SIGNED, STREAMING_SIGNED_TRAILER, STREAMING_UNSIGNED_TRAILER, UNSIGNED_PAYLOAD,
    hmac_matches, scope, string_to_sign,
};
use crate::error::{ErrorCode, S3Error};
use crate::route::Query;
use crate::timestamp::push_iso8601;

/// How the signature covers the body.
#[derive(Clone, Debug)]
pub(crate) enum Payload {
    /// By its SHA-256.
    Sha256(Mac256),
    /// Not at all.
    Unsigned,
    /// Chunk by chunk, with or without signed trailers.
    Signed {
        /// Where the chain begins.
        verifier: Box<ChunkVerifier>,
        /// Whether trailers follow.
        trailer: bool,
    },
    /// Framed in chunks that are not signed, with trailers.
    UnsignedTrailer,
}

/// The gateway's side of the comparison.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms<'a> {
    pub(crate) region: &'a str,
    pub(crate) now_ms: u64,
    pub(crate) skew_ms_max: u64,
}

fn check_region(claim: &Claim<'_>, expected: &str) -> Result<(), S3Error> {
    if claim.region == expected {
        return Ok(());
    }
    let message = format!("the region '{}' is wrong; expecting '{expected}'", claim.region);
    let error = match claim.carrier {
        Carrier::Header => S3Error::new(
            ErrorCode::AuthorizationHeaderMalformed,
            format!("The authorization header is malformed; {message}"),
        ),
        Carrier::Query { .. } => S3Error::new(
            ErrorCode::AuthorizationQueryParametersError,
            format!("Error parsing the X-Amz-Credential parameter; {message}"),
        ),
    };
    Err(error.with("Region", expected.to_owned()))
}

fn iso8601(ms: u64) -> String {
    let mut text = String::new();
    push_iso8601(&mut text, ms);
    text
}

fn check_time(claim: &Claim<'_>, terms: &Terms<'_>) -> Result<(), S3Error> {
    let Terms { now_ms, skew_ms_max, .. } = *terms;
    match claim.carrier {
        Carrier::Header if claim.signed_ms.abs_diff(now_ms) > skew_ms_max => {
            Err(S3Error::from(ErrorCode::RequestTimeTooSkewed)
                .with("RequestTime", claim.timestamp.clone())
                .with("ServerTime", iso8601(now_ms))
                .with("MaxAllowedSkewMilliseconds", skew_ms_max.to_string()))
        }
        Carrier::Query { .. } if claim.signed_ms > now_ms.saturating_add(skew_ms_max) => {
            Err(S3Error::new(ErrorCode::AccessDenied, "Request is not valid yet").with("ServerTime", iso8601(now_ms)))
        }
        Carrier::Query { expires_s } if now_ms > claim.signed_ms.saturating_add(expires_s * 1000) => {
            Err(S3Error::new(ErrorCode::AccessDenied, "Request has expired")
                .with("X-Amz-Expires", expires_s.to_string())
                .with("Expires", iso8601(claim.signed_ms.saturating_add(expires_s * 1000)))
                .with("ServerTime", iso8601(now_ms)))
        }
        Carrier::Header | Carrier::Query { .. } => Ok(()),
    }
}

/// `host` and every `x-amz-…` header must be signed, or whoever carries the request could change what it asks. A
/// presigned request's payload hash may go unsigned: it only adds a check.
fn check_signed_headers(claim: &Claim<'_>, head: &Parts) -> Result<(), S3Error> {
    let signed = |name: &str| claim.signed_headers.split(';').any(|signed| signed == name);
    let well_formed = claim.signed_headers.split(';').all(|name| {
        !name.is_empty() && !name.bytes().any(|byte| byte.is_ascii_uppercase() || byte.is_ascii_whitespace())
    });
    if !well_formed || !signed("host") {
        return Err(S3Error::from(ErrorCode::SignatureDoesNotMatch));
    }
    let presigned = matches!(claim.carrier, Carrier::Query { .. });
    let unsigned =
        head.headers.keys().map(http::HeaderName::as_str).find(|name| {
            name.starts_with("x-amz-") && !(presigned && *name == "x-amz-content-sha256") && !signed(name)
        });
    match unsigned {
        None => Ok(()),
        Some(name) => Err(S3Error::new(
            ErrorCode::AccessDenied,
            "There were headers present in the request which were not signed",
        )
        .with("HeadersNotSigned", name.to_owned())),
    }
}

/// Decides a claim with the claimed key's signing key; says how the signature covers the body.
///
/// # Errors
/// The first rule that is broken: region, time, signed headers, signature, payload.
pub(crate) fn verify(
    claim: &Claim<'_>,
    head: &Parts,
    query: &Query,
    key: Mac256,
    terms: &Terms<'_>,
) -> Result<Payload, S3Error> {
    check_region(claim, terms.region)?;
    check_time(claim, terms)?;
    check_signed_headers(claim, head)?;
    let input = CanonicalInput {
        method: &head.method,
        uri: &head.uri,
        query,
        headers: &head.headers,
        signed_headers: claim.signed_headers,
        payload: claim.payload,
    };
    let canonical = canonical_request(&input).ok_or_else(|| S3Error::from(ErrorCode::InvalidURI))?;
    let scope = scope(claim.date, claim.region);
    let text = string_to_sign(&claim.timestamp, &scope, &canonical);
    if !hmac_matches(&key, text.as_bytes(), &claim.signature) {
        return Err(S3Error::from(ErrorCode::SignatureDoesNotMatch).with("AWSAccessKeyId", claim.access_key.to_owned()));
    }
    payload(claim, key, scope)
}

fn payload(claim: &Claim<'_>, key: Mac256, scope: String) -> Result<Payload, S3Error> {
    let signed = |trailer| {
        let verifier = ChunkVerifier::new(key, claim.timestamp.clone(), scope, claim.signature);
        Payload::Signed { verifier: Box::new(verifier), trailer }
    };
    match claim.payload {
        UNSIGNED_PAYLOAD => Ok(Payload::Unsigned),
        STREAMING_SIGNED => Ok(signed(false)),
        STREAMING_SIGNED_TRAILER => Ok(signed(true)),
        STREAMING_UNSIGNED_TRAILER => Ok(Payload::UnsignedTrailer),
        text => {
            let mut digest = Mac256::default();
            hex::decode_to_slice(text, &mut digest).map_err(|_| {
                S3Error::argument("x-amz-content-sha256", text, "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value.")
            })?;
            Ok(Payload::Sha256(digest))
        }
    }
}
