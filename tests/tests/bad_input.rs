//! What no client should send: each gets the right S3 error or a closed connection, stores nothing, and leaves the node
//! as well as it was. Peers' port included.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use drystone_tests::client::raw::{Afterwards, Exchange, exchange};
use drystone_tests::client::{Authentication, Client, Credentials, Listing, Request, Response};
use drystone_tests::content;
use drystone_tests::harness::{Cluster, Failure, Outcome, Shape, Turn, ensure, note};
use drystone_tests::health::health;
use http::Method;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

const BUCKET: &str = "bad-input";
const DEADLINE: Duration = Duration::from_secs(90);

async fn cluster(name: &str) -> Outcome<(Cluster, Client)> {
    let mut shape = Shape::new(3, 1);
    // So that a client that never finishes its head is cut off while we watch.
    shape.environment.push(("DRYSTONE_S3_HEADER_TIMEOUT".to_owned(), "3s".to_owned()));
    let cluster = Cluster::start(name, &shape)?;
    let client = cluster.client(1);
    let created = client.create_bucket(BUCKET).await?;
    ensure(created.status == 200, || created.describe())?;
    Ok((cluster, client))
}

/// The bucket is as empty as it was, through every node, and each still serves.
async fn nothing_happened(cluster: &Cluster) -> Outcome {
    for client in cluster.clients() {
        let listed = client.list(BUCKET, &Listing::default()).await?;
        ensure(listed.is_empty(), || format!("stored in spite of it all: {listed:?}"))?;
        let answer = client.put(BUCKET, "witness", content::body("witness", 1, 9_000)).await?;
        ensure(answer.status == 200, || format!("no longer serves: {}", answer.describe()))?;
        let answer = client.delete(BUCKET, "witness").await?;
        ensure(answer.status == 204, || format!("no longer serves: {}", answer.describe()))?;
    }
    cluster.panic().map_or(Ok(()), |panic| Err(Failure::new(panic)))
}

fn put(key: &str) -> Request {
    Request::new(Method::PUT, format!("/{BUCKET}/{key}")).body("hello")
}

struct Case {
    what: &'static str,
    request: Request,
    status: u16,
    /// Accepted error codes: AWS itself is not consistent everywhere.
    codes: &'static [&'static str],
}

fn case(what: &'static str, request: Request, status: u16, codes: &'static [&'static str]) -> Case {
    Case { what, request, status, codes }
}

async fn check(client: &Client, cases: Vec<Case>) -> Outcome {
    let mut wrong = Vec::new();
    for Case { what, request, status, codes } in cases {
        let is_head = request.method == Method::HEAD;
        let answer: Response = client.send(request).await?;
        let (code, has_id) = (answer.error_code(), !answer.header("x-amz-request-id").is_empty());
        let is_right = answer.status == status && (is_head || codes.contains(&code.as_str())) && has_id;
        if !is_right {
            wrong.push(format!("{what}: wanted {status} {codes:?}, got {}", answer.describe()));
        }
    }
    ensure(wrong.is_empty(), || wrong.join("\n"))
}

#[tokio::test]
async fn bad_signatures_get_the_error_aws_gives() -> Outcome {
    let _turn = Turn::wait()?;
    let (cluster, client) = cluster("signatures").await?;
    let get = || Request::new(Method::GET, format!("/{BUCKET}"));
    let late = |seconds, expires| get().authentication(Authentication::Presigned(expires)).clock_ahead_s(seconds);
    let cases = vec![
        case("a clock an hour behind", put("k").clock_ahead_s(-3_600), 403, &["RequestTimeTooSkewed"]),
        case("a clock an hour ahead", put("k").clock_ahead_s(3_600), 403, &["RequestTimeTooSkewed"]),
        case("a clock a year ahead", put("k").clock_ahead_s(31_536_000), 403, &["RequestTimeTooSkewed"]),
        case("an expired URL", late(-120, 60), 403, &["AccessDenied"]),
        case("a URL of the future", late(7_200, 60), 403, &["AccessDenied", "RequestTimeTooSkewed"]),
        case("a URL valid for eight days", late(0, 691_200), 400, &["AuthorizationQueryParametersError"]),
        case("no signature", put("k").authentication(Authentication::Anonymous), 403, &["AccessDenied"]),
        case(
            "another payload than was signed",
            put("k").content_sha256("0".repeat(64)),
            400,
            &["XAmzContentSHA256Mismatch"],
        ),
        case(
            "a payload hash that is none",
            put("k").content_sha256("nonsense"),
            400,
            &["InvalidArgument", "XAmzContentSHA256Mismatch"],
        ),
    ];
    check(&client, cases).await?;
    let wrong_secret = Credentials { secret_key: "not the secret".to_owned(), ..cluster.credentials().clone() };
    let other = client.clone().with_credentials(&wrong_secret);
    check(&other, vec![case("a wrong secret", put("k"), 403, &["SignatureDoesNotMatch"])]).await?;
    let stranger = Credentials { access_key: "AKIDOESNOTEXIST00000".to_owned(), secret_key: "x".to_owned() };
    let other = client.clone().with_credentials(&stranger);
    check(&other, vec![case("an unknown key", put("k"), 403, &["InvalidAccessKeyId"])]).await?;
    let elsewhere = Client::new(client.endpoint(), cluster.credentials(), "eu-nowhere-9");
    let region = case("another region", put("k"), 400, &["AuthorizationHeaderMalformed"]);
    check(&elsewhere, vec![region]).await?;
    for garbage in ["AWS4-HMAC-SHA256 Credential=", "AWS4-HMAC-SHA256 x", "AWS AKID:c2ln", "Basic eDp5", "\u{7f}"] {
        let request = put("k").authentication(Authentication::Anonymous).header("authorization", garbage);
        let Ok(answer) = client.send(request).await else { continue };
        ensure(matches!(answer.status.as_u16(), 400 | 403), || format!("{garbage:?}: {}", answer.describe()))?;
    }
    nothing_happened(&cluster).await?;
    Ok(cluster.finish()?)
}

fn xml(path: &str, query: &[(&str, &str)], body: impl Into<bytes::Bytes>) -> Request {
    let body = body.into();
    let digest = STANDARD.encode(<md5::Md5 as md5::Digest>::digest(&body));
    let mut request = Request::new(Method::POST, path).header("content-md5", digest).body(body);
    request.query = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    request
}

#[tokio::test]
async fn malformed_documents_get_the_error_aws_gives() -> Outcome {
    let _turn = Turn::wait()?;
    let (cluster, client) = cluster("documents").await?;
    let bucket = format!("/{BUCKET}");
    let delete = |body: &str| xml(&bucket, &[("delete", "")], body.to_owned());
    let bomb = "<!DOCTYPE x [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]><Delete><Object><Key>&b;</Key></Object></Delete>";
    let deep = format!("<Delete>{}", "<Object>".repeat(100_000));
    let many = format!("<Delete>{}</Delete>", "<Object><Key>k</Key></Object>".repeat(1_001));
    let malformed: &[&str] = &["MalformedXML"];
    let cases = vec![
        case("no XML", delete("hello"), 400, malformed),
        case("XML cut short", delete("<Delete><Object><Key>a</Key>"), 400, malformed),
        case("another document", delete("<Other/>"), 400, malformed),
        case("entities", delete(bomb), 400, malformed),
        case("depth without end", delete(&deep), 400, malformed),
        case("more than 1000 keys", delete(&many), 400, malformed),
        case(
            "not UTF-8",
            xml(&bucket, &[("delete", "")], &b"<Delete><Object><Key>\xff\xfe</Key></Object></Delete>"[..]),
            400,
            malformed,
        ),
        case("a location that is no XML", Request::new(Method::PUT, "/fresh-bucket").body("<Create"), 400, malformed),
        case(
            "an operation of another service",
            Request::new(Method::PUT, bucket.clone()).query("tagging", ""),
            501,
            &["NotImplemented"],
        ),
        case(
            "a deletion of what cannot be deleted apart",
            Request::new(Method::DELETE, bucket.clone()).query("acl", ""),
            405,
            &["MethodNotAllowed"],
        ),
        case(
            "a bucket made by its location",
            Request::new(Method::PUT, "/fresh-bucket").query("location", ""),
            405,
            &["MethodNotAllowed"],
        ),
        case(
            "a version that is none of S3's",
            Request::new(Method::GET, format!("{bucket}/k")).query("versionId", "v1"),
            400,
            &["InvalidArgument"],
        ),
        case(
            "a negative page",
            Request::new(Method::GET, bucket.clone()).query("list-type", "2").query("max-keys", "-1"),
            400,
            &["InvalidArgument"],
        ),
        case(
            "a token that is none",
            Request::new(Method::GET, bucket.clone())
                .query("list-type", "2")
                .query("continuation-token", "\u{1}nonsense"),
            400,
            &["InvalidArgument"],
        ),
    ];
    check(&client, cases).await?;
    nothing_happened(&cluster).await?;
    Ok(cluster.finish()?)
}

#[tokio::test]
async fn bad_completions_get_the_error_aws_gives() -> Outcome {
    let _turn = Turn::wait()?;
    let (cluster, client) = cluster("complete").await?;
    let upload = client.create_multipart(BUCKET, "k").await?;
    let complete = |body: &str| xml(&format!("/{BUCKET}/k"), &[("uploadId", &upload)], body.to_owned());
    let cases = vec![
        case(
            "Complete without parts",
            complete("<CompleteMultipartUpload/>"),
            400,
            &["MalformedXML", "InvalidRequest"],
        ),
        case(
            "Complete of unknown parts",
            complete(
                "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>\"x\"</ETag></Part></CompleteMultipartUpload>",
            ),
            400,
            &["InvalidPart"],
        ),
        case(
            "Complete of part zero",
            complete(
                "<CompleteMultipartUpload><Part><PartNumber>0</PartNumber><ETag>\"x\"</ETag></Part></CompleteMultipartUpload>",
            ),
            400,
            &["MalformedXML", "InvalidPart", "InvalidArgument"],
        ),
        case(
            "Complete of no upload",
            xml(
                &format!("/{BUCKET}/k"),
                &[("uploadId", "nonsense")],
                "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>\"x\"</ETag></Part></CompleteMultipartUpload>",
            ),
            404,
            &["NoSuchUpload"],
        ),
    ];
    check(&client, cases).await?;
    let aborted = client.send(Request::new(Method::DELETE, format!("/{BUCKET}/k")).query("uploadId", upload)).await?;
    ensure(aborted.status == 204, || aborted.describe())?;
    nothing_happened(&cluster).await?;
    Ok(cluster.finish()?)
}

#[tokio::test]
async fn invalid_names_get_the_error_aws_gives() -> Outcome {
    let _turn = Turn::wait()?;
    let (cluster, client) = cluster("names").await?;
    let create = |name: &str| Request::new(Method::PUT, format!("/{name}"));
    let cases = vec![
        case("a bucket in capitals", create("Capital"), 400, &["InvalidBucketName"]),
        case("a bucket of two letters", create("ab"), 400, &["InvalidBucketName"]),
        case("a bucket that is an address", create("192.168.1.1"), 400, &["InvalidBucketName"]),
        case("a bucket of 64 letters", create(&"a".repeat(64)), 400, &["InvalidBucketName"]),
        case("a bucket with an underscore", create("under_score"), 400, &["InvalidBucketName"]),
        case("a bucket that ends in a hyphen", create("hyphen-"), 400, &["InvalidBucketName"]),
        case("a key of 1025 bytes", put(&"k".repeat(1_025)), 400, &["KeyTooLongError"]),
        case("a key of 513 umlauts", put(&"ü".repeat(513)), 400, &["KeyTooLongError"]),
        case("a bucket that is not there", Request::new(Method::PUT, "/not-there/k").body("x"), 404, &["NoSuchBucket"]),
    ];
    check(&client, cases).await?;
    nothing_happened(&cluster).await?;
    Ok(cluster.finish()?)
}

/// `hello` in `aws-chunked` form without signatures, with a trailer.
fn chunked(body: &'static str) -> Request {
    put("k")
        .header("content-encoding", "aws-chunked")
        .header("x-amz-decoded-content-length", "5")
        .header("x-amz-trailer", "x-amz-checksum-crc32c")
        .content_sha256("STREAMING-UNSIGNED-PAYLOAD-TRAILER")
        .body(body)
}

#[tokio::test]
async fn wrong_checksums_and_trailers_store_nothing() -> Outcome {
    let _turn = Turn::wait()?;
    let (cluster, client) = cluster("checksums").await?;
    let sum = |name: &str, value: &str| put("k").header(&format!("x-amz-checksum-{name}"), value);
    let digest: &[&str] = &["BadDigest"];
    let cases = vec![
        case("a wrong MD5", put("k").header("content-md5", STANDARD.encode([7; 16])), 400, digest),
        case("an MD5 that is none", put("k").header("content-md5", "nonsense"), 400, &["InvalidDigest"]),
        case("a wrong CRC32", sum("crc32", "AAAAAA=="), 400, digest),
        case("a wrong CRC32C", sum("crc32c", "AAAAAA=="), 400, digest),
        case("a wrong CRC64NVME", sum("crc64nvme", "AAAAAAAAAAA="), 400, digest),
        case("a wrong SHA1", sum("sha1", &STANDARD.encode([1; 20])), 400, digest),
        case("a wrong SHA256", sum("sha256", &STANDARD.encode([1; 32])), 400, digest),
        case("a checksum of the wrong length", sum("crc32", "AAAA"), 400, &["InvalidRequest", "InvalidArgument"]),
        case("a wrong trailer", chunked("5\r\nhello\r\n0\r\nx-amz-checksum-crc32c:AAAAAA==\r\n\r\n"), 400, digest),
        case("no trailer", chunked("5\r\nhello\r\n0\r\n\r\n"), 400, &["MalformedTrailerError"]),
        case("a chunk shorter than it says", chunked("6\r\nhello\r\n0\r\n\r\n"), 400, &["IncompleteBody"]),
        case(
            "more than was declared",
            chunked("6\r\nhello!\r\n0\r\nx-amz-checksum-crc32c:AAAAAA==\r\n\r\n"),
            400,
            &["IncompleteBody"],
        ),
        case(
            "less than was declared",
            chunked("4\r\nhell\r\n0\r\nx-amz-checksum-crc32c:AAAAAA==\r\n\r\n"),
            400,
            &["IncompleteBody"],
        ),
        case("a chunk length that is none", chunked("zz\r\nhello\r\n0\r\n\r\n"), 400, &["IncompleteBody"]),
        case(
            "a chunk length beyond counting",
            chunked("ffffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
            400,
            &["IncompleteBody"],
        ),
    ];
    check(&client, cases).await?;
    let right = "5\r\nhello\r\n0\r\nx-amz-checksum-crc32c:mnG7TA==\r\n\r\n";
    let answer = client.send(chunked(right)).await?;
    ensure(answer.status == 200, || format!("a right trailer: {}", answer.describe()))?;
    let back = client.get(BUCKET, "k").await?;
    ensure(back.body == "hello"[..], || format!("a right trailer stored {}", back.describe()))?;
    let gone = client.delete(BUCKET, "k").await?;
    ensure(gone.status == 204, || gone.describe())?;
    nothing_happened(&cluster).await?;
    Ok(cluster.finish()?)
}

/// A signed PUT whose head says `declared` bytes and that sends `sent`.
fn head_and_body(client: &Client, declared: &str, sent: &[u8]) -> Vec<u8> {
    let (target, headers) = client.sign(&put("k").content_sha256("UNSIGNED-PAYLOAD"));
    let mut bytes = format!("PUT {target} HTTP/1.1\r\ncontent-length: {declared}\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(sent);
    bytes
}

fn ensure_refused(what: &str, exchange: &Exchange, statuses: &[u16]) -> Outcome {
    let status = exchange.status();
    let is_refused = status.map_or(exchange.closed, |status| statuses.contains(&status));
    ensure(is_refused && (exchange.closed || status.is_some()), || {
        format!("{what}: closed {}, wanted one of {statuses:?}, got {}", exchange.closed, exchange.text())
    })
}

#[tokio::test]
async fn broken_http_is_refused_or_cut_off() -> Outcome {
    let _turn = Turn::wait()?;
    let (cluster, client) = cluster("http").await?;
    let address = client.authority().to_owned();
    let send = |bytes: Vec<u8>, afterwards| {
        let address = address.clone();
        async move { exchange(&address, &bytes, afterwards, DEADLINE).await }
    };
    let short = send(head_and_body(&client, "100", b"only this"), Afterwards::Finish).await?;
    ensure_refused("a body cut short", &short, &[400])?;
    let mut two = head_and_body(&client, "5", b"hello");
    two.extend_from_slice(b"surplus that is no request\r\n\r\n");
    let answer = send(two, Afterwards::Finish).await?;
    // The declared bytes are a whole request; what follows must not be taken for part of it.
    ensure(answer.status().is_some() && answer.closed, || format!("surplus: {}", answer.text()))?;
    let back = client.get(BUCKET, "k").await?;
    ensure(back.status == 200 && back.body == "hello"[..], || format!("surplus was stored: {}", back.describe()))?;
    let gone = client.delete(BUCKET, "k").await?;
    ensure(gone.status == 204, || gone.describe())?;
    for length in ["-1", "5, 6", "nonsense", "99999999999999999999"] {
        let answer = send(head_and_body(&client, length, b"hello"), Afterwards::Finish).await?;
        ensure_refused(&format!("content-length {length}"), &answer, &[400, 411, 413])?;
    }
    let huge = send(head_and_body(&client, "6000000000000", b"hello"), Afterwards::Finish).await?;
    ensure_refused("a body of six terabytes", &huge, &[400])?;
    let wide = format!("GET / HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "a".repeat(2_000_000));
    ensure_refused("a header of 2 MB", &send(wide.into_bytes(), Afterwards::Wait).await?, &[400, 414, 431])?;
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "x-many: 1\r\n".repeat(20_000));
    ensure_refused("20,000 headers", &send(many.into_bytes(), Afterwards::Wait).await?, &[400, 431])?;
    let line = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(2_000_000));
    ensure_refused("a target of 2 MB", &send(line.into_bytes(), Afterwards::Wait).await?, &[400, 414, 431])?;
    let noise: Vec<u8> = (0..10_000_u32).map(|index| index.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    ensure_refused("noise", &send(noise, Afterwards::Finish).await?, &[400])?;
    let bad = format!("GET /{BUCKET}/%ff%fe HTTP/1.1\r\nhost: {address}\r\n\r\n");
    ensure_refused("a key that is not UTF-8", &send(bad.into_bytes(), Afterwards::Finish).await?, &[400, 403])?;
    nothing_happened(&cluster).await?;
    Ok(cluster.finish()?)
}

/// A client that sends a byte of its head now and then, for ever, is cut off by the header timeout.
#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() -> Outcome {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let _turn = Turn::wait()?;
    let (cluster, client) = cluster("slow").await?;
    let mut slow = Vec::new();
    for _ in 0..50 {
        slow.push(tokio::net::TcpStream::connect(client.authority()).await?);
    }
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    let dribble = async {
        let mut cut_off = 0;
        while cut_off < slow.len() {
            ticks.tick().await;
            cut_off = 0;
            for stream in &mut slow {
                let mut answer = [0; 1_024];
                let is_open = stream.write_all(b"G").await.is_ok()
                    && !matches!(
                        tokio::time::timeout(Duration::from_millis(1), stream.read(&mut answer)).await,
                        Ok(Ok(0) | Err(_))
                    );
                cut_off += usize::from(!is_open);
            }
        }
    };
    tokio::time::timeout(DEADLINE, dribble).await?;
    nothing_happened(&cluster).await?;
    Ok(cluster.finish()?)
}

fn peer_address(cluster: &Cluster, node: usize) -> Outcome<SocketAddr> {
    let path = cluster.configuration(node);
    let table: toml::Table = std::fs::read_to_string(&path)?.parse()?;
    let peer = table.get("peer").and_then(|peer| peer.get("listen"));
    let listen = peer.and_then(toml::Value::as_str).ok_or_else(|| Failure::new("no peer.listen"))?;
    Ok(listen.parse()?)
}

/// Datagrams that are noise, QUIC cut short, or QUIC with noise inside.
fn hostile(rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = vec![0; rng.random_range(0..1_500)];
    rng.fill_bytes(&mut bytes);
    let initial = [0xc3, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 8];
    match rng.random_range(0..4) {
        0 => {}
        1 => {
            bytes.resize(1_200, 0);
            bytes[..initial.len()].copy_from_slice(&initial);
        }
        2 => bytes = initial[..rng.random_range(0..initial.len())].to_vec(),
        _ => {
            if let Some(first) = bytes.first_mut() {
                *first = 0x40 | (*first & 0x3f);
            }
        }
    }
    bytes
}

#[tokio::test]
async fn hostile_datagrams_and_strangers_on_the_peer_port_are_ignored() -> Outcome {
    let _turn = Turn::wait()?;
    let (cluster, _) = cluster("peers").await?;
    let seed = rand::random();
    note(&format!("seed {seed}"));
    let mut rng = StdRng::seed_from_u64(seed);
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    for node in 1..=3 {
        let address = peer_address(&cluster, node)?;
        for _ in 0..5_000 {
            socket.send_to(&hostile(&mut rng), address)?;
        }
        stranger::is_refused(address, b"drystone/1").await?;
        stranger::is_refused(address, b"h3").await?;
    }
    nothing_happened(&cluster).await?;
    for client in cluster.clients() {
        let state = health(&client).await?;
        ensure(state.peers.iter().all(|peer| peer.state == "alive"), || format!("{:?}", state.peers))?;
    }
    Ok(cluster.finish()?)
}

/// A QUIC client that belongs to no cluster.
mod stranger {
    use super::*;
    use quinn::crypto::rustls::QuicClientConfig;
    use quinn::rustls;
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    /// Believes anybody: what is tested is whether the other end does.
    #[derive(Debug)]
    struct Credulous;

    impl ServerCertVerifier for Credulous {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256]
        }
    }

    /// Connects without a certificate and asks something: there must be no answer, only the end of the connection.
    pub(super) async fn is_refused(address: SocketAddr, protocol: &[u8]) -> Outcome {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Credulous))
            .with_no_client_auth();
        tls.alpn_protocols = vec![protocol.to_vec()];
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse()?)?;
        let ask = async {
            let connection = endpoint.connect_with(config, address, "stranger.invalid")?.await?;
            let (mut send, mut receive) = connection.open_bi().await?;
            send.write_all(&[0x55; 4_096]).await?;
            Ok::<_, Failure>(receive.read_to_end(1_000).await?)
        };
        match tokio::time::timeout(Duration::from_secs(30), ask).await? {
            Err(refusal) => note_refusal(&refusal),
            Ok(answer) => Err(Failure::new(format!("a stranger was answered: {answer:?}"))),
        }
    }

    fn note_refusal(refusal: &Failure) -> Outcome {
        note(&format!("a stranger was refused: {refusal:?}"));
        Ok(())
    }
}
