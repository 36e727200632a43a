//! The `aws-chunked` framing, taken off bit by bit.
//!
//! A synchronous state machine: bytes go in as they arrive, slices of them come out. It holds at most one line of a chunk
//! header or trailer, never a chunk, so a client that sends one chunk of 5 GiB costs nothing. Data is handed on before
//! its chunk's signature is known to hold; whoever stores it must not commit before [`Step::End`].
//!
//! Format: <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html>,
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html>.

use bytes::{Buf, Bytes};
use drystone_cluster::store::BodyError;

use crate::sig::ChunkVerifier;

/// A chunk header is a length and a signature: about 100 bytes.
const HEADER_LEN_MAX: usize = 512;
/// All trailers together. The longest that means anything is some 120 bytes.
const TRAILERS_LEN_MAX: usize = 4096;

/// Which form of the framing a request declared.
#[derive(Debug)]
pub(crate) enum Framing {
    /// Every chunk is signed; the trailers too, if there are any.
    Signed {
        /// The chain, at its beginning.
        verifier: Box<ChunkVerifier>,
        /// Whether trailers follow.
        trailer: bool,
    },
    /// Nothing is signed; trailers may follow.
    Unsigned,
}

/// What came out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Bytes of the body, never empty.
    Data(Bytes),
    /// The input is used up.
    Starved,
    /// The body and its trailers are complete and every signature holds.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    Data { left: u64 },
    DataEnd,
    Trailers,
    Done,
}

/// One body's decoder.
#[derive(Debug)]
pub(crate) struct ChunkedDecoder {
    framing: Framing,
    state: State,
    line: Vec<u8>,
    signature: [u8; 32],
    trailers: Vec<(String, String)>,
    trailers_len: usize,
    trailers_signed: bool,
}

impl ChunkedDecoder {
    pub(crate) fn new(framing: Framing) -> Self {
        Self {
            framing,
            state: State::Header,
            line: Vec::new(),
            signature: [0; 32],
            trailers: Vec::new(),
            trailers_len: 0,
            trailers_signed: false,
        }
    }

    /// Takes what it can from `input`. After an error or [`Step::End`] do not call again.
    pub(crate) fn step(&mut self, input: &mut Bytes) -> Result<Step, BodyError> {
        loop {
            match self.state {
                State::Data { left } => {
                    if input.is_empty() {
                        return Ok(Step::Starved);
                    }
                    return self.take_data(left, input).map(Step::Data);
                }
                State::Done if input.is_empty() => return Ok(Step::End),
                State::Done => return Err(BodyError::Malformed("bytes follow its end")),
                State::Header | State::DataEnd | State::Trailers => {
                    let limit = if self.state == State::Trailers { TRAILERS_LEN_MAX } else { HEADER_LEN_MAX };
                    if !self.take_line(input, limit)? {
                        return Ok(Step::Starved);
                    }
                    let line = std::mem::take(&mut self.line);
                    self.line_done(&line)?;
                    self.line = line;
                    self.line.clear();
                }
            }
        }
    }

    /// The input has ended for good. A missing last empty line is forgiven: all that counts has been verified by then.
    pub(crate) fn end_of_input(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Done => Ok(()),
            State::Trailers if self.line.is_empty() && self.trailers_complete() => {
                self.state = State::Done;
                Ok(())
            }
            State::Trailers if self.line.is_empty() => Err(BodyError::MalformedTrailer("their signature is missing")),
            _ => Err(BodyError::Malformed("it ends before its end")),
        }
    }

    /// The trailers, lower-case name and value, in order.
    pub(crate) fn trailers(&self) -> &[(String, String)] {
        &self.trailers
    }

    fn take_data(&mut self, left: u64, input: &mut Bytes) -> Result<Bytes, BodyError> {
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let data = input.split_to(take);
        let left = left - u64::try_from(take).unwrap_or(u64::MAX);
        if let Framing::Signed { verifier, .. } = &mut self.framing {
            verifier.update(&data);
        }
        if left == 0 {
            self.chunk_done()?;
            self.state = State::DataEnd;
        } else {
            self.state = State::Data { left };
        }
        Ok(data)
    }

    fn chunk_done(&mut self) -> Result<(), BodyError> {
        let holds = match &mut self.framing {
            Framing::Signed { verifier, .. } => verifier.chunk_matches(&self.signature),
            Framing::Unsigned => true,
        };
        if holds { Ok(()) } else { Err(BodyError::SignatureMismatch) }
    }

    /// Moves bytes up to a line feed into `line`; whether there was one, which is cut off with its carriage return.
    fn take_line(&mut self, input: &mut Bytes, limit: usize) -> Result<bool, BodyError> {
        let end = input.iter().take(limit + 1).position(|byte| *byte == b'\n');
        let take = end.unwrap_or(input.len());
        if self.line.len().saturating_add(take) > limit {
            return Err(match self.state {
                State::Trailers => BodyError::MalformedTrailer("a line is too long"),
                _ => BodyError::Malformed("a line is too long"),
            });
        }
        self.line.extend_from_slice(&input[..take]);
        input.advance(take);
        if end.is_none() {
            return Ok(false);
        }
        input.advance(1);
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        Ok(true)
    }

    fn line_done(&mut self, line: &[u8]) -> Result<(), BodyError> {
        match self.state {
            State::Header => self.header_done(line),
            State::DataEnd if line.is_empty() => {
                self.state = State::Header;
                Ok(())
            }
            State::DataEnd => Err(BodyError::Malformed("a chunk is longer than its header says")),
            State::Trailers => self.trailer_done(line),
            State::Data { .. } | State::Done => Ok(()),
        }
    }

    fn header_done(&mut self, line: &[u8]) -> Result<(), BodyError> {
        let malformed = BodyError::Malformed("a chunk header cannot be read");
        let line = std::str::from_utf8(line).map_err(|_| malformed.clone())?;
        let (size, extension) = match line.split_once(';') {
            Some((size, extension)) => (size, Some(extension)),
            None => (line, None),
        };
        if size.is_empty() || size.len() > 16 || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(malformed);
        }
        let left = u64::from_str_radix(size, 16).map_err(|_| malformed)?;
        if let Framing::Signed { .. } = self.framing {
            let signature = extension
                .and_then(|text| text.trim().strip_prefix("chunk-signature="))
                .ok_or(BodyError::Malformed("a chunk is not signed"))?;
            hex::decode_to_slice(signature, &mut self.signature).map_err(|_| BodyError::SignatureMismatch)?;
        }
        self.state = State::Data { left };
        if left == 0 {
            self.chunk_done()?;
            self.state = State::Trailers;
        }
        Ok(())
    }

    fn trailers_complete(&self) -> bool {
        !matches!(self.framing, Framing::Signed { trailer: true, .. }) || self.trailers_signed
    }

    fn trailer_done(&mut self, line: &[u8]) -> Result<(), BodyError> {
        self.trailers_len += line.len() + 2;
        if self.trailers_len > TRAILERS_LEN_MAX {
            return Err(BodyError::MalformedTrailer("they are too long"));
        }
        if line.is_empty() {
            // AWS's own example puts an empty line between the trailers and their signature.
            if self.trailers_complete() {
                self.state = State::Done;
            }
            return Ok(());
        }
        let malformed = BodyError::MalformedTrailer("one cannot be read");
        let line = std::str::from_utf8(line).map_err(|_| malformed.clone())?;
        let (name, value) = line.split_once(':').ok_or(malformed)?;
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        match &mut self.framing {
            Framing::Signed { trailer: false, .. } => Err(BodyError::MalformedTrailer("one was not declared")),
            _ if self.trailers_signed => Err(BodyError::MalformedTrailer("one follows their signature")),
            Framing::Signed { verifier, .. } if name == "x-amz-trailer-signature" => {
                let mut signature = [0; 32];
                hex::decode_to_slice(value, &mut signature).map_err(|_| BodyError::SignatureMismatch)?;
                if !verifier.trailer_matches(&signature) {
                    return Err(BodyError::SignatureMismatch);
                }
                self.trailers_signed = true;
                Ok(())
            }
            framing => {
                if let Framing::Signed { verifier, .. } = framing {
                    verifier.update(format!("{name}:{value}\n").as_bytes());
                }
                self.trailers.push((name, value.to_owned()));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
