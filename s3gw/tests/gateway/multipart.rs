//! The multipart family.

use bytes::Bytes;
use drystone_cluster::store::{ChecksumAlgorithm, ChecksumKind};
use drystone_s3gw::sig::{ChunkSigner, PayloadDeclaration};
use drystone_s3gw::{GatewayConfig, compute_checksum, format_checksum};
use http::Method;
use md5::Digest as _;

use crate::client::{ACCESS_KEY, Client, Reply, SECRET, Then};
use crate::memory::MemoryStore;

const PART_LEN: usize = 5 << 20;

fn part(byte: u8, len: usize) -> Bytes {
    Bytes::from(vec![byte; len])
}

async fn start(client: &Client, key: &str, headers: &[(&str, &str)]) -> String {
    let mut call = client.call(Method::POST, &format!("/bkt/{key}?uploads"));
    for (name, value) in headers {
        call = call.header(name, value);
    }
    call.send().await.expect(200).element("UploadId").unwrap()
}

async fn upload(client: &Client, key: &str, id: &str, number: u32, body: &Bytes) -> Reply {
    client.put(&format!("/bkt/{key}?partNumber={number}&uploadId={id}"), body.clone()).await.expect(200)
}

fn completion(parts: &[(u32, &str)]) -> String {
    let lines: String = parts
        .iter()
        .map(|(number, etag)| format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"))
        .collect();
    format!("<CompleteMultipartUpload>{lines}</CompleteMultipartUpload>")
}

#[tokio::test]
async fn parts_become_an_object_once_and_the_same_when_asked_again() {
    let client = Client::with_bucket().await;
    let id = start(&client, "big%20one", &[("content-type", "text/x"), ("x-amz-meta-a", "1")]).await;
    let parts = [part(1, PART_LEN), part(2, PART_LEN), part(3, 10)];
    let mut etags = Vec::new();
    for (number, body) in [1, 2, 7].into_iter().zip(&parts) {
        etags.push(upload(&client, "big%20one", &id, number, body).await.header("etag").to_owned());
    }
    client.head("/bkt/big%20one").await.expect(404);
    let body = completion(&[(1, &etags[0]), (2, &etags[1]), (7, &etags[2])]);
    let complete = || client.post(&format!("/bkt/big%20one?uploadId={id}"), body.clone());
    let first = complete().await.expect(200);
    assert_eq!(first.text(), complete().await.expect(200).text());
    let md5s: Vec<u8> = parts.iter().flat_map(|part| md5::Md5::digest(part).to_vec()).collect();
    let etag = format!("\"{}-3\"", hex::encode(md5::Md5::digest(&md5s)));
    assert_eq!(first.element("ETag"), Some(etag.replace('"', "&quot;")));
    assert_eq!(first.element("Location").as_deref(), Some("http://node:9000/bkt/big%20one"));
    let whole = parts.concat();
    let crc = format_checksum(&compute_checksum(ChecksumAlgorithm::Crc64Nvme, &whole));
    assert_eq!(first.element("ChecksumCRC64NVME"), Some(crc));
    let get = client.get("/bkt/big%20one").await.expect(200);
    assert_eq!((get.body.len(), get.header("etag"), get.header("x-amz-meta-a")), (whole.len(), &*etag, "1"));
    assert!(get.body == whole);
    let second = client.get("/bkt/big%20one?partNumber=2").await.expect(206);
    assert_eq!(second.header("x-amz-mp-parts-count"), "3");
    assert_eq!(second.header("content-range"), format!("bytes {PART_LEN}-{}/{}", 2 * PART_LEN - 1, whole.len()));
    assert!(second.body == parts[1]);
    assert_eq!(client.head("/bkt/big%20one?partNumber=7").await.expect(206).header("content-length"), "10");
    client.get("/bkt/big%20one?partNumber=3").await.expect_error(416, "InvalidPartNumber");
    client.get("/bkt/big%20one?partNumber=0").await.expect_error(400, "InvalidArgument");
    let attributes = client
        .call(Method::GET, "/bkt/big%20one?attributes")
        .header("x-amz-object-attributes", "ObjectParts")
        .header("x-amz-max-parts", "2")
        .send()
        .await
        .expect(200);
    // A client that asked for no checksum of each part is told how many there are.
    assert_eq!(attributes.element("ObjectParts").as_deref(), Some("<PartsCount>3</PartsCount>"));
}

#[tokio::test]
async fn the_parts_of_a_composite_checksum_are_told_in_pages() {
    let client = Client::with_bucket().await;
    let id = start(&client, "k", &[("x-amz-checksum-algorithm", "CRC32C")]).await;
    let parts = [part(1, PART_LEN), part(2, PART_LEN), part(3, 10)];
    let mut lines = String::new();
    let mut sums = Vec::new();
    for (number, body) in (1..).zip(&parts) {
        let sum = compute_checksum(ChecksumAlgorithm::Crc32c, body);
        let put = client
            .call(Method::PUT, &format!("/bkt/k?partNumber={number}&uploadId={id}"))
            .header("x-amz-checksum-crc32c", &format_checksum(&sum));
        let etag = put.body(body.clone()).send().await.expect(200).header("etag").to_owned();
        lines += &format!(
            "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag><ChecksumCRC32C>{}</ChecksumCRC32C></Part>",
            format_checksum(&sum)
        );
        sums.push(sum);
    }
    let xml = format!("<CompleteMultipartUpload>{lines}</CompleteMultipartUpload>");
    let done = client.post(&format!("/bkt/k?uploadId={id}"), xml).await.expect(200);
    let get = |headers: &[(&str, &str)]| {
        let call = client.call(Method::GET, "/bkt/k?attributes");
        headers
            .iter()
            .fold(call, |call, (name, value)| call.header(name, value))
            .header("x-amz-object-attributes", "Checksum,ObjectParts")
            .send()
    };
    let page = get(&[("x-amz-max-parts", "2")]).await.expect(200);
    let of_parts: Vec<String> = sums.iter().map(format_checksum).collect();
    let whole = done.element("ChecksumCRC32C").unwrap();
    let bare = whole.strip_suffix("-3").unwrap().to_owned();
    assert_eq!(page.elements("ChecksumCRC32C"), [bare.as_str(), &of_parts[0], &of_parts[1]]);
    assert_eq!(
        (page.elements("PartNumber"), page.element("IsTruncated"), page.element("NextPartNumberMarker")),
        (vec!["1".into(), "2".into()], Some("true".into()), Some("2".into()))
    );
    let rest = get(&[("x-amz-part-number-marker", "2")]).await.expect(200);
    assert_eq!((rest.elements("PartNumber"), rest.element("IsTruncated")), (vec!["3".into()], Some("false".into())));
    for (count, shown, numbers) in [("x", "1000", 3), ("-1", "1000", 3), ("0", "0", 0)] {
        let page = get(&[("x-amz-max-parts", count)]).await.expect(200);
        assert_eq!(
            (page.element("MaxParts").as_deref(), page.elements("PartNumber").len(), page.element("IsTruncated")),
            (Some(shown), numbers, Some("false".into()))
        );
    }
}

#[tokio::test]
async fn the_location_is_in_the_style_of_the_request() {
    let domains = vec!["localhost".to_owned()];
    for (tls, host, path, location) in [
        (false, "node:9000", "/bkt/a%20b", "http://node:9000/bkt/a%20b"),
        (true, "node:9000", "/bkt/a%20b", "https://node:9000/bkt/a%20b"),
        (true, "bkt.localhost:9000", "/a%20b", "https://bkt.localhost:9000/a%20b"),
    ] {
        let config = GatewayConfig { tls, domains: domains.clone(), ..GatewayConfig::default() };
        let client = Client::with(MemoryStore::with_key(ACCESS_KEY, SECRET), config);
        client.put("/bkt", "").await.expect(200);
        let id = start(&client, "a%20b", &[]).await;
        let etag = upload(&client, "a%20b", &id, 1, &part(1, 10)).await.header("etag").to_owned();
        let complete = client.call(Method::POST, &format!("{path}?uploadId={id}")).host(host);
        let done = complete.body(completion(&[(1, &etag)])).send().await.expect(200);
        assert_eq!(done.element("Location").as_deref(), Some(location));
    }
}

#[tokio::test]
async fn a_completion_that_does_not_fit_changes_nothing() {
    let client = Client::with_bucket().await;
    let id = start(&client, "k", &[]).await;
    let one = upload(&client, "k", &id, 1, &part(1, 100)).await.header("etag").to_owned();
    let two = upload(&client, "k", &id, 2, &part(2, 100)).await.header("etag").to_owned();
    let uri = format!("/bkt/k?uploadId={id}");
    for (body, status, code) in [
        (completion(&[(1, &one), (2, &two)]), 400, "EntityTooSmall"),
        (completion(&[(2, &two), (1, &one)]), 400, "InvalidPartOrder"),
        (completion(&[(1, &one), (1, &one)]), 400, "InvalidPartOrder"),
        (completion(&[(1, &two)]), 400, "InvalidPart"),
        (completion(&[(3, &one)]), 400, "InvalidPart"),
        (completion(&[(1, "nonsense")]), 400, "InvalidPart"),
        (completion(&[]), 400, "MalformedXML"),
        ("<Complete".to_owned(), 400, "MalformedXML"),
    ] {
        client.post(&uri, body).await.expect_error(status, code);
    }
    let complete = |name: &str, value: &str| {
        client.call(Method::POST, &uri).header(name, value).body(completion(&[(2, &two)])).send()
    };
    complete("x-amz-mp-object-size", "99").await.expect(400);
    complete("if-match", "*").await.expect_error(404, "NoSuchKey");
    complete("x-amz-checksum-type", "COMPOSITE").await.expect_error(400, "InvalidRequest");
    complete("x-amz-checksum-crc64nvme", "AAAAAAAAAAA=").await.expect_error(400, "BadDigest");
    assert!(client.store.objects("bkt").is_empty());
    complete("x-amz-mp-object-size", "100").await.expect(200);
    client
        .post(&format!("/bkt/k?uploadId={}", "0".repeat(32)), completion(&[(1, &one)]))
        .await
        .expect_error(404, "NoSuchUpload");
    client.post("/bkt/k?uploadId=nonsense", completion(&[(1, &one)])).await.expect_error(404, "NoSuchUpload");
}

#[tokio::test]
async fn an_uploads_checksum_is_that_of_its_parts() {
    let client = Client::with_bucket().await;
    let id = start(&client, "k", &[("x-amz-checksum-algorithm", "SHA256")]).await;
    let uri = format!("/bkt/k?partNumber=1&uploadId={id}");
    let body = part(5, 1000);
    let crc = format_checksum(&compute_checksum(ChecksumAlgorithm::Crc32, &body));
    client
        .call(Method::PUT, &uri)
        .header("x-amz-checksum-crc32", &crc)
        .body(body.clone())
        .send()
        .await
        .expect_error(400, "InvalidRequest");
    let sha = compute_checksum(ChecksumAlgorithm::Sha256, &body);
    let put = client
        .call(Method::PUT, &uri)
        .header("x-amz-checksum-sha256", &format_checksum(&sha))
        .body(body.clone())
        .send()
        .await
        .expect(200);
    let mut composite = compute_checksum(ChecksumAlgorithm::Sha256, &sha.value);
    (composite.kind, composite.part_count) = (ChecksumKind::Composite, 1);
    let xml = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{}</ETag><ChecksumSHA256>{}</ChecksumSHA256></Part></CompleteMultipartUpload>",
        put.header("etag"),
        format_checksum(&sha)
    );
    let bare = format_checksum(&composite).replace("-1", "");
    let done = client
        .call(Method::POST, &format!("/bkt/k?uploadId={id}"))
        .header("x-amz-checksum-sha256", &bare)
        .body(xml)
        .send()
        .await
        .expect(200);
    assert_eq!(
        (done.element("ChecksumSHA256"), done.element("ChecksumType")),
        (Some(format_checksum(&composite)), Some("COMPOSITE".into()))
    );
    let head = client.call(Method::HEAD, "/bkt/k").header("x-amz-checksum-mode", "ENABLED").send().await.expect(200);
    assert_eq!(
        (head.header("x-amz-checksum-sha256"), head.header("x-amz-checksum-type")),
        (&*format_checksum(&composite), "COMPOSITE")
    );
    for (algorithm, kind) in [("SHA1", "FULL_OBJECT"), ("CRC64NVME", "COMPOSITE"), ("MD4", "COMPOSITE")] {
        let call = client.call(Method::POST, "/bkt/x?uploads").header("x-amz-checksum-algorithm", algorithm);
        call.header("x-amz-checksum-type", kind).send().await.expect_error(400, "InvalidRequest");
    }
}

#[tokio::test]
async fn parts_may_declare_another_checksum_where_none_was_asked_for() {
    let client = Client::with_bucket().await;
    let id = start(&client, "k", &[]).await;
    let body = part(5, 1000);
    let crc = format_checksum(&compute_checksum(ChecksumAlgorithm::Crc32, &body));
    let put = |crc: &str| {
        client
            .call(Method::PUT, &format!("/bkt/k?partNumber=1&uploadId={id}"))
            .header("x-amz-checksum-crc32", crc)
            .body(body.clone())
            .send()
    };
    put("AAAAAA==").await.expect_error(400, "BadDigest");
    let reply = put(&crc).await.expect(200);
    // The checksum declared, by which the client knows the part, and not the one kept.
    assert_eq!((reply.header("x-amz-checksum-crc32"), reply.header("x-amz-checksum-crc64nvme")), (&*crc, ""));
    let etag = reply.header("etag").to_owned();
    let xml = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag><ChecksumCRC32>{crc}</ChecksumCRC32></Part></CompleteMultipartUpload>"
    );
    let done = client.post(&format!("/bkt/k?uploadId={id}"), xml).await.expect(200);
    assert!(done.element("ChecksumCRC64NVME").is_some());
}

#[tokio::test]
async fn a_part_declared_in_a_trailer_is_answered_with_its_checksum() {
    let client = Client::with_bucket().await;
    let id = start(&client, "k", &[]).await;
    let crc = format_checksum(&compute_checksum(ChecksumAlgorithm::Crc32, b"hello"));
    let frames = |_| {
        let trailers = [("x-amz-checksum-crc32", crc.as_str())];
        vec![ChunkSigner::frame_unsigned(b"hello"), ChunkSigner::finish_unsigned(&trailers)]
    };
    let put = client
        .call(Method::PUT, &format!("/bkt/k?partNumber=1&uploadId={id}"))
        .header("x-amz-decoded-content-length", "5")
        .header("x-amz-trailer", "x-amz-checksum-crc32");
    let reply = put.send_pieces(PayloadDeclaration::UnsignedTrailer, frames, Then::End).await.expect(200);
    assert_eq!(reply.header("x-amz-checksum-crc32"), crc);
    let none = upload(&client, "k", &id, 2, &part(1, 10)).await;
    let kept = format_checksum(&compute_checksum(ChecksumAlgorithm::Crc64Nvme, &part(1, 10)));
    assert_eq!(none.header("x-amz-checksum-crc64nvme"), kept);
}

#[tokio::test]
async fn a_composite_checksum_wants_that_of_each_part() {
    let client = Client::with_bucket().await;
    let body = part(5, 1000);
    let crc32 = format_checksum(&compute_checksum(ChecksumAlgorithm::Crc32, &body));
    let sha256 = format_checksum(&compute_checksum(ChecksumAlgorithm::Sha256, &body));
    let id = start(&client, "k", &[("x-amz-checksum-algorithm", "SHA256")]).await;
    let uri = format!("/bkt/k?partNumber=1&uploadId={id}");
    let reply = client.put(&uri, body.clone()).await.expect_error(400, "InvalidRequest");
    assert_eq!(
        reply.element("Message").as_deref(),
        Some("Checksum Type mismatch occurred, expected checksum Type: sha256, actual checksum Type: null")
    );
    let put = client.call(Method::PUT, &uri).header("x-amz-checksum-sha256", &sha256).body(body.clone()).send().await;
    let etag = put.expect(200).header("etag").to_owned();
    let line = |checksum: &str| {
        let part = format!("<Part><PartNumber>1</PartNumber><ETag>{etag}</ETag>{checksum}</Part>");
        format!("<CompleteMultipartUpload>{part}</CompleteMultipartUpload>")
    };
    let complete = |id: &str, checksum: &str| client.post(&format!("/bkt/k?uploadId={id}"), line(checksum));
    for checksum in [String::new(), format!("<ChecksumCRC32>{crc32}</ChecksumCRC32>")] {
        let reply = complete(&id, &checksum).await.expect_error(400, "InvalidRequest");
        assert_eq!(
            reply.element("Message").as_deref(),
            Some(
                "The upload was created using a sha256 checksum. The complete request must include the checksum for \
                 each part. It was missing for part 1 in the request."
            )
        );
    }
    let other = format_checksum(&compute_checksum(ChecksumAlgorithm::Sha256, b"other"));
    complete(&id, &format!("<ChecksumSHA256>{other}</ChecksumSHA256>")).await.expect_error(400, "InvalidPart");
    let right = format!("<ChecksumSHA256>{sha256}</ChecksumSHA256>");
    complete(&id, &right).await.expect(200);
    complete(&id, "").await.expect(200);

    // A full-object checksum needs neither, but what is said must be right.
    let whole = [("x-amz-checksum-algorithm", "CRC32"), ("x-amz-checksum-type", "FULL_OBJECT")];
    let id = start(&client, "k", &whole).await;
    let reply = client.put(&format!("/bkt/k?partNumber=1&uploadId={id}"), body.clone()).await.expect(200);
    assert_eq!(reply.header("x-amz-checksum-crc32"), crc32);
    complete(&id, &right).await.expect_error(400, "InvalidPart");
    let done = complete(&id, "").await.expect(200);
    assert_eq!(
        (done.element("ChecksumCRC32"), done.element("ChecksumType")),
        (Some(crc32), Some("FULL_OBJECT".to_owned()))
    );
}

#[tokio::test]
async fn parts_are_listed_replaced_and_aborted() {
    let client = Client::with_bucket().await;
    let whole = [("x-amz-checksum-algorithm", "CRC32C"), ("x-amz-checksum-type", "FULL_OBJECT")];
    let id = start(&client, "k", &whole).await;
    for (number, len) in [(1, 10), (2, 20), (5, 50), (2, 25)] {
        upload(&client, "k", &id, number, &part(9, len)).await;
    }
    let uri = format!("/bkt/k?uploadId={id}");
    let page = client.get(&format!("{uri}&max-parts=2")).await.expect(200);
    assert_eq!(
        (page.elements("PartNumber"), page.elements("Size")),
        (vec!["1".into(), "2".into()], vec!["10".into(), "25".into()])
    );
    assert_eq!(
        (page.element("NextPartNumberMarker").as_deref(), page.element("IsTruncated").as_deref()),
        (Some("2"), Some("true"))
    );
    assert_eq!(
        (page.element("ChecksumAlgorithm").as_deref(), page.elements("ChecksumCRC32C").len()),
        (Some("CRC32C"), 2)
    );
    let none = client.get(&format!("{uri}&max-parts=0")).await.expect(200);
    assert_eq!((none.elements("PartNumber").len(), none.element("IsTruncated").as_deref()), (0, Some("false")));
    let rest = client.get(&format!("{uri}&part-number-marker=2")).await.expect(200);
    assert_eq!(
        (rest.elements("PartNumber"), rest.element("IsTruncated").as_deref()),
        (vec!["5".to_owned()], Some("false"))
    );
    client.delete(&uri).await.expect(204);
    client.delete(&uri).await.expect_error(404, "NoSuchUpload");
    client.get(&uri).await.expect_error(404, "NoSuchUpload");
    client.put(&format!("{uri}&partNumber=1"), "x").await.expect_error(404, "NoSuchUpload");
    for id in ["nonsense", &id] {
        client.get(&format!("/nowhere/k?uploadId={id}")).await.expect_error(404, "NoSuchBucket");
        client.delete(&format!("/nowhere/k?uploadId={id}")).await.expect_error(404, "NoSuchBucket");
        client.put(&format!("/nowhere/k?uploadId={id}&partNumber=1"), "x").await.expect_error(404, "NoSuchBucket");
        client
            .post(&format!("/nowhere/k?uploadId={id}"), completion(&[(1, "x")]))
            .await
            .expect_error(404, "NoSuchBucket");
        client.get(&format!("/bkt/k?uploadId={id}")).await.expect_error(404, "NoSuchUpload");
    }
    for number in ["0", "10001", "x", ""] {
        client.put(&format!("{uri}&partNumber={number}"), "x").await.expect_error(400, "InvalidArgument");
    }
}

#[tokio::test]
async fn open_uploads_are_listed_in_pages() {
    let client = Client::with_bucket().await;
    let mut ids = Vec::new();
    for key in ["a", "b/1", "b/2", "c", "c"] {
        ids.push(start(&client, key, &[]).await);
    }
    let mut seen = Vec::new();
    let mut query = String::new();
    loop {
        let reply = client.get(&format!("/bkt?uploads&max-uploads=1{query}")).await.expect(200);
        seen.extend(reply.elements("UploadId"));
        if reply.element("IsTruncated").as_deref() == Some("false") {
            break;
        }
        let (key, id) = (reply.element("NextKeyMarker").unwrap(), reply.element("NextUploadIdMarker").unwrap());
        query = format!("&key-marker={}&upload-id-marker={id}", key.replace('/', "%2F"));
    }
    assert_eq!(seen, ids);
    let rolled = client.get("/bkt?uploads&delimiter=%2F").await.expect(200);
    assert_eq!(rolled.elements("UploadId"), [&*ids[0], &ids[3], &ids[4]]);
    assert_eq!(rolled.elements("CommonPrefixes"), ["<Prefix>b/</Prefix>"]);
    client.get("/bkt?uploads&key-marker=a&upload-id-marker=x").await.expect_error(400, "InvalidArgument");
}

#[tokio::test]
async fn parts_are_copied_from_objects() {
    let client = Client::with_bucket().await;
    let source: Bytes = (0..8000_u32).map(|n| (n % 251) as u8).collect::<Vec<_>>().into();
    client.put("/bkt/src", source.clone()).await.expect(200);
    let id = start(&client, "k", &[]).await;
    let copy = |range: &str| {
        let call = client
            .call(Method::PUT, &format!("/bkt/k?partNumber=1&uploadId={id}"))
            .header("x-amz-copy-source", "bkt/src");
        if range.is_empty() { call } else { call.header("x-amz-copy-source-range", range) }
    };
    for (range, message) in [
        ("bytes=0-8000", "Range specified is not valid for source object of size: 8000"),
        ("bytes=5-1", "The x-amz-copy-source-range value must be of the form bytes=first-last"),
        ("5-10", "The x-amz-copy-source-range value must be of the form bytes=first-last"),
    ] {
        let reply = copy(range).send().await.expect_error(400, "InvalidArgument");
        assert!(reply.element("Message").unwrap().starts_with(message), "{reply:?}");
    }
    copy("").header("x-amz-copy-source-if-match", "\"0\"").send().await.expect_error(412, "PreconditionFailed");
    assert!(copy("").send().await.expect(200).text().contains("<CopyPartResult"));
    let etag = copy("bytes=100-4099").send().await.expect(200).element("ETag").unwrap();
    client.post(&format!("/bkt/k?uploadId={id}"), completion(&[(1, &etag)])).await.expect(200);
    assert_eq!(client.get("/bkt/k").await.expect(200).body, source.slice(100..4100));
}
