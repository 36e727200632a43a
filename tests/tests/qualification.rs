//! Budgets of memory and processor time, on real server processes. Ignored by default, since they need an optimised
//! binary and a quiet machine:
//!
//!     cargo build --release && DRYSTONE_BIN=target/release/drystone cargo test -p drystone-tests --test qualification -- --ignored

use std::time::Duration;

use drystone_tests::client::{Payload, Request};
use drystone_tests::content::Stream;
use drystone_tests::harness::{Cluster, Failure, Outcome, Shape, Turn, ensure, note};
use http::Method;
use http_body_util::BodyExt;
use tokio::time::sleep;

const MEGABYTE: u64 = 1_000_000;

#[tokio::test]
#[ignore = "needs an optimised binary and a quiet machine"]
async fn an_idle_node_stays_below_60_mb_and_one_percent_of_a_core() -> Outcome {
    let _turn = Turn::wait()?;
    let cluster = Cluster::start("idle", &Shape::new(3, 2))?;
    // Not a wait for anything: the interval that is measured, after one in which start-up work ends.
    sleep(Duration::from_secs(15)).await;
    let interval = Duration::from_secs(60);
    let before = (1..=3).map(|node| cluster.process(node)?.measure()).collect::<Result<Vec<_>, _>>()?;
    sleep(interval).await;
    for node in 1..=3 {
        let now = cluster.process(node)?.measure()?;
        let used = now.processor.saturating_sub(before[node - 1].processor);
        let share = used.as_secs_f64() / interval.as_secs_f64();
        note(&format!("node {node}: {} MB resident, {:.2} % of a core", now.resident_bytes / MEGABYTE, share * 100.0));
        ensure(now.resident_bytes < 60 * MEGABYTE, || format!("node {node}: {now:?}"))?;
        ensure(share < 0.01, || format!("node {node}: {used:?} in {interval:?}"))?;
    }
    Ok(cluster.finish()?)
}

#[tokio::test]
#[ignore = "needs an optimised binary and 20 GB of disk"]
async fn five_gibibytes_pass_through_a_node_in_under_400_mb() -> Outcome {
    const LEN: u64 = 5 << 30;
    let _turn = Turn::wait()?;
    let cluster = Cluster::start("large", &Shape::new(3, 2))?;
    let (one, other) = (cluster.client(1).with_timeout(Duration::from_secs(1_800)), cluster.client(2));
    let created = one.create_bucket("large").await?;
    ensure(created.status == 200, || created.describe())?;
    let mut request = Request::new(Method::PUT, "/large/object").header("content-length", LEN.to_string());
    request.payload = Payload::Generated(Stream::new("object", 1, LEN));
    let put = one.send(request).await?;
    ensure(put.status == 200, || put.describe())?;
    let got = other.open(Request::new(Method::GET, "/large/object")).await?;
    ensure(got.status() == 200, || got.status().to_string())?;
    compare(got.into_body(), Stream::new("object", 1, LEN)).await?;
    for node in 1..=3 {
        let peak = cluster.process(node)?.measure()?.resident_peak_bytes;
        note(&format!("node {node}: at most {} MB resident", peak / MEGABYTE));
        ensure(peak < 400 * MEGABYTE, || format!("node {node}: {peak} bytes resident"))?;
    }
    Ok(cluster.finish()?)
}

/// Compares a body with what it must be while it arrives.
async fn compare(mut body: hyper::body::Incoming, mut expected: Stream) -> Outcome {
    let mut buffer = Vec::new();
    let mut offset = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        buffer.resize(data.len(), 0);
        let len = expected.fill(&mut buffer);
        ensure(buffer[..len] == data[..], || format!("wrong in the {} bytes from {offset} on", data.len()))?;
        offset += data.len();
    }
    if expected.remaining() == 0 { Ok(()) } else { Err(Failure::new(format!("ends after {offset} bytes"))) }
}
