//! Random operations through random nodes, compared with a reference bucket after each: bodies, ETags, ranges, and
//! listings with prefixes, groups, starts and pages from every node. No faults; concurrency is `linearizable`'s job.
//!
//! With `TEST_ENDPOINTS` (and `AWS_*`) set it runs against those endpoints instead of a cluster of its own.

use drystone_tests::client::{Client, Credentials, Listed, Listing, etag_of};
use drystone_tests::harness::{Cluster, Outcome, Shape, Turn, ensure};
use drystone_tests::model::Bucket;
use drystone_tests::{content, harness};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

const BUCKET: &str = "model";
const STEPS: u64 = 800;

/// Few names that collide in every way grouping knows.
const NAMES: [&str; 20] = [
    "a",
    "a/",
    "a/b",
    "a/b/c",
    "a/b/d",
    "a//b",
    "a0",
    "a b",
    "a+b",
    "ab/c",
    "ä/ö",
    "日本/語",
    "b/1",
    "b/2",
    "b/2/3",
    "c",
    "c/..",
    "%41",
    "z<&>\"'",
    "🧱",
];

fn external() -> Option<Vec<Client>> {
    let read = |name: &str| std::env::var(name).ok();
    let credentials =
        Credentials { access_key: read("AWS_ACCESS_KEY_ID")?, secret_key: read("AWS_SECRET_ACCESS_KEY")? };
    let endpoints = read("TEST_ENDPOINTS")?;
    Some(endpoints.split_whitespace().map(|endpoint| Client::new(endpoint, &credentials, "us-east-1")).collect())
}

async fn check_key(client: &Client, model: &Bucket, key: &str, rng: &mut StdRng) -> Outcome {
    let got = client.get(BUCKET, key).await?;
    let head = client.head(BUCKET, key).await?;
    let Some(body) = model.get(key) else {
        ensure(got.error_code() == "NoSuchKey", || format!("{key} is absent, answered {}", got.describe()))?;
        return ensure(head.status == 404, || format!("HEAD of absent {key}: {}", head.status));
    };
    ensure(got.status == 200 && got.body == body, || format!("GET {key}: {}", got.describe()))?;
    ensure(got.header("etag") == etag_of(body), || format!("GET {key}: ETag {}", got.header("etag")))?;
    let len = body.len().to_string();
    ensure(head.status == 200 && head.header("content-length") == len, || format!("HEAD {key}: {:?}", head.headers))?;
    let first = rng.random_range(0..body.len());
    let last = rng.random_range(first..body.len() + 10);
    let part = client.get_range(BUCKET, key, first as u64, last as u64).await?;
    let expected = &body[first..(last + 1).min(body.len())];
    ensure(part.status == 206 && part.body == expected, || format!("GET {key} {first}-{last}: {}", part.status))
}

async fn check_listing(client: &Client, model: &Bucket, rng: &mut StdRng) -> Outcome {
    let listing = Listing {
        prefix: ["", "", "a", "a/", "b/", "ä", "zz"].choose(rng).copied().unwrap_or(""),
        delimiter: ["", "/", "/", "b"].choose(rng).copied().unwrap_or(""),
        start_after: if rng.random_bool(0.3) { NAMES.choose(rng).copied().unwrap_or("") } else { "" },
        page: rng.random_range(1..8),
    };
    let order = |entry: &Listed| match entry {
        Listed::Object { key, .. } => key.clone(),
        Listed::Prefix(prefix) => prefix.clone(),
    };
    let mut found = Vec::new();
    let mut token = None;
    loop {
        let page = client.list_page(BUCKET, &listing, token.as_deref()).await?;
        let count = page.entries.len();
        ensure(count <= listing.page, || format!("{count} entries on a page of {}", listing.page))?;
        let mut entries = page.entries;
        entries.sort_by_key(order);
        found.extend(entries);
        token = page.token;
        if token.is_none() {
            break;
        }
    }
    let expected = model.list(&listing);
    ensure(found == expected, || format!("{listing:?} through {}:\n{found:#?}\nnot\n{expected:#?}", client.endpoint()))
}

async fn run(clients: &[Client], seed: u64) -> Outcome {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut model = Bucket::new();
    let created = clients[0].create_bucket(BUCKET).await?;
    ensure(created.status == 200, || created.describe())?;
    for step in 0..STEPS {
        let client = &clients[rng.random_range(0..clients.len())];
        let key = NAMES.choose(&mut rng).copied().unwrap_or("a");
        match rng.random_range(0..10) {
            0..4 => {
                let len = [16, 500, 4_096, 4_097, 65_536, 200_000].choose(&mut rng).copied().unwrap_or(16);
                let body = content::body(key, step, len);
                let answer = client.put(BUCKET, key, body.clone()).await?;
                ensure(answer.status == 200, || format!("step {step}: PUT {key}: {}", answer.describe()))?;
                model.put(key, body);
            }
            4..6 => {
                let answer = client.delete(BUCKET, key).await?;
                ensure(answer.status == 204, || format!("step {step}: DELETE {key}: {}", answer.describe()))?;
                model.delete(key);
            }
            6..8 => check_key(client, &model, key, &mut rng).await?,
            _ => check_listing(client, &model, &mut rng).await?,
        }
    }
    for client in clients {
        for key in NAMES {
            check_key(client, &model, key, &mut rng).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_bucket_behaves_as_its_model_through_every_node() -> Outcome {
    let seed = rand::random();
    harness::note(&format!("seed {seed}"));
    if let Some(clients) = external() {
        return run(&clients, seed).await;
    }
    let _turn = Turn::wait()?;
    let cluster = Cluster::start("model", &Shape::new(3, 1))?;
    run(&cluster.clients(), seed).await?;
    Ok(cluster.finish()?)
}
