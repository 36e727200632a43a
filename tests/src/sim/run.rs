//! The run of one seed: faults and clients side by side, then the end of all faults and the reckoning.
//!
//! Safety phase: whatever is acknowledged or read must fit one order per key (I1–I6), whatever is answered must be
//! right at once. Liveness phase: all faults end; all nodes must be ready within 10 s, and from then on every request
//! must succeed (I9) through every node. Then the whole history is checked.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::clients::{PageEnd, Shared, run_clients};
use super::plan::plan;
use super::service::Ask;
use super::world::{Failure, Size, World};
use crate::history::{Action, NEVER, Operation, Outcome};
use crate::linearizability::{self, Verdict};

/// How long faults may happen.
const SAFETY_MS: u64 = 12_000;
/// How long a cluster may take to found itself.
const FOUNDING_LIMIT_MS: u64 = 15_000;
/// I9.
const RECOVERY_LIMIT_MS: u64 = 10_000;
/// How long clients go on after the recovery.
const LIVENESS_MS: u64 = 2_000;
/// The longest answer in the liveness phase.
const ANSWER_LIMIT_MS: u64 = 5_000;
/// I9 also holds for what was asked while there were faults: it must have been answered by then.
const CLIENT_END_LIMIT_MS: u64 = 10_000;
const CLIENT_COUNT: u32 = 4;
const KEY_COUNT: u32 = 6;

/// A run that found nothing wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The hash of everything that happened, with its times.
    pub digest: String,
    /// What happened how often.
    pub fired: BTreeMap<&'static str, u64>,
    /// Operations of the history.
    pub operation_count: usize,
    /// Simulated time.
    pub end_ms: u64,
}

/// What a failure shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The last events.
    LastEvents,
    /// All events.
    AllEvents,
}

/// Runs a seed.
///
/// # Errors
/// What was violated, with the seed and the last events.
pub fn run(seed: u64, shown: Shown) -> Result<Report, Failure> {
    let mut world = World::new(seed, size(seed))?;
    if shown == Shown::AllEvents {
        world.show_all_events();
    }
    let ended = run_world(seed, &mut world);
    ended.map_err(|Failure(what)| Failure(format!("seed {seed} (DRYSTONE_SIM_SEED={seed} runs it again): {what}")))
}

fn size(seed: u64) -> Size {
    let node_count = if seed % 7 == 3 { 5 } else { 3 };
    Size { node_count, drive_count: if seed.is_multiple_of(2) { 1 } else { 2 } }
}

fn run_world(seed: u64, world: &mut World) -> Result<Report, Failure> {
    world.run_until_ready(FOUNDING_LIMIT_MS)?;
    if !matches!(world.ask(0, Ask::CreateBucket, ANSWER_LIMIT_MS)?, Some(Ok(_))) {
        return Err(world.failure("the bucket was not created".to_owned()));
    }
    let shared = Shared::new(world.nodes().to_vec(), KEY_COUNT, world.trace().clone());
    world.add_client("clients", run_clients(Arc::clone(&shared), CLIENT_COUNT, seed));
    be_unsafe(seed, world)?;
    recover(world, &shared)?;
    read_through_every_node(world, &shared)?;
    check_history(world, &shared.recorder().operations())?;
    world.count_traffic();
    Ok(Report {
        digest: world.trace().digest(),
        fired: world.trace().fired_counts(),
        operation_count: shared.recorder().operations().len(),
        end_ms: world.now_ms(),
    })
}

/// The safety phase.
fn be_unsafe(seed: u64, world: &mut World) -> Result<(), Failure> {
    let begin_ms = world.now_ms();
    let node_count = world.nodes().len();
    let acts = plan(seed, world.rng(), node_count, SAFETY_MS);
    for (at_ms, act) in acts.iter().filter(|(at_ms, _)| *at_ms < SAFETY_MS) {
        world.run_until_ms(begin_ms + at_ms)?;
        world.act(act);
    }
    world.run_until_ms(begin_ms + SAFETY_MS)
}

/// The liveness phase; ends with all clients.
fn recover(world: &mut World, shared: &Shared) -> Result<(), Failure> {
    world.heal();
    let healed_ms = world.now_ms();
    world.run_until_ready(RECOVERY_LIMIT_MS)?;
    world.trace().event(&format!("all nodes are ready {} ms after the last fault", world.now_ms() - healed_ms));
    shared.be_strict();
    world.run_until_ms(world.now_ms() + LIVENESS_MS)?;
    shared.stop();
    let until_ms = world.now_ms() + CLIENT_END_LIMIT_MS;
    while shared.running() > 0 {
        if world.now_ms() >= until_ms {
            return Err(world.failure(format!("I9: {} clients still wait for an answer", shared.running())));
        }
        world.step()?;
    }
    Ok(())
}

/// Every node must show everything, at once.
fn read_through_every_node(world: &mut World, shared: &Shared) -> Result<(), Failure> {
    for node in 0..world.nodes().len() {
        let number = u32::try_from(node).unwrap_or(u32::MAX);
        let client = 100 + number;
        for key in 0..KEY_COUNT {
            let pending = shared.recorder().invoke(client, number, key, Action::Get);
            let sent_ms = world.now_ms();
            let answer = world.ask(node, shared.question(key, Action::Get, 0), ANSWER_LIMIT_MS)?;
            let outcome = shared.outcome(key, Action::Get, answer);
            shared.conclude(&format!("last look through node {node} at {key}"), sent_ms, pending, outcome);
        }
        let mut after = None;
        loop {
            let reads = shared.reads_of_list(client, number);
            let answer = world.ask(node, Ask::List { after: after.clone(), count_max: 4 }, ANSWER_LIMIT_MS)?;
            match shared.conclude_page(&format!("last list through node {node}"), reads, after.as_deref(), answer) {
                Some(PageEnd::More(last)) => after = last,
                Some(PageEnd::Last) => break,
                None => return Err(world.failure(format!("I9: no list through node {node}"))),
            }
        }
        world.step()?;
    }
    Ok(())
}

fn check_history(world: &World, operations: &[Operation]) -> Result<(), Failure> {
    linearizability::check(operations).map_err(|(key, verdict)| {
        let what = match verdict {
            Verdict::Violation(violation) => format!("I1–I4: key {key} is not linearizable: {violation}"),
            verdict => format!("key {key}: the checker ended with {verdict:?}"),
        };
        let history: String =
            operations.iter().filter(|operation| operation.key == key).map(|operation| line(*operation)).collect();
        world.failure(format!("{what}\nits history:\n{history}"))
    })
}

fn line(operation: Operation) -> String {
    let Operation { client, node, action, outcome, invoked, returned, .. } = operation;
    if outcome == Outcome::Unknown && action == Action::Get {
        return String::new();
    }
    let returned = if returned == NEVER { "never".to_owned() } else { returned.to_string() };
    format!("  {invoked:>5}–{returned:<5} client {client} node {node} {action:?} -> {outcome:?}\n")
}
