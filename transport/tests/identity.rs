//! Who is refused, and that both ends learn why; what a restart looks like; what hostile bytes do.

#![expect(clippy::unwrap_used, reason = "a failed set-up should fail the test at once")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::*;
use drystone_certs::{ClusterAuthority, FOUNDING_LIFETIME, Identity, NodeId, server_name};
use drystone_transport::{Class, ConnectError, RpcError, Runtimes, Sent, TransportConfig};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::{Instant, timeout};

/// Lets `one` call `two` as `expected`; returns the caller's error and what each end reported.
async fn refused_call(one: &mut Node, two: &mut Node, expected: NodeId) -> (String, String, String) {
    one.knows_as(expected, two.endpoint.local_addr());
    let error = one.peers.call(expected, Class::Control, ECHO, Bytes::new(), LONG).await.unwrap_err();
    assert!(matches!(error, RpcError::Unreachable { .. }), "{error}");
    assert_eq!(error.outcome(), Sent::No);
    let at_one = timeout(LONG, one.refusals.recv()).await.unwrap().unwrap();
    let at_two = timeout(LONG, two.refusals.recv()).await.unwrap().unwrap();
    assert!(two.endpoint.connections().is_empty());
    (error.to_string(), at_one, at_two)
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused_with_both_ids_at_both_ends() {
    let (mut ours, mut theirs) = (World::new(1), World::new(2));
    let mut one = Node::start(ours.identity(), TransportConfig::default());
    let mut two = Node::start(theirs.identity(), TransportConfig::default());
    let two_id = two.id();
    let (error, at_one, at_two) = refused_call(&mut one, &mut two, two_id).await;
    for text in [&error, &at_one, &at_two] {
        assert!(text.contains(&one.identity.cluster().to_string()), "{text}");
        assert!(text.contains(&two.identity.cluster().to_string()), "{text}");
    }
    assert!(at_one.contains("refused by this node"), "{at_one}");
    assert!(at_two.contains("refused by the peer"), "{at_two}");
}

#[tokio::test]
async fn a_certificate_of_a_wrong_authority_is_refused_at_both_ends_whoever_dials() {
    let mut ours = World::new(1);
    let mut rng = StdRng::seed_from_u64(99);
    // The same cluster id in its name, but another key: an impostor.
    let impostor = ClusterAuthority::create(ours.authority.cluster(), ours.now, &mut rng).unwrap();
    let node = NodeId::random(&mut rng);
    let forged = Identity::founding(&impostor, node, [0; 32], ours.now, FOUNDING_LIFETIME, &mut rng).unwrap();
    let mut one = Node::start(ours.identity(), TransportConfig::default());
    let mut two = Node::start(Arc::new(forged), TransportConfig::default());
    let (one_id, two_id) = (one.id(), two.id());
    for (dialler, answerer, expected) in [(&mut one, &mut two, two_id)] {
        let (error, here, there) = refused_call(dialler, answerer, expected).await;
        for text in [error, here, there] {
            assert!(text.contains("not signed by this cluster's authority"), "{text}");
        }
    }
    let (error, here, there) = refused_call(&mut two, &mut one, one_id).await;
    for text in [error, here, there] {
        assert!(text.contains("not signed by this cluster's authority"), "{text}");
    }
}

#[tokio::test]
async fn the_accepting_end_refuses_a_wrong_authority_even_if_the_dialler_does_not_mind() {
    let mut ours = World::new(1);
    let mut rng = StdRng::seed_from_u64(99);
    let impostor = ClusterAuthority::create(ours.authority.cluster(), ours.now, &mut rng).unwrap();
    let node = NodeId::random(&mut rng);
    let forged = Identity::founding(&impostor, node, [0; 32], ours.now, FOUNDING_LIFETIME, &mut rng).unwrap();
    // The impostor trusts our authority, so that only our check of its certificate is left.
    let dir = tempfile::tempdir().unwrap();
    forged.save(dir.path()).unwrap();
    std::fs::write(dir.path().join("ca.crt"), ours.authority.to_pem().certificate).unwrap();
    let forged = Identity::load(dir.path()).unwrap();
    let mut one = Node::start(Arc::new(forged), TransportConfig::default());
    let mut two = Node::start(ours.identity(), TransportConfig::default());
    let two_id = two.id();
    let (error, at_one, at_two) = refused_call(&mut one, &mut two, two_id).await;
    for text in [&error, &at_one, &at_two] {
        assert!(text.contains("not signed by this cluster's authority"), "{text}");
    }
    assert!(at_one.contains("refused by the peer"), "{at_one}");
    assert!(at_two.contains("refused by this node"), "{at_two}");
}

#[tokio::test]
async fn an_expired_node_is_refused_at_both_ends() {
    let mut world = World::new(1);
    let long_ago = world.now - FOUNDING_LIFETIME - Duration::from_secs(60);
    let expired = world.identity_at(long_ago);
    let mut one = Node::start(expired, TransportConfig::default());
    let mut two = Node::start(world.identity(), TransportConfig::default());
    let (one_id, two_id) = (one.id(), two.id());
    let (error, at_one, at_two) = refused_call(&mut one, &mut two, two_id).await;
    for text in [&error, &at_one, &at_two] {
        assert!(text.contains(&format!("node {one_id} expired at")), "{text}");
    }
    let (error, at_two, at_one) = refused_call(&mut two, &mut one, one_id).await;
    for text in [&error, &at_one, &at_two] {
        assert!(text.contains(&format!("node {one_id} expired at")), "{text}");
    }
}

#[tokio::test]
async fn an_unknown_node_is_refused_at_both_ends() {
    let mut world = World::new(1);
    let mut one = Node::start(world.identity(), TransportConfig::default());
    let mut two = Node::start(world.identity(), TransportConfig::default());
    two.policy.unknown.lock().unwrap().push(one.id());
    let two_id = two.id();
    let (error, at_one, at_two) = refused_call(&mut one, &mut two, two_id).await;
    for text in [&error, &at_one, &at_two] {
        assert!(text.contains(&format!("node {} is not in this cluster's topology", one.id())), "{text}");
    }
    assert!(at_one.contains("refused by the peer (code 1)"), "{at_one}");
}

#[tokio::test]
async fn another_node_at_the_address_is_named() {
    let mut world = World::new(1);
    let mut one = Node::start(world.identity(), TransportConfig::default());
    let mut two = Node::start(world.identity(), TransportConfig::default());
    let expected = world.identity().node();
    let (error, _, at_two) = refused_call(&mut one, &mut two, expected).await;
    for text in [&error, &at_two] {
        assert!(text.contains(&format!("node {expected} was expected")), "{text}");
        assert!(text.contains(&format!("node {} answers", two.id())), "{text}");
    }
}

#[tokio::test]
async fn an_evicted_peer_loses_its_connection_and_its_calls() {
    let (one, two) = pair(TransportConfig::default());
    let mut held = one.peers.open(two.id(), Class::Control, HOLD, Bytes::new(), LONG).await.unwrap();
    timeout(LONG, two.bench.held.notified()).await.unwrap();
    two.policy.unknown.lock().unwrap().push(one.id());
    two.endpoint.evict(one.id());
    let error = held.reply().await.unwrap_err();
    assert!(matches!(error, RpcError::Closed { sent: Sent::Maybe, .. }), "{error}");
    assert!(error.to_string().contains("no longer accepts you"), "{error}");
    let again = one.peers.call(two.id(), Class::Control, ECHO, Bytes::new(), LONG).await.unwrap_err();
    assert!(again.to_string().contains("not in this cluster's topology"), "{again}");
}

#[tokio::test]
async fn a_restarted_peer_is_noticed_within_a_second_and_called_again() {
    let mut world = World::new(1);
    let one = Node::start(
        world.identity(),
        TransportConfig { keep_alive_interval: Duration::from_millis(500), ..TransportConfig::default() },
    );
    let identity = world.identity();
    // The first life runs on its own runtime, which ends without a word to anyone, as a killed process does.
    let first_life = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (two, port) = {
        let _context = first_life.enter();
        let runtimes = Runtimes::single(first_life.handle().clone());
        let two = Node::start_at(identity.clone(), TransportConfig::default(), 0, runtimes);
        let port = two.endpoint.local_addr().port();
        (two, port)
    };
    one.knows(&two);
    one.peers.call(two.id(), Class::Control, ECHO, Bytes::new(), LONG).await.unwrap();
    let mut held = one.peers.open(two.id(), Class::Control, HOLD, Bytes::new(), LONG).await.unwrap();
    timeout(LONG, two.bench.held.notified()).await.unwrap();
    drop(two);
    std::thread::spawn(move || first_life.shutdown_timeout(LONG)).join().unwrap();
    let second_life =
        Node::start_at(identity, TransportConfig::default(), port, Runtimes::single(tokio::runtime::Handle::current()));
    let restarted = Instant::now();
    let error = held.reply().await.unwrap_err();
    assert!(restarted.elapsed() < Duration::from_secs(1), "{:?}", restarted.elapsed());
    assert!(error.to_string().contains("the peer restarted"), "{error}");
    one.peers.call(second_life.id(), Class::Control, ECHO, Bytes::new(), LONG).await.unwrap();
}

/// A peer with a good certificate that speaks raw QUIC: what a compromised node could send.
struct Raw {
    endpoint: quinn::Endpoint,
    identity: Arc<Identity>,
    connections: AtomicU8,
}

impl Raw {
    fn new(identity: Arc<Identity>) -> Self {
        let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
        Self { endpoint, identity, connections: AtomicU8::new(0) }
    }

    async fn connect(&self, to: &Node) -> quinn::Connection {
        let mut roots = rustls::RootCertStore::empty();
        for root in self.identity.roots() {
            roots.add(root.clone()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(self.identity.chain().to_vec(), self.identity.private_key())
            .unwrap();
        tls.alpn_protocols = vec![b"drystone/1".to_vec()];
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        // Each its own, below 128 to ask for a control connection.
        let first = self.connections.fetch_add(1, Ordering::Relaxed);
        config.initial_dst_cid_provider(Arc::new(move || quinn::ConnectionId::new(&[first; 20])));
        let name = server_name(to.identity.cluster(), to.id());
        let address = to.endpoint.local_addr();
        self.endpoint.connect_with(config, address, &name).unwrap().await.unwrap()
    }

    async fn send(connection: &quinn::Connection, bytes: &[u8]) {
        let (mut send, recv) = connection.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        send.finish().unwrap();
        // Kept until the connection ends, so that nothing is stopped from this side.
        let connection = connection.clone();
        tokio::spawn(async move {
            connection.closed().await;
            drop(recv);
        });
    }
}

fn hello_of(identity: &Identity) -> Vec<u8> {
    use drystone_transport::frame::{FrameHeader, FrameKind, encode_header};
    use drystone_transport::hello::encode_hello;
    let body = encode_hello(&drystone_transport::Hello {
        protocol_min: 1,
        protocol_max: 1,
        class: Class::Control,
        cluster: identity.cluster(),
        node: identity.node(),
        instance: drystone_certs::InstanceId::from_bytes([9; 16]),
        epoch: 1,
        software: String::new(),
    })
    .unwrap();
    let header = FrameHeader {
        kind: FrameKind::Hello,
        code: 0,
        body_len: u32::try_from(body.len()).unwrap(),
        deadline_ms: 0,
        request_id: 0,
    };
    [&encode_header(&header)[..], &body].concat()
}

#[tokio::test]
async fn hostile_bytes_close_their_connection_and_nothing_else() {
    let mut world = World::new(1);
    let one = Node::start(world.identity(), TransportConfig::default());
    let two = Node::start(world.identity(), TransportConfig::default());
    one.knows(&two);
    one.peers.call(two.id(), Class::Control, ECHO, Bytes::new(), LONG).await.unwrap();
    let raw = Raw::new(world.identity());
    let hello = hello_of(&raw.identity);
    let hostile: [(&[u8], &str); 4] = [
        (b"GET / HTTP/1.1\r\nHost: example\r\n\r\n", "DRY1"),
        (b"DRY1\x01\x01\x00\x00\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "the bound is"),
        (b"DRY1\x09\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "version 9"),
        (b"DRY1\x01\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "belongs"),
    ];
    for (bytes, reason) in hostile {
        let connection = raw.connect(&two).await;
        Raw::send(&connection, &hello).await;
        Raw::send(&connection, bytes).await;
        let closed = timeout(LONG, connection.closed()).await.unwrap();
        assert!(closed.to_string().contains(reason), "{closed}");
    }
    // Nonsense instead of a hello.
    let connection = raw.connect(&two).await;
    Raw::send(&connection, &[0xff; 64]).await;
    let closed = timeout(LONG, connection.closed()).await.unwrap();
    assert!(closed.to_string().contains("DRY1"), "{closed}");
    // A hello of somebody else.
    let connection = raw.connect(&two).await;
    Raw::send(&connection, &hello_of(&one.identity)).await;
    let closed = timeout(LONG, connection.closed()).await.unwrap();
    assert!(closed.to_string().contains("contradicts"), "{closed}");
    one.peers.call(two.id(), Class::Control, ECHO, Bytes::new(), LONG).await.unwrap();
    assert_eq!(two.endpoint.connections().len(), 1);
}

#[tokio::test]
async fn a_connection_without_hello_is_closed_in_time() {
    let mut world = World::new(1);
    let config = TransportConfig { hello_timeout: Duration::from_millis(200), ..TransportConfig::default() };
    let mut two = Node::start(world.identity(), config);
    let raw = Raw::new(world.identity());
    let connection = raw.connect(&two).await;
    let closed = timeout(LONG, connection.closed()).await.unwrap();
    assert!(closed.to_string().contains("no hello in time"), "{closed}");
    let reported = timeout(LONG, two.refusals.recv()).await.unwrap().unwrap();
    assert_eq!(reported, ConnectError::NoAnswer.to_string());
}

#[tokio::test]
async fn a_host_name_that_does_not_resolve_is_reported_with_node_and_address() {
    let (mut one, two) = pair(TransportConfig::default());
    // RFC 6761: names under .invalid never resolve.
    one.addresses.0.lock().unwrap().insert(two.id(), "nowhere.invalid:7400".to_owned());
    assert!(one.peers.last_failure(two.id(), Class::Control).is_none());
    let error = one.peers.call(two.id(), Class::Control, ECHO, Bytes::new(), LONG).await.unwrap_err();
    let reported = timeout(LONG, one.refusals.recv()).await.unwrap().unwrap();
    let kept = one.peers.last_failure(two.id(), Class::Control).unwrap().to_string();
    for text in [&error.to_string(), &reported, &kept] {
        assert!(text.contains("nowhere.invalid:7400 does not resolve ("), "{text}");
    }
    assert!(reported.starts_with(&two.id().to_string()), "{reported}");
    one.knows(&two);
    tokio::time::sleep(SECOND * 2).await;
    one.peers.call(two.id(), Class::Control, ECHO, Bytes::new(), LONG).await.unwrap();
    assert!(one.peers.last_failure(two.id(), Class::Control).is_none());
}
