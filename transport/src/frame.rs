//! The head of every request and reply: 24 bytes, little-endian, then a body of bounded length.
//!
//! ```text
//! 0  magic        "DRY1"
//! 4  version      u8 = 1
//! 5  kind         u8: 1 request, 2 reply, 3 hello
//! 6  code         u16: request: method; reply: status; hello: 0
//! 8  body length  u32, bytes
//! 12 deadline     u32, ms left when sent; request only
//! 16 request id   u64; a reply repeats its request's
//! ```
//!
//! What follows the body, up to the stream's end, is bulk and has no framing. This file only encodes and decodes; a
//! decoded length is not yet within the receiver's bound.

/// Length of a frame header in bytes.
pub const HEADER_LEN: usize = 24;
const MAGIC: [u8; 4] = *b"DRY1";
const VERSION: u8 = 1;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// A call.
    Request,
    /// Its answer.
    Reply,
    /// The first words of a connection, both ways.
    Hello,
}

/// A decoded header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// What follows.
    pub kind: FrameKind,
    /// Method of a request, [`Status`] number of a reply.
    pub code: u16,
    /// Length of the body in bytes, not yet checked against a bound.
    pub body_len: u32,
    /// Milliseconds left when a request was sent.
    pub deadline_ms: u32,
    /// Identifies the request in the logs of both ends.
    pub request_id: u64,
}

/// Why bytes are not a frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Another protocol.
    #[error("the frame does not start with DRY1")]
    Magic,
    /// A version this build does not speak.
    #[error("frame version {0}, this build speaks 1")]
    Version(u8),
    /// A kind this build does not know.
    #[error("unknown frame kind {0}")]
    Kind(u8),
    /// A kind that has no place here.
    #[error("a {found:?} frame where a {expected:?} frame belongs")]
    Unexpected {
        /// What belongs here.
        expected: FrameKind,
        /// What came.
        found: FrameKind,
    },
    /// A body beyond the bound.
    #[error("a body of {len} bytes, the bound is {max}")]
    TooLong {
        /// The length in the header.
        len: u32,
        /// The bound.
        max: u32,
    },
    /// A status this build does not know.
    #[error("unknown reply status {0}")]
    Status(u16),
    /// A body that does not decode.
    #[error("the body of a {0:?} frame does not decode")]
    Body(FrameKind),
}

/// How a reply ends a call; numbers are append-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The body is the answer.
    Ok,
    /// The service failed the call: the body is a code (u16) and its detail.
    Failure,
}

impl Status {
    pub(crate) const fn number(self) -> u16 {
        match self {
            Status::Ok => 0,
            Status::Failure => 1,
        }
    }

    pub(crate) const fn from_number(number: u16) -> Result<Status, FrameError> {
        match number {
            0 => Ok(Status::Ok),
            1 => Ok(Status::Failure),
            other => Err(FrameError::Status(other)),
        }
    }
}

/// Encodes a header. Pure.
pub fn encode_header(header: &FrameHeader) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[0..4].copy_from_slice(&MAGIC);
    bytes[4] = VERSION;
    bytes[5] = match header.kind {
        FrameKind::Request => 1,
        FrameKind::Reply => 2,
        FrameKind::Hello => 3,
    };
    bytes[6..8].copy_from_slice(&header.code.to_le_bytes());
    bytes[8..12].copy_from_slice(&header.body_len.to_le_bytes());
    bytes[12..16].copy_from_slice(&header.deadline_ms.to_le_bytes());
    bytes[16..24].copy_from_slice(&header.request_id.to_le_bytes());
    bytes
}

/// Decodes a header. Pure; the version is read before anything that depends on it.
///
/// # Errors
///
/// [`FrameError::Magic`], [`FrameError::Version`] or [`FrameError::Kind`].
pub fn decode_header(bytes: &[u8; HEADER_LEN]) -> Result<FrameHeader, FrameError> {
    let [m0, m1, m2, m3, version, kind, c0, c1, l0, l1, l2, l3, d0, d1, d2, d3, r0, r1, r2, r3, r4, r5, r6, r7] =
        *bytes;
    if [m0, m1, m2, m3] != MAGIC {
        return Err(FrameError::Magic);
    }
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    let kind = match kind {
        1 => FrameKind::Request,
        2 => FrameKind::Reply,
        3 => FrameKind::Hello,
        other => return Err(FrameError::Kind(other)),
    };
    Ok(FrameHeader {
        kind,
        code: u16::from_le_bytes([c0, c1]),
        body_len: u32::from_le_bytes([l0, l1, l2, l3]),
        deadline_ms: u32::from_le_bytes([d0, d1, d2, d3]),
        request_id: u64::from_le_bytes([r0, r1, r2, r3, r4, r5, r6, r7]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn header_version_1_is_frozen() {
        let header = FrameHeader {
            kind: FrameKind::Request,
            code: 0x0102,
            body_len: 0x0304_0506,
            deadline_ms: 0x0708_090a,
            request_id: 0x0b0c_0d0e_0f10_1112,
        };
        let bytes = encode_header(&header);
        assert_eq!(hex::encode(bytes), "44525931010102010605040 30a0908071211100f0e0d0c0b".replace(' ', ""));
        assert_eq!(decode_header(&bytes), Ok(header));
    }

    #[test]
    fn each_wrong_byte_has_its_error() {
        let good =
            encode_header(&FrameHeader { kind: FrameKind::Reply, code: 0, body_len: 0, deadline_ms: 0, request_id: 0 });
        let with = |at: usize, byte: u8| {
            let mut bytes = good;
            bytes[at] = byte;
            decode_header(&bytes)
        };
        assert_eq!(with(0, b'X'), Err(FrameError::Magic));
        assert_eq!(with(4, 2), Err(FrameError::Version(2)));
        assert_eq!(with(5, 0), Err(FrameError::Kind(0)));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_panic_and_what_decodes_encodes_back(bytes in any::<[u8; HEADER_LEN]>()) {
            if let Ok(header) = decode_header(&bytes) {
                prop_assert_eq!(encode_header(&header), bytes);
            }
        }

        #[test]
        fn headers_read_back(code: u16, body_len: u32, deadline_ms: u32, request_id: u64, kind in 0usize..3) {
            let kind = [FrameKind::Request, FrameKind::Reply, FrameKind::Hello][kind];
            let header = FrameHeader { kind, code, body_len, deadline_ms, request_id };
            prop_assert_eq!(decode_header(&encode_header(&header)), Ok(header));
        }
    }
}
