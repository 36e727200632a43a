//! What a call and a byte cost on this machine. Prints figures and asserts none; run by hand, in release:
//! `cargo test --release -p drystone-transport --test measure -- --ignored --nocapture`.

#![expect(clippy::unwrap_used, reason = "a failed set-up should fail the measurement at once")]

mod common;

use bytes::Bytes;
use common::*;
use drystone_transport::{Class, TransportConfig};
use std::time::Duration;
use tokio::time::Instant;

const IN_FLIGHT: usize = 64;
const CALLS_EACH: usize = 2_000;

fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

#[tokio::test]
#[ignore = "a measurement, not a check"]
async fn small_calls() {
    let (one, two) = pair(TransportConfig::default());
    let body = Bytes::from(vec![1; 256]);
    one.peers.call(two.id(), Class::Control, ECHO, body.clone(), LONG).await.unwrap();
    let (started, cpu_before) = (Instant::now(), cpu());
    let callers = (0..IN_FLIGHT).map(|_| async {
        for _ in 0..CALLS_EACH {
            one.peers.call(two.id(), Class::Control, ECHO, body.clone(), LONG).await.unwrap();
        }
    });
    futures_util::future::join_all(callers).await;
    let count = u32::try_from(IN_FLIGHT * CALLS_EACH).unwrap();
    println!(
        "{count} calls of 256 B, {IN_FLIGHT} in flight: {:?} wall, {:?} CPU per call, both ends",
        started.elapsed() / count,
        (cpu() - cpu_before) / count
    );
}

#[tokio::test]
#[ignore = "a measurement, not a check"]
async fn bulk() {
    let (one, two) = pair(TransportConfig::default());
    let piece = Bytes::from(vec![1; 1 << 20]);
    let (started, cpu_before) = (Instant::now(), cpu());
    for _ in 0..4 {
        let mut call = one.peers.open(two.id(), Class::Data, BULK_ECHO, Bytes::new(), LONG).await.unwrap();
        for _ in 0..64 {
            call.send(piece.clone()).await.unwrap();
        }
        call.finish();
        call.reply().await.unwrap();
        while call.recv(1 << 20).await.unwrap().is_some() {}
    }
    println!("512 MiB of bulk: {:?} wall, {:?} CPU, both ends", started.elapsed(), cpu() - cpu_before);
}
