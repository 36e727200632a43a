//! The numbers that close connections and streams. Append-only: peers of other versions know them.

use quinn::VarInt;

/// Connection: the node stops.
pub const CLOSE_SHUTDOWN: VarInt = VarInt::from_u32(0x10);
/// Connection: the peer sent what no honest peer sends.
pub const CLOSE_PROTOCOL: VarInt = VarInt::from_u32(0x11);
/// Connection: the peer is no longer wanted (evicted, forgotten).
pub const CLOSE_EVICTED: VarInt = VarInt::from_u32(0x12);
/// Connection: the hello did not arrive in time.
pub const CLOSE_NO_HELLO: VarInt = VarInt::from_u32(0x13);
/// Connection: refused by the hello; the refusal's number is added (see [`crate::Refusal`]).
pub const CLOSE_REFUSED_BASE: u32 = 0x20;

/// Stream: the other end no longer wants the answer, or will not send the rest.
pub const STREAM_CANCELLED: VarInt = VarInt::from_u32(1);
/// Stream: too many calls at once on this connection; nothing was done.
pub const STREAM_BUSY: VarInt = VarInt::from_u32(2);
/// Stream: the node is stopping; nothing was done.
pub const STREAM_DRAINING: VarInt = VarInt::from_u32(3);
/// Stream: no byte moved for the stall timeout.
pub const STREAM_STALLED: VarInt = VarInt::from_u32(4);
/// Stream: the request's deadline had passed before the call began; nothing was done.
pub const STREAM_TOO_LATE: VarInt = VarInt::from_u32(5);
