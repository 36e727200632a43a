//! Seals small secrets (access keys' secrets, for instance) before they are stored or replicated.
//!
//! AES-256-GCM with a random 96-bit nonce and the caller's context as associated data: what was sealed for one key id
//! does not open for another. Not for bulk data: with random nonces one key is good for about 2³² seals.
//!
//! Layout, version 1: `version u8 = 1 | nonce [12] | ciphertext | tag [16]`.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rand::CryptoRng;
use zeroize::Zeroizing;

const VERSION: u8 = 1;
const TAG_LEN: usize = 16;
/// What sealing adds to a plaintext, in bytes.
pub const OVERHEAD_LEN: usize = 1 + NONCE_LEN + TAG_LEN;

/// Why something could not be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealingError {
    /// Fewer bytes than any sealed secret has.
    #[error("{len} bytes are too few for a sealed secret")]
    TooShort {
        /// How many there are.
        len: usize,
    },
    /// Written by a version this one does not know.
    #[error("the sealed secret has version {found}, this build reads version 1")]
    Version {
        /// The version byte.
        found: u8,
    },
    /// The key or the context is not the one it was sealed with, or the bytes are damaged.
    #[error("the sealed secret does not open: another sealing key, another context, or damaged bytes")]
    DoesNotOpen,
    /// The library refused; does not happen for plaintexts under 64 GiB.
    #[error("the secret could not be sealed")]
    Refused,
}

/// Seals `plaintext` so that it opens only with the same key and context.
///
/// # Errors
///
/// [`SealingError::Refused`] for a plaintext beyond what the cipher allows (64 GiB).
pub fn seal(
    key: &[u8; 32],
    context: &[u8],
    plaintext: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, SealingError> {
    let mut nonce = [0; NONCE_LEN];
    rng.fill_bytes(&mut nonce);
    let mut sealed = Vec::with_capacity(plaintext.len() + OVERHEAD_LEN);
    sealed.push(VERSION);
    sealed.extend_from_slice(&nonce);
    let mut body = plaintext.to_vec();
    cipher(key)?
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut body)
        .map_err(|_| SealingError::Refused)?;
    sealed.append(&mut body);
    Ok(sealed)
}

/// Opens what [`seal`] made with the same key and context. The plaintext is wiped when dropped.
///
/// # Errors
///
/// [`SealingError::TooShort`], [`SealingError::Version`], or [`SealingError::DoesNotOpen`].
pub fn open(key: &[u8; 32], context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealingError> {
    let [version, rest @ ..] = sealed else {
        return Err(SealingError::TooShort { len: 0 });
    };
    if *version != VERSION {
        return Err(SealingError::Version { found: *version });
    }
    let too_short = SealingError::TooShort { len: sealed.len() };
    let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(too_short)?;
    if body.len() < TAG_LEN {
        return Err(too_short);
    }
    let mut body = Zeroizing::new(body.to_vec());
    let len = cipher(key)?
        .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(context), &mut body)
        .map_err(|_| SealingError::DoesNotOpen)?
        .len();
    body.truncate(len);
    Ok(body)
}

fn cipher(key: &[u8; 32]) -> Result<LessSafeKey, SealingError> {
    UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new).map_err(|_| SealingError::Refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    const KEY: [u8; 32] = [3; 32];

    #[test]
    fn a_sealed_secret_opens_with_its_key_and_context_only() {
        let mut rng = StdRng::seed_from_u64(1);
        let sealed = seal(&KEY, b"key AK1", b"secret", &mut rng).unwrap();
        assert_eq!(sealed.len(), b"secret".len() + OVERHEAD_LEN);
        assert_eq!(open(&KEY, b"key AK1", &sealed).unwrap().as_slice(), b"secret");
        assert_eq!(open(&KEY, b"key AK2", &sealed), Err(SealingError::DoesNotOpen));
        assert_eq!(open(&[4; 32], b"key AK1", &sealed), Err(SealingError::DoesNotOpen));
        assert_ne!(seal(&KEY, b"key AK1", b"secret", &mut rng).unwrap(), sealed);
    }

    #[test]
    fn version_1_is_frozen() {
        let sealed = hex::decode(concat!("01", "070707070707070707070707")).unwrap();
        let mut body = b"secret".to_vec();
        cipher(&KEY)
            .unwrap()
            .seal_in_place_append_tag(Nonce::assume_unique_for_key([7; 12]), Aad::from(b"c"), &mut body)
            .unwrap();
        let golden = [sealed, body].concat();
        assert_eq!(open(&KEY, b"c", &golden).unwrap().as_slice(), b"secret");
        assert_eq!(hex::encode(&golden), GOLDEN);
    }

    const GOLDEN: &str = "010707070707070707070707076748a7d1711c8e9fe453b03130cdd08fe64bc2f3105c";

    #[test]
    fn an_unknown_version_is_named() {
        assert_eq!(open(&KEY, b"", &[2; 40]), Err(SealingError::Version { found: 2 }));
        assert_eq!(open(&KEY, b"", &[1; 28]), Err(SealingError::TooShort { len: 28 }));
        assert_eq!(open(&KEY, b"", &[]), Err(SealingError::TooShort { len: 0 }));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_open(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(open(&KEY, b"c", &bytes).is_err());
        }
    }
}
