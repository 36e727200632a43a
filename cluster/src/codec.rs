//! The one binary codec of the cluster: bincode 2, standard configuration, always bounded and always consumed whole.
//!
//! Bodies are frozen structs inside versioned enums, so the first varint read is the version. Decoding never
//! allocates more than the input justifies and never panics.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::de::{BorrowDecoder, Decoder};
use bincode::enc::Encoder;
use bincode::error::{DecodeError as BincodeDecodeError, EncodeError};
use bincode::{BorrowDecode, Decode, Encode};
use bytes::Bytes;

/// No body may be larger than this when decoded: 32 MiB, above the largest index entry (a 5 GiB part) by far.
const DECODED_BYTES_MAX: usize = 32 << 20;

const CONFIG: Configuration<LittleEndian, Varint, Limit<DECODED_BYTES_MAX>> =
    bincode::config::standard().with_limit::<DECODED_BYTES_MAX>();

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes do not decode as the wanted type.
    #[error("{what} does not decode: {cause}")]
    Malformed {
        /// The wanted type.
        what: &'static str,
        /// What the codec said.
        cause: String,
    },
    /// The bytes go on after the value ended.
    #[error("{what} is followed by {excess_len} stray bytes")]
    Excess {
        /// The wanted type.
        what: &'static str,
        /// How many bytes were left.
        excess_len: usize,
    },
}

/// Encodes `value`.
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    // Encoding into memory fails only for types that bincode cannot represent, which the golden tests would show.
    bincode::encode_to_vec(value, CONFIG).unwrap_or_default()
}

/// Decodes exactly one `T` from all of `bytes`.
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, DecodeError> {
    let what = std::any::type_name::<T>();
    let (value, read_len) = bincode::decode_from_slice(bytes, CONFIG)
        .map_err(|error| DecodeError::Malformed { what, cause: error.to_string() })?;
    match bytes.len() - read_len {
        0 => Ok(value),
        excess_len => Err(DecodeError::Excess { what, excess_len }),
    }
}

/// Bytes inside an encoded body: like `Vec<u8>` on the wire, shared in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blob(pub Bytes);

impl Encode for Blob {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0.as_ref().encode(encoder)
    }
}

impl<C> Decode<C> for Blob {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, BincodeDecodeError> {
        Vec::<u8>::decode(decoder).map(|bytes| Self(Bytes::from(bytes)))
    }
}

impl<'de, C> BorrowDecode<'de, C> for Blob {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, BincodeDecodeError> {
        Vec::<u8>::borrow_decode(decoder).map(|bytes| Self(Bytes::from(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&7_u32);
        bytes.push(0);
        assert_eq!(decode::<u32>(&bytes), Err(DecodeError::Excess { what: "u32", excess_len: 1 }));
    }

    #[test]
    fn a_length_beyond_the_input_does_not_allocate() {
        let bytes = encode(&u64::MAX);
        assert!(decode::<Blob>(&bytes).is_err());
    }
}
