//! Consensus messages and records as bytes.
//!
//! Every message and record begins with a version byte; [`v1`] is frozen. Decoding is bounded, checks that nothing is
//! left over, and never panics. The shapes are our own: an upgrade of the consensus library cannot change them.

pub(super) mod v1;

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bytes::{BufMut, Bytes, BytesMut};

/// Largest message or record in bytes.
pub(super) const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// The version byte and what follows it.
pub const SNAPSHOT_CHUNK_BYTES_MAX: usize = 1 + MESSAGE_BYTES_MAX;

const VERSION_1: u8 = 1;

const CONFIG: Configuration<LittleEndian, Varint, Limit<MESSAGE_BYTES_MAX>> =
    bincode::config::standard().with_limit::<MESSAGE_BYTES_MAX>();

/// Bytes that are no message or record of a known version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a consensus message or record of a known version")]
pub(super) struct Malformed;

/// The bytes of a version 1 message or record.
pub(super) fn encode(value: &impl bincode::Encode) -> Bytes {
    let mut writer = BytesMut::with_capacity(256).writer();
    writer.get_mut().put_u8(VERSION_1);
    match bincode::encode_into_std_write(value, &mut writer, CONFIG) {
        Ok(_) => writer.into_inner().freeze(),
        // Writing to memory cannot fail, and no encoder of ours does. A lone version byte is refused by every decoder.
        Err(_) => Bytes::from_static(&[VERSION_1]),
    }
}

/// The message or record in `bytes`.
pub(super) fn decode<T: bincode::Decode<()>>(bytes: &[u8]) -> Result<T, Malformed> {
    match bytes.split_first() {
        Some((&VERSION_1, body)) if body.len() <= MESSAGE_BYTES_MAX => {
            let (value, used) = bincode::decode_from_slice(body, CONFIG).map_err(|_| Malformed)?;
            if used == body.len() { Ok(value) } else { Err(Malformed) }
        }
        _ => Err(Malformed),
    }
}
