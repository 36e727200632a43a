//! The checker against hand-made histories, brute force, and size.

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::history::{Action, NEVER, Outcome};

fn operation(action: Action, outcome: Outcome, invoked: u64, returned: u64) -> Operation {
    Operation { client: 0, node: 0, key: 0, action, outcome, invoked, returned }
}

fn unknown(action: Action, invoked: u64) -> Operation {
    operation(action, Outcome::Unknown, invoked, NEVER)
}

fn accepts(history: &[Operation]) -> bool {
    let verdict = check_key(history);
    assert_ne!(verdict, Verdict::GaveUp);
    verdict == Verdict::Linearizable
}

#[test]
fn a_stale_read_is_rejected() {
    let puts = [operation(Action::Put(1), Outcome::Done, 0, 1), operation(Action::Put(2), Outcome::Done, 2, 3)];
    let fresh = operation(Action::Get, Outcome::Found(2), 4, 5);
    let stale = operation(Action::Get, Outcome::Found(1), 4, 5);
    assert!(accepts(&[puts[0], puts[1], fresh]));
    assert!(!accepts(&[puts[0], puts[1], stale]));
}

#[test]
fn a_read_that_overlaps_the_write_may_see_either() {
    let history = |seen| {
        [
            operation(Action::Put(1), Outcome::Done, 0, 1),
            operation(Action::Put(2), Outcome::Done, 2, 9),
            operation(Action::Get, Outcome::Found(seen), 3, 4),
        ]
    };
    assert!(accepts(&history(1)));
    assert!(accepts(&history(2)));
    let back_in_time = operation(Action::Get, Outcome::Found(1), 5, 6);
    assert!(!accepts(&[history(2).as_slice(), &[back_in_time]].concat()));
}

#[test]
fn a_lost_write_is_rejected() {
    let put = operation(Action::Put(1), Outcome::Done, 0, 1);
    assert!(!accepts(&[put, operation(Action::Get, Outcome::Missing, 2, 3)]));
    assert!(!accepts(&[put, operation(Action::PutIfAbsent(2), Outcome::Done, 2, 3)]));
}

#[test]
fn a_resurrected_object_is_rejected() {
    let gone = [operation(Action::Put(1), Outcome::Done, 0, 1), operation(Action::Delete, Outcome::Done, 2, 3)];
    assert!(accepts(&[gone[0], gone[1], operation(Action::Get, Outcome::Missing, 4, 5)]));
    assert!(!accepts(&[gone[0], gone[1], operation(Action::Get, Outcome::Found(1), 4, 5)]));
}

#[test]
fn two_winners_of_if_none_match_are_rejected() {
    let race = |second| {
        [operation(Action::PutIfAbsent(1), Outcome::Done, 0, 9), operation(Action::PutIfAbsent(2), second, 1, 8)]
    };
    assert!(accepts(&race(Outcome::Refused)));
    assert!(!accepts(&race(Outcome::Done)));
}

#[test]
fn no_winner_of_if_none_match_is_rejected() {
    let refused = |value, invoked| operation(Action::PutIfAbsent(value), Outcome::Refused, invoked, invoked + 5);
    assert!(!accepts(&[refused(1, 0), refused(2, 1)]));
    assert!(accepts(&[refused(1, 0), refused(2, 1), unknown(Action::PutIfAbsent(3), 2)]));
}

#[test]
fn two_winners_of_the_same_if_match_are_rejected() {
    let put = operation(Action::Put(1), Outcome::Done, 0, 1);
    let swap = |value, outcome| operation(Action::PutIfMatch { expected: 1, value }, outcome, 2, 9);
    assert!(accepts(&[put, swap(2, Outcome::Done), swap(3, Outcome::Refused)]));
    assert!(!accepts(&[put, swap(2, Outcome::Done), swap(3, Outcome::Done)]));
    assert!(!accepts(&[put, swap(2, Outcome::Refused), swap(3, Outcome::Refused)]));
}

#[test]
fn an_unknown_write_may_take_effect_late_or_never_but_only_once() {
    let base = [operation(Action::Put(1), Outcome::Done, 0, 1), unknown(Action::Put(2), 2)];
    let read = |seen, at| operation(Action::Get, Outcome::Found(seen), at, at + 1);
    assert!(accepts(&[base[0], base[1], read(1, 4), read(1, 6)]));
    assert!(accepts(&[base[0], base[1], read(1, 4), read(2, 6)]));
    assert!(!accepts(&[base[0], base[1], read(1, 4), read(2, 6), read(1, 8)]));
    let overwritten = operation(Action::Put(3), Outcome::Done, 8, 9);
    assert!(!accepts(&[base[0], base[1], read(2, 4), overwritten, read(2, 10)]));
    assert!(accepts(&[base[0], base[1], overwritten, read(3, 10), read(2, 12)]));
}

#[test]
fn an_unknown_write_cannot_take_effect_before_it_was_sent() {
    let early = operation(Action::Get, Outcome::Found(1), 0, 1);
    assert!(!accepts(&[early, unknown(Action::Put(1), 2)]));
}

#[test]
fn a_value_that_nobody_wrote_is_rejected() {
    let read = operation(Action::Get, Outcome::Found(7), 0, 1);
    assert_eq!(check_key(&[read]), Verdict::Violation(Violation::NeverWritten(read)));
    let refused = operation(Action::PutIfAbsent(7), Outcome::Refused, 0, 9);
    assert!(!accepts(&[refused, operation(Action::Get, Outcome::Found(7), 2, 3)]));
}

/// The definition, tried out: every order of every choice of unknown writes.
fn brute_force(history: &[Operation], done: u32, register: Option<u64>) -> bool {
    let pending = |&index: &usize| done >> index & 1 == 0;
    let known = |&index: &usize| history[index].outcome != Outcome::Unknown;
    let left: Vec<usize> = (0..history.len()).filter(pending).collect();
    if !left.iter().any(known) {
        return true;
    }
    let first_return = left.iter().map(|&index| history[index].returned).min().unwrap_or(NEVER);
    left.iter().filter(|&&index| history[index].invoked < first_return).any(|&index| {
        let after = apply(history[index].action, history[index].outcome, register);
        after.is_some_and(|register| brute_force(history, done | 1 << index, register))
    })
}

/// The register after an operation, if it can happen with this outcome.
fn apply(action: Action, outcome: Outcome, register: Option<u64>) -> Option<Option<u64>> {
    let happens = |condition: bool, after| condition.then_some(after);
    match (action, outcome) {
        (Action::Put(value), Outcome::Done | Outcome::Unknown) => Some(Some(value)),
        (Action::Delete, Outcome::Done | Outcome::Unknown) => Some(None),
        (Action::PutIfAbsent(value), Outcome::Done | Outcome::Unknown) => happens(register.is_none(), Some(value)),
        (Action::PutIfAbsent(_), Outcome::Refused) => happens(register.is_some(), register),
        (Action::PutIfMatch { expected, value }, Outcome::Done | Outcome::Unknown) => {
            happens(register == Some(expected), Some(value))
        }
        (Action::PutIfMatch { expected, .. }, Outcome::Refused) => happens(register != Some(expected), register),
        (Action::Get, Outcome::Found(value)) => happens(register == Some(value), register),
        (Action::Get, Outcome::Missing) => happens(register.is_none(), register),
        (Action::Get, Outcome::Unknown) => Some(register),
        _ => None,
    }
}

/// A history that a real register gave to `clients` clients: each operation takes effect at an instant between its
/// invocation and its return, and a share of the writes loses its answer, having taken effect or not.
fn run_register(rng: &mut StdRng, clients: u32, count: u32, unknown_share: f64) -> Vec<Operation> {
    let mut planned: Vec<(u64, u64, u64)> = Vec::new();
    let mut free_at = vec![0_u64; clients as usize];
    for index in 0..count {
        let client = (index % clients) as usize;
        let start = free_at[client] + rng.random_range(1..50);
        let instant = start + rng.random_range(1..50);
        let end = instant + rng.random_range(1..50);
        free_at[client] = end;
        planned.push((start, instant, end));
    }
    planned.sort_by_key(|&(_, instant, _)| instant);
    let mut register = None;
    let mut history = Vec::new();
    for (index, (start, _, end)) in planned.into_iter().enumerate() {
        let value = index as u64 + 1;
        let expected = if rng.random_bool(0.7) { register.unwrap_or(1) } else { rng.random_range(1..=value) };
        let action = match rng.random_range(0..6) {
            0 | 1 => Action::Get,
            2 => Action::Put(value),
            3 => Action::PutIfAbsent(value),
            4 if expected != value => Action::PutIfMatch { expected, value },
            _ => Action::Delete,
        };
        let lost = rng.random_bool(unknown_share);
        let takes_effect = !lost || rng.random_bool(0.5);
        let outcome = match action {
            Action::Get => register.map_or(Outcome::Missing, Outcome::Found),
            _ if apply(action, Outcome::Done, register).is_some() => Outcome::Done,
            _ => Outcome::Refused,
        };
        if takes_effect {
            register = apply(action, outcome, register).unwrap_or(register);
        }
        // Times are doubled so that none of one operation equals one of another's by accident of the plan.
        let unique = |time: u64, salt: u64| time * 100_000 + value * 2 + salt;
        history.push(if lost {
            unknown(action, unique(start, 0))
        } else {
            operation(action, outcome, unique(start, 0), unique(end, 1))
        });
    }
    history
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn the_checker_agrees_with_brute_force(seed: u64, clients in 1_u32..5, count in 1_u32..9, share in 0.0..0.6, damage in 0_u8..3) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut history = run_register(&mut rng, clients, count, share);
        for _ in 0..damage {
            let at = rng.random_range(0..history.len());
            let value = rng.random_range(1..=u64::from(count));
            let hit = &mut history[at];
            hit.outcome = match (hit.action, hit.outcome) {
                (_, Outcome::Unknown) => Outcome::Unknown,
                (Action::Get, _) => if rng.random_bool(0.5) { Outcome::Found(value) } else { Outcome::Missing },
                (Action::PutIfAbsent(_) | Action::PutIfMatch { .. }, Outcome::Done) => Outcome::Refused,
                (Action::PutIfAbsent(_) | Action::PutIfMatch { .. }, _) => Outcome::Done,
                (_, outcome) => outcome,
            };
        }
        let expected = brute_force(&history, 0, None);
        prop_assert_eq!(accepts(&history), expected, "{:#?}", history);
        prop_assert!(damage > 0 || expected);
    }
}

#[test]
fn both_verdicts_are_common_among_damaged_histories() {
    let mut accepted = 0;
    for seed in 0..400 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut history = run_register(&mut rng, 3, 8, 0.2);
        if let Some(read) = history.iter_mut().find(|each| each.action == Action::Get && each.returned != NEVER) {
            read.outcome = Outcome::Missing;
        }
        accepted += u32::from(accepts(&history));
    }
    assert!((40..=360).contains(&accepted), "{accepted} of 400 accepted: the damage is too weak or too strong");
}

#[test]
fn thirty_two_clients_with_thousands_of_operations_on_a_key_are_checked() {
    for seed in 0..4 {
        let mut rng = StdRng::seed_from_u64(seed);
        let history = run_register(&mut rng, 32, 8_000, 0.02);
        assert_eq!(check_key(&history), Verdict::Linearizable, "seed {seed}");
    }
}

#[test]
fn one_stale_read_among_thousands_is_found() {
    for seed in 0..4 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut history = run_register(&mut rng, 32, 4_000, 0.01);
        let old = history.iter().find_map(|each| match each.outcome {
            Outcome::Found(value) => Some(value),
            _ => None,
        });
        let last = history.iter_mut().rev().find(|each| matches!(each.outcome, Outcome::Found(_))).unwrap();
        last.outcome = Outcome::Found(old.unwrap());
        assert!(!accepts(&history), "seed {seed}");
    }
}
