//! Buckets, and the configurations they do not have.

use bytes::Bytes;
use drystone_s3gw::GatewayConfig;
use http::{Method, Request};
use http_body_util::Full;

use crate::client::{ACCESS_KEY, Client, SECRET};
use crate::memory::MemoryStore;

#[tokio::test]
async fn buckets_are_made_found_listed_and_removed() {
    let client = Client::new();
    assert_eq!(client.put("/one", "").await.expect(200).header("location"), "/one");
    client.put("/one", "").await.expect_error(409, "BucketAlreadyOwnedByYou");
    client.put("/two.x", "").await.expect(200);
    assert_eq!(client.head("/one").await.expect(200).header("x-amz-bucket-region"), "us-east-1");
    let list = client.get("/").await.expect(200);
    assert!(list.text().contains("<ListAllMyBucketsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"));
    assert_eq!(list.elements("Name"), ["one", "two.x"]);
    assert_eq!(list.elements("CreationDate"), ["2026-01-02T03:04:05.000Z"; 2]);
    assert_eq!(client.get("/?prefix=two").await.expect(200).elements("Name"), ["two.x"]);
    let page = client.get("/?max-buckets=1").await.expect(200);
    assert_eq!((page.elements("Name"), page.element("ContinuationToken")), (vec!["one".into()], Some("one".into())));
    let rest = client.get("/?max-buckets=1&continuation-token=one").await.expect(200);
    assert_eq!((rest.elements("Name"), rest.element("ContinuationToken")), (vec!["two.x".into()], None));
    client.put("/one/key", "x").await.expect(200);
    client.delete("/one").await.expect_error(409, "BucketNotEmpty");
    client.delete("/one/key").await.expect(204);
    client.delete("/one").await.expect(204);
    client.delete("/one").await.expect_error(404, "NoSuchBucket");
    let gone = client.head("/one").await.expect(404);
    assert!(gone.body.is_empty(), "answers to HEAD have no body");
}

#[tokio::test]
async fn a_bucket_lies_in_this_region_or_nowhere() {
    let body = |region: &str| {
        format!(
            "<CreateBucketConfiguration><LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>"
        )
    };
    let client = Client::new();
    client.put("/bkt", body("eu-west-1")).await.expect_error(400, "InvalidLocationConstraint");
    client.put("/bkt", body("us-east-1")).await.expect(200);
    let location = client.get("/bkt?location").await.expect(200);
    assert!(
        location
            .text()
            .ends_with("<LocationConstraint xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"></LocationConstraint>")
    );
    client.put("/other", "<oops").await.expect_error(400, "MalformedXML");
    client.head("/other").await.expect(404);
    client.get("/nowhere?location").await.expect_error(404, "NoSuchBucket");
}

#[tokio::test]
async fn bucket_names_that_break_the_rules_are_refused() {
    let client = Client::new();
    for name in ["ab", "Upper", "under_score", "-dash", "192.168.0.1", "a..b", "xn--a", &"a".repeat(64)] {
        client.put(&format!("/{name}"), "").await.expect_error(400, "InvalidBucketName");
    }
    assert!(client.get("/").await.expect(200).elements("Name").is_empty());
}

#[tokio::test]
async fn a_host_names_the_bucket_in_virtual_host_style() {
    let config = GatewayConfig { domains: vec!["s3.test".to_owned()], ..GatewayConfig::default() };
    let client = Client::with(MemoryStore::with_key(ACCESS_KEY, SECRET), config);
    client.call(Method::PUT, "/").host("bkt.s3.test:9000").send().await.expect(200);
    client.call(Method::PUT, "/-/key").host("bkt.s3.test").body("x").send().await.expect(200);
    assert_eq!(client.store.objects("bkt")[0].0, "-/key");
    assert_eq!(client.call(Method::GET, "/bkt/-/key").host("s3.test").send().await.expect(200).text(), "x");
}

#[tokio::test]
async fn configurations_that_were_never_made_read_as_aws_says() {
    let client = Client::with_bucket().await;
    client.put("/bkt/key", "x").await.expect(200);
    for (query, code) in [
        ("policy", "NoSuchBucketPolicy"),
        ("tagging", "NoSuchTagSet"),
        ("cors", "NoSuchCORSConfiguration"),
        ("lifecycle", "NoSuchLifecycleConfiguration"),
        ("encryption", "ServerSideEncryptionConfigurationNotFoundError"),
        ("website", "NoSuchWebsiteConfiguration"),
        ("replication", "ReplicationConfigurationNotFoundError"),
        ("object-lock", "ObjectLockConfigurationNotFoundError"),
        ("publicAccessBlock", "NoSuchPublicAccessBlockConfiguration"),
        ("ownershipControls", "OwnershipControlsNotFoundError"),
        ("inventory&id=x", "NoSuchConfiguration"),
    ] {
        client.get(&format!("/bkt?{query}")).await.expect_error(404, code);
        client.get(&format!("/nowhere?{query}")).await.expect_error(404, "NoSuchBucket");
    }
    let xmlns = "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"";
    for (query, root) in [("versioning", "VersioningConfiguration"), ("logging", "BucketLoggingStatus")] {
        let reply = client.get(&format!("/bkt?{query}")).await.expect(200);
        assert!(reply.text().ends_with(&format!("<{root} {xmlns}></{root}>")), "{}", reply.text());
    }
    for uri in ["/bkt?acl", "/bkt/key?acl"] {
        assert_eq!(client.get(uri).await.expect(200).element("Permission").as_deref(), Some("FULL_CONTROL"));
    }
    assert!(client.get("/bkt/key?tagging").await.expect(200).text().contains("<TagSet></TagSet>"));
    client.get("/bkt/none?tagging").await.expect_error(404, "NoSuchKey");
    client.get("/bkt/key?retention").await.expect_error(400, "InvalidRequest");
}

#[tokio::test]
async fn what_is_not_served_is_refused_by_name() {
    let client = Client::with_bucket().await;
    for (method, uri, name) in [
        (Method::PUT, "/bkt?versioning", "PutBucketVersioning"),
        (Method::PUT, "/bkt?policy", "PutBucketPolicy"),
        (Method::DELETE, "/bkt?lifecycle", "DeleteBucketLifecycle"),
        (Method::PUT, "/bkt/key?tagging", "PutObjectTagging"),
        (Method::PUT, "/bkt/key?acl", "PutObjectAcl"),
        (Method::POST, "/bkt/key?select&select-type=2", "SelectObjectContent"),
        (Method::POST, "/bkt/key?restore", "RestoreObject"),
        (Method::GET, "/bkt/key?torrent", "GetObjectTorrent"),
    ] {
        let reply = client.call(method, uri).send().await.expect_error(501, "NotImplemented");
        assert_eq!(reply.element("Message"), Some(format!("{name} is not implemented.")));
    }
    client.call(Method::PATCH, "/bkt/key").send().await.expect_error(405, "MethodNotAllowed");
    client.call(Method::OPTIONS, "/bkt/key").send().await.expect_error(400, "BadRequest");
    let preflight = client.call(Method::OPTIONS, "/bkt/key").header("origin", "https://example.com").send().await;
    preflight.expect_error(403, "AccessForbidden");
    client.head("/bkt").await.expect(200);
}

#[tokio::test]
async fn what_comes_without_a_signature_of_its_own_is_refused_by_name() {
    let client = Client::with_bucket().await;
    for (uri, kind, name) in [
        ("/bkt", "multipart/form-data; boundary=x", "PostObject"),
        ("/WriteGetObjectResponse", "application/octet-stream", "WriteGetObjectResponse"),
    ] {
        let form = "--x\r\ncontent-disposition: form-data; name=\"key\"\r\n\r\nk\r\n--x--\r\n";
        let request = Request::post(uri).header("host", "h").header("content-type", kind);
        let reply = client.serve(request.body(Full::new(Bytes::from(form))).unwrap()).await;
        let reply = reply.expect_error(501, "NotImplemented");
        assert_eq!(reply.element("Message"), Some(format!("{name} is not implemented.")));
    }
    assert_eq!(client.store.objects("bkt"), []);
}

#[tokio::test]
async fn a_method_that_a_sub_resource_does_not_have_touches_nothing() {
    let client = Client::with_bucket().await;
    client.put("/bkt/key", "hello").await.expect(200);
    for (method, uri, allow) in [
        (Method::DELETE, "/bkt/key?acl", "GET, PUT"),
        (Method::DELETE, "/bkt/key?uploads", "POST, GET"),
        (Method::PUT, "/bkt/key?attributes", "GET"),
        (Method::PUT, "/bkt/key?uploadId=x", "DELETE, POST, GET"),
        (Method::GET, "/bkt/key?restore", "POST"),
        (Method::PUT, "/fresh?location", "GET"),
        (Method::PATCH, "/bkt/key", "DELETE, GET, PUT, HEAD"),
    ] {
        let reply = client.call(method, uri).send().await.expect_error(405, "MethodNotAllowed");
        assert_eq!(reply.header("allow"), allow, "{uri}");
    }
    assert_eq!(client.head("/bkt/key?tagging").await.expect(405).header("allow"), "DELETE, GET, PUT");
    let part = client.put("/bkt/key?partNumber=1", "x").await.expect_error(400, "InvalidArgument");
    assert_eq!(part.element("Message").as_deref(), Some("This operation does not accept partNumber without uploadId"));
    assert_eq!(client.store.objects("bkt"), [("key".to_owned(), "hello".into())]);
    client.head("/fresh").await.expect(404);
    client.put("/empty", "").await.expect(200);
    client.delete("/empty?versioning").await.expect_error(405, "MethodNotAllowed");
    client.head("/empty").await.expect(200);
}

#[tokio::test]
async fn requests_are_counted_by_operation_and_status() {
    let client = Client::with_bucket().await;
    client.put("/bkt/key", "12345").await.expect(200);
    client.get("/bkt/key").await.expect(200);
    client.get("/bkt/none").await.expect_error(404, "NoSuchKey");
    let families = client.registry.gather();
    let count = |name: &str, labels: &[(&str, &str)]| -> f64 {
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let found = family.get_metric().iter().find(|metric| {
            labels.iter().all(|(name, value)| {
                metric.get_label().iter().any(|label| label.name() == *name && label.value() == *value)
            })
        });
        found.map_or(0.0, |metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
    };
    let requests = "drystone_s3_requests_total";
    assert_eq!(count(requests, &[("operation", "GetObject"), ("status", "2xx")]), 1.0);
    assert_eq!(count(requests, &[("operation", "GetObject"), ("status", "4xx")]), 1.0);
    assert_eq!(count(requests, &[("operation", "PutObject"), ("status", "2xx")]), 1.0);
    assert_eq!(count("drystone_s3_received_bytes_total", &[]), 5.0);
    assert!(count("drystone_s3_sent_bytes_total", &[]) > 5.0);
    assert_eq!(count("drystone_s3_requests_inflight", &[]), 0.0);
}
