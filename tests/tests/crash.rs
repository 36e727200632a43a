//! What was acknowledged is there, byte for byte, after the worst a machine does: all processes killed under load,
//! bits flipped and files lost on drives, an index gone or turned into noise.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drystone_tests::client::{Client, Listed, Listing};
use drystone_tests::content;
use drystone_tests::harness::{Cluster, Failure, Outcome, Shape, Turn, ensure, note, until};
use drystone_tests::health::{health, metrics, sum_like};
use drystone_tests::workload::{Promise, Promises, Writer, check_promises};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const BUCKET: &str = "crash";
const WRITERS: u32 = 12;
const ROUNDS: u32 = 3;

struct Writers {
    tasks: JoinSet<()>,
    stop: CancellationToken,
    promises: Arc<Mutex<Promises>>,
}

impl Writers {
    fn start(nodes: &[Client], round: u32, seed: u64) -> Self {
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        let promises = Arc::new(Mutex::new(Promises::new()));
        for index in 0..WRITERS {
            // Inline bodies, copies, and one writer in four with several extents' worth of stripes.
            let len = if index % 4 == 0 { 200_000..9_500_000 } else { 16..150_000 };
            let writer = Writer {
                client: round * 100 + index,
                nodes: nodes.to_vec(),
                bucket: BUCKET.to_owned(),
                len,
                seed: seed ^ u64::from(round * 100 + index),
                promises: Arc::clone(&promises),
            };
            tasks.spawn(writer.run(stop.clone()));
        }
        Self { tasks, stop, promises }
    }

    fn promises(&self) -> Promises {
        self.promises.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn wait_acknowledged(&self, count: usize) -> Outcome {
        let enough = || async {
            let now = self.promises().values().filter(|promise| promise.acknowledged.is_some()).count();
            if now >= count { Ok(()) } else { Err(format!("{now} of {count} acknowledged")) }
        };
        Ok(until(Duration::from_secs(60), "writes are acknowledged", enough).await?)
    }

    async fn stop(mut self) -> Promises {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.promises()
    }
}

async fn check_everywhere(nodes: &[Client], promises: &Promises) -> Outcome {
    for node in nodes {
        check_promises(node, BUCKET, promises, 8).await.map_err(Failure::new)?;
    }
    Ok(())
}

/// The listing shows every acknowledged key, and nothing that no writer sent.
async fn check_listing(node: &Client, promises: &Promises) -> Outcome {
    let listed = node.list(BUCKET, &Listing::default()).await?;
    let keys: Vec<&str> = listed
        .iter()
        .filter_map(|entry| match entry {
            Listed::Object { key, .. } => Some(key.as_str()),
            Listed::Prefix(_) => None,
        })
        .collect();
    let is_listed = |key: &str| keys.binary_search(&key).is_ok();
    let acknowledged = promises.iter().filter(|(_, promise)| promise.acknowledged.is_some());
    let lost: Vec<&String> = acknowledged.map(|(key, _)| key).filter(|key| !is_listed(key)).collect();
    ensure(lost.is_empty(), || format!("acknowledged but not listed: {lost:?}"))?;
    let foreign: Vec<&&str> = keys.iter().filter(|key| !promises.contains_key(**key)).collect();
    ensure(foreign.is_empty(), || format!("listed but never written: {foreign:?}"))
}

#[tokio::test]
async fn acknowledged_objects_survive_the_death_of_all_nodes_under_load() -> Outcome {
    let _turn = Turn::wait()?;
    let cluster = Cluster::start("crash", &Shape::new(3, 2))?;
    let seed = rand::random();
    note(&format!("seed {seed}"));
    let nodes = cluster.clients();
    let created = nodes[0].create_bucket(BUCKET).await?;
    ensure(created.status == 200, || created.describe())?;
    let mut all = Promises::new();
    for round in 0..ROUNDS {
        let writers = Writers::start(&nodes, round, seed);
        writers.wait_acknowledged(120).await?;
        cluster.kill_all().await?;
        all.extend(writers.stop().await);
        cluster.start_all().await?;
        check_everywhere(&nodes, &all).await?;
        check_listing(&nodes[round as usize % nodes.len()], &all).await?;
    }
    note(&format!("{} keys kept over {ROUNDS} deaths", all.len()));
    Ok(cluster.finish()?)
}

/// Puts bodies of all kinds of sizes, spread over the nodes.
async fn fill(nodes: &[Client], count: u64, rng: &mut StdRng) -> Outcome<Promises> {
    let mut promises = Promises::new();
    for index in 0..count {
        let key = format!("filled/{index:04}");
        let len = match index % 8 {
            0 => rng.random_range(16..4_096),
            1 => rng.random_range(1_000_000..9_000_000),
            _ => rng.random_range(5_000..400_000),
        };
        let answer =
            nodes[usize::try_from(index)? % nodes.len()].put(BUCKET, &key, content::body(&key, index, len)).await?;
        ensure(answer.status == 200, || format!("PUT {key}: {}", answer.describe()))?;
        promises.insert(key, Promise { acknowledged: Some(index), len, possible: Vec::new() });
    }
    Ok(promises)
}

/// Two of five nodes are hurt, each on its drive, which is as much as the cluster promises to bear.
#[tokio::test]
async fn gets_stay_right_with_bits_flipped_on_one_drive_and_segments_gone_from_another() -> Outcome {
    let _turn = Turn::wait()?;
    let cluster = Cluster::start("damage", &Shape::new(5, 1))?;
    let seed: u64 = rand::random();
    note(&format!("seed {seed}"));
    let mut rng = StdRng::seed_from_u64(seed);
    let nodes = cluster.clients();
    let created = nodes[0].create_bucket(BUCKET).await?;
    ensure(created.status == 200, || created.describe())?;
    let promises = fill(&nodes, 160, &mut rng).await?;

    let flipped = cluster.drives(1)?[0].flip_bits(30_000, 8_192, &mut rng)?;
    ensure(flipped.bytes > 20, || format!("too little on the drive to hurt: {flipped:?}"))?;
    check_everywhere(&nodes, &promises).await?;
    let state = health(&nodes[0]).await?;
    let corrupt: u64 = state.drives.iter().map(|drive| drive.corrupt_blocks).sum();
    ensure(corrupt > 0, || format!("{flipped:?} and /-/health counts no corrupt block: {state:?}"))?;
    let text = metrics(&nodes[0]).await?;
    ensure(sum_like(&text, "corrupt").is_some_and(|sum| sum > 0.0), || format!("no metric counts them:\n{text}"))?;

    cluster.stop(2)?;
    let removed = cluster.drives(2)?[0].remove_segments()?;
    ensure(removed.files > 0, || "no segments to remove".to_owned())?;
    cluster.start_node(2)?;
    cluster.wait_ready(2).await?;
    check_everywhere(&nodes, &promises).await?;
    // The index may still know the chunks: then their places hold something else, and that is what is counted.
    let text = metrics(&nodes[1]).await?;
    let missing = sum_like(&text, "missing_reads").unwrap_or(0.0) + sum_like(&text, "corrupt_reads").unwrap_or(0.0);
    ensure(missing > 0.0, || format!("{removed:?} and no metric counts what is missing:\n{text}"))?;
    let met = health(&nodes[1]).await?.durability;
    ensure(met.chunk_read_failures > 0 && met.degraded_reads > 0, || {
        format!("{removed:?} and /-/health says {met:?}")
    })?;
    note(&format!("{flipped:?}, {removed:?}, {corrupt} corrupt blocks and {missing} missing chunks counted, {met:?}"));
    Ok(cluster.finish()?)
}

#[tokio::test]
async fn a_chunk_index_that_is_gone_or_noise_is_rebuilt_at_the_next_start() -> Outcome {
    let _turn = Turn::wait()?;
    let cluster = Cluster::start("index", &Shape::new(3, 1))?;
    let seed: u64 = rand::random();
    note(&format!("seed {seed}"));
    let mut rng = StdRng::seed_from_u64(seed);
    let nodes = cluster.clients();
    let created = nodes[0].create_bucket(BUCKET).await?;
    ensure(created.status == 200, || created.describe())?;
    let promises = fill(&nodes, 60, &mut rng).await?;
    let before = health(&nodes[0]).await?.drives[0].used_bytes;
    for fault in ["gone", "noise"] {
        cluster.stop(1)?;
        let drive = cluster.drives(1)?[0].clone();
        if fault == "gone" {
            drive.remove_chunk_index()?;
        } else {
            let garbled = drive.garble_chunk_index(&mut rng)?;
            ensure(garbled.bytes > 0, || "no index to garble".to_owned())?;
        }
        cluster.start_node(1)?;
        cluster.wait_ready(1).await?;
        let after = health(&nodes[0]).await?.drives[0].clone();
        ensure(after.used_bytes == before && after.state == "healthy", || {
            format!("index {fault}: {before} bytes before, now {after:?}")
        })?;
        // With another node down, what it held can only come from the rebuilt drive.
        cluster.kill(2)?;
        check_everywhere(&[nodes[0].clone(), nodes[2].clone()], &promises).await?;
        cluster.start_node(2)?;
        cluster.wait_ready(2).await?;
    }
    Ok(cluster.finish()?)
}
