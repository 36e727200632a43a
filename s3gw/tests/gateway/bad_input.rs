//! What clients should not send: the right error each time, and nothing stored.

use std::time::Duration;

use bytes::Bytes;
use drystone_cluster::store::ChecksumAlgorithm;
use drystone_s3gw::sig::{ChunkSigner, Credentials, PayloadDeclaration};
use drystone_s3gw::{GatewayConfig, compute_checksum, format_checksum};
use http::{HeaderValue, Method, Request, Version};
use http_body_util::Full;
use proptest::prelude::{any, proptest};
use secrecy::SecretString;

use crate::client::{ACCESS_KEY, Call, Client, NOW_MS, Reply, SECRET, Then, credentials};
use crate::memory::MemoryStore;

fn nothing_stored(client: &Client) {
    assert_eq!(client.store.objects("bkt"), []);
}

async fn put_signed_by(client: &Client, credentials: &Credentials, now_ms: u64) -> Reply {
    let put = client.call(Method::PUT, "/bkt/k").header("content-length", "5");
    let (head, _) = put.signed(credentials, PayloadDeclaration::of(b"hello"), now_ms);
    client.serve(Request::from_parts(head, Full::new(Bytes::from("hello")))).await
}

#[tokio::test]
async fn signatures_that_are_wrong_expired_or_of_the_future_are_refused() {
    let client = Client::with_bucket().await;
    let other = |change: &dyn Fn(&mut Credentials)| {
        let mut credentials = credentials();
        change(&mut credentials);
        credentials
    };
    let (minute, good) = (60_000, credentials());
    let skew = put_signed_by(&client, &good, NOW_MS - 16 * minute).await.expect_error(403, "RequestTimeTooSkewed");
    assert_eq!(skew.element("ServerTime").as_deref(), Some("2026-01-02T03:04:05.678Z"));
    put_signed_by(&client, &good, NOW_MS + 16 * minute).await.expect_error(403, "RequestTimeTooSkewed");
    let wrong = other(&|credentials| credentials.secret = SecretString::from("other"));
    put_signed_by(&client, &wrong, NOW_MS).await.expect_error(403, "SignatureDoesNotMatch");
    let unknown = other(&|credentials| credentials.access_key = "AKOTHER".to_owned());
    put_signed_by(&client, &unknown, NOW_MS).await.expect_error(403, "InvalidAccessKeyId");
    let region = other(&|credentials| credentials.region = "eu-west-1".to_owned());
    let reply = put_signed_by(&client, &region, NOW_MS).await.expect_error(400, "AuthorizationHeaderMalformed");
    assert_eq!(reply.element("Region").as_deref(), Some("us-east-1"));
    nothing_stored(&client);
    put_signed_by(&client, &good, NOW_MS - 14 * minute).await.expect(200);
}

#[tokio::test]
async fn anonymous_requests_are_refused() {
    let client = Client::with_bucket().await;
    for (method, uri) in
        [(Method::GET, "/"), (Method::PUT, "/bkt/k"), (Method::DELETE, "/bkt"), (Method::POST, "/bkt?delete")]
    {
        let request = Request::builder().method(method).uri(uri).header("host", "h").body(Full::new(Bytes::from("x")));
        client.serve(request.unwrap()).await.expect_error(403, "AccessDenied");
    }
    nothing_stored(&client);
}

#[tokio::test]
async fn a_cluster_without_keys_says_where_the_first_one_comes_from() {
    let client = Client::with(MemoryStore::default(), GatewayConfig::default());
    let reply = client.get("/").await.expect_error(403, "InvalidAccessKeyId");
    assert!(reply.element("Message").unwrap().contains("drystone cluster create"));
}

#[tokio::test]
async fn bodies_of_another_length_or_content_than_declared_are_refused() {
    let client = Client::with_bucket().await;
    let put = |len: &str| client.call(Method::PUT, "/bkt/k").header("content-length", len);
    let short = put("9").body("hello").send().await.expect_error(400, "IncompleteBody");
    assert_eq!(
        (short.element("NumberBytesExpected").as_deref(), short.element("NumberBytesProvided").as_deref()),
        (Some("9"), Some("5"))
    );
    put("3").body("hello").send().await.expect_error(400, "IncompleteBody");
    put("x").body("hello").send().await.expect_error(400, "InvalidArgument");
    put("5368709121").send().await.expect_error(400, "EntityTooLarge");
    let pieces = |_| vec![Bytes::from("hel")];
    put("5").send_pieces(PayloadDeclaration::Unsigned, pieces, Then::Break).await.expect_error(400, "IncompleteBody");
    let unsized_put = client.call(Method::PUT, "/bkt/k").send_pieces(PayloadDeclaration::Unsigned, pieces, Then::End);
    unsized_put.await.expect_error(411, "MissingContentLength");
    let upload = client.post("/bkt/k?uploads", "").await.expect(200).element("UploadId").unwrap();
    for uri in ["/bkt/k".to_owned(), format!("/bkt/k?partNumber=1&uploadId={upload}")] {
        let without_len = |version| {
            let put = client.call(Method::PUT, &uri);
            let (mut head, _) = put.signed(&credentials(), PayloadDeclaration::of(b""), NOW_MS);
            head.version = version;
            client.serve(Request::from_parts(head, Full::new(Bytes::new())))
        };
        without_len(Version::HTTP_11).await.expect_error(411, "MissingContentLength");
        nothing_stored(&client);
        // There the frames say that nothing follows.
        without_len(Version::HTTP_2).await.expect(200);
        client.delete("/bkt/k").await.expect(204);
    }
    let other = put("5").send_pieces(PayloadDeclaration::of(b"hullo"), |_| vec![Bytes::from("hello")], Then::End);
    other.await.expect_error(400, "XAmzContentSHA256Mismatch");
    nothing_stored(&client);
}

#[tokio::test]
async fn a_client_that_falls_silent_is_given_up() {
    let config = GatewayConfig { body_stall_max: Duration::from_millis(20), ..GatewayConfig::default() };
    let client = Client::with(MemoryStore::with_key(ACCESS_KEY, SECRET), config);
    client.put("/bkt", "").await.expect(200);
    let put = client.call(Method::PUT, "/bkt/k").header("content-length", "5").header("expect", "100-continue");
    let reply = put.send_pieces(PayloadDeclaration::Unsigned, |_| vec![Bytes::from("hel")], Then::Silence).await;
    reply.expect_error(400, "RequestTimeout");
    nothing_stored(&client);
}

fn chunked<'a>(client: &'a Client, len: usize) -> Call<'a> {
    let call = client.call(Method::PUT, "/bkt/k").header("content-encoding", "aws-chunked");
    call.header("x-amz-decoded-content-length", &len.to_string())
}

fn signed_frames(mut signer: ChunkSigner, chunks: &[&'static [u8]], trailers: &[(&str, &str)]) -> Vec<Bytes> {
    let mut frames: Vec<Bytes> = chunks.iter().map(|chunk| signer.frame(chunk)).collect();
    frames.push(signer.finish(trailers));
    frames
}

#[tokio::test]
async fn all_forms_of_chunked_bodies_are_stored() {
    let client = Client::with_bucket().await;
    let crc = format_checksum(&compute_checksum(ChecksumAlgorithm::Crc32, b"hello world"));
    let chunks: [&'static [u8]; 2] = [b"hello ", b"world"];
    let signed = chunked(&client, 11).send_pieces(
        PayloadDeclaration::Chunked,
        |signer| signed_frames(signer, &chunks, &[]),
        Then::End,
    );
    signed.await.expect(200);
    let get = client.get("/bkt/k").await.expect(200);
    assert_eq!((get.text(), get.header("content-encoding")), ("hello world", ""));
    let trailers = [("x-amz-checksum-crc32", crc.as_str())];
    let trailer = chunked(&client, 11)
        .header("x-amz-trailer", "x-amz-checksum-crc32")
        .header("x-amz-sdk-checksum-algorithm", "CRC32");
    let frames = |signer| signed_frames(signer, &chunks, &trailers);
    let reply = trailer.send_pieces(PayloadDeclaration::ChunkedTrailer, frames, Then::End).await.expect(200);
    assert_eq!(reply.header("x-amz-checksum-crc32"), crc);
    let unsigned = chunked(&client, 11).header("x-amz-trailer", "x-amz-checksum-crc32");
    let frames = |_| vec![ChunkSigner::frame_unsigned(b"hello world"), ChunkSigner::finish_unsigned(&trailers)];
    unsigned.send_pieces(PayloadDeclaration::UnsignedTrailer, frames, Then::End).await.expect(200);
    assert_eq!(client.get("/bkt/k").await.expect(200).text(), "hello world");
}

#[tokio::test]
async fn chunked_bodies_that_are_not_what_was_signed_are_refused() {
    let client = Client::with_bucket().await;
    let good: [&'static [u8]; 2] = [b"hello ", b"world"];
    let send = |len, change: fn(Vec<Bytes>) -> Vec<Bytes>| {
        let frames = move |signer| change(signed_frames(signer, &good, &[]));
        chunked(&client, len).send_pieces(PayloadDeclaration::Chunked, frames, Then::End)
    };
    send(11, |mut frames| {
        frames.swap(0, 1);
        frames
    })
    .await
    .expect_error(403, "SignatureDoesNotMatch");
    send(11, |mut frames| {
        frames.remove(1);
        frames
    })
    .await
    .expect_error(403, "SignatureDoesNotMatch");
    send(11, |mut frames| {
        frames.truncate(2);
        frames
    })
    .await
    .expect_error(400, "IncompleteBody");
    send(10, |frames| frames).await.expect_error(400, "IncompleteBody");
    let short = send(12, |frames| frames).await.expect_error(400, "IncompleteBody");
    assert_eq!(short.element("NumberBytesProvided").as_deref(), Some("11"));
    let cut = send(11, |mut frames| {
        frames.truncate(1);
        frames
    });
    let cut = cut.await.expect_error(400, "IncompleteBody");
    assert_eq!(
        (cut.element("NumberBytesExpected").as_deref(), cut.element("NumberBytesProvided").as_deref()),
        (Some("11"), Some("6"))
    );
    let plain = |_| vec![Bytes::from("hello world")];
    chunked(&client, 11)
        .send_pieces(PayloadDeclaration::Chunked, plain, Then::End)
        .await
        .expect_error(400, "IncompleteBody");
    let no_len = client.call(Method::PUT, "/bkt/k").send_pieces(PayloadDeclaration::Chunked, plain, Then::End);
    no_len.await.expect_error(411, "MissingContentLength");
    nothing_stored(&client);
}

#[tokio::test]
async fn trailers_that_do_not_match_are_refused() {
    let client = Client::with_bucket().await;
    let right = format_checksum(&compute_checksum(ChecksumAlgorithm::Crc32c, b"hello"));
    let send = |declared: &str, trailers: Vec<(&'static str, String)>| {
        let call = chunked(&client, 5).header("x-amz-trailer", declared);
        let frames = move |_| {
            let trailers: Vec<(&str, &str)> = trailers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            vec![ChunkSigner::frame_unsigned(b"hello"), ChunkSigner::finish_unsigned(&trailers)]
        };
        call.send_pieces(PayloadDeclaration::UnsignedTrailer, frames, Then::End)
    };
    let crc32c = "x-amz-checksum-crc32c";
    send(crc32c, vec![(crc32c, "AAAAAA==".to_owned())]).await.expect_error(400, "BadDigest");
    send(crc32c, vec![(crc32c, "nonsense".to_owned())]).await.expect_error(400, "MalformedTrailerError");
    send(crc32c, vec![]).await.expect_error(400, "MalformedTrailerError");
    send(crc32c, vec![("x-amz-checksum-crc32", right.clone())]).await.expect_error(400, "MalformedTrailerError");
    send(crc32c, vec![(crc32c, right.clone()), ("x-other", "a".to_owned())])
        .await
        .expect_error(400, "MalformedTrailerError");
    send("x-other", vec![("x-other", "a".to_owned())]).await.expect_error(400, "InvalidRequest");
    let undeclared = chunked(&client, 5).send_pieces(
        PayloadDeclaration::UnsignedTrailer,
        |_| vec![ChunkSigner::frame_unsigned(b"hello"), ChunkSigner::finish_unsigned(&[(crc32c, "mnG7TA==")])],
        Then::End,
    );
    let reply = undeclared.await.expect_error(400, "MalformedTrailerError");
    assert_eq!(
        reply.element("Message").as_deref(),
        Some(
            "The request contained trailing data that was not well-formed or did not conform to our published schema."
        )
    );
    for (end, code) in
        [("0\r\nno colon\r\n\r\n", "MalformedTrailerError"), ("0\r\nx-amz-checksum-crc32c:mnG7TA==", "IncompleteBody")]
    {
        let call = chunked(&client, 5).header("x-amz-trailer", crc32c);
        let frames = |_| vec![ChunkSigner::frame_unsigned(b"hello"), Bytes::from(end)];
        let reply = call.send_pieces(PayloadDeclaration::UnsignedTrailer, frames, Then::End).await;
        reply.expect_error(400, code);
    }
    let tampered = |signer| {
        let mut frames = signed_frames(signer, &[b"hello"], &[("x-amz-checksum-crc32c", "AAAAAA==")]);
        let text = String::from_utf8(frames.pop().unwrap().to_vec()).unwrap();
        frames.push(text.replace("AAAAAA==", "AAAAAQ==").into());
        frames
    };
    let signed = chunked(&client, 5).header("x-amz-trailer", crc32c);
    signed
        .send_pieces(PayloadDeclaration::ChunkedTrailer, tampered, Then::End)
        .await
        .expect_error(403, "SignatureDoesNotMatch");
    nothing_stored(&client);
    send(crc32c, vec![(crc32c, right)]).await.expect(200);
}

#[tokio::test]
async fn checksums_that_contradict_each_other_are_refused() {
    let client = Client::with_bucket().await;
    let put = |headers: &[(&str, &str)]| {
        headers
            .iter()
            .fold(client.call(Method::PUT, "/bkt/k"), |call, (name, value)| call.header(name, value))
            .body("hello")
            .send()
    };
    let crc32 = ("x-amz-checksum-crc32", "NhCmhg==");
    put(&[crc32, ("x-amz-checksum-crc32c", "mnG7TA==")]).await.expect_error(400, "InvalidRequest");
    put(&[crc32, ("x-amz-sdk-checksum-algorithm", "SHA1")]).await.expect_error(400, "InvalidRequest");
    put(&[("x-amz-sdk-checksum-algorithm", "CRC32")]).await.expect_error(400, "InvalidRequest");
    put(&[("x-amz-sdk-checksum-algorithm", "MD4")]).await.expect_error(400, "InvalidRequest");
    put(&[("x-amz-checksum-crc32", "NhCmhg==-2")]).await.expect_error(400, "InvalidRequest");
    put(&[("x-amz-trailer", "x-amz-checksum-crc32")]).await.expect_error(400, "InvalidRequest");
    nothing_stored(&client);
    put(&[crc32]).await.expect(200);
}

#[tokio::test]
async fn requests_beyond_their_bounds_are_refused() {
    let client = Client::with_bucket().await;
    let big = client.call(Method::PUT, "/bkt/k").header("x-other", &"v".repeat(8 << 10)).body("x").send().await;
    let big = big.expect_error(400, "RequestHeaderSectionTooLarge");
    assert_eq!(big.element("MaxSizeAllowed").as_deref(), Some("8192"));
    let long = client.get(&format!("/bkt?prefix={}", "p".repeat(16 << 10))).await.expect_error(400, "InvalidURI");
    assert_eq!(long.element("MaxSizeAllowed").as_deref(), Some("16384"));
    // The URI does not count as a header.
    client.get(&format!("/bkt?prefix={}", "p".repeat(10 << 10))).await.expect(200);
    let metadata = client.call(Method::PUT, "/bkt/k").header("x-amz-meta-a", &"v".repeat(2048)).body("x").send().await;
    metadata.expect_error(400, "MetadataTooLarge");
    let xml = vec![b' '; (2 << 20) + 1];
    let md5 =
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, <md5::Md5 as md5::Digest>::digest(&xml));
    let delete = client.call(Method::POST, "/bkt?delete").header("content-md5", &md5).body(xml).send().await;
    delete.expect_error(400, "MaxMessageLengthExceeded");
    nothing_stored(&client);
}

#[tokio::test]
async fn a_header_added_on_the_way_is_noticed() {
    let client = Client::with_bucket().await;
    let (mut head, _) = client.call(Method::PUT, "/bkt/k").signed(&credentials(), PayloadDeclaration::of(b"x"), NOW_MS);
    head.headers.insert("x-amz-acl", HeaderValue::from_static("private"));
    let reply =
        client.serve(Request::from_parts(head, Full::new(Bytes::from("x")))).await.expect_error(403, "AccessDenied");
    assert_eq!(reply.element("HeadersNotSigned").as_deref(), Some("x-amz-acl"));
    nothing_stored(&client);
}

proptest! {
    #[test]
    fn any_request_gets_an_answer(
        method in "GET|PUT|POST|DELETE|HEAD|PATCH",
        path in "/(bkt)?[!-~]{0,30}",
        headers in proptest::collection::vec(("x-amz-[a-z-]{1,24}|range|if-match|content-md5|content-length|expect", "[ -~]{0,24}"), 0..5),
        sign in any::<bool>(),
        body in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let client = Client::with_bucket().await;
            if path.parse::<http::Uri>().is_err() {
                return;
            }
            let mut call = client.call(method.parse().unwrap(), &path);
            for (name, value) in &headers {
                call = call.header(name, value);
            }
            if sign && http::Uri::try_from(path.as_str()).is_ok_and(|uri| !uri.path().contains('%') && !uri.query().unwrap_or_default().contains('%')) {
                let reply = call.body(body).send().await;
                assert_ne!(reply.status.as_u16(), 500, "{reply:?}");
            } else {
                let mut request = Request::builder().method(method.as_str()).uri(&path).body(Full::new(Bytes::from(body))).unwrap();
                for (name, value) in &headers {
                    request.headers_mut().append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
                }
                let reply = client.serve(request).await;
                // Some operations are refused by name before anybody asks who wants them.
                assert!(reply.status.is_client_error() || reply.status.as_u16() == 501, "{reply:?}");
            }
        });
    }
}
