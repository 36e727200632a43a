//! `drystone dev`: the first thing a newcomer runs. A whole cluster in one process that says how to use it, keeps its
//! data, tells the truth about itself, and stops when asked.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use drystone_tests::client::{Client, Credentials};
use drystone_tests::harness::{
    Failure, Job, Outcome, Turn, drystone, ensure, environment, free_ports, run, target_dir, until,
};
use drystone_tests::health::{health, metrics};
use drystone_tests::{content, harness};

const READY: Duration = Duration::from_secs(60);

struct Dev {
    job: Job,
    clients: Vec<Client>,
    credentials: Credentials,
}

async fn start(home: &Path, port: u16, run: u32) -> Outcome<Dev> {
    let mut command = Command::new(drystone()?);
    command.args(["dev", "--nodes", "3", "--drives", "2", "--s3-port", &port.to_string()]).current_dir(home);
    command.arg("--dir").arg(home.join("data")).env("DRYSTONE_DRIVE_SEGMENT_BYTES", "64MiB");
    let mut job = Job::start(&mut command, &home.join(format!("dev-{run}.log")))?;
    let file = home.join("data/cluster.env");
    let settings = || {
        let ended = job.ended();
        let read = environment(&file);
        let output = job.output();
        async move {
            match (ended, read) {
                // Of a fresh directory the keys are written first, the endpoints once they listen.
                (Ok(None), Ok(settings)) if settings.get("S3_ENDPOINTS").is_some_and(|list| !list.is_empty()) => {
                    Ok(settings)
                }
                (ended, read) => Err(format!("{ended:?}, {read:?}: {output}")),
            }
        }
    };
    let settings = until(READY, "dev writes its endpoints to cluster.env", settings).await?;
    let get = |name: &str| settings.get(name).cloned().ok_or_else(|| Failure::new(format!("{name} is missing")));
    let credentials = Credentials { access_key: get("AWS_ACCESS_KEY_ID")?, secret_key: get("AWS_SECRET_ACCESS_KEY")? };
    let region = get("AWS_DEFAULT_REGION")?;
    ensure(region == "us-east-1", || region.clone())?;
    let endpoints = get("S3_ENDPOINTS")?;
    let clients: Vec<Client> =
        endpoints.split_whitespace().map(|endpoint| Client::new(endpoint, &credentials, &region)).collect();
    ensure(clients.len() == 3, || format!("endpoints: {endpoints}"))?;
    for client in &clients {
        let ready = || async {
            match client.get_plain("/-/ready").await {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(answer.describe()),
                Err(error) => Err(error.to_string()),
            }
        };
        until(READY, "dev is ready", ready).await?;
    }
    Ok(Dev { job, clients, credentials })
}

async fn interrupt(mut job: Job) -> Outcome<String> {
    run(Command::new("kill").args(["-INT", &job.id().to_string()]))?;
    let status = job.end(Duration::from_secs(60)).await?;
    ensure(status.code() == Some(0), || format!("ended with {status}: {}", job.output()))?;
    Ok(job.output())
}

async fn check_words(dev: &Dev) -> Outcome {
    let said = || async {
        let output = dev.job.output();
        let wanted =
            dev.clients.iter().map(Client::endpoint).chain([dev.credentials.access_key.as_str(), "aws ", " s3 "]);
        let missing: Vec<&str> = wanted.filter(|word| !output.contains(word)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("does not say {missing:?}: {output}")) }
    };
    Ok(until(READY, "dev says how to use it", said).await?)
}

async fn check_truth(dev: &Dev) -> Outcome {
    let mut clusters = Vec::new();
    for client in &dev.clients {
        let state = health(client).await?;
        ensure(state.peers.len() == 2 && state.drives.len() == 2 && !state.groups.is_empty(), || format!("{state:?}"))?;
        let alive = || async {
            let state = health(client).await.map_err(|error| error.to_string())?;
            let is_well = state.peers.iter().all(|peer| peer.state == "alive" && peer.answer_age_ms < Some(10_000))
                && state.drives.iter().all(|drive| drive.state == "healthy" && drive.capacity_bytes > 0)
                && state.groups.iter().all(|group| group.leader.is_some());
            if is_well { Ok(()) } else { Err(format!("{state:?}")) }
        };
        until(READY, "health is good", alive).await?;
        clusters.push(state.cluster);
        let live = client.get_plain("/-/live").await?;
        ensure(live.status == 200, || live.describe())?;
        let text = metrics(client).await?;
        let samples = text.lines().filter(|line| !line.starts_with('#') && line.contains("drystone_")).count();
        ensure(samples > 20 && text.contains("# TYPE "), || format!("{samples} samples:\n{text}"))?;
    }
    ensure(clusters.iter().all(|cluster| *cluster == clusters[0]), || format!("clusters {clusters:?}"))
}

#[tokio::test]
async fn dev_starts_tells_keeps_and_stops() -> Outcome {
    let _turn = Turn::wait()?;
    let base = target_dir()?.join("drystone-tests");
    std::fs::create_dir_all(&base)?;
    let home = tempfile::Builder::new().prefix("dev-").tempdir_in(base)?;
    let port = free_ports(3)?;

    let dev = start(home.path(), port, 1).await?;
    check_words(&dev).await?;
    check_truth(&dev).await?;
    let created = dev.clients[0].create_bucket("kept").await?;
    ensure(created.status == 200, || created.describe())?;
    for (index, client) in dev.clients.iter().enumerate() {
        let key = format!("object/{index}");
        let body = content::body(&key, 1, [200, 70_000, 9_000_000][index]);
        let put = client.put("kept", &key, body).await?;
        ensure(put.status == 200, || put.describe())?;
    }
    let first = dev.credentials.clone();
    interrupt(dev.job).await?;

    let dev = start(home.path(), port, 2).await?;
    ensure(dev.credentials.access_key == first.access_key, || "another key after the restart".to_owned())?;
    for index in 0..3 {
        let key = format!("object/{index}");
        let got = dev.clients[(index + 1) % 3].get("kept", &key).await?;
        ensure(content::identify(&key, &got.body) == Ok(1), || format!("{key} after the restart: {}", got.status))?;
    }
    interrupt(dev.job).await?;
    harness::note("dev kept three objects over a restart");
    Ok(())
}
