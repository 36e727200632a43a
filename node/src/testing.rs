//! What the crate's tests stand on: an assembly without a cluster, whose S3 keeps objects in memory and checks every
//! signature. Faults are asked for through [`Faults`].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode, request::Parts as Head};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use prometheus::Registry;
use tokio::sync::Semaphore;

use crate::assembly::{Assembly, AssemblyError, FoundedCluster, FoundingPlan, Parts};
use crate::bench::sign::{Credentials, Signable, Signer, sha256_hex};
use crate::config::{Config, Environment};
use crate::health::{Health, NotReady, tests::example};
use crate::http::{AccessKeySummary, Admin, AdminError, BoxBody, CreateKey, CreatedKey, NodeView, Service};
use crate::runtimes::Runtimes;
use crate::shutdown::Stages;

pub(crate) fn credentials() -> Credentials {
    let secret_key = "test-secret".to_owned().into();
    Credentials { access_key: "TESTKEY".into(), secret_key, region: "us-east-1".into() }
}

/// A configuration of a node in `dir` on a free port.
pub(crate) fn config(dir: &Path, more: &str) -> Config {
    let text = format!(
        "state_dir = {dir:?}\ndrives = [\"/unused\"]\nworkers = 2\n{more}\n[s3]\nlisten = \"127.0.0.1:0\"\n\
         domains = [\"s3.test\"]\n[shutdown]\ndeadline = \"5s\"\n"
    );
    Config::parse(Some(&text), &Environment::default()).unwrap()
}

#[derive(Default)]
pub(crate) struct Faults {
    /// Every so many-th PUT of an object answers 503 SlowDown.
    pub(crate) refuse_every: AtomicU64,
    /// DELETEs of objects answer 503 SlowDown.
    pub(crate) refuse_deletes: AtomicBool,
    /// GETs change a byte.
    pub(crate) corrupt: AtomicBool,
    /// The node is not ready.
    pub(crate) not_ready: AtomicBool,
}

/// S3 in memory. Keys of `objects` are decoded paths, `/bucket/key`.
pub(crate) struct FakeS3 {
    pub(crate) objects: Mutex<BTreeMap<String, Bytes>>,
    pub(crate) faults: Faults,
    /// A GET of `/hold` takes a permit before it answers; `held` counts those that wait.
    pub(crate) hold: Semaphore,
    pub(crate) held: tokio::sync::watch::Sender<usize>,
    puts: AtomicU64,
    signer: Signer,
}

impl Default for FakeS3 {
    fn default() -> Self {
        Self {
            objects: Mutex::default(),
            faults: Faults::default(),
            hold: Semaphore::new(0),
            held: tokio::sync::watch::Sender::new(0),
            puts: AtomicU64::new(0),
            signer: Signer::new(credentials()),
        }
    }
}

impl FakeS3 {
    /// Recomputes the signature over what actually arrived.
    fn is_signed(&self, head: &Head, body: &[u8]) -> bool {
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let names = header("authorization").split("SignedHeaders=").nth(1).and_then(|rest| rest.split(',').next());
        let headers: Vec<(&str, &str)> =
            names.unwrap_or_default().split(';').map(|name| (name, header(name))).collect();
        let payload = header("x-amz-content-sha256");
        let request = Signable {
            method: head.method.as_str(),
            path: head.uri.path(),
            query: head.uri.query().unwrap_or_default(),
            headers: &headers,
            payload,
        };
        (payload == "UNSIGNED-PAYLOAD" || payload == sha256_hex(body))
            && header("authorization") == self.signer.authorization(header("x-amz-date"), &request)
    }

    fn answer(&self, head: &Head, body: Bytes) -> Response<BoxBody> {
        if !self.is_signed(head, &body) {
            return refuse(StatusCode::FORBIDDEN, "SignatureDoesNotMatch");
        }
        let path = percent_decode_str(head.uri.path()).decode_utf8().unwrap().into_owned();
        let query: BTreeMap<String, String> = head
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.into(), percent_decode_str(value).decode_utf8().unwrap().into_owned()))
            .collect();
        let is_bucket = path.matches('/').count() == 1;
        let mut objects = self.objects.lock().unwrap();
        match (head.method.as_str(), is_bucket) {
            ("PUT", true) | ("DELETE", true) => reply(""),
            ("GET", true) => list(&objects, &path, &query),
            ("POST", false) if query.contains_key("uploads") => reply("<UploadId>u&amp;1</UploadId>"),
            ("POST", false) => {
                assert_eq!(query["uploadId"], "u&1");
                let parts: Vec<Bytes> = objects
                    .iter()
                    .filter(|(name, _)| name.starts_with("part "))
                    .map(|(_, part)| part.clone())
                    .collect();
                objects.retain(|name, _| !name.starts_with("part "));
                objects.insert(path, parts.concat().into());
                reply("<ETag>&quot;whole&quot;</ETag>")
            }
            ("PUT", false) if query.contains_key("partNumber") => {
                objects.insert(format!("part {:0>5}", query["partNumber"]), body);
                reply("")
            }
            ("PUT", false) => {
                let every = self.faults.refuse_every.load(Relaxed);
                if every > 0 && self.puts.fetch_add(1, Relaxed) % every == every - 1 {
                    return refuse(StatusCode::SERVICE_UNAVAILABLE, "SlowDown");
                }
                objects.insert(path, body);
                reply("")
            }
            ("DELETE", false) if self.faults.refuse_deletes.load(Relaxed) => {
                refuse(StatusCode::SERVICE_UNAVAILABLE, "SlowDown")
            }
            ("DELETE", false) => {
                objects.remove(&path);
                reply("")
            }
            _ => match objects.get(&path) {
                Some(body) if self.faults.corrupt.load(Relaxed) => {
                    let mut body = body.to_vec();
                    body[0] ^= 1;
                    reply(body)
                }
                Some(body) => reply(body.clone()),
                None => refuse(StatusCode::NOT_FOUND, "NoSuchKey"),
            },
        }
    }
}

fn list(objects: &BTreeMap<String, Bytes>, bucket: &str, query: &BTreeMap<String, String>) -> Response<BoxBody> {
    let after = query.get("continuation-token").or(query.get("start-after")).cloned().unwrap_or_default();
    let keys = objects.keys().filter_map(|path| path.strip_prefix(&format!("{bucket}/")));
    let mut keys = keys.filter(|key| key.starts_with(&query["prefix"]) && **key > *after);
    let page: Vec<&str> = keys.by_ref().take(1000).collect();
    let mut text: String = page.iter().map(|key| format!("<Contents><Key>{key}</Key></Contents>")).collect();
    if keys.next().is_some() {
        text += &format!("<NextContinuationToken>{}</NextContinuationToken>", page[999]);
    }
    reply(text)
}

pub(crate) fn reply(body: impl Into<Bytes>) -> Response<BoxBody> {
    Response::new(Full::new(body.into()).map_err(|never| match never {}).boxed_unsync())
}

fn refuse(status: StatusCode, code: &str) -> Response<BoxBody> {
    let mut response = reply(format!("<Error><Code>{code}</Code><Message>m &amp; n</Message></Error>"));
    *response.status_mut() = status;
    response
}

impl Service for FakeS3 {
    fn serve(&self, request: Request<Incoming>) -> BoxFuture<'_, Response<BoxBody>> {
        Box::pin(async move {
            let (head, body) = request.into_parts();
            if head.uri.path() == "/hold" {
                self.held.send_modify(|held| *held += 1);
                self.hold.acquire().await.unwrap().forget();
                return reply("held");
            }
            if head.uri.path() == "/-/live" {
                return reply("a key, not the operator");
            }
            let body = body.collect().await.unwrap().to_bytes();
            self.answer(&head, body)
        })
    }
}

/// Makes nodes around one [`FakeS3`].
#[derive(Clone, Default)]
pub(crate) struct FakeAssembly {
    pub(crate) s3: Arc<FakeS3>,
    keys: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Assembly for FakeAssembly {
    fn create_cluster(&self, plan: &FoundingPlan) -> Result<FoundedCluster, AssemblyError> {
        let mut nodes = Vec::new();
        for node in &plan.nodes {
            let dir = plan.out.join(&node.name);
            std::fs::create_dir_all(&dir).map_err(|error| AssemblyError(error.into()))?;
            nodes.push((node.name.clone(), dir));
        }
        Ok(FoundedCluster { cluster: "00112233445566778899aabbccddeeff".into(), nodes })
    }

    fn start<'a>(
        &'a self,
        _config: &'a Config,
        runtimes: &'a Runtimes,
        registry: &'a Registry,
    ) -> BoxFuture<'a, Result<Parts, AssemblyError>> {
        Box::pin(async move {
            Ok(Parts {
                s3: runtimes.workers.iter().map(|_| Arc::clone(&self.s3) as Arc<dyn Service>).collect(),
                view: Arc::new(FakeView { registry: registry.clone(), s3: Arc::clone(&self.s3) }),
                admin: Arc::new(self.clone()),
                stages: Box::new(NoStages),
            })
        })
    }
}

struct FakeView {
    registry: Registry,
    s3: Arc<FakeS3>,
}

impl NodeView for FakeView {
    fn ready(&self) -> Result<(), NotReady> {
        let not_ready = self.s3.faults.not_ready.load(Relaxed);
        if not_ready { Err(NotReady::Because("no quorum for control".into())) } else { Ok(()) }
    }
    fn health(&self) -> Health {
        example()
    }
    fn registry(&self) -> &Registry {
        &self.registry
    }
}

impl Admin for FakeAssembly {
    fn authenticate<'a>(&'a self, request: &'a Head, body: &'a Bytes) -> BoxFuture<'a, Result<String, AdminError>> {
        Box::pin(async move {
            let refused = || AdminError::Unauthenticated { reason: "SignatureDoesNotMatch".into() };
            self.s3.is_signed(request, body).then(|| "TESTKEY".to_owned()).ok_or_else(refused)
        })
    }
    fn create_key(&self, key: CreateKey) -> BoxFuture<'_, Result<CreatedKey, AdminError>> {
        Box::pin(async move {
            let access_key = key.access_key.unwrap_or("DRAWN".into());
            let mut keys = self.keys.lock().unwrap();
            if keys.contains_key(&access_key) {
                return Err(AdminError::KeyExists(access_key));
            }
            keys.insert(access_key.clone(), key.note);
            let secret_key = key.secret_key.unwrap_or("drawn secret".to_owned().into());
            Ok(CreatedKey { access_key, secret_key })
        })
    }
    fn list_keys(&self) -> BoxFuture<'_, Result<Vec<AccessKeySummary>, AdminError>> {
        let keys = self.keys.lock().unwrap().clone();
        let summary = |(access_key, note)| AccessKeySummary { access_key, created_ms: 1, note };
        Box::pin(async move { Ok(keys.into_iter().map(summary).collect()) })
    }
    fn delete_key<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), AdminError>> {
        let removed = self.keys.lock().unwrap().remove(id);
        Box::pin(async move { removed.map(drop).ok_or_else(|| AdminError::NoSuchKey(id.into())) })
    }
}

struct NoStages;

impl Stages for NoStages {
    fn hand_over_leadership(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
    fn stop_workers(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
    fn flush_drives(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
    fn close_peers(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}
