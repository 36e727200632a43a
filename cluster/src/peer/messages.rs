//! Messages in a bulk stream, each behind its length: a QUIC stream hands bytes over in pieces of its own choosing, so what
//! was sent at once is not received at once (RFC 9000 §2.2).

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of the length before each message, a little-endian u32.
const LEN_BYTES: usize = size_of::<u32>();

/// A length that no message of this protocol has: the stream is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of {len} bytes in a bulk stream, of which none has more than {len_max}")]
pub struct MessageTooLong {
    len: usize,
    len_max: usize,
}

/// What goes before a message in the stream.
pub fn length_prefix(message: &[u8]) -> Bytes {
    // No message comes near 4 GiB; the receiver refuses what is far smaller.
    let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
    Bytes::copy_from_slice(&len.to_le_bytes())
}

/// Puts the pieces of a stream together. Holds at most one unfinished message and the piece that came last.
#[derive(Debug)]
pub struct Messages {
    received: BytesMut,
    len_max: usize,
}

impl Messages {
    /// For messages of at most `len_max` bytes.
    pub fn new(len_max: usize) -> Self {
        Self { received: BytesMut::new(), len_max }
    }

    /// Takes the next piece of the stream.
    pub fn push(&mut self, piece: &[u8]) {
        self.received.extend_from_slice(piece);
    }

    /// The next whole message, if it is there.
    ///
    /// # Errors
    /// It is longer than any message may be; nothing behind it can be read.
    pub fn pop(&mut self) -> Result<Option<Bytes>, MessageTooLong> {
        let Some(prefix) = self.received.first_chunk::<LEN_BYTES>() else { return Ok(None) };
        let len = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
        if len > self.len_max {
            return Err(MessageTooLong { len, len_max: self.len_max });
        }
        if self.received.len() < LEN_BYTES + len {
            return Ok(None);
        }
        self.received.advance(LEN_BYTES);
        Ok(Some(self.received.split_to(len).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(messages: &mut Messages) -> Vec<Bytes> {
        std::iter::from_fn(|| messages.pop().unwrap()).collect()
    }

    #[test]
    fn a_message_is_whole_only_with_its_last_byte() {
        let mut messages = Messages::new(3);
        messages.push(&[3, 0, 0]);
        assert_eq!(messages.pop(), Ok(None));
        messages.push(&[0, 7, 8]);
        assert_eq!(messages.pop(), Ok(None));
        messages.push(&[9, 0, 0, 0, 0, 1]);
        assert_eq!(all(&mut messages), [Bytes::from_static(&[7, 8, 9]), Bytes::new()]);
        assert_eq!(messages.pop(), Ok(None));
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused_before_anything_is_kept_for_it() {
        let mut messages = Messages::new(3);
        messages.push(&[4, 0, 0, 0]);
        assert_eq!(messages.pop(), Err(MessageTooLong { len: 4, len_max: 3 }));
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_however_the_stream_is_cut(
            sent in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..10),
            cuts in proptest::collection::vec(1..30_usize, 1..50),
        ) {
            let stream: Vec<u8> = sent.iter().flat_map(|m| [length_prefix(m).to_vec(), m.clone()].concat()).collect();
            let (mut messages, mut received, mut rest) = (Messages::new(40), Vec::new(), stream.as_slice());
            for cut in cuts.into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                messages.push(piece);
                received.extend(all(&mut messages));
                rest = after;
            }
            prop_assert_eq!(received, sent);
        }
    }
}
