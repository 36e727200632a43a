//! A node around a store in memory: its endpoints, its start, its stop.

use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use http::{Method, StatusCode};

use super::*;
use crate::bench::client::{Call, ClientOptions, Payload, S3Client};
use crate::testing::{FakeAssembly, config, credentials};

async fn start(assembly: &FakeAssembly, dir: &Path) -> (RunningNode, S3Client) {
    let node = RunningNode::start("t", &config(dir, ""), assembly).await.unwrap();
    let client =
        S3Client::new(node.s3_address().into(), Some(credentials()), SystemTime::now, ClientOptions::default());
    (node, client)
}

async fn get(client: &S3Client, path: &str) -> (StatusCode, String) {
    let mut answer = client.send(Call::new(Method::GET, path).anonymous()).await.unwrap();
    let body = answer.bytes().await.unwrap();
    (answer.status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn the_operators_endpoints_say_what_the_node_says() {
    let (assembly, dir) = (FakeAssembly::default(), tempfile::tempdir().unwrap());
    let (node, client) = start(&assembly, dir.path()).await;
    assert_eq!(get(&client, "/-/live").await, (StatusCode::OK, "alive\n".into()));
    assert_eq!(get(&client, "/-/ready").await, (StatusCode::OK, "ready\n".into()));
    assembly.s3.faults.not_ready.store(true, Relaxed);
    let (status, reason) = get(&client, "/-/ready").await;
    assert_eq!((status, &*reason), (StatusCode::SERVICE_UNAVAILABLE, "not ready: no quorum for control\n"));
    let (_, health) = get(&client, "/-/health").await;
    let health: crate::health::Health = serde_json::from_str(&health).unwrap();
    assert_eq!(health, crate::health::tests::example());
    let (_, metrics) = get(&client, "/-/metrics").await;
    assert!(metrics.contains("drystone_http_connections_accepted_total 1\n"), "{metrics}");
    assert_eq!(get(&client, "/-/nothing").await.0, StatusCode::NOT_FOUND);
    assert_eq!(node.stop().await, Stopped::Clean);
}

#[tokio::test]
async fn every_admin_request_must_be_signed() {
    let (assembly, dir) = (FakeAssembly::default(), tempfile::tempdir().unwrap());
    let (node, client) = start(&assembly, dir.path()).await;
    for path in ["/-/admin/v1/status", "/-/admin/v1/keys"] {
        assert_eq!(get(&client, path).await.0, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(client.send(Call::new(Method::GET, path)).await.unwrap().status, StatusCode::OK, "{path}");
    }
    let keys = |method, body: &str| {
        let call = Call::new(method, "/-/admin/v1/keys").body(Payload::bytes(body.to_owned()));
        let client = client.clone();
        async move { client.send(call).await.unwrap().status }
    };
    assert_eq!(keys(Method::POST, r#"{"access_key":"ABC","note":"n"}"#).await, StatusCode::CREATED);
    assert_eq!(keys(Method::POST, r#"{"access_key":"ABC"}"#).await, StatusCode::CONFLICT);
    for unusable in [r#"{"access_key":""}"#, r#"{"access_key":"a,b"}"#, r#"{"secret_key":"short"}"#] {
        assert_eq!(keys(Method::POST, unusable).await, StatusCode::BAD_REQUEST, "{unusable}");
    }
    assert_eq!(keys(Method::POST, r#"{"acess_key":"BCD"}"#).await, StatusCode::BAD_REQUEST);
    assert_eq!(keys(Method::POST, &"x".repeat(65 << 10)).await, StatusCode::BAD_REQUEST);
    let unsigned = Call::new(Method::POST, "/-/admin/v1/keys").anonymous().body(Payload::bytes("{}"));
    assert_eq!(client.send(unsigned).await.unwrap().status, StatusCode::FORBIDDEN);
    node.stop().await;
}

#[tokio::test]
async fn the_client_stores_reads_lists_and_deletes() {
    let (assembly, dir) = (FakeAssembly::default(), tempfile::tempdir().unwrap());
    let (node, client) = start(&assembly, dir.path()).await;
    let key = "a b/ü+~//.";
    client.create_bucket("b").await.unwrap();
    client.put("b", key, Payload::bytes("body")).await.unwrap();
    assert_eq!(client.get_bytes("b", key).await.unwrap(), "body");
    assert_eq!(client.list("b", "a", "", None).await.unwrap().keys, [key]);
    client.delete("b", key).await.unwrap();
    let gone = client.get_bytes("b", key).await.unwrap_err();
    assert_eq!((gone.label(), gone.status()), ("NoSuchKey".into(), Some(StatusCode::NOT_FOUND)));
    assert!(gone.to_string().contains("m & n"), "{gone}");

    let upload = client.create_upload("b", "big").await.unwrap();
    let mut parts = Vec::new();
    for number in [1, 2] {
        let body = Payload::bytes(format!("part {number};"));
        parts.push((number, client.upload_part("b", "big", &upload, number, body).await.unwrap()));
    }
    assert_eq!(client.complete_upload("b", "big", &upload, &parts).await.unwrap(), "\"whole\"");
    assert_eq!(client.get_bytes("b", "big").await.unwrap(), "part 1;part 2;");
    let (_, metrics) = get(&client, "/-/metrics").await;
    assert!(metrics.contains("connections_accepted_total 1\n"), "one connection serves all of it: {metrics}");
    node.stop().await;
}

#[tokio::test]
async fn a_state_directory_serves_one_process_and_is_free_after_a_stop() {
    let (assembly, dir) = (FakeAssembly::default(), tempfile::tempdir().unwrap());
    let (node, _) = start(&assembly, dir.path()).await;
    let second = RunningNode::start("t2", &config(dir.path(), ""), &assembly).await;
    assert!(matches!(second, Err(StartError::InUse { .. })));
    node.stop().await;
    start(&assembly, dir.path()).await.0.stop().await;
    let missing = RunningNode::start("t", &config(&dir.path().join("none"), ""), &assembly).await.err().unwrap();
    assert!(missing.to_string().contains("drystone cluster create"), "{missing}");
}

#[tokio::test]
async fn a_taken_port_is_said_with_its_key() {
    let (assembly, dir) = (FakeAssembly::default(), tempfile::tempdir().unwrap());
    let (node, _) = start(&assembly, dir.path()).await;
    let other = tempfile::tempdir().unwrap();
    let mut config = config(other.path(), "");
    config.s3.listen = node.s3_address();
    let taken = RunningNode::start("t2", &config, &assembly).await.err().unwrap();
    let expected = format!(
        "cannot listen on s3.listen = {} (TCP): Address already in use (os error 98); stop the process that has the port, or \
         choose another",
        node.s3_address()
    );
    assert_eq!(taken.to_string(), expected);
    node.stop().await;
}
