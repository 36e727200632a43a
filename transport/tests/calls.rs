//! Calls between two real endpoints on loopback.

#![expect(clippy::unwrap_used, reason = "a failed set-up should fail the test at once")]

mod common;

use bytes::Bytes;
use common::*;
use drystone_transport::{Class, ClassLimits, RpcError, Runtimes, Sent, TransportConfig};
use std::time::Duration;
use tokio::time::{Instant, timeout};

#[tokio::test]
async fn a_call_returns_its_answer_on_both_classes() {
    let (one, two) = pair(TransportConfig::default());
    for class in Class::ALL {
        for len in [0usize, 1, 1_000, 5_000, 1 << 20, 16 << 20] {
            let body = Bytes::from(vec![7; len]);
            let answer = one.peers.call(two.id(), class, ECHO, body.clone(), LONG).await.unwrap();
            assert_eq!(answer, body);
        }
    }
    let hello = one.peers.hello(two.id(), Class::Data).unwrap();
    assert_eq!((hello.node, hello.epoch), (two.id(), 7));
    // One connection per class, however many calls.
    assert_eq!(one.peers.connections().len(), 2);
    assert_eq!(two.endpoint.connections().len(), 2);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn first_calls_at_once_share_one_dial() {
    let (one, two) = pair(TransportConfig::default());
    let calls = (0..64).map(|_| one.peers.call(two.id(), Class::Data, ECHO, Bytes::new(), LONG));
    for answer in futures_util::future::join_all(calls).await {
        answer.unwrap();
    }
    assert_eq!(two.endpoint.connections().len(), 1);
}

#[tokio::test]
async fn bulk_passes_both_ways_and_loopback_uses_its_large_packets() {
    const LEN: usize = 64 << 20;
    let (one, two) = pair(TransportConfig::default());
    let mut call = one.peers.open(two.id(), Class::Data, BULK_ECHO, Bytes::new(), LONG).await.unwrap();
    let piece = Bytes::from((0..1u32 << 18).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
    for _ in 0..LEN / piece.len() {
        call.send(piece.clone()).await.unwrap();
    }
    call.finish();
    let answer = call.reply().await.unwrap();
    assert_eq!(answer.as_ref(), LEN.to_le_bytes());
    let mut offset = 0;
    while let Some(bytes) = call.recv(1 << 20).await.unwrap() {
        for run in bytes.chunks(1 << 16) {
            let at = offset % piece.len();
            let len = run.len().min(piece.len() - at);
            assert!(run[..len] == piece[at..at + len], "bytes differ near {offset}");
            assert!(run[len..] == piece[..run.len() - len], "bytes differ near {offset}");
            offset += run.len();
        }
    }
    assert_eq!(offset, LEN);
    for report in one.peers.connections().iter().chain(&two.endpoint.connections()) {
        assert!(report.mtu > 60_000, "{report:?}");
        assert_eq!(report.black_holes, 0, "{report:?}");
    }
}

#[tokio::test]
async fn jumbo_packets_with_offload_lose_nothing() {
    let config = TransportConfig { packet_bytes_max: Some(8_972), ..TransportConfig::default() };
    let (one, two) = pair(config);
    let mut call = one.peers.open(two.id(), Class::Data, BULK_ECHO, Bytes::new(), LONG).await.unwrap();
    let piece = Bytes::from(vec![1; 1 << 20]);
    for _ in 0..64 {
        call.send(piece.clone()).await.unwrap();
    }
    call.finish();
    call.reply().await.unwrap();
    while call.recv(1 << 20).await.unwrap().is_some() {}
    let report = &one.peers.connections()[0];
    assert!((8_900..=8_972).contains(&report.mtu), "{report:?}");
    assert_eq!(report.black_holes, 0, "{report:?}");
    // Without the cap every batch of ten is lost; a busy machine may drop a few packets of 8,000.
    assert!(report.lost_packets * 50 < report.sent_packets, "{report:?}");
}

#[tokio::test]
async fn failures_of_the_service_come_back_typed() {
    let (one, two) = pair(TransportConfig::default());
    let call = one.peers.call(two.id(), Class::Control, FAIL, Bytes::from_static(b"why"), LONG);
    match call.await.unwrap_err() {
        RpcError::Remote { peer, failure } => {
            assert_eq!((peer, failure.code, &failure.detail[..]), (two.id(), 42, &b"why"[..]));
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_late_answer_is_a_deadline_and_the_handler_learns_of_it() {
    let (one, two) = pair(TransportConfig::default());
    let short = Duration::from_millis(300);
    let error = one.peers.call(two.id(), Class::Control, HOLD, Bytes::new(), short).await.unwrap_err();
    assert!(matches!(error, RpcError::Deadline { sent: Sent::Maybe, .. }), "{error}");
    timeout(LONG, two.bench.abandoned.notified()).await.unwrap();
}

#[tokio::test]
async fn a_dropped_call_is_abandoned_at_the_peer() {
    let (one, two) = pair(TransportConfig::default());
    let call = one.peers.open(two.id(), Class::Control, HOLD, Bytes::new(), LONG).await.unwrap();
    timeout(LONG, two.bench.held.notified()).await.unwrap();
    drop(call);
    timeout(LONG, two.bench.abandoned.notified()).await.unwrap();
}

#[tokio::test]
async fn calls_beyond_the_bound_are_busy_and_those_within_it_end() {
    let mut config = TransportConfig::default();
    config.control = ClassLimits { calls_inflight_max: 2, ..config.control };
    let (one, two) = pair(config);
    let hold = || one.peers.open(two.id(), Class::Control, HOLD, Bytes::new(), LONG);
    let (mut first, mut second) = (hold().await.unwrap(), hold().await.unwrap());
    timeout(LONG, two.bench.held.notified()).await.unwrap();
    let error = one.peers.call(two.id(), Class::Control, ECHO, Bytes::new(), LONG).await.unwrap_err();
    assert!(matches!(error, RpcError::Busy { .. }), "{error}");
    assert_eq!(error.outcome(), Sent::No);
    two.bench.release.notify_one();
    two.bench.release.notify_one();
    first.reply().await.unwrap();
    two.bench.release.notify_waiters();
    second.reply().await.unwrap();
    one.peers.call(two.id(), Class::Control, ECHO, Bytes::new(), LONG).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_never_taken_for_a_whole_one() {
    let (one, two) = pair(TransportConfig::default());
    let mut call = one.peers.open(two.id(), Class::Data, HALF, Bytes::new(), LONG).await.unwrap();
    call.finish();
    let mut outcome = call.reply().await.map(|_| ());
    while outcome.is_ok() {
        match call.recv(1 << 20).await {
            Ok(None) => panic!("the half answer looked complete"),
            Ok(Some(_)) => {}
            Err(error) => outcome = Err(error),
        }
    }
    assert!(matches!(outcome.unwrap_err(), RpcError::GaveUp { .. }));
    let unanswered = one.peers.call(two.id(), Class::Data, FORGET, Bytes::new(), LONG).await.unwrap_err();
    assert!(matches!(unanswered, RpcError::GaveUp { .. }), "{unanswered}");
}

#[tokio::test]
async fn a_body_beyond_the_bound_is_refused_before_it_is_sent() {
    let (one, two) = pair(TransportConfig::default());
    let body = Bytes::from(vec![0; (16 << 20) + 1]);
    let error = one.peers.call(two.id(), Class::Data, ECHO, body, LONG).await.unwrap_err();
    assert!(matches!(error, RpcError::TooLarge { .. }), "{error}");
    assert_eq!(error.outcome(), Sent::No);
}

#[tokio::test]
async fn steps_out_of_order_are_errors() {
    let (one, two) = pair(TransportConfig::default());
    let mut call = one.peers.open(two.id(), Class::Data, ECHO, Bytes::new(), LONG).await.unwrap();
    assert!(matches!(call.recv(1).await, Err(RpcError::OutOfOrder)));
    call.finish();
    assert!(matches!(call.send(Bytes::from_static(b"x")).await, Err(RpcError::OutOfOrder)));
    call.reply().await.unwrap();
    assert!(matches!(call.reply().await, Err(RpcError::OutOfOrder)));
}

#[tokio::test]
async fn closing_lets_calls_in_progress_end_and_refuses_new_ones() {
    let (one, two) = pair(TransportConfig::default());
    let mut held = one.peers.open(two.id(), Class::Control, HOLD, Bytes::new(), LONG).await.unwrap();
    timeout(LONG, two.bench.held.notified()).await.unwrap();
    let endpoint = two.endpoint.clone();
    let closing = tokio::spawn(async move { endpoint.close().await });
    let refused = loop {
        match one.peers.call(two.id(), Class::Control, ECHO, Bytes::new(), LONG).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, RpcError::Draining { .. }), "{refused}");
    two.bench.release.notify_one();
    held.reply().await.unwrap();
    timeout(LONG, closing).await.unwrap().unwrap();
    let gone = one.peers.call(two.id(), Class::Control, ECHO, Bytes::new(), SECOND).await.unwrap_err();
    assert!(matches!(gone, RpcError::Unreachable { .. } | RpcError::Closed { .. }), "{gone}");
}

#[tokio::test]
async fn an_unreachable_peer_fails_soon_and_the_next_call_does_not_wait_again() {
    let (one, two) = pair(TransportConfig {
        connect_timeout: Duration::from_millis(300),
        backoff_min: Duration::from_secs(5),
        backoff_max: Duration::from_secs(5),
        ..TransportConfig::default()
    });
    two.stop().await;
    let error = one.peers.call(two.id(), Class::Control, ECHO, Bytes::new(), LONG).await.unwrap_err();
    assert!(matches!(error, RpcError::Unreachable { .. }), "{error}");
    assert_eq!(error.outcome(), Sent::No);
    let before = Instant::now();
    let again = one.peers.call(two.id(), Class::Control, ECHO, Bytes::new(), LONG).await.unwrap_err();
    assert!(again.to_string().contains("not dialled again yet"), "{again}");
    assert!(before.elapsed() < Duration::from_millis(200));
    let nobody = one.peers.call(one.id(), Class::Control, ECHO, Bytes::new(), LONG).await.unwrap_err();
    assert!(nobody.to_string().contains("no address"), "{nobody}");
}

#[test]
fn classes_are_served_on_their_own_runtimes() {
    let data: Vec<_> = (0..2).map(|_| Background::new()).collect();
    let main = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    main.block_on(async {
        let mut world = World::new(1);
        let one = Node::start(world.identity(), TransportConfig::default());
        let runtimes = Runtimes {
            control: tokio::runtime::Handle::current(),
            data: data.iter().map(|runtime| runtime.handle.clone()).collect(),
        };
        let two = Node::start_at(world.identity(), TransportConfig::default(), 0, runtimes);
        one.knows(&two);
        for class in [Class::Control, Class::Data, Class::Data] {
            one.peers.call(two.id(), class, ECHO, Bytes::new(), LONG).await.unwrap();
        }
        let threads = two.bench.threads.lock().unwrap().clone();
        assert_eq!(threads[0], std::thread::current().id());
        assert_eq!(threads[1], threads[2]);
        assert!(data.iter().any(|runtime| runtime.thread == threads[1]));
        one.stop().await;
        two.stop().await;
    });
}

/// A single-threaded runtime on a thread of its own, ended with this value.
struct Background {
    handle: tokio::runtime::Handle,
    thread: std::thread::ThreadId,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    join: Option<std::thread::JoinHandle<()>>,
}

impl Background {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let join = std::thread::spawn(move || {
            runtime.block_on(async {
                stopped.await.ok();
            });
        });
        Self { handle, thread: join.thread().id(), stop: Some(stop), join: Some(join) }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(join) = self.join.take() {
            join.join().ok();
        }
    }
}
