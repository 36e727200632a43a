//! Clients that keep a cluster busy and remember what they were told: a linearizable mix on few keys, and a stream of
//! writes whose acknowledgements are promises.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, ClientError, Response, etag_of};
use crate::content;
use crate::history::{Action, Outcome, Recorder, Value};

/// How long a client rests after an answer that was no answer, so that a cluster in trouble is not flooded.
const REST: Duration = Duration::from_millis(200);

/// The name of a key of the mix.
#[must_use]
pub fn key_name(key: u32) -> String {
    format!("register/{key:02}")
}

/// Length of the body of a value: inline in the index, one block, or several chunks, by turns.
fn len_of(value: Value) -> usize {
    [200, 3_000, 6_000, 70_000][usize::try_from(value % 4).unwrap_or(0)]
}

/// The one body of a value under a key.
#[must_use]
pub fn body_of(key: u32, value: Value) -> bytes::Bytes {
    content::body(&key_name(key), value, len_of(value))
}

/// A client of the mix.
pub struct Mixer {
    /// Its number.
    pub client: u32,
    /// All nodes; it starts with one and moves on when that fails it.
    pub nodes: Vec<Client>,
    /// The bucket.
    pub bucket: String,
    /// Keys 0..count.
    pub key_count: u32,
    /// Where it writes down what happened.
    pub recorder: Recorder,
    /// Seed of its choices.
    pub seed: u64,
    /// Answers that break a promise at once: a wrong body, an unexpected status.
    pub wrong: Arc<Mutex<Vec<String>>>,
}

impl Mixer {
    /// Does one operation after the other until told to stop; the one under way is then finished.
    pub async fn run(self, stop: CancellationToken) {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let mut node = self.client as usize % self.nodes.len();
        let mut seen: BTreeMap<u32, Value> = BTreeMap::new();
        while !stop.is_cancelled() {
            let key = rng.random_range(0..self.key_count);
            let action = self.choose(&mut rng, seen.get(&key).copied());
            let outcome = self.perform(node, key, action).await;
            match (outcome, action.written()) {
                (Outcome::Found(value), _) | (Outcome::Done, Some(value)) => drop(seen.insert(key, value)),
                (Outcome::Unknown, _) => {
                    node = (node + 1) % self.nodes.len();
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => {}
                        () = sleep(REST) => {}
                    }
                }
                _ => {}
            }
        }
    }

    fn choose(&self, rng: &mut StdRng, seen: Option<Value>) -> Action {
        let value = self.recorder.fresh_value();
        match (rng.random_range(0..100), seen) {
            (0..40, _) => Action::Get,
            (40..58, _) => Action::Put(value),
            (58..72, _) => Action::PutIfAbsent(value),
            (72..86, Some(expected)) => Action::PutIfMatch { expected, value },
            (72..86, None) => Action::Put(value),
            _ => Action::Delete,
        }
    }

    async fn perform(&self, node: usize, key: u32, action: Action) -> Outcome {
        let (client, bucket, name) = (&self.nodes[node], &self.bucket, key_name(key));
        let body = |value| body_of(key, value);
        let pending = self.recorder.invoke(self.client, u32::try_from(node).unwrap_or(0) + 1, key, action);
        let answer = match action {
            Action::Get => client.get(bucket, &name).await,
            Action::Delete => client.delete(bucket, &name).await,
            Action::Put(value) => client.put(bucket, &name, body(value)).await,
            Action::PutIfAbsent(value) => client.put_if_absent(bucket, &name, body(value)).await,
            Action::PutIfMatch { expected, value } => {
                client.put_if_match(bucket, &name, &etag_of(&body(expected)), body(value)).await
            }
        };
        let outcome = match self.read_answer(&name, action, answer) {
            Ok(outcome) => outcome,
            Err(wrong) => {
                self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{action:?} {name}: {wrong}"));
                Outcome::Unknown
            }
        };
        pending.returned(outcome);
        outcome
    }

    fn read_answer(&self, key: &str, action: Action, answer: Result<Response, ClientError>) -> Result<Outcome, String> {
        let answer = match answer {
            Ok(answer) => answer,
            Err(ClientError::Nonsense { cause }) => return Err(cause),
            Err(_) => return Ok(Outcome::Unknown),
        };
        let is_conditional = matches!(action, Action::PutIfAbsent(_) | Action::PutIfMatch { .. });
        match (answer.status.as_u16(), action) {
            (200, Action::Get) => {
                content::identify(key, &answer.body).map(Outcome::Found).map_err(|wrong| wrong.to_string())
            }
            (404, Action::Get) if answer.error_code() == "NoSuchKey" => Ok(Outcome::Missing),
            (200, Action::Put(_) | Action::PutIfAbsent(_) | Action::PutIfMatch { .. }) | (204, Action::Delete) => {
                Ok(Outcome::Done)
            }
            (412, _) if is_conditional => Ok(Outcome::Refused),
            (404, Action::PutIfMatch { .. }) if answer.error_code() == "NoSuchKey" => Ok(Outcome::Refused),
            // Neither says whether it happened.
            (409 | 500..=599, _) => Ok(Outcome::Unknown),
            _ => Err(answer.describe()),
        }
    }
}

/// What writers were promised: for each key the values that may be there, the last of them acknowledged or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Promise {
    /// The value of the last acknowledged write.
    pub acknowledged: Option<Value>,
    /// Length of its body.
    pub len: usize,
    /// Values of writes sent after it that were not acknowledged.
    pub possible: Vec<Value>,
}

/// The promises of a [`Writer`], by key.
pub type Promises = BTreeMap<String, Promise>;

/// A client that only writes, each key its own, now and then overwriting one, and remembers what was acknowledged.
pub struct Writer {
    /// Its number, part of its keys.
    pub client: u32,
    /// All nodes, used as in [`Mixer`].
    pub nodes: Vec<Client>,
    /// The bucket.
    pub bucket: String,
    /// Length of a body, at least and at most.
    pub len: std::ops::Range<usize>,
    /// Seed of its choices.
    pub seed: u64,
    /// Its promises so far. Shared, so that a test can watch them grow.
    pub promises: Arc<Mutex<Promises>>,
}

impl Writer {
    /// Writes until told to stop. The write under way when stopped is of unknown outcome.
    pub async fn run(self, stop: CancellationToken) {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let mut node = self.client as usize % self.nodes.len();
        let mut value = 0;
        let mut key_count = 0_u64;
        while !stop.is_cancelled() {
            value += 1;
            let number = if key_count > 0 && rng.random_bool(0.2) { rng.random_range(0..key_count) } else { key_count };
            key_count = key_count.max(number + 1);
            let key = format!("writer-{}/{number:06}", self.client);
            let len = rng.random_range(self.len.clone());
            self.with_promise(&key, |promise| promise.possible.push(value));
            let put = self.nodes[node].put(&self.bucket, &key, content::body(&key, value, len));
            let answer = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                answer = put => answer,
            };
            if answer.is_ok_and(|answer| answer.status.is_success()) {
                self.with_promise(&key, |promise| promise.keep(value, len));
                continue;
            }
            node = (node + 1) % self.nodes.len();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = sleep(REST) => {}
            }
        }
    }

    fn with_promise(&self, key: &str, change: impl FnOnce(&mut Promise)) {
        let mut promises = self.promises.lock().unwrap_or_else(PoisonError::into_inner);
        change(promises.entry(key.to_owned()).or_default());
    }
}

impl Promise {
    /// A write was acknowledged. Earlier ones of unknown outcome may still take effect later.
    fn keep(&mut self, value: Value, len: usize) {
        self.acknowledged = Some(value);
        self.len = len;
        self.possible.retain(|&other| other != value);
    }

    /// Whether what a GET answered is allowed by the promise.
    ///
    /// # Errors
    /// In what way it is not.
    pub fn check(&self, key: &str, answer: &Response) -> Result<(), String> {
        match answer.status.as_u16() {
            200 => {
                let value = content::identify(key, &answer.body).map_err(|wrong| format!("{key}: {wrong}"))?;
                let is_allowed = self.acknowledged == Some(value) || self.possible.contains(&value);
                let complaint = || format!("{key}: holds value {value}, promised was {self:?}");
                is_allowed.then_some(()).ok_or_else(complaint)
            }
            404 if self.acknowledged.is_none() => Ok(()),
            _ => Err(format!("{key}: promised was {self:?}, answered {}", answer.describe())),
        }
    }
}

/// Checks every promise through one node, `concurrency` at a time.
///
/// # Errors
/// The first few that are broken.
pub async fn check_promises(
    client: &Client,
    bucket: &str,
    promises: &Promises,
    concurrency: usize,
) -> Result<usize, String> {
    use futures_util::StreamExt;
    let checks = futures_util::stream::iter(promises.iter().map(|(key, promise)| async move {
        let answer = client.get(bucket, key).await.map_err(|error| format!("{key}: {error}"))?;
        promise.check(key, &answer)
    }));
    let results: Vec<Result<(), String>> = checks.buffer_unordered(concurrency).collect().await;
    let broken: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    if broken.is_empty() {
        return Ok(promises.len());
    }
    let first: Vec<&str> = broken.iter().take(5).map(String::as_str).collect();
    Err(format!(
        "{} of {} promises broken through {}:\n{}",
        broken.len(),
        promises.len(),
        client.endpoint(),
        first.join("\n")
    ))
}

#[cfg(test)]
mod tests;
