//! The calling side: at most one control and one data connection per peer, dialled when needed, and calls on them.
//!
//! A `Peers` belongs to the runtime it was made on: its connections are driven there, and callers of that runtime pay
//! no hop between threads. It may be used from others.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use drystone_certs::{NodeId, server_name};
use quinn::{Connection, ConnectionError};
use rand::rngs::StdRng;
use rand::{Rng, RngCore};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cid::first_id;
use crate::class::Class;
use crate::codes::{
    CLOSE_EVICTED, CLOSE_REFUSED_BASE, CLOSE_SHUTDOWN, STREAM_BUSY, STREAM_DRAINING, STREAM_STALLED, STREAM_TOO_LATE,
};
use crate::endpoint::{Endpoint, Shared, lock};
use crate::error::{ConnectError, RpcError, Sent};
use crate::frame::{FrameError, FrameHeader, FrameKind, Status};
use crate::hello::Hello;
use crate::metrics::{ConnectionReport, Side, TransportMetrics};
use crate::policy::Directory;
use crate::serve::{check_hello, close_for, receive_hello, send_hello};
use crate::service::{check_len, decode_failure};
use crate::stream::{FrameReceiver, FrameSender, StreamError};
use crate::tls::{Verdict, peer_of, spoken_reason};

/// One call to make.
#[derive(Debug, Clone)]
pub struct Request {
    /// What is wanted; its meaning is the service's.
    pub method: u16,
    /// The body; at most the configured bound.
    pub body: Bytes,
    /// How long to wait for the head of the answer, dialling included. Bulk has the stall timeout instead, and the wait
    /// for the answer counts from the end of the request's bulk. At most 49 days; rounded up to a millisecond.
    pub deadline: Duration,
    /// Identifies the request in the logs of both ends.
    pub request_id: u64,
}

/// The peers as seen from one runtime. A handle; [`Peers::close`] ends its connections.
#[derive(Clone)]
pub struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    directory: Arc<dyn Directory>,
    runtime: Handle,
    rng: Mutex<StdRng>,
    peers: Mutex<BTreeMap<NodeId, Arc<Peer>>>,
    closing: CancellationToken,
    tasks: TaskTracker,
    request_next: AtomicU64,
}

struct Peer {
    node: NodeId,
    slots: [LinkSlot; 2],
}

#[derive(Default)]
struct LinkSlot {
    current: ArcSwapOption<Link>,
    dial: Mutex<DialState>,
}

/// An established connection to a peer.
struct Link {
    connection: Connection,
    hello: Hello,
}

type DialOutcome = Result<Arc<Link>, Arc<ConnectError>>;

#[derive(Default)]
struct DialState {
    running: Option<watch::Receiver<Option<DialOutcome>>>,
    failures: u32,
    failed: Option<(Instant, Arc<ConnectError>)>,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers").field("node", &self.inner.shared.identity.node()).finish_non_exhaustive()
    }
}

impl Peers {
    /// Peers that are dialled from `endpoint` and found through `directory`. The rng jitters dials and draws request ids.
    /// Must be called on a runtime, which then drives the connections.
    pub fn new(endpoint: &Endpoint, directory: Arc<dyn Directory>, mut rng: StdRng) -> Self {
        let request_next = AtomicU64::new(rng.next_u64());
        Self {
            inner: Arc::new(Inner {
                shared: endpoint.shared.clone(),
                directory,
                runtime: Handle::current(),
                rng: Mutex::new(rng),
                peers: Mutex::default(),
                closing: endpoint.shared.closing.child_token(),
                tasks: TaskTracker::new(),
                request_next,
            }),
        }
    }

    /// Calls a method and returns the body of its answer. A dropped call is given up at the peer, which may have acted.
    ///
    /// # Errors
    ///
    /// [`RpcError`]; its [`outcome`](RpcError::outcome) tells whether the peer may have acted.
    pub async fn call(
        &self,
        to: NodeId,
        class: Class,
        method: u16,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, RpcError> {
        let mut call = self.open(to, class, method, body, deadline).await?;
        call.finish();
        call.reply().await
    }

    /// Begins a call that carries bulk bytes one way or both. Returns when the head of the request is on its way.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub async fn open(
        &self,
        to: NodeId,
        class: Class,
        method: u16,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Call, RpcError> {
        let request_id = self.inner.request_next.fetch_add(1, Ordering::Relaxed);
        self.start(to, class, Request { method, body, deadline, request_id }).await
    }

    /// [`Self::open`] with a request id of the caller's, so that one id follows a request through the cluster.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub async fn start(&self, to: NodeId, class: Class, request: Request) -> Result<Call, RpcError> {
        let started = self.start_uncounted(to, class, request).await;
        if let Err(error) = &started {
            self.inner.shared.metrics.called(class, Some(error.kind()));
        }
        started
    }

    async fn start_uncounted(&self, to: NodeId, class: Class, request: Request) -> Result<Call, RpcError> {
        let shared = &self.inner.shared;
        let body_len = check_len(request.body.len(), shared.config.body_bytes_max)?;
        let until = Instant::now() + request.deadline;
        let mut sent = Sent::No;
        let opened = timeout_at(until, async {
            let (mut sender, receiver) = self.open_stream(to, class).await?;
            let left = until.saturating_duration_since(Instant::now());
            let header = FrameHeader {
                kind: FrameKind::Request,
                code: request.method,
                body_len,
                deadline_ms: milliseconds(left),
                request_id: request.request_id,
            };
            sent = Sent::Maybe;
            let len = request.body.len();
            sender.send_frame(&header, request.body).await.map_err(|error| call_error(to, error))?;
            shared.metrics.sent(class, len);
            Ok((sender, receiver))
        });
        match opened.await {
            Ok(Ok((sender, receiver))) => Ok(Call {
                peer: to,
                class,
                sender,
                receiver,
                until,
                deadline: request.deadline,
                stall: shared.config.stall_timeout,
                body_len_max: shared.config.body_bytes_max,
                metrics: shared.metrics.clone(),
                stage: Stage::Asking,
                bulk_sent: false,
            }),
            Ok(Err(error)) => Err(error),
            Err(_elapsed) => Err(RpcError::Deadline { peer: to, sent }),
        }
    }

    /// Opens a stream on the peer's connection; if that turns out to be dead before anything was sent, on a new one.
    async fn open_stream(&self, to: NodeId, class: Class) -> Result<(FrameSender, FrameReceiver), RpcError> {
        let peer = self.inner.peer(to);
        let slot = &peer.slots[class.index()];
        let mut lost = None;
        for _attempt in 0..2 {
            let link =
                self.inner.link(&peer, class).await.map_err(|cause| RpcError::Unreachable { peer: to, cause })?;
            match link.connection.open_bi().await {
                Ok((send, recv)) => return Ok((FrameSender::new(send), FrameReceiver::new(recv))),
                Err(error) => {
                    slot.forget(&link);
                    lost = Some(error);
                }
            }
        }
        let cause = lost.map_or(ConnectError::LocallyClosed, |error| connect_error(error, &Verdict::default()));
        Err(RpcError::Closed { peer: to, cause: Arc::new(cause), sent: Sent::No })
    }

    /// Whether there is a live connection to the peer now.
    pub fn is_connected(&self, to: NodeId, class: Class) -> bool {
        self.inner.peer(to).slots[class.index()].live().is_some()
    }

    /// Why the last dial of the peer failed, if no dial has succeeded since.
    pub fn last_failure(&self, to: NodeId, class: Class) -> Option<Arc<ConnectError>> {
        let peer = self.inner.peer(to);
        let state = lock(&peer.slots[class.index()].dial);
        state.failed.as_ref().map(|(_, cause)| cause.clone())
    }

    /// What the peer said when it was last connected: its instance, epoch and software.
    pub fn hello(&self, to: NodeId, class: Class) -> Option<Hello> {
        self.inner.peer(to).slots[class.index()].current.load().as_ref().map(|link| link.hello.clone())
    }

    /// Waits until the present connection to the peer, if there is one, is lost, and returns why.
    pub async fn lost(&self, to: NodeId, class: Class) -> Option<ConnectError> {
        let link = self.inner.peer(to).slots[class.index()].live()?;
        let error = link.connection.closed().await;
        Some(connect_error(error, &Verdict::default()))
    }

    /// The dialled connections that live, as they are now.
    pub fn connections(&self) -> Vec<ConnectionReport> {
        let peers: Vec<Arc<Peer>> = lock(&self.inner.peers).values().cloned().collect();
        let mut reports = Vec::new();
        for peer in &peers {
            for class in Class::ALL {
                if let Some(link) = peer.slots[class.index()].live() {
                    reports.push(ConnectionReport::of(&link.connection, peer.node, class, Side::Dialled));
                }
            }
        }
        reports
    }

    /// Closes the connections to a peer and forgets it, for instance when it left the topology. A later call dials anew.
    pub fn forget(&self, to: NodeId) {
        let peer = lock(&self.inner.peers).remove(&to);
        for slot in peer.iter().flat_map(|peer| &peer.slots) {
            if let Some(link) = slot.current.swap(None) {
                link.connection.close(CLOSE_EVICTED, b"no longer a peer");
            }
        }
    }

    /// Ends all connections and dials. Calls in progress fail. The endpoint stays open.
    pub async fn close(&self) {
        self.inner.closing.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        for peer in lock(&self.inner.peers).values() {
            for link in peer.slots.iter().filter_map(|slot| slot.current.swap(None)) {
                link.connection.close(CLOSE_SHUTDOWN, b"the node is shutting down");
            }
        }
    }
}

impl LinkSlot {
    fn live(&self) -> Option<Arc<Link>> {
        self.current.load_full().filter(|link| link.connection.close_reason().is_none())
    }

    /// Takes a dead connection out, unless another has replaced it.
    fn forget(&self, link: &Arc<Link>) {
        self.current.compare_and_swap(link, None);
    }
}

impl Inner {
    fn peer(&self, node: NodeId) -> Arc<Peer> {
        lock(&self.peers).entry(node).or_insert_with(|| Arc::new(Peer { node, slots: Default::default() })).clone()
    }

    /// The connection to a peer: the present one, or the outcome of the one dial that is running or is begun now.
    async fn link(self: &Arc<Self>, peer: &Arc<Peer>, class: Class) -> DialOutcome {
        let slot = &peer.slots[class.index()];
        if let Some(link) = slot.current.load_full() {
            return Ok(link);
        }
        let mut running = self.join_dial(peer, class)?;
        loop {
            if let Some(outcome) = running.borrow_and_update().clone() {
                return outcome;
            }
            if running.changed().await.is_err() {
                return Err(Arc::new(ConnectError::LocallyClosed));
            }
        }
    }

    fn join_dial(
        self: &Arc<Self>,
        peer: &Arc<Peer>,
        class: Class,
    ) -> Result<watch::Receiver<Option<DialOutcome>>, Arc<ConnectError>> {
        let slot = &peer.slots[class.index()];
        let mut state = lock(&slot.dial);
        if let Some(running) = &state.running {
            return Ok(running.clone());
        }
        if let Some(link) = slot.current.load_full() {
            // Dialled between the caller's look and this one.
            return Ok(watch::channel(Some(Ok(link))).1);
        }
        if self.closing.is_cancelled() {
            return Err(Arc::new(ConnectError::LocallyClosed));
        }
        match &state.failed {
            Some((retry_at, cause)) if Instant::now() < *retry_at => {
                return Err(Arc::new(ConnectError::BackingOff(cause.clone())));
            }
            _ => {}
        }
        let (done, running) = watch::channel(None);
        state.running = Some(running.clone());
        let (inner, peer) = (self.clone(), peer.clone());
        let dial = async move {
            let outcome = inner.dial(peer.node, class).await;
            inner.settle(&peer, class, &outcome);
            drop(done.send(Some(outcome)));
        };
        self.tasks.spawn_on(dial, &self.runtime);
        Ok(running)
    }

    /// Notes the outcome of a dial.
    fn settle(&self, peer: &Peer, class: Class, outcome: &DialOutcome) {
        let slot = &peer.slots[class.index()];
        let mut state = lock(&slot.dial);
        state.running = None;
        match outcome {
            Ok(link) => {
                self.shared.metrics.dialled("ok");
                state.failures = 0;
                state.failed = None;
                slot.current.store(Some(link.clone()));
            }
            Err(cause) => {
                self.shared.metrics.dialled("failed");
                let wait = self.backoff(state.failures);
                state.failures = state.failures.saturating_add(1);
                state.failed = Some((Instant::now() + wait, cause.clone()));
            }
        }
    }

    /// Doubles with each failure up to the bound, ± 50 %, so that nodes do not dial in step.
    fn backoff(&self, failures: u32) -> Duration {
        let config = &self.shared.config;
        let doubled = config.backoff_min.saturating_mul(1 << failures.min(16));
        doubled.min(config.backoff_max).mul_f64(lock(&self.rng).random_range(0.5..1.5))
    }

    async fn dial(&self, node: NodeId, class: Class) -> DialOutcome {
        let mut target = Target::default();
        let limit = self.shared.config.connect_timeout;
        let attempt = timeout(limit, connect(&self.shared, &*self.directory, node, class, &mut target));
        let outcome = tokio::select! {
            biased;
            () = self.closing.cancelled() => Err(ConnectError::LocallyClosed),
            outcome = attempt => outcome.unwrap_or(Err(ConnectError::NoAnswer)),
        };
        let outcome = match (outcome, target.configured, target.reached) {
            // Nobody was asked yet but the name service.
            (Err(ConnectError::NoAnswer), Some(address), None) => {
                Err(ConnectError::Lookup { address, detail: format!("no answer within {} s", limit.as_secs()) })
            }
            (outcome, _, _) => outcome,
        };
        match (&outcome, target.reached) {
            (Ok(_), Some(address)) => {
                tracing::debug!(peer = %node, %class, peer_address = %address, "connected to a peer");
            }
            (Err(cause @ ConnectError::Lookup { .. }), _) => self.shared.policy.unresolved(node, cause),
            (Err(cause @ (ConnectError::NoAnswer | ConnectError::LocallyClosed)), _) | (Err(cause), None) => {
                tracing::debug!(peer = %node, %class, %cause, "could not connect to a peer");
            }
            (Ok(_), None) => {}
            (Err(cause), Some(address)) => self.shared.refused(address, cause),
        }
        outcome.map(Arc::new).map_err(Arc::new)
    }
}

/// How far a dial came: what was to be dialled, and where that is.
#[derive(Default)]
struct Target {
    configured: Option<String>,
    reached: Option<SocketAddr>,
}

async fn connect(
    shared: &Arc<Shared>,
    directory: &dyn Directory,
    node: NodeId,
    class: Class,
    target: &mut Target,
) -> Result<Link, ConnectError> {
    let configured = target.configured.insert(directory.address(node).ok_or(ConnectError::NoAddress)?);
    let address = resolve(configured, shared.quinn.local_addr().is_ok_and(|local| local.is_ipv4())).await?;
    target.reached = Some(address);
    let verdict = Verdict::default();
    let crypto = shared.tls.dial(node, verdict.clone()).map_err(|error| ConnectError::Transport(error.to_string()))?;
    let mut config = quinn::ClientConfig::new(crypto);
    config.transport_config(shared.transport(class));
    config.token_store(Arc::new(quinn::NoneTokenStore));
    let ids = shared.clone();
    config.initial_dst_cid_provider(Arc::new(move || first_id(class, &mut lock(&ids.rng))));
    let name = server_name(shared.identity.cluster(), node);
    let connecting = shared
        .quinn
        .connect_with(config, address, &name)
        .map_err(|error| ConnectError::Transport(error.to_string()))?;
    let connection = connecting.await.map_err(|error| connect_error(error, &verdict))?;
    let peer = peer_of(&connection).map_err(ConnectError::Rejected)?;
    match introduce(shared, &connection, peer, class).await {
        Ok(hello) => Ok(Link { connection, hello }),
        Err(cause) => {
            close_for(&connection, &cause);
            Err(cause)
        }
    }
}

async fn introduce(
    shared: &Shared,
    connection: &Connection,
    peer: NodeId,
    class: Class,
) -> Result<Hello, ConnectError> {
    let none = Verdict::default();
    let (send, recv) = connection.open_bi().await.map_err(|error| connect_error(error, &none))?;
    send_hello(&mut FrameSender::new(send), &shared.hello(class)).await?;
    let hello = receive_hello(&mut FrameReceiver::new(recv)).await?;
    check_hello(shared, &hello, peer, class)?;
    Ok(hello)
}

/// The address of `host:port`; names are looked up anew each time. An IPv4 socket takes only IPv4 addresses.
async fn resolve(address: &str, only_v4: bool) -> Result<SocketAddr, ConnectError> {
    if let Ok(address) = address.parse() {
        return Ok(address);
    }
    let failed = |detail: String| ConnectError::Lookup { address: address.to_owned(), detail };
    let mut found = tokio::net::lookup_host(address).await.map_err(|error| failed(error.to_string()))?;
    found.find(|address| address.is_ipv4() || !only_v4).ok_or_else(|| failed("no usable address".to_owned()))
}

/// How far a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Asking,
    Answered,
}

/// A call in progress. Dropping it gives it up: the peer's handler sees its I/O fail, and may have acted.
#[derive(Debug)]
pub struct Call {
    peer: NodeId,
    class: Class,
    sender: FrameSender,
    receiver: FrameReceiver,
    until: Instant,
    deadline: Duration,
    stall: Duration,
    body_len_max: u32,
    metrics: TransportMetrics,
    stage: Stage,
    bulk_sent: bool,
}

impl Call {
    /// Hands bulk bytes of the request to the connection without copying them; waits for its window.
    ///
    /// # Errors
    ///
    /// [`RpcError::GaveUp`] if the peer no longer reads: [`Self::reply`] may tell why. [`RpcError::Stalled`] if it read
    /// nothing for the stall timeout, [`RpcError::Closed`] if it is gone, [`RpcError::OutOfOrder`] after [`Self::finish`].
    pub async fn send(&mut self, bytes: Bytes) -> Result<(), RpcError> {
        self.bulk_sent = true;
        let len = bytes.len();
        match timeout(self.stall, self.sender.send_bulk(bytes)).await {
            Ok(Ok(())) => {
                self.metrics.sent(self.class, len);
                Ok(())
            }
            Ok(Err(error)) => Err(call_error(self.peer, error)),
            Err(_elapsed) => {
                self.sender.reset(STREAM_STALLED);
                Err(RpcError::Stalled { peer: self.peer })
            }
        }
    }

    /// Ends the request: only now does the peer take its bulk as complete.
    pub fn finish(&mut self) {
        if self.bulk_sent {
            self.until = Instant::now() + self.deadline;
        }
        self.sender.finish();
    }

    /// Waits for the head of the answer and returns its body; once.
    ///
    /// # Errors
    ///
    /// [`RpcError::Remote`] with what the service answered, [`RpcError::Busy`] and [`RpcError::Draining`] if the peer did
    /// nothing, [`RpcError::Deadline`], [`RpcError::Closed`], [`RpcError::GaveUp`], [`RpcError::Protocol`], or
    /// [`RpcError::OutOfOrder`] for a second time.
    pub async fn reply(&mut self) -> Result<Bytes, RpcError> {
        if self.stage != Stage::Asking {
            return Err(RpcError::OutOfOrder);
        }
        self.stage = Stage::Answered;
        let answer = match timeout_at(self.until, self.read_reply()).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(RpcError::Deadline { peer: self.peer, sent: Sent::Maybe }),
        };
        self.metrics.called(self.class, answer.as_ref().err().map(RpcError::kind));
        answer
    }

    async fn read_reply(&mut self) -> Result<Bytes, RpcError> {
        let peer = self.peer;
        let read = async {
            let header = self.receiver.read_header(FrameKind::Reply, self.body_len_max).await?;
            let len = usize::try_from(header.body_len).unwrap_or(usize::MAX);
            let body = self.receiver.read_body(len).await?;
            Ok((Status::from_number(header.code)?, body))
        };
        let (status, body) = read.await.map_err(|error| call_error(peer, error))?;
        self.metrics.received(self.class, body.len());
        match status {
            Status::Ok => Ok(body),
            Status::Failure => Err(match decode_failure(body) {
                Some(failure) => RpcError::Remote { peer, failure },
                None => RpcError::Protocol { peer, cause: FrameError::Body(FrameKind::Reply) },
            }),
        }
    }

    /// The next bulk bytes of the answer, at most `len_max`, without copying; `None` at their end. They share memory with
    /// up to 64 KiB of packets: what is kept for long should be copied. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`RpcError::OutOfOrder`] before the reply, [`RpcError::Stalled`] if nothing came for the stall timeout,
    /// [`RpcError::GaveUp`] if the peer broke off, [`RpcError::Closed`] if it is gone.
    pub async fn recv(&mut self, len_max: usize) -> Result<Option<Bytes>, RpcError> {
        if self.stage != Stage::Answered {
            return Err(RpcError::OutOfOrder);
        }
        match timeout(self.stall, self.receiver.read_bulk(len_max)).await {
            Ok(Ok(bytes)) => {
                self.metrics.received(self.class, bytes.as_ref().map_or(0, Bytes::len));
                Ok(bytes)
            }
            Ok(Err(error)) => Err(call_error(self.peer, error)),
            Err(_elapsed) => Err(RpcError::Stalled { peer: self.peer }),
        }
    }

    /// How urgent the request's bytes are among the streams of the connection; higher goes first, 0 is the default.
    pub fn set_priority(&self, priority: i32) {
        self.sender.set_priority(priority);
    }

    /// Whom it asks.
    pub fn peer(&self) -> NodeId {
        self.peer
    }
}

fn milliseconds(left: Duration) -> u32 {
    u32::try_from(left.as_micros().div_ceil(1_000)).unwrap_or(u32::MAX)
}

/// What a failed stream means for a call with `peer`.
pub(crate) fn call_error(peer: NodeId, error: StreamError) -> RpcError {
    match error {
        StreamError::Lost(cause) => {
            RpcError::Closed { peer, cause: Arc::new(connect_error(cause, &Verdict::default())), sent: Sent::Maybe }
        }
        StreamError::Code(code) if code == STREAM_BUSY.into_inner() => RpcError::Busy { peer },
        StreamError::Code(code) if code == STREAM_DRAINING.into_inner() => RpcError::Draining { peer },
        StreamError::Code(code) if code == STREAM_TOO_LATE.into_inner() => RpcError::Deadline { peer, sent: Sent::No },
        StreamError::Code(code) => RpcError::GaveUp { peer, code },
        StreamError::Truncated => RpcError::GaveUp { peer, code: 0 },
        StreamError::Frame(cause) => RpcError::Protocol { peer, cause },
        StreamError::Ended => RpcError::OutOfOrder,
    }
}

/// Why a connection ended, in the words of this crate.
pub(crate) fn connect_error(error: ConnectionError, verdict: &Verdict) -> ConnectError {
    if let Some(rejection) = verdict.get() {
        return ConnectError::Rejected(rejection.clone());
    }
    // RFC 9001 §4.8: TLS alerts are the codes 0x100 to 0x1ff.
    const TLS_ALERTS: std::ops::Range<u64> = 0x100..0x200;
    match error {
        ConnectionError::ConnectionClosed(close) if TLS_ALERTS.contains(&u64::from(close.error_code)) => {
            ConnectError::RejectedByPeer { reason: spoken_reason(&close.reason) }
        }
        ConnectionError::ApplicationClosed(close) => {
            let (code, reason) = (close.error_code.into_inner(), spoken_reason(&close.reason));
            let refusal = code.checked_sub(u64::from(CLOSE_REFUSED_BASE));
            match refusal.and_then(|code| u32::try_from(code).ok()) {
                Some(code) if code < 0x20 => ConnectError::RefusedByPeer { code, reason },
                _ => ConnectError::ClosedByPeer { code, reason },
            }
        }
        ConnectionError::Reset => ConnectError::PeerRestarted,
        ConnectionError::TimedOut => ConnectError::NoAnswer,
        ConnectionError::LocallyClosed => ConnectError::LocallyClosed,
        other => ConnectError::Transport(other.to_string()),
    }
}
