//! What an access key may look like. A key that can never sign a request, or that no path of the admin API can name, must
//! not be made: nothing could delete it again.

use secrecy::{ExposeSecret, SecretString};

/// Lengths of the public part: AWS allows 16 to 128; other servers have shorter ones, which are taken along.
const ID_LEN_MIN: usize = 3;
const ID_LEN_MAX: usize = 128;
/// Lengths of the secret part.
const SECRET_LEN_MIN: usize = 8;
const SECRET_LEN_MAX: usize = 128;

/// A key that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// The public part.
    #[error("the access key {0:?} must be {ID_LEN_MIN} to {ID_LEN_MAX} letters, digits, dots, hyphens and underscores")]
    Id(String),
    /// The secret part, which is not repeated.
    #[error("the secret must be {SECRET_LEN_MIN} to {SECRET_LEN_MAX} printable ASCII characters without spaces")]
    Secret,
}

/// Whether this can be the public part of a new key.
///
/// # Errors
/// [`InvalidKey::Id`].
pub fn check_id(id: &str) -> Result<(), InvalidKey> {
    let is_id_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_good = (ID_LEN_MIN..=ID_LEN_MAX).contains(&id.len()) && id.bytes().all(is_id_byte);
    if is_good { Ok(()) } else { Err(InvalidKey::Id(id.to_owned())) }
}

/// Whether this can be the secret of a new key.
///
/// # Errors
/// [`InvalidKey::Secret`].
pub fn check_secret(secret: &SecretString) -> Result<(), InvalidKey> {
    let secret = secret.expose_secret();
    let is_printable = secret.bytes().all(|byte| byte.is_ascii_graphic());
    let is_good = (SECRET_LEN_MIN..=SECRET_LEN_MAX).contains(&secret.len()) && is_printable;
    if is_good { Ok(()) } else { Err(InvalidKey::Secret) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_long_enough_and_of_characters_that_headers_and_paths_can_carry() {
        for id in ["abc", "AKIAIOSFODNN7EXAMPLE", "a.b-c_9", &"k".repeat(128)] {
            assert_eq!(check_id(id), Ok(()), "{id}");
        }
        for id in ["", "ab", "a b c", "a,bc", "a=bc", "a/bc", "äbc", "abc\n", &"k".repeat(129)] {
            assert_eq!(check_id(id), Err(InvalidKey::Id(id.to_owned())));
        }
        for secret in ["12345678", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", &"s".repeat(128)] {
            assert_eq!(check_secret(&SecretString::from(secret)), Ok(()), "{secret}");
        }
        for secret in ["", "1234567", "1234 5678", "pässword", "12345678\n", &"s".repeat(129)] {
            let refused = check_secret(&SecretString::from(secret)).unwrap_err();
            assert_eq!(refused, InvalidKey::Secret);
            assert!(secret.is_empty() || !refused.to_string().contains(secret), "{refused}");
        }
    }
}
