//! The whole cluster in one deterministic thread, under seeded faults.
//!
//! `DRYSTONE_SIM_SEEDS=N` runs N seeds instead of the usual ones, `DRYSTONE_SIM_SEED=X` one seed, again.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test's helpers fail as the test does, and say which seeds ran"
)]

use std::collections::BTreeMap;

use drystone_cluster::store::{Condition, StoreError, Unavailable};
use drystone_tests::content;
use drystone_tests::sim::{Ask, Kind, Reply, Report, Shown, Size, World, run};

/// Seeds of an ordinary run, over all groups.
const SEED_COUNT: u64 = 160;
/// Groups are tests of their own, so that they run side by side.
const GROUP_COUNT: u64 = 4;

/// What must happen at least once in every group, or the simulation does not test what it says.
const MUST_FIRE: [&str; 17] = [
    "whole state taken over",
    "crash",
    "crash with unsynced writes",
    "restart",
    "planned stop",
    "datagram lost",
    "datagram duplicated",
    "datagram corrupted",
    "datagram delivered",
    "write acknowledged",
    "condition refused",
    "value read",
    "absence read",
    "page listed",
    "outcome unknown",
    "refused: no quorum",
    "refused: too few domains",
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn run_group(group: u64) {
    let one = number("DRYSTONE_SIM_SEED");
    let count = number("DRYSTONE_SIM_SEEDS").unwrap_or(SEED_COUNT);
    let per_group = count.div_ceil(GROUP_COUNT);
    let seeds = group * per_group..(group + 1) * per_group;
    let shown = if one.is_some() { Shown::AllEvents } else { Shown::LastEvents };
    let mut fired: BTreeMap<&str, u64> = BTreeMap::new();
    let mut red = Vec::new();
    for seed in seeds.filter(|seed| one.is_none_or(|one| one == *seed)) {
        let begun = std::time::Instant::now();
        match run(seed, shown) {
            Ok(report) => {
                print(seed, &report, begun.elapsed());
                report.fired.into_iter().for_each(|(what, times)| *fired.entry(what).or_default() += times);
            }
            Err(failure) => {
                println!("{failure}");
                red.push(seed);
            }
        }
    }
    assert!(red.is_empty(), "red seeds, each with its last events above: {red:?}");
    println!("group {group}: {fired:#?}");
    if one.is_none() && per_group >= Kind::ALL.len() as u64 {
        let missing: Vec<&str> = Kind::ALL
            .iter()
            .map(|kind| kind.name())
            .chain(MUST_FIRE)
            .filter(|what| !fired.contains_key(what))
            .collect();
        assert!(missing.is_empty(), "never happened: {missing:?}");
    }
}

fn print(seed: u64, report: &Report, took: std::time::Duration) {
    let Report { digest, operation_count, end_ms, .. } = report;
    println!("seed {seed}: {operation_count} operations in {end_ms} simulated ms, {took:.1?}, trace {digest}");
}

#[test]
fn seeds_of_the_first_group_keep_the_invariants() {
    run_group(0);
}

#[test]
fn seeds_of_the_second_group_keep_the_invariants() {
    run_group(1);
}

#[test]
fn seeds_of_the_third_group_keep_the_invariants() {
    run_group(2);
}

#[test]
fn seeds_of_the_fourth_group_keep_the_invariants() {
    run_group(3);
}

#[test]
fn a_node_that_missed_more_than_the_logs_keep_catches_up_and_carries_the_cluster() {
    let mut world = World::new(29, Size { node_count: 3, drive_count: 1 }).unwrap();
    world.run_until_ready(15_000).unwrap();
    ask(&mut world, 0, Ask::CreateBucket).unwrap();
    world.crash(2);
    // Bodies as large as entries get, so that a state is many pieces of the network's choosing.
    let keys: Vec<String> = (0..300).map(|number| format!("missed {number}")).collect();
    for key in &keys {
        ask(&mut world, 0, put(key, 4_000)).unwrap();
    }
    world.restart(2);
    world.run_until_ready(10_000).unwrap();
    world.run_until_ms(world.now_ms() + 3_000).unwrap();
    // Now every majority needs the node that was away.
    world.crash(0);
    for key in &keys {
        match ask(&mut world, 2, get(key)).unwrap() {
            Reply::Body { bytes, .. } => assert_eq!(bytes, content::body(key, 1, 4_000), "{key}"),
            other => panic!("{other:?}"),
        }
    }
    world.count_traffic();
    let installed = world.trace().fired_counts().get("whole state taken over").copied();
    assert!(installed.is_some_and(|count| count > 0), "no whole state was sent: the test shows nothing");
}

#[test]
fn one_seed_gives_one_trace() {
    for seed in [2, 3, 5] {
        let first = run(seed, Shown::LastEvents).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(first, run(seed, Shown::LastEvents).unwrap_or_else(|failure| panic!("{failure}")));
    }
}

/// Longer than a node takes to notice that nobody answers and to refuse a request: 8 s for the decision, before which a
/// listing asks all leaders at once (2 s) and a body tries the drives (5 s).
const REFUSAL_LIMIT_MS: u64 = 13_500;

/// Asks a node, which must answer in time.
fn ask(world: &mut World, node: usize, question: Ask) -> Result<Reply, StoreError> {
    let asked = format!("{question} through node {node}");
    let answer = world.ask(node, question, REFUSAL_LIMIT_MS).unwrap_or_else(|failure| panic!("{failure}"));
    answer.unwrap_or_else(|| panic!("{asked} was not answered within {REFUSAL_LIMIT_MS} ms"))
}

fn put(key: &str, len: usize) -> Ask {
    Ask::Put { key: key.to_owned(), body: content::body(key, 1, len), condition: Condition::default() }
}

fn get(key: &str) -> Ask {
    Ask::Get { key: key.to_owned(), skip: 0 }
}

fn list() -> Ask {
    Ask::List { after: None, count_max: 1_000 }
}

/// Puts through the first node of `nodes` and reads through all of them.
fn store_and_read(world: &mut World, nodes: &[usize], key: &str, len: usize) {
    ask(world, nodes[0], put(key, len)).unwrap();
    for node in nodes {
        match ask(world, *node, get(key)).unwrap() {
            Reply::Body { bytes, .. } => assert_eq!(bytes, content::body(key, 1, len), "{key} through node {node}"),
            other => panic!("{other:?}"),
        }
    }
}

fn names(reply: Reply) -> Vec<String> {
    match reply {
        Reply::Page { entries, truncated: false } => entries.into_iter().map(|(name, _)| name).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_minority_of_two_refuses_while_the_majority_of_three_goes_on_and_afterwards_both_agree() {
    let (few, many, all) = ([0, 1], [2, 3, 4], [0, 1, 2, 3, 4]);
    let mut world = World::new(23, Size { node_count: 5, drive_count: 1 }).unwrap();
    world.run_until_ready(15_000).unwrap();
    ask(&mut world, 0, Ask::CreateBucket).unwrap();
    store_and_read(&mut world, &all, "before", 200_000);

    world.cut(&few, &many);
    // The majority elects leaders for what the others led: requests wait for that, none is refused.
    store_and_read(&mut world, &many, "inline", 100);
    store_and_read(&mut world, &many, "chunked", 200_000);
    ask(&mut world, 2, Ask::Delete { key: "before".to_owned() }).unwrap();
    let questions = [put("never", 100), put("never", 200_000), get("before"), get("inline"), get("never"), list()];
    let asks: Vec<_> = few.iter().flat_map(|node| questions.iter().map(move |ask| (*node, ask.clone()))).collect();
    let asked: Vec<_> = asks.iter().map(|(node, ask)| format!("{ask} through node {node}")).collect();
    let answers = world.ask_at_once(asks, REFUSAL_LIMIT_MS).unwrap_or_else(|failure| panic!("{failure}"));
    for (asked, answer) in asked.iter().zip(answers) {
        let no_quorum = matches!(answer, Some(Err(StoreError::Unavailable(Unavailable::NoQuorum { .. }))));
        // A body that must lie on three domains is refused even before the index is asked.
        let no_domains = matches!(answer, Some(Err(StoreError::Unavailable(Unavailable::TooFewDomains { .. }))));
        assert!(no_quorum || (no_domains && asked.starts_with("put")), "{asked}: {answer:?}");
    }
    let not_ready = world.not_ready().unwrap();
    let reasons_of = |name: &str| not_ready.iter().filter(|reason| reason.starts_with(name)).count();
    assert_eq!((reasons_of("n1"), reasons_of("n2"), not_ready.len()), (1, 1, 2), "{not_ready:?}");

    world.mend_links();
    world.run_until_ready(10_000).unwrap();
    for node in all {
        let listed = names(ask(&mut world, node, list()).unwrap());
        // What the minority refused has not happened, and does not happen later.
        assert_eq!(listed, ["chunked", "inline"], "through node {node}");
        assert!(matches!(ask(&mut world, node, get("before")), Err(StoreError::NoSuchKey(_))), "through node {node}");
    }
    for key in ["inline", "chunked"] {
        let len = if key == "inline" { 100 } else { 200_000 };
        for node in all {
            match ask(&mut world, node, get(key)).unwrap() {
                Reply::Body { bytes, .. } => assert_eq!(bytes, content::body(key, 1, len), "{key} through node {node}"),
                other => panic!("{other:?}"),
            }
        }
    }
    store_and_read(&mut world, &all, "after", 200_000);
}
