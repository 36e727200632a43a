//! Bodies that any reader can verify: derived from (key, value), and saying which value they are.
//!
//! A body starts with a 16-byte head (value, length), followed by the output of BLAKE3 over (key, value). Two values
//! never share a body, hence never an ETag. Bodies shorter than the head are not made.

use std::io::Read;

use bytes::Bytes;

/// Bytes of the head of every body: the value and the length, little endian.
pub const HEAD_LEN: usize = 16;

/// The body of `value` under `key`, `len` bytes long (at least [`HEAD_LEN`]; shorter requests are rounded up).
#[must_use]
pub fn body(key: &str, value: u64, len: usize) -> Bytes {
    let len = len.max(HEAD_LEN);
    let mut bytes = vec![0_u8; len];
    Stream::new(key, value, len as u64).fill(&mut bytes);
    Bytes::from(bytes)
}

/// Why bytes are not a body of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongBody {
    /// Fewer bytes than a head.
    #[error("body of {len} bytes is shorter than its head")]
    NoHead {
        /// Bytes received.
        len: usize,
    },
    /// The head declares another length.
    #[error("body of value {value} has {len} bytes, its head says {declared}")]
    Length {
        /// The value in the head.
        value: u64,
        /// Bytes received.
        len: usize,
        /// Bytes declared.
        declared: u64,
    },
    /// A byte differs.
    #[error("body of value {value} is wrong from byte {offset} on")]
    Byte {
        /// The value in the head.
        value: u64,
        /// First wrong byte.
        offset: usize,
    },
}

/// Verifies every byte of `bytes` as a body of `key` and returns its value.
///
/// # Errors
/// [`WrongBody`], with the first difference.
pub fn identify(key: &str, bytes: &[u8]) -> Result<u64, WrongBody> {
    let len = bytes.len();
    let (value, declared) = head_of(bytes).ok_or(WrongBody::NoHead { len })?;
    if declared != len as u64 {
        return Err(WrongBody::Length { value, len, declared });
    }
    let expected = body(key, value, len);
    match bytes.iter().zip(expected.iter()).position(|(a, b)| a != b) {
        Some(offset) => Err(WrongBody::Byte { value, offset }),
        None => Ok(value),
    }
}

fn head_of(bytes: &[u8]) -> Option<(u64, u64)> {
    let (value, rest) = bytes.split_first_chunk::<8>()?;
    let (len, _) = rest.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*value), u64::from_le_bytes(*len)))
}

/// A body produced piece by piece, for sizes that must not be held in memory.
pub struct Stream {
    head: [u8; HEAD_LEN],
    output: blake3::OutputReader,
    position: u64,
    len: u64,
}

impl Stream {
    /// The body of `value` under `key`; `len` as in [`body`].
    #[must_use]
    pub fn new(key: &str, value: u64, len: u64) -> Self {
        let len = len.max(HEAD_LEN as u64);
        let mut head = [0; HEAD_LEN];
        head[..8].copy_from_slice(&value.to_le_bytes());
        head[8..].copy_from_slice(&len.to_le_bytes());
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"drystone test body\0").update(&value.to_le_bytes()).update(key.as_bytes());
        Self { head, output: hasher.finalize_xof(), position: 0, len }
    }

    /// Bytes not yet produced.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.len - self.position
    }

    /// Fills `into` with the next bytes and returns how many there were: 0 only at the end.
    pub fn fill(&mut self, into: &mut [u8]) -> usize {
        let wanted = usize::try_from(self.remaining()).map_or(into.len(), |left| left.min(into.len()));
        let mut done = 0;
        while done < wanted && self.position < HEAD_LEN as u64 {
            into[done] = self.head[usize::try_from(self.position).unwrap_or(0)];
            self.position += 1;
            done += 1;
        }
        let rest = &mut into[done..wanted];
        // An `OutputReader` has no end and no errors.
        let read = self.output.read(rest).unwrap_or(0);
        self.position += read as u64;
        done + read
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_body_identifies_itself_and_no_flipped_bit_goes_unnoticed(value: u64, len in HEAD_LEN..5_000, at: prop::sample::Index, bit in 0_u8..8) {
            let made = body("some/key", value, len);
            prop_assert_eq!(identify("some/key", &made), Ok(value));
            let mut flipped = made.to_vec();
            flipped[at.index(len)] ^= 1 << bit;
            prop_assert!(identify("some/key", &flipped).is_err());
            prop_assert!(len == HEAD_LEN || identify("another/key", &made).is_err());
            prop_assert!(identify("some/key", &made[..len - 1]).is_err());
        }

        #[test]
        fn a_stream_in_pieces_is_the_body(len in HEAD_LEN..20_000, piece in 1_usize..3_000) {
            let mut stream = Stream::new("k", 9, len as u64);
            let mut all = Vec::new();
            let mut buffer = vec![0; piece];
            loop {
                let read = stream.fill(&mut buffer);
                if read == 0 { break; }
                all.extend_from_slice(&buffer[..read]);
            }
            prop_assert_eq!(Bytes::from(all), body("k", 9, len));
        }
    }
}
