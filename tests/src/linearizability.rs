//! Says whether the recorded history of one key could have come from a single register that does one thing at a time.
//!
//! The search is that of Wing and Gong (JPDC 1993) with Lowe's memo of visited configurations (Testing for
//! linearizability, 2017), over a register that is absent or holds a value, with conditional writes. It is exact: each
//! shortcut below keeps the answer, and the tests compare it with brute force.
//!
//! - A write of unknown outcome whose value was seen must have taken effect before the first who saw it returned, so it
//!   becomes an ordinary write with that time of return.
//! - The other writes of unknown outcome are optional. Those that do the same to the register are interchangeable but
//!   for their times of invocation, so the earliest is used first and a configuration that used fewer of each dominates.
//! - An optional write is only worth taking if what follows it could not have followed without it.
//! - No value is written twice, so the register may only be overwritten when all who must see its value have.
//! - An operation that changes nothing and can be linearised now, is: taking it never forbids anything.
//!
//! Keys are independent (linearizability is local), so a history is checked key by key.

mod problem;
mod search;

use std::fmt;

use crate::history::{Operation, Value, of_key};

pub use search::CONFIGURATIONS_MAX;

/// What the checker found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains everything.
    Linearizable,
    /// There is none.
    Violation(Violation),
    /// [`CONFIGURATIONS_MAX`] configurations were searched without an answer.
    GaveUp,
}

/// Why there is no order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A value was seen that nobody wrote.
    NeverWritten(Operation),
    /// Two operations wrote the same value: the history itself is malformed.
    WrittenTwice(Value),
    /// The longest explanation ends here.
    Stuck {
        /// Operations that could be explained.
        explained: usize,
        /// The register at that point, as text.
        register: String,
        /// What should come next, and none of which can.
        next: Vec<Operation>,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverWritten(operation) => write!(f, "a value was seen that nobody wrote: {operation:?}"),
            Self::WrittenTwice(value) => write!(f, "value {value} was written twice: the history is malformed"),
            Self::Stuck { explained, register, next } => {
                writeln!(f, "after {explained} operations the register holds {register}; next must be one of")?;
                next.iter().try_for_each(|operation| writeln!(f, "  {operation:?}"))
            }
        }
    }
}

/// Checks a history of one key that starts absent. The order of `operations` does not matter.
#[must_use]
pub fn check_key(operations: &[Operation]) -> Verdict {
    match problem::Problem::new(operations) {
        Ok(problem) => search::search(&problem),
        Err(violation) => Verdict::Violation(violation),
    }
}

/// Checks each key of a history; the first that is not linearizable, with its verdict.
///
/// # Errors
/// The key and what is wrong with it.
pub fn check(operations: &[Operation]) -> Result<(), (u32, Verdict)> {
    let keys: std::collections::BTreeSet<u32> = operations.iter().map(|operation| operation.key).collect();
    for key in keys {
        match check_key(&of_key(operations, key)) {
            Verdict::Linearizable => {}
            verdict => return Err((key, verdict)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
