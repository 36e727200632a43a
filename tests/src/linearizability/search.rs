//! The search itself: depth first over configurations, never twice from a dominated one.

use std::collections::HashMap;

use super::problem::{Effect, Problem, Register};
use super::{Verdict, Violation};

/// Configurations searched before giving up: about 1 GB of memo.
pub const CONFIGURATIONS_MAX: usize = 5_000_000;

/// How far an explanation has come.
#[derive(Clone)]
struct Configuration {
    place: Place,
    /// How many of each group were used.
    used: Box<[u32]>,
}

/// The part of a configuration that must be equal for one to dominate another.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Place {
    /// Every step before this one is linearised.
    low: usize,
    /// Which steps from `low` on are linearised.
    beyond: Vec<u64>,
    register: Register,
    /// The register before the last step, if that was an optional one.
    before: Option<Register>,
}

impl Place {
    fn contains(&self, step: usize) -> bool {
        step < self.low || {
            let bit = step - self.low;
            self.beyond.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 == 1)
        }
    }

    fn insert(&mut self, step: usize) {
        let bit = step - self.low;
        if self.beyond.len() <= bit / 64 {
            self.beyond.resize(bit / 64 + 1, 0);
        }
        self.beyond[bit / 64] |= 1 << (bit % 64);
        let shift: usize = self.leading();
        if shift > 0 {
            self.advance(shift);
        }
    }

    /// Linearised steps in a row from `low` on.
    fn leading(&self) -> usize {
        let mut count = 0;
        for word in &self.beyond {
            let ones = word.trailing_ones() as usize;
            count += ones;
            if ones < 64 {
                break;
            }
        }
        count
    }

    fn advance(&mut self, shift: usize) {
        let (words, bits) = (shift / 64, shift % 64);
        self.beyond.drain(..words.min(self.beyond.len()));
        if bits > 0 {
            let mut carry = 0;
            for word in self.beyond.iter_mut().rev() {
                let next = *word << (64 - bits);
                *word = *word >> bits | carry;
                carry = next;
            }
        }
        while self.beyond.last() == Some(&0) {
            self.beyond.pop();
        }
        self.low += shift;
    }

    fn count(&self) -> usize {
        self.low + self.beyond.iter().map(|word| word.count_ones() as usize).sum::<usize>()
    }
}

/// What may be linearised next: steps that were invoked before any other step returned.
struct Candidates {
    steps: Vec<usize>,
    /// The earliest return of a step not yet linearised.
    returned_min: u64,
}

pub(super) fn search(problem: &Problem) -> Verdict {
    let place = Place { low: 0, beyond: Vec::new(), register: Register::Absent, before: None };
    let start = Configuration { place, used: vec![0; problem.groups.len()].into() };
    let mut memo: HashMap<Place, Vec<Box<[u32]>>> = HashMap::new();
    let mut stack = vec![start.clone()];
    let mut deepest = start.place;
    let mut searched = 0;
    while let Some(mut configuration) = stack.pop() {
        let candidates = take_reads(problem, &mut configuration.place);
        if candidates.steps.is_empty() {
            return Verdict::Linearizable;
        }
        if is_dominated(&mut memo, &configuration) {
            continue;
        }
        searched += 1;
        if searched > CONFIGURATIONS_MAX {
            return Verdict::GaveUp;
        }
        if configuration.place.count() > deepest.count() {
            deepest = configuration.place.clone();
        }
        push_optional(problem, &configuration, &candidates, &mut stack);
        push_required(problem, &configuration, &candidates, &mut stack);
    }
    Verdict::Violation(stuck(problem, &deepest))
}

fn candidates(problem: &Problem, place: &Place) -> Candidates {
    let mut found = Candidates { steps: Vec::new(), returned_min: u64::MAX };
    for (index, step) in problem.steps.iter().enumerate().skip(place.low) {
        if place.contains(index) {
            continue;
        }
        if step.invoked > found.returned_min {
            break;
        }
        found.steps.push(index);
        found.returned_min = found.returned_min.min(step.returned);
    }
    found
}

/// Linearises every step that changes nothing and is possible now; the candidates after that.
fn take_reads(problem: &Problem, place: &mut Place) -> Candidates {
    loop {
        let now = candidates(problem, place);
        let is_possible_read = |&&index: &&usize| {
            let effect = problem.steps[index].effect;
            effect.becomes.is_none() && effect.when.allows(place.register)
        };
        let reads: Vec<usize> = now.steps.iter().filter(is_possible_read).copied().collect();
        if reads.is_empty() {
            return now;
        }
        place.before = None;
        reads.into_iter().for_each(|index| place.insert(index));
    }
}

/// Whether the configuration can only lead where another led; if not, it is remembered.
fn is_dominated(memo: &mut HashMap<Place, Vec<Box<[u32]>>>, configuration: &Configuration) -> bool {
    let fewer = |a: &[u32], b: &[u32]| a.iter().zip(b).all(|(a, b)| a <= b);
    let known = memo.entry(configuration.place.clone()).or_default();
    if known.iter().any(|used| fewer(used, &configuration.used)) {
        return true;
    }
    known.retain(|used| !fewer(&configuration.used, used));
    known.push(configuration.used.clone());
    false
}

/// Whether `effect` may follow: it is possible, and if an optional step came last, was not possible without that.
fn may_follow(effect: Effect, place: &Place) -> bool {
    effect.when.allows(place.register) && !place.before.is_some_and(|before| effect.when.allows(before))
}

/// Whether the register may be overwritten: whoever must see what it holds has seen it, since no value is written twice.
/// `by` is the step that overwrites, which may itself be the last to see it.
fn may_leave(problem: &Problem, place: &Place, by: Option<usize>) -> bool {
    let Register::Holds(value) = place.register else { return true };
    let witnesses = problem.witnesses.get(&value).map_or(&[][..], Vec::as_slice);
    witnesses.iter().all(|&step| Some(step) == by || place.contains(step))
}

fn push_optional(problem: &Problem, from: &Configuration, candidates: &Candidates, stack: &mut Vec<Configuration>) {
    if !may_leave(problem, &from.place, None) {
        return;
    }
    for (group_index, group) in problem.groups.iter().enumerate() {
        let next = group.invoked.get(from.used[group_index] as usize);
        let is_invoked = next.is_some_and(|&invoked| invoked < candidates.returned_min);
        let Some(becomes) = group.effect.becomes else { continue };
        if !is_invoked || becomes == from.place.register || !may_follow(group.effect, &from.place) {
            continue;
        }
        let mut to = from.clone();
        to.used[group_index] += 1;
        to.place.before = Some(from.place.register);
        to.place.register = becomes;
        stack.push(to);
    }
}

fn push_required(problem: &Problem, from: &Configuration, candidates: &Candidates, stack: &mut Vec<Configuration>) {
    let mut steps = candidates.steps.clone();
    // The stack gives back the last first: the one that returned earliest is the likeliest to be right.
    steps.sort_by_key(|&index| std::cmp::Reverse(problem.steps[index].returned));
    for index in steps {
        let effect = problem.steps[index].effect;
        let Some(becomes) = effect.becomes else { continue };
        if may_follow(effect, &from.place) && may_leave(problem, &from.place, Some(index)) {
            let mut to = from.clone();
            to.place.register = becomes;
            to.place.before = None;
            to.place.insert(index);
            stack.push(to);
        }
    }
}

fn stuck(problem: &Problem, place: &Place) -> Violation {
    let next = candidates(problem, place).steps.into_iter().map(|index| problem.steps[index].operation).collect();
    let register = match place.register {
        Register::Absent => "nothing".to_owned(),
        Register::Unnamed => "a value that nobody saw".to_owned(),
        Register::Holds(value) => format!("value {value}"),
    };
    Violation::Stuck { explained: place.count(), register, next }
}
