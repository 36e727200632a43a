//! The gateway under hyper, over a pipe in memory: what only the HTTP layer can show.

use bytes::Bytes;
use drystone_s3gw::sig::PayloadDeclaration;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use crate::client::{Client, NOW_MS, credentials};

/// A connection to the gateway. Both ends' drivers stop when the sender is dropped.
async fn connect(client: &Client) -> SendRequest<Full<Bytes>> {
    let (near, far) = tokio::io::duplex(4096);
    let gateway = client.gateway.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let gateway = gateway.clone();
        async move { Ok::<_, std::convert::Infallible>(gateway.serve(request).await) }
    });
    // The tasks end with the connection, which ends with the test.
    drop(tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service)));
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await.unwrap();
    drop(tokio::spawn(connection));
    sender
}

fn request(client: &Client, method: Method, uri: &str, body: &'static [u8]) -> Request<Full<Bytes>> {
    let (head, _) = client.call(method, uri).signed(&credentials(), PayloadDeclaration::of(body), NOW_MS);
    Request::from_parts(head, Full::new(Bytes::from_static(body)))
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> (Response<()>, Result<Bytes, hyper::Error>) {
    sender.ready().await.unwrap();
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes);
    (Response::from_parts(head, ()), body)
}

#[tokio::test]
async fn one_connection_carries_puts_gets_heads_and_errors() {
    let client = Client::with_bucket().await;
    client.put("/bkt/big", vec![7; 100_000]).await.expect(200);
    let mut sender = connect(&client).await;
    let (put, _) = exchange(&mut sender, request(&client, Method::PUT, "/bkt/k", b"hello")).await;
    assert_eq!(put.status(), 200);
    let (get, body) = exchange(&mut sender, request(&client, Method::GET, "/bkt/k", b"")).await;
    assert_eq!((get.status().as_u16(), &body.unwrap()[..]), (200, &b"hello"[..]));
    let (head, body) = exchange(&mut sender, request(&client, Method::HEAD, "/bkt/big", b"")).await;
    assert_eq!((head.status().as_u16(), head.headers()["content-length"].to_str().unwrap()), (200, "100000"));
    assert!(body.unwrap().is_empty());
    let (get, body) = exchange(&mut sender, request(&client, Method::GET, "/bkt/big", b"")).await;
    assert_eq!(
        (&get.headers()["content-length"], body.unwrap()),
        (&"100000".parse().unwrap(), Bytes::from(vec![7; 100_000]))
    );
    let (missing, body) = exchange(&mut sender, request(&client, Method::GET, "/bkt/none", b"")).await;
    assert_eq!(missing.status(), 404);
    assert!(body.unwrap().starts_with(b"<?xml"));
    let (missing, body) = exchange(&mut sender, request(&client, Method::HEAD, "/bkt/none", b"")).await;
    assert_eq!((missing.status().as_u16(), body.unwrap().len()), (404, 0));
    let (deleted, _) = exchange(&mut sender, request(&client, Method::DELETE, "/bkt/k", b"")).await;
    assert_eq!(deleted.status(), 204);
}

#[tokio::test]
async fn a_refused_upload_is_read_off_so_that_the_connection_lives() {
    let client = Client::with_bucket().await;
    let mut sender = connect(&client).await;
    static BODY: [u8; 200_000] = [1; 200_000];
    let (refused, body) = exchange(&mut sender, request(&client, Method::PUT, "/nowhere/k", &BODY)).await;
    assert_eq!(refused.status(), 404);
    assert!(String::from_utf8(body.unwrap().to_vec()).unwrap().contains("NoSuchBucket"));
    let (next, _) = exchange(&mut sender, request(&client, Method::PUT, "/bkt/k", b"x")).await;
    assert_eq!(next.status(), 200);
}

#[tokio::test]
async fn a_read_that_fails_breaks_the_transfer() {
    let client = Client::with_bucket().await;
    client.put("/bkt/k", vec![1; 50_000]).await.expect(200);
    client.store.fail_reads_after(Some(20_000));
    let mut sender = connect(&client).await;
    let (get, body) = exchange(&mut sender, request(&client, Method::GET, "/bkt/k", b"")).await;
    assert_eq!(get.status(), 200);
    assert!(body.is_err(), "a client must notice");
}
