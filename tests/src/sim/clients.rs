//! Clients of the simulated cluster: a mix of operations on few keys, each recorded with what came back.
//!
//! Bodies follow from (key, value), so that any answer tells which write it shows, and every byte of it is checked
//! (I5, I6). A page of a listing is recorded as one read of each key it covers, all within the listing's time: then the
//! check for linearizability says of lists what it says of reads (I4).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drystone_cluster::store::{Condition, ETag, EntityTag, StoreError, Unavailable};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{sleep, timeout};

use super::node::Node;
use super::service::{Ask, Reply, etag_of};
use super::trace::Trace;
use crate::content;
use crate::history::{Action, Outcome, Pending, Recorder, Value};

/// Longer than a node takes to refuse a request it cannot decide: finding the bucket, two placements whose nodes do not
/// answer, the decision of the index. A node that takes longer hangs (I10).
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// The rest after an answer that was none.
const REST: Duration = Duration::from_millis(150);
/// From then on every request must succeed: never, as long as faults are possible.
const NEVER_MS: u64 = u64::MAX;

/// The name of a key.
#[must_use]
pub fn key_name(key: u32) -> String {
    format!("register/{key}")
}

/// Inline in the index up to 4 KiB; whole copies up to 128 KiB; data and parity above.
fn len_of(value: Value) -> usize {
    [100, 6 << 10, 200 << 10, 4 << 10, (4 << 10) + 1, 700, 40_000, (128 << 10) + 1]
        [usize::try_from(value % 8).unwrap_or(0)]
}

fn body_of(key: u32, value: Value) -> bytes::Bytes {
    content::body(&key_name(key), value, len_of(value))
}

/// What all clients share.
pub struct Shared {
    nodes: Vec<Arc<Node>>,
    key_count: u32,
    recorder: Recorder,
    trace: Trace,
    /// Who wrote what: entity tag to key and value.
    written: Mutex<BTreeMap<[u8; 16], (u32, Value)>>,
    stopped: AtomicBool,
    running: AtomicUsize,
    strict_from_ms: AtomicU64,
}

impl Shared {
    /// Clients of these nodes, on so many keys.
    #[must_use]
    pub fn new(nodes: Vec<Arc<Node>>, key_count: u32, trace: Trace) -> Arc<Self> {
        Arc::new(Self {
            nodes,
            key_count,
            recorder: Recorder::new(),
            trace,
            written: Mutex::default(),
            stopped: AtomicBool::new(false),
            running: AtomicUsize::new(0),
            strict_from_ms: AtomicU64::new(NEVER_MS),
        })
    }

    /// The history so far.
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Requests sent from now on must succeed (I9).
    pub fn be_strict(&self) {
        self.strict_from_ms.store(self.trace.now_ms(), Ordering::Relaxed);
    }

    /// Lets the clients end their present operation and no more.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// How many clients have not ended.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    fn written(&self) -> MutexGuard<'_, BTreeMap<[u8; 16], (u32, Value)>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value behind an entity tag seen under `key`.
    fn value_of(&self, key: u32, etag: ETag) -> Result<Value, String> {
        match self.written().get(&etag.md5) {
            Some((of, value)) if *of == key && etag.part_count == 0 => Ok(*value),
            _ => Err(format!("I5: {} shows entity tag {etag}, which nobody wrote there", key_name(key))),
        }
    }

    /// The question for an action. A write becomes known before it is sent.
    #[must_use]
    pub fn question(&self, key: u32, action: Action, skip: u64) -> Ask {
        let name = key_name(key);
        let put = |value, condition| {
            let body = body_of(key, value);
            self.written().insert(etag_of(&body).md5, (key, value));
            Ask::Put { key: name.clone(), body, condition }
        };
        match action {
            Action::Put(value) => put(value, Condition::default()),
            Action::PutIfAbsent(value) => {
                put(value, Condition { if_none_match: Some(EntityTag::Any), ..Condition::default() })
            }
            Action::PutIfMatch { expected, value } => {
                let expected = EntityTag::OneOf(vec![etag_of(&body_of(key, expected))]);
                put(value, Condition { if_match: Some(expected), ..Condition::default() })
            }
            Action::Get => Ask::Get { key: name, skip },
            Action::Delete => Ask::Delete { key: name },
        }
    }

    /// What an answer means, in the words of the history.
    ///
    /// # Errors
    /// It breaks an invariant at once.
    pub fn outcome(
        &self,
        key: u32,
        action: Action,
        answer: Option<Result<Reply, StoreError>>,
    ) -> Result<Outcome, String> {
        match (action, answer) {
            (_, None) => Ok(Outcome::Unknown),
            (Action::Get, Some(Ok(Reply::Body { etag, len, skip, bytes }))) => {
                let value = self.value_of(key, etag)?;
                let expected = body_of(key, value);
                let from = usize::try_from(skip).unwrap_or(usize::MAX);
                if len != expected.len() as u64 || expected.get(from..) != Some(&bytes[..]) {
                    let got = bytes.len();
                    return Err(format!("I6: {} at {value}: {got} wrong bytes from {skip} of {len}", key_name(key)));
                }
                Ok(Outcome::Found(value))
            }
            (Action::Get, Some(Err(StoreError::NoSuchKey(_)))) => Ok(Outcome::Missing),
            (Action::Get, Some(Ok(reply))) => Err(format!("a GET was answered with {reply:?}")),
            (_, Some(Ok(Reply::Done))) => Ok(Outcome::Done),
            (Action::PutIfAbsent(_) | Action::PutIfMatch { .. }, Some(Err(StoreError::PreconditionFailed { .. })))
            | (Action::PutIfMatch { .. }, Some(Err(StoreError::NoSuchKey(_)))) => Ok(Outcome::Refused),
            (_, Some(Err(StoreError::Unavailable(reason)))) => {
                self.note_refusal(&reason);
                Ok(Outcome::Unknown)
            }
            (_, Some(other)) => Err(format!("I10: {action:?} of {} was answered with {other:?}", key_name(key))),
        }
    }

    fn note_refusal(&self, reason: &Unavailable) {
        self.trace.fired(match reason {
            Unavailable::NoQuorum { .. } => "refused: no quorum",
            Unavailable::TooFewDomains { .. } => "refused: too few domains",
            Unavailable::TooFewChunks { .. } => "refused: too few chunks",
            Unavailable::Deadline { .. } => "refused: deadline",
            _ => "refused: other",
        });
    }

    /// Notes what came back; breaches become violations.
    pub fn conclude(&self, label: &str, sent_ms: u64, pending: Pending, outcome: Result<Outcome, String>) -> Outcome {
        let outcome = outcome.unwrap_or_else(|violation| {
            self.trace.violated(violation);
            Outcome::Unknown
        });
        self.trace.event(&format!("{label} -> {outcome:?}"));
        self.trace.fired(match outcome {
            Outcome::Done => "write acknowledged",
            Outcome::Refused => "condition refused",
            Outcome::Found(_) => "value read",
            Outcome::Missing => "absence read",
            Outcome::Unknown => "outcome unknown",
        });
        if outcome == Outcome::Unknown && sent_ms >= self.strict_from_ms.load(Ordering::Relaxed) {
            self.trace.violated(format!("I9: {label} failed although all faults have ended and all nodes are ready"));
        }
        pending.returned(outcome);
        outcome
    }

    /// Checks a page of a listing after `after` and concludes the reads it stands for.
    pub fn conclude_page(
        &self,
        label: &str,
        reads: Vec<(u32, Pending)>,
        after: Option<&str>,
        answer: Option<Result<Reply, StoreError>>,
    ) -> Option<PageEnd> {
        let (entries, truncated) = match answer {
            Some(Ok(Reply::Page { entries, truncated })) => (entries, truncated),
            None => return None,
            Some(Err(StoreError::Unavailable(reason))) => {
                self.note_refusal(&reason);
                return None;
            }
            Some(other) => {
                self.trace.violated(format!("I10: {label} was answered with {other:?}"));
                return None;
            }
        };
        self.trace.event(&format!("{label} -> {} keys", entries.len()));
        self.trace.fired("page listed");
        let names: Vec<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
        let ordered = after.into_iter().chain(names.iter().copied()).collect::<Vec<_>>().is_sorted_by(|a, b| a < b);
        if !ordered || (truncated && names.is_empty()) {
            self.trace.violated(format!("I4: {label} after {after:?} gave {names:?}, truncated {truncated}"));
        }
        let last = names.last().map(|name| (*name).to_owned());
        let mut found: BTreeMap<&str, ETag> = entries.iter().map(|(name, etag)| (name.as_str(), *etag)).collect();
        for (key, pending) in reads {
            let name = key_name(key);
            let covered = after.is_none_or(|after| name.as_str() > after)
                && (!truncated || last.as_deref().is_some_and(|last| name.as_str() <= last));
            let seen = found.remove(name.as_str());
            if covered {
                let outcome = seen.map_or(Ok(Outcome::Missing), |etag| self.value_of(key, etag).map(Outcome::Found));
                self.conclude(&format!("{label} of {key}"), 0, pending, outcome);
            }
        }
        if !found.is_empty() {
            self.trace.violated(format!("I4: {label} shows keys that nobody wrote: {found:?}"));
        }
        Some(if truncated { PageEnd::More(last) } else { PageEnd::Last })
    }

    /// The reads that a page of a listing stands for.
    #[must_use]
    pub fn reads_of_list(&self, client: u32, node: u32) -> Vec<(u32, Pending)> {
        (0..self.key_count).map(|key| (key, self.recorder.invoke(client, node, key, Action::Get))).collect()
    }
}

/// Where a page ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageEnd {
    /// More follow after this key.
    More(Option<String>),
    /// That was all.
    Last,
}

/// One client.
struct Client {
    number: u32,
    shared: Arc<Shared>,
    rng: StdRng,
    node: usize,
    seen: BTreeMap<u32, Value>,
}

/// Runs `client_count` clients side by side until they are stopped.
pub async fn run_clients(shared: Arc<Shared>, client_count: u32, seed: u64) {
    let clients = (0..client_count).map(|number| {
        let mut rng = StdRng::seed_from_u64(seed ^ u64::from(number + 1).rotate_left(32));
        let node = rng.random_range(0..shared.nodes.len());
        shared.running.fetch_add(1, Ordering::Relaxed);
        Client { number, shared: Arc::clone(&shared), rng, node, seen: BTreeMap::new() }.run()
    });
    futures_util::future::join_all(clients).await;
}

impl Client {
    async fn run(mut self) {
        while !self.shared.stopped.load(Ordering::Relaxed) {
            let pause = self.rng.random_range(2..120);
            sleep(Duration::from_millis(pause)).await;
            let answered = if self.rng.random_bool(0.12) { self.list().await } else { self.operate().await };
            if !answered {
                self.node = self.rng.random_range(0..self.shared.nodes.len());
                sleep(REST).await;
            }
        }
        self.shared.running.fetch_sub(1, Ordering::Relaxed);
    }

    /// One operation on one key; whether it was answered.
    async fn operate(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let key = self.rng.random_range(0..shared.key_count);
        let action = self.choose(key);
        let skip = if self.rng.random_bool(0.3) { self.rng.random_range(0..150_000) } else { 0 };
        let node = &shared.nodes[self.node];
        let Some(answered) = node.ask(shared.question(key, action, skip)) else { return self.refused(node) };
        let label = format!("client {} {} {action:?} of {key}", self.number, node.name);
        let sent_ms = shared.trace.now_ms();
        shared.trace.event(&label);
        let pending = shared.recorder.invoke(self.number, self.node_number(), key, action);
        let answer = timeout(ANSWER_LIMIT, answered).await;
        if answer.is_err() {
            shared.trace.violated(format!("I10: {label} was not answered within {ANSWER_LIMIT:?}"));
        }
        let outcome = shared.outcome(key, action, answer.ok().and_then(Result::ok));
        let outcome = shared.conclude(&label, sent_ms, pending, outcome);
        match (outcome, action.written()) {
            (Outcome::Found(value), _) | (Outcome::Done, Some(value)) => drop(self.seen.insert(key, value)),
            _ => {}
        }
        outcome != Outcome::Unknown
    }

    /// Lists everything, in pages of two or in one; whether all of them were answered.
    async fn list(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let count_max = if self.rng.random::<bool>() { 2 } else { 1_000 };
        let mut after = None;
        loop {
            let node = &shared.nodes[self.node];
            let Some(answered) = node.ask(Ask::List { after: after.clone(), count_max }) else {
                return self.refused(node);
            };
            let label = format!("client {} {} lists after {after:?}", self.number, node.name);
            let sent_ms = shared.trace.now_ms();
            let reads = shared.reads_of_list(self.number, self.node_number());
            let answer = timeout(ANSWER_LIMIT, answered).await;
            if answer.is_err() {
                shared.trace.violated(format!("I10: {label} was not answered within {ANSWER_LIMIT:?}"));
            }
            match shared.conclude_page(&label, reads, after.as_deref(), answer.ok().and_then(Result::ok)) {
                Some(PageEnd::More(last)) => after = last,
                Some(PageEnd::Last) => return true,
                None => {
                    if sent_ms >= shared.strict_from_ms.load(Ordering::Relaxed) {
                        shared.trace.violated(format!("I9: {label} failed although all nodes are ready"));
                    }
                    return false;
                }
            }
        }
    }

    /// The node does not serve: no question was asked.
    fn refused(&self, node: &Node) -> bool {
        if self.shared.trace.now_ms() >= self.shared.strict_from_ms.load(Ordering::Relaxed) {
            self.shared.trace.violated(format!("I9: {} does not serve", node.name));
        }
        false
    }

    fn node_number(&self) -> u32 {
        u32::try_from(self.node).unwrap_or(u32::MAX)
    }

    fn choose(&mut self, key: u32) -> Action {
        let seen = self.seen.get(&key).copied();
        match (self.rng.random_range(0..100), seen) {
            (0..30, _) => Action::Put(self.shared.recorder.fresh_value()),
            (30..42, _) => Action::PutIfAbsent(self.shared.recorder.fresh_value()),
            (42..60, Some(expected)) => Action::PutIfMatch { expected, value: self.shared.recorder.fresh_value() },
            (60..72, _) => Action::Delete,
            _ => Action::Get,
        }
    }
}
