//! The whole chain (client, workload, recorder, checker, promises) against a small server whose defects are known: the
//! sound one must be accepted, each defect must be noticed.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::client::Credentials;
use crate::harness::until;
use crate::history::Operation;
use crate::linearizability::{self, Verdict};

/// What the server gets wrong now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defect {
    None,
    StaleReads,
    LostWrites,
    IgnoredConditions,
    Resurrection,
    ShortBodies,
}

struct Server {
    defect: Defect,
    rng: Mutex<StdRng>,
    objects: Mutex<BTreeMap<String, Bytes>>,
    /// The last body each key had before the present one.
    former: Mutex<BTreeMap<String, Bytes>>,
}

impl Server {
    fn chance(&self, one_in: u32) -> bool {
        self.rng.lock().unwrap().random_ratio(1, one_in)
    }

    async fn dawdle(&self) {
        let delay = self.rng.lock().unwrap().random_range(0..3_000);
        sleep(Duration::from_micros(delay)).await;
    }

    async fn serve(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Unanswered> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| Unanswered)?.to_bytes();
        self.dawdle().await;
        // Half of the unanswered requests take effect, half do not.
        if self.chance(80) {
            return Err(Unanswered);
        }
        let answer = self.apply(&head, body);
        self.dawdle().await;
        if self.chance(80) { Err(Unanswered) } else { Ok(answer) }
    }

    fn apply(&self, head: &http::request::Parts, body: Bytes) -> Response<Full<Bytes>> {
        let key = head.uri.path().to_owned();
        let has_defect = |defect| self.defect == defect && self.chance(20);
        let mut objects = self.objects.lock().unwrap();
        let mut former = self.former.lock().unwrap();
        match head.method {
            Method::PUT => {
                let is_refused = match (head.headers.get("if-none-match"), head.headers.get("if-match")) {
                    (Some(_), _) => objects.contains_key(&key),
                    (_, Some(etag)) => objects.get(&key).map(|body| etag_of(body)).as_deref() != etag.to_str().ok(),
                    _ => false,
                };
                if is_refused && !has_defect(Defect::IgnoredConditions) {
                    return answer(412, "<Error><Code>PreconditionFailed</Code></Error>");
                }
                if !has_defect(Defect::LostWrites)
                    && let Some(old) = objects.insert(key.clone(), body)
                {
                    former.insert(key, old);
                }
                answer(200, "")
            }
            Method::DELETE => {
                let old = objects.remove(&key);
                if has_defect(Defect::Resurrection)
                    && let Some(old) = former.get(&key)
                {
                    objects.insert(key.clone(), old.clone());
                }
                old.and_then(|old| former.insert(key, old));
                answer(204, "")
            }
            _ => {
                let stale = if has_defect(Defect::StaleReads) { former.get(&key) } else { None };
                match stale.or_else(|| objects.get(&key)) {
                    Some(body) if has_defect(Defect::ShortBodies) => answer(200, body.slice(..body.len() / 2)),
                    Some(body) => answer(200, body.clone()),
                    None => answer(404, "<Error><Code>NoSuchKey</Code></Error>"),
                }
            }
        }
    }
}

fn answer(status: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

#[derive(Debug, thiserror::Error)]
#[error("unanswered")]
struct Unanswered;

/// Serves until dropped; the endpoint.
async fn serve(defect: Defect, seed: u64, tasks: &mut JoinSet<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = Arc::new(Server {
        defect,
        rng: Mutex::new(StdRng::seed_from_u64(seed)),
        objects: Mutex::default(),
        former: Mutex::default(),
    });
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let server = Arc::clone(&server);
            connections.spawn(async move {
                let service = service_fn(move |request| {
                    let server = Arc::clone(&server);
                    async move { server.serve(request).await }
                });
                // An unanswered request ends its connection; that is its purpose.
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await
                    .unwrap_or_default();
                Ok::<(), Infallible>(())
            });
        }
    });
    endpoint
}

fn client(endpoint: &str) -> Client {
    Client::new(endpoint, &Credentials { access_key: "a".to_owned(), secret_key: "s".to_owned() }, "us-east-1")
}

/// A history of 12 clients on 4 keys, and the answers that were wrong by themselves.
async fn record(defect: Defect, seed: u64) -> (Vec<Operation>, Vec<String>) {
    let mut server = JoinSet::new();
    let endpoint = serve(defect, seed, &mut server).await;
    let (recorder, wrong, stop) = (Recorder::new(), Arc::<Mutex<Vec<String>>>::default(), CancellationToken::new());
    let mut clients = JoinSet::new();
    for number in 0..12 {
        let mixer = Mixer {
            client: number,
            nodes: vec![client(&endpoint)],
            bucket: "b".to_owned(),
            key_count: 4,
            recorder: recorder.clone(),
            seed: seed + u64::from(number),
            wrong: Arc::clone(&wrong),
        };
        clients.spawn(mixer.run(stop.clone()));
    }
    let enough = || async {
        let count = recorder.operations().len();
        if count >= 2_500 { Ok(()) } else { Err(format!("{count} operations")) }
    };
    until(Duration::from_secs(120), "a long history", enough).await.unwrap();
    stop.cancel();
    while clients.join_next().await.is_some() {}
    let wrong = wrong.lock().unwrap().clone();
    (recorder.operations(), wrong)
}

#[tokio::test]
async fn a_sound_server_that_loses_answers_is_accepted() {
    let (operations, wrong) = record(Defect::None, 1).await;
    let unknown = operations.iter().filter(|operation| operation.outcome == Outcome::Unknown).count();
    assert!(unknown > 20, "only {unknown} unknown outcomes: the test is too tame");
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(linearizability::check(&operations), Ok(()));
}

#[tokio::test]
async fn every_defect_of_a_server_is_noticed() {
    for defect in [Defect::StaleReads, Defect::LostWrites, Defect::IgnoredConditions, Defect::Resurrection] {
        let (operations, wrong) = record(defect, 2).await;
        assert_eq!(wrong, Vec::<String>::new(), "{defect:?}");
        let judged = linearizability::check(&operations);
        assert!(matches!(judged, Err((_, Verdict::Violation(_)))), "{defect:?}: {judged:?}");
    }
    let (_, wrong) = record(Defect::ShortBodies, 3).await;
    assert!(!wrong.is_empty(), "short bodies were not noticed");
}

/// Writes for a while, then checks the promises.
async fn keep_promises(defect: Defect) -> Result<usize, String> {
    let mut server = JoinSet::new();
    let endpoint = serve(defect, 4, &mut server).await;
    let (promises, stop) = (Arc::<Mutex<Promises>>::default(), CancellationToken::new());
    let mut writers = JoinSet::new();
    for number in 0..6 {
        let writer = Writer {
            client: number,
            nodes: vec![client(&endpoint)],
            bucket: "b".to_owned(),
            len: 16..5_000,
            seed: u64::from(number),
            promises: Arc::clone(&promises),
        };
        writers.spawn(writer.run(stop.clone()));
    }
    let enough = || async {
        let count = promises.lock().unwrap().len();
        if count >= 200 { Ok(()) } else { Err(format!("{count} promises")) }
    };
    until(Duration::from_secs(120), "many promises", enough).await.unwrap();
    stop.cancel();
    while writers.join_next().await.is_some() {}
    let promises = promises.lock().unwrap().clone();
    let mut attempts = Vec::new();
    // Answers that are lost say nothing of the promise: ask until each key has answered.
    for (key, promise) in &promises {
        let one = BTreeMap::from([(key.clone(), promise.clone())]);
        let mut checked = check_promises(&client(&endpoint), "b", &one, 1).await;
        while checked.as_ref().is_err_and(|error| error.contains("broken off")) {
            checked = check_promises(&client(&endpoint), "b", &one, 1).await;
        }
        attempts.push(checked);
    }
    attempts.into_iter().sum()
}

#[tokio::test]
async fn kept_promises_are_believed_and_broken_ones_are_not() {
    assert!(keep_promises(Defect::None).await.is_ok_and(|kept| kept >= 200));
    for defect in [Defect::LostWrites, Defect::ShortBodies] {
        let broken = keep_promises(defect).await;
        assert!(broken.as_ref().is_err_and(|error| error.contains("promises broken")), "{defect:?}: {broken:?}");
    }
}
