//! Listings.

use crate::client::{Client, Reply};

async fn with_keys(keys: &[&str]) -> Client {
    let client = Client::with_bucket().await;
    for key in keys {
        client.put(&format!("/bkt/{key}"), "x").await.expect(200);
    }
    client
}

fn shape(reply: &Reply) -> (Vec<String>, Vec<String>, bool) {
    let prefixes = reply
        .elements("CommonPrefixes")
        .iter()
        .map(|text| text.replace("<Prefix>", "").replace("</Prefix>", ""))
        .collect();
    (reply.elements("Key"), prefixes, reply.element("IsTruncated").as_deref() == Some("true"))
}

#[tokio::test]
async fn a_page_has_aws_s_elements() {
    let client = with_keys(&["a", "b/c"]).await;
    let reply = client.get("/bkt?list-type=2&delimiter=/&fetch-owner=true&start-after=A").await.expect(200);
    assert_eq!(
        reply.text(),
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
         <Name>bkt</Name><Prefix></Prefix><MaxKeys>1000</MaxKeys><Delimiter>/</Delimiter><IsTruncated>false</IsTruncated>\
         <KeyCount>2</KeyCount><StartAfter>A</StartAfter><Contents><Key>a</Key>\
         <LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>&quot;9dd4e461268c8034f5c8564e155c67a6&quot;</ETag>\
         <ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType><Size>1</Size>\
         <Owner><ID>drystone</ID><DisplayName>drystone</DisplayName></Owner><StorageClass>STANDARD</StorageClass>\
         </Contents><CommonPrefixes><Prefix>b/</Prefix></CommonPrefixes></ListBucketResult>"
    );
}

#[tokio::test]
async fn pages_follow_each_other_without_gaps_or_repeats() {
    let client = with_keys(&["a", "b/1", "b/2", "b/3", "c", "d/1", "e"]).await;
    for (delimiter, expected) in
        [("", vec!["a", "b/1", "b/2", "b/3", "c", "d/1", "e"]), ("&delimiter=%2F", vec!["a", "b/", "c", "d/", "e"])]
    {
        for size in 1..=7 {
            let (mut v2, mut token) = (Vec::new(), String::new());
            loop {
                let uri = format!("/bkt?list-type=2&max-keys={size}{delimiter}{token}");
                let reply = client.get(&uri).await.expect(200);
                let (keys, prefixes, truncated) = shape(&reply);
                assert!(keys.len() + prefixes.len() <= size);
                v2.extend(keys.into_iter().chain(prefixes));
                if !truncated {
                    assert_eq!(reply.element("NextContinuationToken"), None);
                    break;
                }
                token = format!("&continuation-token={}", reply.element("NextContinuationToken").unwrap());
            }
            let (mut v1, mut marker) = (Vec::new(), String::new());
            loop {
                let reply = client.get(&format!("/bkt?max-keys={size}{delimiter}{marker}")).await.expect(200);
                let (keys, prefixes, truncated) = shape(&reply);
                v1.extend(keys.into_iter().chain(prefixes));
                if !truncated {
                    break;
                }
                // S3 gives a marker only with a delimiter; else clients take the last key.
                let next = reply.element("NextMarker");
                assert_eq!(next.is_some(), !delimiter.is_empty());
                let next = next.unwrap_or_else(|| v1.last().cloned().unwrap());
                marker = format!("&marker={}", next.replace('/', "%2F"));
            }
            // Within a page objects come before prefixes.
            v1.sort_unstable();
            v2.sort_unstable();
            assert_eq!((&v1, &v2), (&expected.iter().map(ToString::to_string).collect(), &v1), "{size}{delimiter}");
        }
    }
}

#[tokio::test]
async fn prefix_delimiter_and_start_narrow_a_listing() {
    let client = with_keys(&["logs/2025/a", "logs/2025/b", "logs/2026/a", "logs/x", "z"]).await;
    for (query, keys, prefixes) in [
        ("prefix=logs%2F&delimiter=%2F", vec!["logs/x"], vec!["logs/2025/", "logs/2026/"]),
        ("prefix=logs%2F2025", vec!["logs/2025/a", "logs/2025/b"], vec![]),
        ("prefix=logs&delimiter=2025", vec!["logs/2026/a", "logs/x"], vec!["logs/2025"]),
        ("delimiter=", vec!["logs/2025/a", "logs/2025/b", "logs/2026/a", "logs/x", "z"], vec![]),
        ("list-type=2&start-after=logs%2F2026%2Fa", vec!["logs/x", "z"], vec![]),
        ("marker=logs%2Fx", vec!["z"], vec![]),
        ("prefix=none", vec![], vec![]),
    ] {
        let reply = client.get(&format!("/bkt?{query}")).await.expect(200);
        let owned = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(shape(&reply), (owned(keys), owned(prefixes), false), "{query}");
    }
}

#[tokio::test]
async fn url_encoding_carries_keys_that_xml_cannot() {
    let client = with_keys(&["a%01b", "a%20%2B%26", "d%C3%BC/x"]).await;
    let reply = client.get("/bkt?encoding-type=url&delimiter=%2F").await.expect(200);
    assert_eq!(shape(&reply), (vec!["a%01b".into(), "a%20%2B%26".into()], vec!["d%C3%BC/".into()], false));
    assert_eq!(reply.element("EncodingType").as_deref(), Some("url"));
    let reply = client.get("/bkt?prefix=a").await.expect(200);
    assert_eq!(reply.elements("Key"), ["a&#x1;b", "a +&amp;"]);
}

#[tokio::test]
async fn page_sizes_are_bounded_and_checked() {
    let client = with_keys(&["a", "b"]).await;
    for (query, max_keys) in [("max-keys=0", "0"), ("max-keys=5000", "1000"), ("max-keys=", "1000")] {
        let reply = client.get(&format!("/bkt?{query}")).await.expect(200);
        assert_eq!(reply.element("MaxKeys").as_deref(), Some(max_keys));
        assert_eq!(reply.elements("Key").len(), if max_keys == "0" { 0 } else { 2 });
        assert_eq!(reply.element("IsTruncated").as_deref(), Some("false"));
    }
    for query in [
        "max-keys=-1",
        "max-keys=x",
        "max-keys=99999999999",
        "encoding-type=x",
        "list-type=2&continuation-token=%21",
        "list-type=2&continuation-token=",
    ] {
        client.get(&format!("/bkt?{query}")).await.expect_error(400, "InvalidArgument");
    }
    client.get("/nowhere?list-type=2").await.expect_error(404, "NoSuchBucket");
    client.get("/nowhere?max-keys=0").await.expect_error(404, "NoSuchBucket");
}

#[tokio::test]
async fn versions_of_an_unversioned_bucket_are_null_and_latest() {
    let client = with_keys(&["a", "b/c", "d"]).await;
    let reply = client.get("/bkt?versions&delimiter=%2F&max-keys=2").await.expect(200);
    assert_eq!(
        (reply.elements("VersionId"), reply.elements("IsLatest")),
        (vec!["null".to_owned()], vec!["true".to_owned()])
    );
    assert_eq!(shape(&reply), (vec!["a".into()], vec!["b/".into()], true));
    assert_eq!((reply.element("NextKeyMarker").as_deref(), reply.element("NextVersionIdMarker")), (Some("b/"), None));
    let rest = client.get("/bkt?versions&delimiter=%2F&key-marker=b%2F").await.expect(200);
    assert_eq!(shape(&rest), (vec!["d".into()], vec![], false));
    client.get("/bkt?versions&version-id-marker=x").await.expect_error(400, "InvalidArgument");
    client.get("/bkt?versions&key-marker=a&version-id-marker=x").await.expect_error(400, "InvalidArgument");
    let after = client.get("/bkt?versions&key-marker=b%2Fc&version-id-marker=null").await.expect(200);
    assert_eq!(shape(&after), (vec!["d".into()], vec![], false));
}
