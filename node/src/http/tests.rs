//! The accept loop over real sockets. Time is tokio's paused clock: it jumps to the next timer when nothing moves.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::*;
use crate::config::TlsFiles;
use crate::testing::FakeS3;

const HEADER_TIMEOUT: Duration = Duration::from_secs(20);
const LIVE: &str = "GET /-/live HTTP/1.1\r\nhost: x\r\n\r\n";
const HOLD: &str = "GET /hold HTTP/1.1\r\nhost: x\r\n\r\n";

struct Setup {
    server: HttpServer,
    s3: Arc<FakeS3>,
    metrics: HttpMetrics,
}

fn start(connections: usize, tls: Option<tokio_rustls::TlsAcceptor>) -> Setup {
    let s3 = Arc::new(FakeS3::default());
    let operator = axum::Router::new().route("/-/live", axum::routing::get(async || "alive"));
    let front = Front::new(Arc::clone(&s3) as Arc<dyn Service>, operator, &["s3.test".to_owned()]);
    let metrics = HttpMetrics::new(&prometheus::Registry::new()).unwrap();
    let limits = HttpLimits {
        connections: Arc::new(Semaphore::new(connections)),
        header_timeout: HEADER_TIMEOUT,
        stall_timeout: Duration::from_secs(60),
        accept_log: Arc::default(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let runtime = tokio::runtime::Handle::current();
    let server = HttpServer::start(&runtime, listener, front, limits, tls, metrics.clone()).unwrap();
    Setup { server, s3, metrics }
}

impl Setup {
    fn ended(&self, how: &str) -> u64 {
        self.metrics.ended.with_label_values(&[how]).get()
    }
}

async fn connect(address: SocketAddr, send: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(send.as_bytes()).await.unwrap();
    stream
}

/// Reads until `end` was seen; panics when the stream ends before.
async fn read_past(stream: &mut (impl AsyncReadExt + Unpin), end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        text.push(char::from(stream.read_u8().await.unwrap()));
    }
    text
}

#[tokio::test(start_paused = true)]
async fn connections_without_a_whole_request_head_are_closed_in_time() {
    let setup = start(10, None);
    for (sent, kind) in
        [("", "silence"), ("GET / HTTP/1.1\r\nhost: x\r\n", "half a head"), ("PRI * HTTP/2.0\r\n", "half a preface")]
    {
        let started = Instant::now();
        let mut stream = connect(setup.server.address(), sent).await;
        let mut rest = Vec::new();
        // A reset instead of an orderly end is as good.
        drop(stream.read_to_end(&mut rest).await);
        let waited = started.elapsed();
        assert!(waited >= HEADER_TIMEOUT && waited < HEADER_TIMEOUT * 2, "{kind}: {waited:?}");
    }
    let (address, mut idle) = (setup.server.address(), connect(setup.server.address(), LIVE).await);
    read_past(&mut idle, "alive").await;
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0, "an idle connection is closed too");
    let mut alive = connect(address, LIVE).await;
    read_past(&mut alive, "alive").await;
    drop(alive);
    let metrics = setup.metrics.clone();
    assert_eq!(setup.server.drain(HEADER_TIMEOUT).await, Drained::Whole);
    assert_eq!((metrics.accepted.get(), metrics.open.get()), (5, 0));
    let ended: u64 = ["idle", "broken", "closed"].iter().map(|how| metrics.ended.with_label_values(&[how]).get()).sum();
    assert_eq!(ended, 5);
}

#[tokio::test(start_paused = true)]
async fn connections_beyond_the_bound_wait_until_one_closes() {
    let setup = start(1, None);
    let mut first = connect(setup.server.address(), LIVE).await;
    read_past(&mut first, "alive").await;
    let mut second = connect(setup.server.address(), LIVE).await;
    assert!(timeout(HEADER_TIMEOUT / 2, second.read_u8()).await.is_err(), "served beyond the bound");
    assert_eq!(setup.metrics.open.get(), 1);
    drop(first);
    read_past(&mut second, "alive").await;
}

#[tokio::test]
async fn the_dash_is_the_operators_unless_the_host_names_a_bucket() {
    let setup = start(10, None);
    for (host, body) in [("127.0.0.1", "alive"), ("s3.test", "alive"), ("bucket.s3.test:80", "a key, not the operator")]
    {
        let request = format!("GET /-/live HTTP/1.1\r\nhost: {host}\r\n\r\n");
        read_past(&mut connect(setup.server.address(), &request).await, body).await;
    }
}

#[tokio::test]
async fn a_drain_answers_what_is_under_way_and_accepts_nothing_new() {
    let setup = start(10, None);
    let address = setup.server.address();
    let mut waiting = connect(address, HOLD).await;
    setup.s3.held.subscribe().wait_for(|held| *held == 1).await.unwrap();
    let mut idle = connect(address, LIVE).await;
    read_past(&mut idle, "alive").await;
    let drain = tokio::spawn(setup.server.drain(Duration::from_secs(60)));
    // The idle connection ends first, which shows that the drain has begun.
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
    assert_eq!(TcpStream::connect(address).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    setup.s3.hold.add_permits(1);
    let answer = read_past(&mut waiting, "held").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(drain.await.unwrap(), Drained::Whole);
}

#[tokio::test(start_paused = true)]
async fn a_drain_cuts_what_is_left_at_its_deadline() {
    let setup = start(10, None);
    let mut waiting = connect(setup.server.address(), HOLD).await;
    setup.s3.held.subscribe().wait_for(|held| *held == 1).await.unwrap();
    let metrics = setup.metrics.clone();
    assert_eq!(setup.server.drain(Duration::from_secs(5)).await, Drained::Cut { tasks: 1 });
    assert_eq!(waiting.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert_eq!(metrics.ended.with_label_values(&["cut"]).get(), 1);
}

#[tokio::test]
async fn a_head_beyond_the_bound_is_answered_431() {
    let setup = start(10, None);
    let request = format!("GET /-/live HTTP/1.1\r\nhost: x\r\na: {}\r\n\r\n", "b".repeat(256 << 10));
    let mut stream = TcpStream::connect(setup.server.address()).await.unwrap();
    let (mut read, mut write) = stream.split();
    // The server may close before it has read all of it.
    let (_, answer) = tokio::join!(write.write_all(request.as_bytes()), read_past(&mut read, "\r\n"));
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(setup.ended("closed"), 0);
}

#[tokio::test]
async fn with_a_certificate_the_port_speaks_tls_and_only_tls() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["s3.test".to_owned()]).unwrap();
    let files = TlsFiles { certificate: dir.path().join("c.pem"), key: dir.path().join("k.pem") };
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    let setup = start(10, Some(load_tls(&files).unwrap()));

    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let stream = TcpStream::connect(setup.server.address()).await.unwrap();
    let mut stream = connector.connect("s3.test".try_into().unwrap(), stream).await.unwrap();
    stream.write_all(LIVE.as_bytes()).await.unwrap();
    read_past(&mut stream, "alive").await;

    let mut plain = connect(setup.server.address(), LIVE).await;
    let mut answer = Vec::new();
    drop(plain.read_to_end(&mut answer).await);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");

    std::fs::write(&files.key, "nothing").unwrap();
    assert!(load_tls(&files).err().unwrap().to_string().contains("k.pem"));
}
