//! AWS Signature Version 4, both ends: verifying what clients send, and signing for those who are clients themselves
//! (the load generator, tests).
//!
//! Implements "Authenticating Requests (AWS Signature Version 4)",
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html>: the `Authorization` header,
//! presigned URLs and the chunk signatures of `aws-chunked` bodies. Signature Version 2 and anonymous requests are
//! refused. Nothing here reads a clock or looks up a key; both are given.

mod canonical;
mod chunk;
mod claim;
mod hoisted;
mod keys;
mod sign;
mod verify;

pub(crate) use canonical::host_of;
pub(crate) use chunk::ChunkVerifier;
pub(crate) use claim::parse_claim;
pub(crate) use hoisted::unhoisted;
pub(crate) use keys::SigningKeys;
pub use sign::{ChunkSigner, Credentials, PayloadDeclaration, SignError, presign, sign_request};
pub(crate) use verify::{Payload, Terms, verify};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A signature, or a signing key.
pub(crate) type Mac256 = [u8; 32];

/// SHA-256 of nothing.
pub(crate) const EMPTY_SHA256_HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
pub(crate) const ALGORITHM: &str = "AWS4-HMAC-SHA256";
pub(crate) const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";
pub(crate) const STREAMING_SIGNED: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
pub(crate) const STREAMING_SIGNED_TRAILER: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER";
pub(crate) const STREAMING_UNSIGNED_TRAILER: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
/// Presigned URLs live at most seven days.
pub(crate) const EXPIRES_S_MAX: u64 = 7 * 24 * 3600;

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length")
}

pub(crate) fn hmac(key: &[u8], text: &[u8]) -> Mac256 {
    keyed(key).chain_update(text).finalize().into_bytes().into()
}

/// Whether `signature` is that of `text`, in constant time.
pub(crate) fn hmac_matches(key: &[u8], text: &[u8], signature: &Mac256) -> bool {
    keyed(key).chain_update(text).verify_slice(signature).is_ok()
}

/// The key that signs requests of one day and region.
pub(crate) fn derive_key(secret: &str, date: &str, region: &str) -> Mac256 {
    let mut seed = seed_of(secret);
    let day = hmac(&seed, date.as_bytes());
    seed.fill(0);
    let region = hmac(&day, region.as_bytes());
    hmac(&hmac(&region, b"s3"), b"aws4_request")
}

fn seed_of(secret: &str) -> Vec<u8> {
    let mut seed = Vec::with_capacity(4 + secret.len());
    seed.extend_from_slice(b"AWS4");
    seed.extend_from_slice(secret.as_bytes());
    seed
}

/// `DATE/REGION/s3/aws4_request`.
pub(crate) fn scope(date: &str, region: &str) -> String {
    format!("{date}/{region}/s3/aws4_request")
}

/// The string to sign of a request.
pub(crate) fn string_to_sign(timestamp: &str, scope: &str, canonical_request: &[u8]) -> String {
    use sha2::Digest as _;
    format!("{ALGORITHM}\n{timestamp}\n{scope}\n{}", hex::encode(Sha256::digest(canonical_request)))
}

#[cfg(test)]
mod tests;
