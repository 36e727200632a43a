//! One request under way at a time: chooses the next operation, does it, counts it.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::time::{Instant, sleep};

use super::client::{Call, ClientError, Payload, S3Client};
use super::plan::{Workload, draw};
use super::run::Shared;
use super::summary::{Operation, Tally};

/// Keys of a page.
const PAGE: u64 = 1000;
/// First and longest pause after failures in a row.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(320);

pub(super) struct Worker {
    shared: Arc<Shared>,
    index: usize,
    tally: Tally,
    /// Keys of this worker's own puts, which a mixed run may delete.
    own: Vec<u64>,
}

/// An operation and the number of the key it is about.
type Choice = (Operation, u64);

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, index: usize) -> Self {
        Self { shared, index, tally: Tally::default(), own: Vec::new() }
    }

    /// Works until the run is over.
    pub(super) async fn run(mut self) -> Tally {
        let shared = Arc::clone(&self.shared);
        let mut pause = PAUSE_MIN;
        let mut started = Instant::now();
        while let Some(number) = shared.next_operation(started) {
            let turn = number + self.index as u64;
            let Some(client) = shared.client(turn) else { break };
            let (operation, about) = self.choose(number);
            let done = self.perform(client, operation, about).await;
            let ended = Instant::now();
            match done {
                Ok(bytes) => {
                    self.tally.succeed(operation, ended - started, bytes);
                    shared.count_success(ended);
                    pause = PAUSE_MIN;
                    if operation == Operation::Put && shared.plan.verify {
                        self.read_back(client, about).await;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "operation failed");
                    self.tally.fail(error.label());
                    shared.count_error();
                    // A wrong answer is an answer: only those who could not answer are given time.
                    if !matches!(error, ClientError::WrongBytes { .. }) {
                        sleep(pause).await;
                        pause = (pause * 2).min(PAUSE_MAX);
                    }
                }
            }
            started = Instant::now();
        }
        self.tally
    }

    fn choose(&mut self, number: u64) -> Choice {
        let plan = &self.shared.plan;
        let filled = self.shared.filled.max(1);
        let random = draw(plan.run, number);
        match plan.workload {
            Workload::Put => (Operation::Put, plan.keys.map_or(number, |keys| number % keys.max(1))),
            Workload::Get => (Operation::Get, random % filled),
            Workload::Delete => (Operation::Delete, number),
            Workload::List => (Operation::List, random % filled.saturating_sub(PAGE).max(1)),
            Workload::Mixed => match (random >> 32) % 100 {
                0..60 => (Operation::Get, random % filled),
                60..65 => (Operation::List, random % filled.saturating_sub(PAGE).max(1)),
                65..75 => self.own.pop().map_or((Operation::Put, filled + number), |own| (Operation::Delete, own)),
                _ => (Operation::Put, filled + number),
            },
        }
    }

    /// Does it; returns the bytes of bodies moved.
    async fn perform(&mut self, client: &S3Client, operation: Operation, about: u64) -> Result<u64, ClientError> {
        let plan = &self.shared.plan;
        let key = plan.key(about);
        match operation {
            Operation::Put => {
                let body = Payload::content(self.shared.pattern.content(&key, plan.size));
                client.put(&plan.bucket, &key, body).await?;
                if plan.workload == Workload::Mixed {
                    self.own.push(about);
                }
                Ok(plan.size)
            }
            Operation::Get => self.get(client, &key).await,
            Operation::Delete => client.delete(&plan.bucket, &key).await.map(|()| 0),
            Operation::List => self.list(client, &key, about).await,
        }
    }

    /// Reads an object; its length is always checked, its bytes if the plan says so.
    async fn get(&self, client: &S3Client, key: &str) -> Result<u64, ClientError> {
        let plan = &self.shared.plan;
        let mut answer = client.get(&plan.bucket, key).await?;
        let mut expected = plan.verify.then(|| self.shared.pattern.content(key, plan.size));
        let mut len = 0;
        while let Some(bytes) = answer.next().await? {
            len += bytes.len() as u64;
            if expected.as_mut().is_some_and(|expected| !expected.matches(&bytes)) {
                return Err(wrong(client, key));
            }
        }
        if len == plan.size { Ok(len) } else { Err(wrong(client, key)) }
    }

    /// Lists a page from just after a key; its number of keys is checked if the plan says so.
    async fn list(&self, client: &S3Client, after: &str, about: u64) -> Result<u64, ClientError> {
        let plan = &self.shared.plan;
        let prefix = plan.prefix();
        let query = [("list-type", "2"), ("prefix", &*prefix), ("start-after", after)];
        let mut answer = client.send(Call::bucket(Method::GET, &plan.bucket).query(&query)).await?.success().await?;
        if !plan.verify {
            return answer.discard().await;
        }
        let body = answer.bytes().await?;
        let text = String::from_utf8_lossy(&body);
        let found = text.matches("<Key>").count() as u64;
        // In a mixed run keys beyond the filled ones come and go; those of the fill must all be there.
        let least = (self.shared.filled - 1).saturating_sub(about).min(PAGE);
        if found >= least { Ok(body.len() as u64) } else { Err(wrong(client, after)) }
    }

    /// Reads back what was just stored; outside the measured time.
    async fn read_back(&mut self, client: &S3Client, about: u64) {
        let key = self.shared.plan.key(about);
        if let Err(error) = self.get(client, &key).await {
            self.tally.fail(format!("read-back {}", error.label()));
            self.shared.count_error();
        }
    }
}

fn wrong(client: &S3Client, key: &str) -> ClientError {
    ClientError::WrongBytes { endpoint: client.endpoint().clone(), key: key.to_owned() }
}
