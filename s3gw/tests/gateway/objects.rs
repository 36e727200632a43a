//! Objects: put, get, head, delete, copy, and all that goes with them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use drystone_cluster::store::{ChecksumAlgorithm, StoreError, Unavailable};
use drystone_s3gw::{compute_checksum, format_checksum};
use http::Method;

use crate::client::{Client, NOW_MS};

/// MD5 of "hello".
const HELLO: &str = "\"5d41402abc4b2a76b9719d911017c592\"";
/// A version id in S3's form.
const VERSION: &str = "3sL4kqtJlcpXroDTDmJ.rmSpXd3dIbrH";
const LAST_MODIFIED: &str = "Fri, 02 Jan 2026 03:04:05 GMT";

async fn with_hello() -> Client {
    let client = Client::with_bucket().await;
    client.put("/bkt/hello", "hello").await.expect(200);
    client
}

#[tokio::test]
async fn an_object_comes_back_with_all_it_carries() {
    let client = Client::with_bucket().await;
    let put = client
        .call(Method::PUT, "/bkt/a%20b//c?x-id=PutObject")
        .header("content-type", "text/plain")
        .header("cache-control", "max-age=5")
        .header("content-encoding", "gzip")
        .header("expires", "Thu, 01 Dec 2033 16:00:00 GMT")
        .header("x-amz-meta-Colour", "grün")
        .header("x-amz-storage-class", "STANDARD")
        .header("x-amz-acl", "private")
        .body("hello")
        .send()
        .await
        .expect(200);
    assert_eq!(put.header("etag"), HELLO);
    let crc = format_checksum(&compute_checksum(ChecksumAlgorithm::Crc64Nvme, b"hello"));
    assert_eq!((put.header("x-amz-checksum-crc64nvme"), put.header("x-amz-checksum-type")), (&*crc, "FULL_OBJECT"));
    let check = |reply: &crate::client::Reply| {
        for (name, value) in [
            ("content-type", "text/plain"),
            ("cache-control", "max-age=5"),
            ("content-encoding", "gzip"),
            ("expires", "Thu, 01 Dec 2033 16:00:00 GMT"),
            ("etag", HELLO),
            ("last-modified", LAST_MODIFIED),
            ("accept-ranges", "bytes"),
            ("x-amz-checksum-crc64nvme", &crc),
        ] {
            assert_eq!(reply.header(name), value, "{name}");
        }
        assert_eq!(reply.header("x-amz-meta-colour"), "=?UTF-8?B?Z3LDvG4=?=");
    };
    let uri = "/bkt/a%20b//c";
    let get = client.call(Method::GET, uri).header("x-amz-checksum-mode", "ENABLED").send().await.expect(200);
    check(&get);
    assert_eq!(get.text(), "hello");
    let head = client.call(Method::HEAD, uri).header("x-amz-checksum-mode", "ENABLED").send().await.expect(200);
    check(&head);
    assert_eq!((head.header("content-length"), head.body.len()), ("5", 0));
    assert_eq!(client.get(uri).await.expect(200).header("x-amz-checksum-crc64nvme"), "");
    assert_eq!(client.store.objects("bkt")[0].0, "a b//c");
    client.put("/bkt/plain", "").await.expect(200);
    let empty = client.get("/bkt/plain").await.expect(200);
    assert_eq!((empty.header("content-type"), empty.body.len()), ("binary/octet-stream", 0));
}

#[tokio::test]
async fn keys_are_any_utf_8() {
    let client = Client::with_bucket().await;
    let long = "k".repeat(1024);
    let keys = ["a/b", "a/b/c", "/", "//", "../up", "a+b", "a%2520", "%E2%82%AC", "%00", "q%3Fx%23y", long.as_str()];
    for key in keys {
        client.put(&format!("/bkt/{key}"), key.to_owned()).await.expect(200);
    }
    for key in keys {
        assert_eq!(client.get(&format!("/bkt/{key}")).await.expect(200).text(), key);
    }
    assert_eq!(client.store.objects("bkt").len(), keys.len());
    client.put(&format!("/bkt/{long}k"), "x").await.expect_error(400, "KeyTooLongError");
    client.put("/bkt/%FF", "x").await.expect_error(400, "InvalidURI");
}

#[tokio::test]
async fn every_checksum_is_verified_kept_and_returned() {
    let client = Client::with_bucket().await;
    for (algorithm, name) in [
        (ChecksumAlgorithm::Crc32, "crc32"),
        (ChecksumAlgorithm::Crc32c, "crc32c"),
        (ChecksumAlgorithm::Crc64Nvme, "crc64nvme"),
        (ChecksumAlgorithm::Sha1, "sha1"),
        (ChecksumAlgorithm::Sha256, "sha256"),
    ] {
        let (header, uri) = (format!("x-amz-checksum-{name}"), format!("/bkt/{name}"));
        let put = |value: String| {
            client
                .call(Method::PUT, &uri)
                .header(&header, &value)
                .header("x-amz-sdk-checksum-algorithm", &name.to_uppercase())
                .body("hello")
                .send()
        };
        let right = format_checksum(&compute_checksum(algorithm, b"hello"));
        let wrong = format_checksum(&compute_checksum(algorithm, b"hullo"));
        put(wrong).await.expect_error(400, "BadDigest");
        put("bad".to_owned()).await.expect_error(400, "InvalidRequest");
        client.head(&uri).await.expect(404);
        assert_eq!(put(right.clone()).await.expect(200).header(&header), right);
        let get = client.call(Method::HEAD, &uri).header("x-amz-checksum-mode", "enabled").send().await.expect(200);
        assert_eq!(get.header(&header), right);
    }
}

#[tokio::test]
async fn content_md5_is_verified() {
    let client = Client::with_bucket().await;
    let put = |md5: &str| client.call(Method::PUT, "/bkt/k").header("content-md5", md5).body("hello").send();
    put("XUFAKrxLKna5cZ2REBfFkg==").await.expect(200);
    client.delete("/bkt/k").await.expect(204);
    put("AAAAAAAAAAAAAAAAAAAAAA==").await.expect_error(400, "BadDigest");
    put("nonsense").await.expect_error(400, "InvalidDigest");
    assert!(client.store.objects("bkt").is_empty());
}

#[tokio::test]
async fn ranges_are_served() {
    let client = Client::with_bucket().await;
    let body: Vec<u8> = (0..10_000_u32).map(|n| (n % 251) as u8).collect();
    client.put("/bkt/k", body.clone()).await.expect(200);
    let get = |range: &str| client.call(Method::GET, "/bkt/k").header("range", range).send();
    for (range, first, last) in
        [("bytes=0-0", 0, 0), ("bytes=500-2499", 500, 2499), ("bytes=9000-", 9000, 9999), ("bytes=-1", 9999, 9999)]
    {
        let reply = get(range).await.expect(206);
        assert_eq!(reply.header("content-range"), format!("bytes {first}-{last}/10000"));
        assert_eq!(reply.body, body[first..=last]);
    }
    for range in ["bytes=0-1,5-6", "bytes=x", "bytes=5-2"] {
        assert_eq!(get(range).await.expect(200).body, body);
    }
    let over = get("bytes=10000-").await.expect_error(416, "InvalidRange");
    assert_eq!(over.header("content-range"), "bytes */10000");
    assert_eq!(over.element("ActualObjectSize").as_deref(), Some("10000"));
    let head = client.call(Method::HEAD, "/bkt/k").header("range", "bytes=1-3").send().await.expect(206);
    assert_eq!((head.header("content-length"), head.header("content-range")), ("3", "bytes 1-3/10000"));
    let if_range =
        |tag: &str| client.call(Method::GET, "/bkt/k").header("range", "bytes=0-0").header("if-range", tag).send();
    let etag = head.header("etag").to_owned();
    if_range(&etag).await.expect(206);
    if_range(LAST_MODIFIED).await.expect(206);
    if_range("\"other\"").await.expect(200);
    client
        .call(Method::GET, "/bkt/k?partNumber=1")
        .header("range", "bytes=0-0")
        .send()
        .await
        .expect_error(400, "InvalidRequest");
    assert_eq!(client.get("/bkt/k?partNumber=1").await.expect(206).body, body);
    client.get("/bkt/k?partNumber=2").await.expect_error(416, "InvalidPartNumber");
}

#[tokio::test]
async fn conditions_on_reads_are_decided() {
    let client = with_hello().await;
    let get = |name: &str, value: &str| client.call(Method::GET, "/bkt/hello").header(name, value).send();
    get("if-match", HELLO).await.expect(200);
    get("if-match", "\"0\"").await.expect_error(412, "PreconditionFailed");
    let same = get("if-none-match", HELLO).await.expect(304);
    assert_eq!((same.header("etag"), same.header("last-modified"), same.body.len()), (HELLO, LAST_MODIFIED, 0));
    let put = client.call(Method::PUT, "/bkt/cached").header("cache-control", "max-age=5").body("hello");
    put.header("expires", "Thu, 01 Dec 2033 16:00:00 GMT").send().await.expect(200);
    let same = client.call(Method::GET, "/bkt/cached").header("if-none-match", HELLO).send().await.expect(304);
    assert_eq!((same.header("cache-control"), same.header("expires")), ("max-age=5", "Thu, 01 Dec 2033 16:00:00 GMT"));
    get("if-none-match", "\"0\"").await.expect(200);
    get("if-modified-since", LAST_MODIFIED).await.expect(304);
    get("if-unmodified-since", "Fri, 02 Jan 2026 03:04:04 GMT").await.expect_error(412, "PreconditionFailed");
    let head = client.call(Method::HEAD, "/bkt/hello").header("if-match", "\"0\"").send().await.expect(412);
    assert!(head.body.is_empty());
}

#[tokio::test]
async fn conditions_on_writes_reach_the_commit() {
    let client = with_hello().await;
    let put = |uri: &str, name: &str, value: &str| client.call(Method::PUT, uri).header(name, value).body("new").send();
    put("/bkt/hello", "if-none-match", "*").await.expect_error(412, "PreconditionFailed");
    put("/bkt/hello", "if-match", "\"00000000000000000000000000000000\"").await.expect_error(412, "PreconditionFailed");
    put("/bkt/none", "if-match", HELLO).await.expect_error(404, "NoSuchKey");
    assert_eq!(client.store.objects("bkt"), [("hello".to_owned(), "hello".into())]);
    put("/bkt/fresh", "if-none-match", "*").await.expect(200);
    put("/bkt/hello", "if-match", HELLO).await.expect(200);
    let delete = |value: &str| client.call(Method::DELETE, "/bkt/hello").header("if-match", value).send();
    delete(HELLO).await.expect_error(412, "PreconditionFailed");
    assert_eq!(client.get("/bkt/hello").await.expect(200).text(), "new");
    delete("*").await.expect(204);
    delete("*").await.expect_error(404, "NoSuchKey");
}

#[tokio::test]
async fn deleting_succeeds_whether_or_not_it_was_there() {
    let client = with_hello().await;
    client.delete(&format!("/bkt/hello?versionId={VERSION}")).await.expect_error(404, "NoSuchVersion");
    client.delete("/bkt/hello?versionId=null").await.expect(204);
    client.delete("/bkt/hello").await.expect(204);
    client.get("/bkt/hello").await.expect_error(404, "NoSuchKey");
    client.delete("/nowhere/hello").await.expect_error(404, "NoSuchBucket");
}

#[tokio::test]
async fn only_the_null_version_exists_and_no_id_is_passed_over() {
    let client = with_hello().await;
    let message = |reply: crate::client::Reply| reply.element("Message").unwrap();
    for uri in ["/bkt/hello?", "/bkt/hello?acl&", "/bkt/hello?tagging&"] {
        client.get(&format!("{uri}versionId=null")).await.expect(200);
        let empty = client.get(&format!("{uri}versionId=")).await.expect_error(400, "InvalidArgument");
        assert_eq!(message(empty), "Version id cannot be the empty string");
        let malformed = client.get(&format!("{uri}versionId=v1")).await.expect_error(400, "InvalidArgument");
        assert_eq!(message(malformed), "Invalid version id specified");
        client.get(&format!("{uri}versionId={VERSION}")).await.expect_error(404, "NoSuchVersion");
    }
    client.get(&format!("/nowhere/hello?versionId={VERSION}")).await.expect_error(404, "NoSuchBucket");
    client.head("/bkt/hello?versionId=v1").await.expect(400);
    client.put("/bkt/hello?versionId=null", "new").await.expect_error(400, "InvalidArgument");
    client.post("/bkt/hello?uploads&versionId=null", "").await.expect_error(400, "InvalidArgument");
    let copy = |to: &str, source: &str| client.call(Method::PUT, to).header("x-amz-copy-source", source).send();
    let refused = copy("/bkt/to?versionId=null", "/bkt/hello").await.expect_error(400, "InvalidArgument");
    assert_eq!(message(refused), "This operation does not accept a version-id.");
    copy("/bkt/to", "/bkt/hello?versionId=").await.expect_error(400, "InvalidArgument");
    copy("/bkt/to", &format!("/bkt/hello?versionId={VERSION}")).await.expect_error(404, "NoSuchVersion");
    copy("/bkt/to", &format!("/nowhere/hello?versionId={VERSION}")).await.expect_error(404, "NoSuchBucket");
    assert_eq!(client.store.objects("bkt"), [("hello".to_owned(), "hello".into())]);
    copy("/bkt/to", "/bkt/hello?versionId=null").await.expect(200);
}

#[tokio::test]
async fn many_objects_are_deleted_at_once() {
    let client = Client::with_bucket().await;
    for key in ["a", "b", "c%3C"] {
        client.put(&format!("/bkt/{key}"), "x").await.expect(200);
    }
    let xml = "<Delete><Object><Key>a</Key></Object><Object><Key>none</Key></Object><Object><Key>c&lt;</Key></Object>\
               <Object><Key>b</Key><VersionId>v1</VersionId></Object><Object><Key></Key></Object></Delete>";
    let md5 = |xml: &str| BASE64.encode(<md5::Md5 as md5::Digest>::digest(xml));
    let delete =
        |xml: &'static str| client.call(Method::POST, "/bkt?delete").header("content-md5", &md5(xml)).body(xml).send();
    client.post("/bkt?delete", xml).await.expect_error(400, "InvalidRequest");
    let reply = delete(xml).await.expect(200);
    assert_eq!(
        reply.text().split_once("2006-03-01/\">").unwrap().1,
        "<Deleted><Key>a</Key></Deleted><Deleted><Key>none</Key></Deleted><Deleted><Key>c&lt;</Key></Deleted>\
         <Error><Key>b</Key><VersionId>v1</VersionId><Code>NoSuchVersion</Code><Message>The specified version does not \
         exist.</Message></Error><Error><Key></Key><Code>InvalidArgument</Code><Message>The key is empty.</Message>\
         </Error></DeleteResult>"
    );
    assert_eq!(client.store.objects("bkt").len(), 1);
    let quiet = "<Delete><Quiet>true</Quiet><Object><Key>b</Key></Object></Delete>";
    let crc = format_checksum(&compute_checksum(ChecksumAlgorithm::Crc32, quiet.as_bytes()));
    let reply = client.call(Method::POST, "/bkt?delete").header("x-amz-checksum-crc32", &crc).body(quiet).send().await;
    assert!(reply.expect(200).elements("Deleted").is_empty());
    assert!(client.store.objects("bkt").is_empty());
    client
        .call(Method::POST, "/bkt?delete")
        .header("content-md5", &md5("other"))
        .body(quiet)
        .send()
        .await
        .expect_error(400, "BadDigest");
    delete("<Delete><Object></Delete>").await.expect_error(400, "MalformedXML");
}

#[tokio::test]
async fn objects_are_copied() {
    let client = Client::with_bucket().await;
    client.put("/other", "").await.expect(200);
    let body = vec![b'x'; 5000];
    let put = client.call(Method::PUT, "/bkt/src%20a").header("content-type", "text/x").header("x-amz-meta-m", "1");
    let etag = put.body(body.clone()).send().await.expect(200).header("etag").to_owned();
    let copy = |to: &str| client.call(Method::PUT, to).header("x-amz-copy-source", "/bkt/src%20a");
    let reply = copy("/other/dst").send().await.expect(200);
    assert_eq!(reply.element("ETag"), Some(etag.replace('"', "&quot;")));
    assert_eq!(reply.element("LastModified").as_deref(), Some("2026-01-02T03:04:05.000Z"));
    assert!(reply.element("ChecksumCRC64NVME").is_some());
    let got = client.get("/other/dst").await.expect(200);
    assert_eq!((&got.body[..], got.header("content-type"), got.header("x-amz-meta-m")), (&body[..], "text/x", "1"));
    copy("/bkt/src%20a").send().await.expect_error(400, "InvalidRequest");
    copy("/bkt/src%20a").header("x-amz-storage-class", "STANDARD").send().await.expect(200);
    copy("/bkt/src%20a").header("x-amz-website-redirect-location", "/there").send().await.expect(200);
    let moved = client.head("/bkt/src%20a").await.expect(200);
    assert_eq!((moved.header("x-amz-website-redirect-location"), moved.header("x-amz-meta-m")), ("/there", "1"));
    copy("/bkt/c").header("x-amz-checksum-algorithm", "MD4").send().await.expect_error(400, "InvalidRequest");
    let replace = copy("/bkt/src%20a").header("x-amz-metadata-directive", "REPLACE").header("x-amz-meta-n", "2");
    replace.header("x-amz-checksum-algorithm", "SHA256").send().await.expect(200);
    let got =
        client.call(Method::GET, "/bkt/src%20a").header("x-amz-checksum-mode", "ENABLED").send().await.expect(200);
    assert_eq!((got.header("x-amz-meta-m"), got.header("x-amz-meta-n")), ("", "2"));
    assert_ne!(got.header("x-amz-checksum-sha256"), "");
    copy("/bkt/c").header("x-amz-copy-source-if-match", "\"0\"").send().await.expect_error(412, "PreconditionFailed");
    copy("/bkt/c")
        .header("x-amz-copy-source-if-none-match", &etag)
        .send()
        .await
        .expect_error(412, "PreconditionFailed");
    copy("/other/dst").header("if-none-match", "*").send().await.expect_error(412, "PreconditionFailed");
    copy("/nowhere/c").send().await.expect_error(404, "NoSuchBucket");
    copy("/bkt/c").header("x-amz-metadata-directive", "MIX").send().await.expect_error(400, "InvalidArgument");
    let from = |source: &str| client.call(Method::PUT, "/bkt/c").header("x-amz-copy-source", source).send();
    from("/bkt/none").await.expect_error(404, "NoSuchKey");
    from("nonsense").await.expect_error(400, "InvalidArgument");
    client.head("/bkt/c").await.expect(404);
    copy("/bkt/c").header("x-amz-copy-source-if-match", &etag).send().await.expect(200);
    client.store.fail_reads_after(Some(2000));
    let reply = copy("/bkt/d").send().await.expect_error(503, "ServiceUnavailable");
    assert!(reply.element("Message").unwrap().starts_with("Not now: "), "{reply:?}");
    client.store.fail_reads_with(StoreError::Damaged { readable: 1, needed: 2 });
    copy("/bkt/d").send().await.expect_error(500, "InternalError");
    client.head("/bkt/d").await.expect(404);
}

#[tokio::test]
async fn attributes_are_told() {
    let client = with_hello().await;
    let get =
        |names: &str| client.call(Method::GET, "/bkt/hello?attributes").header("x-amz-object-attributes", names).send();
    let reply = get("ETag,ObjectSize,Checksum,StorageClass,ObjectParts").await.expect(200);
    assert_eq!(reply.element("ETag").as_deref(), Some(HELLO.trim_matches('"')));
    assert_eq!((reply.element("ObjectSize").as_deref(), reply.element("ObjectParts")), (Some("5"), None));
    assert!(reply.element("ChecksumCRC64NVME").is_some());
    assert!(get("ObjectSize").await.expect(200).element("ETag").is_none());
    get("Nonsense").await.expect_error(400, "InvalidArgument");
    get("ETag,Nonsense").await.expect_error(400, "InvalidArgument");
    let missing =
        "The x-amz-object-attributes header specifying the attributes to be retrieved is either missing or empty";
    for reply in [get(" ").await, client.get("/bkt/hello?attributes").await] {
        assert_eq!(reply.expect_error(400, "InvalidRequest").element("Message").as_deref(), Some(missing));
    }
    let lines = client.call(Method::GET, "/bkt/hello?attributes").header("x-amz-object-attributes", "ObjectSize");
    let reply = lines.header("x-amz-object-attributes", "ETag").send().await.expect(200);
    assert!(reply.element("ObjectSize").is_some() && reply.element("ETag").is_some());
}

#[tokio::test]
async fn signed_requests_may_override_headers() {
    let client = with_hello().await;
    let uri =
        "/bkt/hello?response-content-type=text%2Fx&response-content-disposition=attachment%3B%20filename%3D%22a%22";
    for reply in [client.get(uri).await, client.call(Method::GET, uri).send_presigned(60).await] {
        let reply = reply.expect(200);
        assert_eq!(reply.header("content-type"), "text/x");
        assert_eq!(reply.header("content-disposition"), "attachment; filename=\"a\"");
    }
    client.get("/bkt/hello?response-expires=a%0Ab").await.expect_error(400, "InvalidArgument");
}

#[tokio::test]
async fn presigned_urls_put_and_get_until_they_expire() {
    let client = Client::with_bucket().await;
    client.call(Method::PUT, "/bkt/p").body("hello").send_presigned(60).await.expect(200);
    assert_eq!(client.call(Method::GET, "/bkt/p").send_presigned(60).await.expect(200).text(), "hello");
    client.set_now(NOW_MS + 61_000);
    let late = client.call(Method::GET, "/bkt/p").send_presigned(60).await.expect_error(403, "AccessDenied");
    assert_eq!(late.element("Message").as_deref(), Some("Request has expired"));
}

#[tokio::test]
async fn headers_hoisted_into_a_presigned_url_count_except_checksums() {
    let client = Client::with_bucket().await;
    let put = |query: &str| client.call(Method::PUT, &format!("/bkt/p?{query}")).body("hello").send_presigned(60);
    put("x-amz-server-side-encryption=AES256").await.expect_error(501, "NotImplemented");
    put("x-amz-acl=public-read").await.expect_error(501, "NotImplemented");
    assert!(client.store.objects("bkt").is_empty());
    put("x-amz-meta-a=1&x-amz-checksum-crc32=AAAAAA%3D%3D&x-amz-sdk-checksum-algorithm=CRC32").await.expect(200);
    assert_eq!(client.get("/bkt/p").await.expect(200).header("x-amz-meta-a"), "1");
    let copy = client.call(Method::PUT, "/bkt/copy?x-amz-copy-source=bkt%2Fp").send_presigned(60).await;
    assert!(copy.expect(200).text().contains("<CopyObjectResult"));
    assert_eq!(client.get("/bkt/copy").await.expect(200).text(), "hello");
}

#[tokio::test]
async fn session_tokens_are_refused() {
    let client = Client::with_bucket().await;
    let put = client.call(Method::PUT, "/bkt/k").header("x-amz-security-token", "t").body("x").send().await;
    put.expect_error(400, "InvalidToken");
    client.call(Method::GET, "/?X-Amz-Security-Token=t").send_presigned(60).await.expect_error(400, "InvalidToken");
}

#[tokio::test]
async fn features_that_are_not_there_are_refused_and_nothing_is_stored() {
    let client = Client::with_bucket().await;
    for (name, value) in [
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
        ("x-amz-object-lock-legal-hold", "ON"),
        ("x-amz-tagging", "a=b"),
        ("x-amz-acl", "public-read"),
        ("x-amz-storage-class", "GLACIER"),
        ("x-amz-write-offset-bytes", "0"),
        ("if-unmodified-since", LAST_MODIFIED),
    ] {
        let put = client.call(Method::PUT, "/bkt/k").header(name, value).body("x").send().await;
        put.expect_error(501, "NotImplemented");
    }
    assert!(client.store.objects("bkt").is_empty());
}

#[tokio::test]
async fn what_the_store_cannot_do_is_said_and_not_hidden() {
    let client = with_hello().await;
    let quorum = Unavailable::NoQuorum { group: "shard 3".to_owned(), reachable: 1, needed: 2 };
    for (error, status, code) in [
        (quorum.into(), 503, "ServiceUnavailable"),
        (Unavailable::Busy.into(), 503, "SlowDown"),
        (StoreError::Full, 507, "InsufficientStorage"),
        (StoreError::Damaged { readable: 1, needed: 2 }, 500, "InternalError"),
        (StoreError::Internal("what only the log may say".to_owned()), 500, "InternalError"),
    ] {
        client.store.fail_next(error);
        let reply = client.get("/bkt/hello").await.expect_error(status, code);
        assert!(!reply.text().contains("only the log"));
    }
}

#[tokio::test]
async fn a_read_that_fails_is_an_error_or_a_broken_transfer_but_never_a_short_body() {
    let client = Client::with_bucket().await;
    client.put("/bkt/k", vec![1; 5000]).await.expect(200);
    client.store.fail_reads_after(Some(0));
    client.get("/bkt/k").await.expect_error(503, "ServiceUnavailable");
    client.store.fail_reads_after(Some(3000));
    let broken = client.get("/bkt/k").await.expect(200);
    assert!(broken.broken.is_some_and(|why| why.contains("could not be read on")));
    client.store.fail_reads_after(None);
    assert_eq!(client.get("/bkt/k").await.expect(200).body.len(), 5000);
}
