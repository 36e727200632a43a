//! One accepted connection, from its first packet to its end: handshake, hello, calls, drain.

use std::sync::Arc;

use bytes::Bytes;
use drystone_certs::NodeId;
use quinn::{Connection, Incoming, RecvStream, SendStream, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep_until, timeout};

use crate::class::Class;
use crate::codes::{
    CLOSE_NO_HELLO, CLOSE_PROTOCOL, CLOSE_REFUSED_BASE, CLOSE_SHUTDOWN, STREAM_BUSY, STREAM_DRAINING, STREAM_TOO_LATE,
};
use crate::endpoint::Shared;
use crate::error::ConnectError;
use crate::frame::{FrameError, FrameHeader, FrameKind};
use crate::hello::{HELLO_LEN_MAX, Hello, PROTOCOL_MAX, PROTOCOL_MIN, decode_hello, encode_hello};
use crate::peers::connect_error;
use crate::policy::Refusal;
use crate::service::{IncomingCall, Meter, Service};
use crate::stream::{FrameReceiver, FrameSender, StreamError, refuse};
use crate::tls::{Verdict, peer_of};

/// Bodies up to this long take nothing from the byte budget: the bound on calls bounds them.
const FREE_BODY_LEN: u32 = 4 << 10;
/// One permit of the byte budget.
const BUDGET_UNIT: u32 = 1 << 10;

/// Serves one connection until it ends; never fails, only reports.
pub(crate) async fn serve_connection(shared: Arc<Shared>, service: Arc<dyn Service>, incoming: Incoming, class: Class) {
    let address = incoming.remote_address();
    let established = tokio::select! {
        biased;
        () = shared.closing.cancelled() => Err(ConnectError::LocallyClosed),
        established = establish(&shared, incoming, class) => established,
    };
    match established {
        Ok((connection, peer)) => {
            tracing::debug!(%peer, %class, peer_address = %address, "a peer connected");
            let enlisted = shared.enlist(peer, class, connection.clone());
            let calls = Calls::new(shared.clone(), service, connection, peer, class);
            calls.serve().await;
            drop(enlisted);
        }
        Err(ConnectError::LocallyClosed) => {}
        Err(cause) => shared.refused(address, &cause),
    }
}

/// Handshake and hello, each within the hello timeout.
async fn establish(shared: &Shared, incoming: Incoming, class: Class) -> Result<(Connection, NodeId), ConnectError> {
    let verdict = Verdict::default();
    let config =
        shared.server_config(class, verdict.clone()).map_err(|error| ConnectError::Transport(error.to_string()))?;
    let limit = shared.config.hello_timeout;
    let connecting = incoming.accept_with(Arc::new(config)).map_err(|error| connect_error(error, &verdict))?;
    let connection = timeout(limit, connecting)
        .await
        .map_err(|_elapsed| ConnectError::NoAnswer)?
        .map_err(|error| connect_error(error, &verdict))?;
    let peer = peer_of(&connection).map_err(ConnectError::Rejected)?;
    match timeout(limit, greet(shared, &connection, peer, class)).await {
        Ok(Ok(())) => Ok((connection, peer)),
        Ok(Err(cause)) => {
            close_for(&connection, &cause);
            Err(cause)
        }
        Err(_elapsed) => {
            connection.close(CLOSE_NO_HELLO, b"no hello in time");
            Err(ConnectError::NoAnswer)
        }
    }
}

async fn greet(shared: &Shared, connection: &Connection, peer: NodeId, class: Class) -> Result<(), ConnectError> {
    let none = Verdict::default();
    let (send, recv) = connection.accept_bi().await.map_err(|error| connect_error(error, &none))?;
    let hello = receive_hello(&mut FrameReceiver::new(recv)).await?;
    check_hello(shared, &hello, peer, class)?;
    send_hello(&mut FrameSender::new(send), &shared.hello(class)).await
}

/// Reads the other end's hello.
pub(crate) async fn receive_hello(receiver: &mut FrameReceiver) -> Result<Hello, ConnectError> {
    let header = receiver.read_header(FrameKind::Hello, HELLO_LEN_MAX).await.map_err(greeting_error)?;
    let len = usize::try_from(header.body_len).unwrap_or(usize::MAX);
    let body = receiver.read_body(len).await.map_err(greeting_error)?;
    Ok(decode_hello(&body)?)
}

/// Writes this end's hello and ends the stream.
pub(crate) async fn send_hello(sender: &mut FrameSender, hello: &Hello) -> Result<(), ConnectError> {
    let body = Bytes::from(encode_hello(hello)?);
    let header = FrameHeader {
        kind: FrameKind::Hello,
        code: 0,
        body_len: u32::try_from(body.len()).unwrap_or(u32::MAX),
        deadline_ms: 0,
        request_id: 0,
    };
    sender.send_frame(&header, body).await.map_err(greeting_error)?;
    sender.finish();
    Ok(())
}

fn greeting_error(error: StreamError) -> ConnectError {
    match error {
        StreamError::Lost(cause) => connect_error(cause, &Verdict::default()),
        StreamError::Frame(cause) => ConnectError::Protocol(cause),
        StreamError::Code(_) | StreamError::Truncated | StreamError::Ended => {
            ConnectError::Protocol(FrameError::Body(FrameKind::Hello))
        }
    }
}

/// Whether a hello agrees with the certificate, the connection and the policy.
pub(crate) fn check_hello(shared: &Shared, hello: &Hello, peer: NodeId, class: Class) -> Result<(), ConnectError> {
    let ours = shared.identity.cluster();
    let refusal = if hello.cluster != ours {
        Err(Refusal::OtherCluster { ours, theirs: hello.cluster })
    } else if hello.node != peer || hello.class != class {
        Err(Refusal::Contradiction(peer))
    } else if hello.protocol_min > PROTOCOL_MAX || hello.protocol_max < PROTOCOL_MIN {
        Err(Refusal::Version {
            ours_min: PROTOCOL_MIN,
            ours_max: PROTOCOL_MAX,
            theirs_min: hello.protocol_min,
            theirs_max: hello.protocol_max,
        })
    } else {
        shared.policy.admit(hello)
    };
    refusal.map_err(ConnectError::Refused)
}

/// Tells the other end why it is not a peer.
pub(crate) fn close_for(connection: &Connection, cause: &ConnectError) {
    match cause {
        ConnectError::Refused(refusal) => {
            let code = VarInt::from_u32(CLOSE_REFUSED_BASE + refusal.number());
            connection.close(code, refusal.to_string().as_bytes());
        }
        ConnectError::Protocol(error) => {
            connection.close(CLOSE_PROTOCOL, error.to_string().as_bytes());
        }
        _ => {}
    }
}

/// The calls of one connection.
struct Calls {
    context: Context,
    service: Arc<dyn Service>,
    tasks: JoinSet<()>,
}

/// What every call of a connection needs; cheap to clone.
#[derive(Clone)]
struct Context {
    shared: Arc<Shared>,
    connection: Connection,
    peer: NodeId,
    class: Class,
    budget: Arc<Semaphore>,
}

impl Calls {
    fn new(shared: Arc<Shared>, service: Arc<dyn Service>, connection: Connection, peer: NodeId, class: Class) -> Self {
        let unit = usize::try_from(BUDGET_UNIT).unwrap_or(1);
        let permits = shared.config.limits(class).body_bytes_inflight_max / unit;
        let budget = Arc::new(Semaphore::new(permits.clamp(1, Semaphore::MAX_PERMITS)));
        let context = Context { shared, connection, peer, class, budget };
        Self { context, service, tasks: JoinSet::new() }
    }

    /// Accepts calls until the connection or the endpoint ends, then waits for those in progress.
    async fn serve(mut self) {
        let closing = self.context.shared.closing.clone();
        let connection = self.context.connection.clone();
        loop {
            let stream = tokio::select! {
                biased;
                () = closing.cancelled() => break,
                stream = connection.accept_bi() => stream,
            };
            match stream {
                Ok((send, recv)) => self.start(send, recv),
                Err(_lost) => break,
            }
        }
        self.drain().await;
        connection.close(CLOSE_SHUTDOWN, b"the node is shutting down");
    }

    fn start(&mut self, send: SendStream, recv: RecvStream) {
        while let Some(ended) = self.tasks.try_join_next() {
            report(ended);
        }
        let context = &self.context;
        if self.tasks.len() >= context.shared.config.limits(context.class).calls_inflight_max {
            context.shared.metrics.served(context.class, Some("busy"));
            refuse(send, recv, STREAM_BUSY);
            return;
        }
        let call = serve_call(self.context.clone(), self.service.clone(), send, recv);
        self.tasks.spawn(call);
    }

    /// Lets the calls in progress end; refuses new ones. What remains after the drain timeout is dropped.
    async fn drain(&mut self) {
        let until = Instant::now() + self.context.shared.config.drain_timeout;
        let connection = self.context.connection.clone();
        let mut connected = true;
        while !self.tasks.is_empty() {
            tokio::select! {
                biased;
                () = sleep_until(until) => break,
                ended = self.tasks.join_next() => {
                    if let Some(ended) = ended {
                        report(ended);
                    }
                }
                stream = connection.accept_bi(), if connected => match stream {
                    Ok((send, recv)) => refuse(send, recv, STREAM_DRAINING),
                    Err(_lost) => connected = false,
                },
            }
        }
        self.tasks.shutdown().await;
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "the handler of a peer's call panicked: this is a bug");
    }
}

/// Reads one request and hands it to the service.
async fn serve_call(context: Context, service: Arc<dyn Service>, send: SendStream, recv: RecvStream) {
    let Context { shared, connection, peer, class, budget } = context;
    let mut sender = FrameSender::new(send);
    let mut receiver = FrameReceiver::new(recv);
    let limit = shared.config.stall_timeout;
    let read = timeout(limit, read_request(&mut receiver, &budget, shared.config.body_bytes_max));
    let (header, body, budget) = match read.await {
        Ok(Ok(request)) => request,
        Ok(Err(StreamError::Frame(error))) => {
            shared.metrics.protocol_error();
            tracing::warn!(%peer, %class, cause = %error, "a peer broke the protocol: connection closed");
            connection.close(CLOSE_PROTOCOL, error.to_string().as_bytes());
            return;
        }
        // The caller gave up, or is gone: dropping the streams is all that is left to say.
        Ok(Err(_)) => return,
        // It sends nothing, or other bodies fill the budget: nothing was done, and it may try again.
        Err(_elapsed) => {
            shared.metrics.served(class, Some("busy"));
            sender.reset(STREAM_BUSY);
            return;
        }
    };
    if header.deadline_ms == 0 {
        shared.metrics.served(class, Some("too_late"));
        sender.reset(STREAM_TOO_LATE);
        return;
    }
    shared.metrics.received(class, body.len());
    let deadline = Instant::now() + Duration::from_millis(u64::from(header.deadline_ms));
    let meter = Meter::new(shared.metrics.clone(), class, limit, shared.config.body_bytes_max);
    drop(shared);
    drop(connection);
    let call = IncomingCall {
        peer,
        class,
        method: header.code,
        body,
        request_id: header.request_id,
        deadline,
        sender,
        receiver,
        meter,
        _budget: budget,
    };
    service.call(call).await;
}

type ReadRequest = (FrameHeader, Bytes, Option<OwnedSemaphorePermit>);

async fn read_request(
    receiver: &mut FrameReceiver,
    budget: &Arc<Semaphore>,
    body_len_max: u32,
) -> Result<ReadRequest, StreamError> {
    let header = receiver.read_header(FrameKind::Request, body_len_max).await?;
    let permit = if header.body_len > FREE_BODY_LEN {
        let units = header.body_len.div_ceil(BUDGET_UNIT);
        // Closed only with the connection's task, which then no longer polls this.
        Some(budget.clone().acquire_many_owned(units).await.map_err(|_closed| StreamError::Ended)?)
    } else {
        None
    };
    let len = usize::try_from(header.body_len).unwrap_or(usize::MAX);
    let body = receiver.read_body(len).await?;
    Ok((header, body, permit))
}
