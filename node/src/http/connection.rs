//! One connection from accept to close.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::metrics::End;
use super::server::Shared;
use super::stall::StallGuard;
use super::{Front, HttpLimits};

/// Read buffer of an HTTP/1.1 connection in bytes, and so the most that a request's head may have (hyper answers 431).
/// Large enough that a 1 MiB body takes few system calls.
const READ_BUFFER_MAX: usize = 128 << 10;
/// Most bytes of a request's headers over HTTP/2.
const H2_HEAD_BYTES_MAX: u32 = 64 << 10;
/// Most headers of a request.
const HEADERS_MAX: usize = 128;
/// Requests under way on one HTTP/2 connection.
const H2_STREAMS_MAX: u32 = 128;
/// Bytes hyper buffers for one HTTP/2 stream on its way out.
const H2_SEND_BUFFER: usize = 256 << 10;
/// Bytes of one HTTP/2 request body that may wait unread.
const H2_STREAM_WINDOW: u32 = 1 << 20;

/// Spawns the streams of HTTP/2 connections so that the server's tracker owns them.
#[derive(Clone)]
pub(super) struct Spawner(pub(super) TaskTracker);

impl<F: Future<Output: Send + 'static> + Send + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// HTTP/1.1 and HTTP/2 with our limits.
pub(super) fn protocol(limits: &HttpLimits, spawner: Spawner) -> Builder<Spawner> {
    let mut builder = Builder::new(spawner);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(READ_BUFFER_MAX)
        .max_headers(HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_header_list_size(H2_HEAD_BYTES_MAX)
        .max_send_buf_size(H2_SEND_BUFFER)
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .keep_alive_interval(limits.header_timeout)
        .keep_alive_timeout(limits.header_timeout);
    builder
}

/// Serves a connection until it closes, or `cut` says that the drain is over.
pub(super) async fn run(stream: TcpStream, front: Front, shared: Arc<Shared>, signals: Signals) -> End {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "connection is gone already");
        return End::Broken;
    }
    let stream = StallGuard::new(stream, shared.limits.stall_timeout);
    let Some(tls) = &shared.tls else { return serve(stream, front, &shared, signals).await };
    let handshake = timeout(shared.limits.header_timeout, tls.accept(stream));
    let accepted = tokio::select! {
        biased;
        () = signals.stop.cancelled() => return End::Closed,
        accepted = handshake => accepted,
    };
    match accepted {
        Ok(Ok(stream)) => serve(stream, front, &shared, signals).await,
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            End::Tls
        }
        Err(_elapsed) => End::Tls,
    }
}

/// What a connection is told from outside.
#[derive(Clone)]
pub(super) struct Signals {
    /// Finish the request under way and close.
    pub(super) stop: CancellationToken,
    /// Close now.
    pub(super) cut: CancellationToken,
}

async fn serve<S>(stream: S, front: Front, shared: &Shared, signals: Signals) -> End
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let begun = Arc::new(AtomicBool::new(false));
    let service = {
        let begun = Arc::clone(&begun);
        service_fn(move |request: hyper::Request<Incoming>| {
            begun.store(true, Ordering::Relaxed);
            let front = front.clone();
            async move { Ok::<_, Infallible>(front.answer(request).await) }
        })
    };
    let mut connection = pin!(shared.protocol.serve_connection(TokioIo::new(stream), service));
    // hyper's own header timeout begins only once it knows the protocol, so silence before that needs this one.
    let mut first = pin!(sleep(shared.limits.header_timeout + Duration::from_millis(500)));
    let (mut stopping, mut watching) = (false, true);
    loop {
        tokio::select! {
            biased;
            () = signals.cut.cancelled() => return End::Cut,
            () = signals.stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = first.as_mut(), if watching => {
                watching = false;
                if !begun.load(Ordering::Relaxed) {
                    return End::Idle;
                }
            }
            ended = connection.as_mut() => return end_of(ended),
        }
    }
}

fn end_of(ended: Result<(), super::BoxError>) -> End {
    let Err(error) = ended else { return End::Closed };
    let hyper = error.downcast_ref::<hyper::Error>();
    tracing::debug!(%error, "connection broke");
    if hyper.is_some_and(hyper::Error::is_timeout) { End::Idle } else { End::Broken }
}
