//! Bytes straight onto a TCP connection, for requests that no proper client can send.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What happened on the connection.
#[derive(Clone, Debug, Default)]
pub struct Exchange {
    /// All bytes the server sent.
    pub received: Vec<u8>,
    /// Whether the server ended the connection, in order or by a reset, before the deadline.
    pub closed: bool,
}

impl Exchange {
    /// The status of the last final answer (1xx are passed over), `None` if there was none.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        let text = String::from_utf8_lossy(&self.received);
        let statuses = text.match_indices("HTTP/1.1 ").filter_map(|(at, word)| {
            let digits = text.get(at + word.len()..at + word.len() + 3)?;
            digits.parse::<u16>().ok().filter(|&status| status >= 200)
        });
        statuses.last()
    }

    /// The received bytes as text, for messages.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.received).into_owned()
    }
}

/// What to do after the bytes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// Keep the sending side open and read until the server closes or the deadline passes.
    Wait,
    /// Close the sending side, then read likewise.
    Finish,
}

/// Sends `bytes` to `address` and reads what comes back.
///
/// # Errors
/// No connection could be made. A connection that breaks later is a normal end of an exchange.
pub async fn exchange(
    address: &str,
    bytes: &[u8],
    afterwards: Afterwards,
    deadline: Duration,
) -> std::io::Result<Exchange> {
    let mut stream = TcpStream::connect(address).await?;
    let mut exchange = Exchange::default();
    let talk = async {
        // The server may answer and close before it has read everything; then the answer is still worth reading.
        let sent = stream.write_all(bytes).await;
        if sent.is_ok() && afterwards == Afterwards::Finish {
            stream.shutdown().await.unwrap_or_default();
        }
        let mut buffer = vec![0; 16 * 1024];
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(len) => exchange.received.extend_from_slice(&buffer[..len]),
            }
        }
    };
    let closed = timeout(deadline, talk).await.is_ok();
    exchange.closed = closed;
    Ok(exchange)
}
