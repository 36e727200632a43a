//! What is wrong with a configuration: every problem at once, each with the key, where it was set, and what to do.

use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The built-in default.
    Default,
    /// The configuration file.
    File,
    /// This environment variable.
    Environment(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("by default"),
            Self::File => f.write_str("in the file"),
            Self::Environment(name) => write!(f, "by {name}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The value of a key cannot be used.
    Value {
        /// The key.
        key: String,
        /// Where it was set.
        source: Source,
        /// What is wrong with it and what would be right.
        reason: String,
    },
    /// A key that does not exist.
    UnknownKey {
        /// The name as written.
        key: String,
        /// Where it was written.
        source: Source,
        /// The key that is spelt most alike, if any is near.
        nearest: Option<&'static str>,
    },
    /// The file is not TOML.
    Syntax {
        /// What the parser says, with line and column.
        reason: String,
    },
    /// The file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { key, source, reason } => write!(f, "{key} (set {source}): {reason}"),
            Self::UnknownKey { key, source, nearest: Some(nearest) } => {
                write!(f, "{key} (set {source}): there is no such key; did you mean {nearest}?")
            }
            Self::UnknownKey { key, source, nearest: None } => {
                write!(f, "{key} (set {source}): there is no such key; `drystone config default` lists them all")
            }
            Self::Syntax { reason } => write!(f, "the file is not valid TOML: {reason}"),
            Self::Unreadable { path, reason } => write!(f, "{}: cannot be read: {reason}", path.display()),
        }
    }
}

/// All that is wrong with a configuration, in a stable order. Never empty when returned as an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0.len() == 1 { "problem" } else { "problems" };
        write!(f, "the configuration has {} {plural}:", self.0.len())?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
    }
}
