//! The chain of chunk signatures of an `aws-chunked` body: each signs the one before it.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html> and
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html>.

use sha2::{Digest as _, Sha256};

use super::{EMPTY_SHA256_HEX, Mac256, hmac, hmac_matches};

/// Where a chain of chunk signatures has got to, for a body whose bytes arrive bit by bit.
#[derive(Clone)]
pub(crate) struct ChunkVerifier {
    key: Mac256,
    timestamp: String,
    scope: String,
    previous: Mac256,
    hash: Sha256,
}

/// No secrets in logs.
impl std::fmt::Debug for ChunkVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChunkVerifier").field("timestamp", &self.timestamp).finish_non_exhaustive()
    }
}

impl ChunkVerifier {
    /// Begins with the request's own signature.
    pub(crate) fn new(key: Mac256, timestamp: String, scope: String, seed: Mac256) -> Self {
        Self { key, timestamp, scope, previous: seed, hash: Sha256::new() }
    }

    /// Takes bytes of the chunk under way, or of the canonical trailers.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
    }

    fn chunk_text(&mut self) -> String {
        let hash = hex::encode(self.hash.finalize_reset());
        let (timestamp, scope, previous) = (&self.timestamp, &self.scope, hex::encode(self.previous));
        format!("AWS4-HMAC-SHA256-PAYLOAD\n{timestamp}\n{scope}\n{previous}\n{EMPTY_SHA256_HEX}\n{hash}")
    }

    fn trailer_text(&mut self) -> String {
        let hash = hex::encode(self.hash.finalize_reset());
        let (timestamp, scope, previous) = (&self.timestamp, &self.scope, hex::encode(self.previous));
        format!("AWS4-HMAC-SHA256-TRAILER\n{timestamp}\n{scope}\n{previous}\n{hash}")
    }

    /// Ends a chunk: whether `signature` is that of its bytes.
    pub(crate) fn chunk_matches(&mut self, signature: &Mac256) -> bool {
        let text = self.chunk_text();
        self.previous = *signature;
        hmac_matches(&self.key, text.as_bytes(), signature)
    }

    /// Ends the trailers: whether `signature` is that of their lines.
    pub(crate) fn trailer_matches(&mut self, signature: &Mac256) -> bool {
        let text = self.trailer_text();
        hmac_matches(&self.key, text.as_bytes(), signature)
    }

    /// Ends a chunk and signs it.
    pub(crate) fn sign_chunk(&mut self) -> Mac256 {
        let text = self.chunk_text();
        self.previous = hmac(&self.key, text.as_bytes());
        self.previous
    }

    /// Signs the trailers.
    pub(crate) fn sign_trailer(&mut self) -> Mac256 {
        let text = self.trailer_text();
        hmac(&self.key, text.as_bytes())
    }
}
