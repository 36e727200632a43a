//! A history turned into what the search needs: required steps by time of invocation, and groups of optional ones.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use crate::history::{Action, Operation, Outcome, Value};

/// What the register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Register {
    /// No object.
    Absent,
    /// Some object whose value nobody names, hence nobody can tell from another such.
    Unnamed,
    /// The object with this value.
    Holds(Value),
}

/// When a step may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum When {
    Always,
    Is(Register),
    IsNot(Register),
}

impl When {
    pub(super) fn allows(self, register: Register) -> bool {
        match self {
            Self::Always => true,
            Self::Is(wanted) => register == wanted,
            Self::IsNot(unwanted) => register != unwanted,
        }
    }
}

/// A guarded change of the register; `None` changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Effect {
    pub(super) when: When,
    pub(super) becomes: Option<Register>,
}

/// A step that must be linearised between its times.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) effect: Effect,
    pub(super) invoked: u64,
    pub(super) returned: u64,
    pub(super) operation: Operation,
}

/// Optional steps of the same effect, by times of invocation.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) effect: Effect,
    pub(super) invoked: Vec<u64>,
}

pub(super) struct Problem {
    pub(super) steps: Vec<Step>,
    pub(super) groups: Vec<Group>,
    /// For each value the steps that can only happen while the register holds it.
    pub(super) witnesses: BTreeMap<Value, Vec<usize>>,
}

impl Problem {
    pub(super) fn new(operations: &[Operation]) -> Result<Self, Violation> {
        let mut operations = operations.to_vec();
        operations.sort_by_key(|operation| operation.invoked);
        let writers = writers(&operations)?;
        check_written(&operations, &writers)?;
        settle(&mut operations, &writers);
        let named = named(&operations);
        let mut steps = Vec::new();
        let mut optional: BTreeMap<Effect, Vec<u64>> = BTreeMap::new();
        for operation in operations {
            let Some(effect) = effect(&operation, &named) else { continue };
            if operation.outcome == Outcome::Unknown {
                optional.entry(effect).or_default().push(operation.invoked);
            } else {
                steps.push(Step { effect, invoked: operation.invoked, returned: operation.returned, operation });
            }
        }
        let groups = optional.into_iter().map(|(effect, invoked)| Group { effect, invoked }).collect();
        let mut witnesses: BTreeMap<Value, Vec<usize>> = BTreeMap::new();
        for (index, step) in steps.iter().enumerate() {
            if let When::Is(Register::Holds(value)) = step.effect.when {
                witnesses.entry(value).or_default().push(index);
            }
        }
        Ok(Self { steps, groups, witnesses })
    }
}

/// Which operation writes each value.
fn writers(operations: &[Operation]) -> Result<BTreeMap<Value, usize>, Violation> {
    let mut writers = BTreeMap::new();
    for (index, operation) in operations.iter().enumerate() {
        if let Some(value) = operation.action.written()
            && writers.insert(value, index).is_some()
        {
            return Err(Violation::WrittenTwice(value));
        }
    }
    Ok(writers)
}

/// The value whose presence an operation proves.
fn seen(operation: &Operation) -> Option<Value> {
    match (operation.action, operation.outcome) {
        (Action::Get, Outcome::Found(value)) => Some(value),
        (Action::PutIfMatch { expected, .. }, Outcome::Done) => Some(expected),
        _ => None,
    }
}

fn check_written(operations: &[Operation], writers: &BTreeMap<Value, usize>) -> Result<(), Violation> {
    let explained = |value| writers.get(&value).is_some_and(|&at| operations[at].outcome != Outcome::Refused);
    match operations.iter().find(|operation| seen(operation).is_some_and(|value| !explained(value))) {
        Some(operation) => Err(Violation::NeverWritten(*operation)),
        None => Ok(()),
    }
}

/// Makes writes of unknown outcome whose value was seen into acknowledged ones. Repeated until nothing changes, since
/// such a write may itself prove another (`If-Match`).
fn settle(operations: &mut [Operation], writers: &BTreeMap<Value, usize>) {
    let unknown: BTreeSet<usize> =
        (0..operations.len()).filter(|&index| operations[index].outcome == Outcome::Unknown).collect();
    loop {
        let mut changed = false;
        for index in 0..operations.len() {
            let Some(value) = seen(&operations[index]) else { continue };
            let returned = operations[index].returned;
            let Some(&writer) = writers.get(&value) else { continue };
            if unknown.contains(&writer) && returned < operations[writer].returned {
                operations[writer].outcome = Outcome::Done;
                operations[writer].returned = returned;
                changed = true;
            }
        }
        if !changed {
            return;
        }
    }
}

/// Values that some other operation than their writer names.
fn named(operations: &[Operation]) -> BTreeSet<Value> {
    operations
        .iter()
        .filter_map(|operation| match (operation.action, operation.outcome) {
            (Action::PutIfMatch { expected, .. }, _) => Some(expected),
            (_, Outcome::Found(value)) => Some(value),
            _ => None,
        })
        .collect()
}

/// What an operation does to the register; `None` if it says and does nothing.
fn effect(operation: &Operation, named: &BTreeSet<Value>) -> Option<Effect> {
    let holds = |value| if named.contains(&value) { Register::Holds(value) } else { Register::Unnamed };
    let writes = |when, value| Some(Effect { when, becomes: Some(holds(value)) });
    let shows = |when| Some(Effect { when, becomes: None });
    match (operation.action, operation.outcome) {
        (Action::Put(value), Outcome::Done | Outcome::Unknown) => writes(When::Always, value),
        (Action::PutIfAbsent(value), Outcome::Done | Outcome::Unknown) => writes(When::Is(Register::Absent), value),
        (Action::PutIfMatch { expected, value }, Outcome::Done | Outcome::Unknown) => {
            writes(When::Is(Register::Holds(expected)), value)
        }
        (Action::PutIfAbsent(_), Outcome::Refused) => shows(When::IsNot(Register::Absent)),
        (Action::PutIfMatch { expected, .. }, Outcome::Refused) => shows(When::IsNot(Register::Holds(expected))),
        (Action::Get, Outcome::Found(value)) => shows(When::Is(Register::Holds(value))),
        (Action::Get, Outcome::Missing) => shows(When::Is(Register::Absent)),
        (Action::Delete, Outcome::Done | Outcome::Unknown) => {
            Some(Effect { when: When::Always, becomes: Some(Register::Absent) })
        }
        _ => None,
    }
}
