//! Is every key a register that does one thing at a time, whatever happens to the nodes? 32 clients on three nodes
//! mix GET, PUT, conditional PUT and DELETE on 16 keys while a node at a time is killed, paused and restarted; the
//! recorded history must have an explanation. `TEST_SECONDS` sets how long (default 60).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drystone_tests::client::Client;
use drystone_tests::harness::{Cluster, Failure, Outcome, Shape, Turn, ensure, note, until};
use drystone_tests::history::{self, Action, Operation, Recorder};
use drystone_tests::linearizability;
use drystone_tests::workload::{Mixer, body_of, key_name};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

const BUCKET: &str = "registers";
const CLIENTS: u32 = 32;
const KEYS: u32 = 16;

fn duration() -> Duration {
    let seconds = std::env::var("TEST_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}

fn start_clients(
    nodes: &[Client],
    recorder: &Recorder,
    wrong: &Arc<Mutex<Vec<String>>>,
    seed: u64,
    stop: &CancellationToken,
) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let mixer = Mixer {
            client,
            nodes: nodes.to_vec(),
            bucket: BUCKET.to_owned(),
            key_count: KEYS,
            recorder: recorder.clone(),
            seed: seed ^ u64::from(client),
            wrong: Arc::clone(wrong),
        };
        clients.spawn(mixer.run(stop.clone()));
    }
    clients
}

/// Waits until the clients have had so many more answers that say something: that is when the next fault comes.
async fn wait_progress(recorder: &Recorder, more: usize) -> Outcome {
    let known = |operations: &[Operation]| {
        operations.iter().filter(|operation| operation.outcome != history::Outcome::Unknown).count()
    };
    let goal = known(&recorder.operations()) + more;
    let progress = || async {
        let now = known(&recorder.operations());
        if now >= goal { Ok(()) } else { Err(format!("{now} answers of {goal}")) }
    };
    Ok(until(Duration::from_secs(90), "the cluster serves its clients", progress).await?)
}

/// One fault on one node, and its end.
async fn disturb(cluster: &Cluster, recorder: &Recorder, rng: &mut StdRng, kind: usize) -> Outcome {
    let node = rng.random_range(1..=3);
    match kind % 3 {
        0 => {
            note(&format!("kill {node}"));
            cluster.kill(node)?;
            wait_progress(recorder, 300).await?;
            cluster.start_node(node)?;
        }
        1 => {
            note(&format!("pause {node}"));
            cluster.pause(node)?;
            let progress = wait_progress(recorder, 300).await;
            cluster.resume(node)?;
            progress?;
        }
        _ => {
            note(&format!("restart {node}"));
            cluster.stop(node)?;
            cluster.start_node(node)?;
        }
    }
    cluster.wait_ready(node).await?;
    wait_progress(recorder, 300).await
}

fn judge(cluster: &Cluster, operations: &[Operation]) -> Outcome {
    let unknown = operations.iter().filter(|operation| operation.outcome == history::Outcome::Unknown).count();
    note(&format!("{} operations, {unknown} of unknown outcome", operations.len()));
    let judged = linearizability::check(operations);
    let Err((key, verdict)) = judged else { return Ok(()) };
    let path = cluster.scratch().join("history.json");
    std::fs::write(&path, serde_json::to_vec(operations)?)?;
    let words = match verdict {
        linearizability::Verdict::Violation(violation) => violation.to_string(),
        other => format!("{other:?}"),
    };
    Err(Failure::new(format!("{}: {words}\nhistory: {}", key_name(key), path.display())))
}

/// What all keys hold at the end, through every node, as part of the history.
async fn read_all(nodes: &[Client], recorder: &Recorder) -> Outcome {
    for (index, node) in nodes.iter().enumerate() {
        for key in 0..KEYS {
            let pending = recorder.invoke(CLIENTS, u32::try_from(index)? + 1, key, Action::Get);
            let answer = node.get(BUCKET, &key_name(key)).await?;
            pending.returned(match answer.status.as_u16() {
                200 => history::Outcome::Found(drystone_tests::content::identify(&key_name(key), &answer.body)?),
                404 => history::Outcome::Missing,
                _ => return Err(Failure::new(format!("{}: {}", key_name(key), answer.describe()))),
            });
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_key_is_linearizable_while_nodes_die_pause_and_return() -> Outcome {
    let _turn = Turn::wait()?;
    let cluster = Cluster::start("linearizable", &Shape::new(3, 2))?;
    let seed = rand::random();
    note(&format!("seed {seed}"));
    let nodes: Vec<Client> =
        cluster.clients().into_iter().map(|client| client.with_timeout(Duration::from_secs(10))).collect();
    let created = nodes[0].create_bucket(BUCKET).await?;
    ensure(created.status == 200, || created.describe())?;
    let (recorder, wrong, stop) = (Recorder::new(), Arc::default(), CancellationToken::new());
    let mut clients = start_clients(&nodes, &recorder, &wrong, seed, &stop);
    let end = Instant::now() + duration();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut kind = 0;
    // At least one fault of each kind, however short the time.
    while Instant::now() < end || kind < 3 {
        disturb(&cluster, &recorder, &mut rng, kind).await?;
        kind += 1;
    }
    stop.cancel();
    let ended = async { while clients.join_next().await.is_some() {} };
    timeout(Duration::from_secs(60), ended).await?;
    read_all(&nodes, &recorder).await?;
    let wrong = wrong.lock().unwrap_or_else(PoisonError::into_inner).clone();
    ensure(wrong.is_empty(), || format!("{} wrong answers:\n{}", wrong.len(), wrong[..wrong.len().min(5)].join("\n")))?;
    judge(&cluster, &recorder.operations())?;
    note(&format!("{kind} faults"));
    Ok(cluster.finish()?)
}

/// All clients race for one fresh key after the other, through all nodes; no faults, so every answer is known.
#[tokio::test]
async fn if_none_match_has_exactly_one_winner_each_time() -> Outcome {
    let _turn = Turn::wait()?;
    let cluster = Cluster::start("winner", &Shape::new(3, 1))?;
    let nodes = cluster.clients();
    let created = nodes[0].create_bucket(BUCKET).await?;
    ensure(created.status == 200, || created.describe())?;
    for key in 0..40_u32 {
        let name = key_name(key);
        let race = (0..u64::from(CLIENTS)).map(|racer| {
            let (node, name) = (nodes[usize::try_from(racer).unwrap_or(0) % nodes.len()].clone(), name.clone());
            async move { (racer, node.put_if_absent(BUCKET, &name, body_of(key, racer)).await) }
        });
        let mut winners = Vec::new();
        for (racer, answer) in futures_util::future::join_all(race).await {
            let answer = answer?;
            match answer.status.as_u16() {
                200 => winners.push(racer),
                412 => ensure(answer.error_code() == "PreconditionFailed", || answer.describe())?,
                _ => return Err(Failure::new(format!("{name}: {}", answer.describe()))),
            }
        }
        ensure(winners.len() == 1, || format!("{name}: winners {winners:?}"))?;
        for node in &nodes {
            let answer = node.get(BUCKET, &name).await?;
            ensure(answer.body == body_of(key, winners[0]), || format!("{name}: not the winner's: {}", answer.status))?;
        }
    }
    Ok(cluster.finish()?)
}
