//! What a test returns when it fails: any error, printed as people read it.

use std::fmt;

/// A failure of a test. Made from any error or message by `?`.
pub struct Failure(String);

impl Failure {
    /// A failure with a message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

// The runner prints failures with `Debug`; escaped line ends would make logs unreadable.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// What a test gives.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Fails with a message unless a condition holds.
///
/// # Errors
/// It does not.
pub fn ensure(condition: bool, message: impl FnOnce() -> String) -> Outcome {
    if condition { Ok(()) } else { Err(Failure::new(message())) }
}
