//! The one place where the process environment is read. Everything else gets an [`Environment`] value, so that tests
//! and several nodes in one process do not share variables.

use std::collections::BTreeMap;

use super::table::KEYS;

/// Prefix of every variable that sets a configuration key.
pub const PREFIX: &str = "DRYSTONE_";

/// Variables with our prefix that are not configuration keys: the configuration file, and the binary that
/// `scripts/cluster` runs.
const OTHER: [&str; 2] = ["DRYSTONE_CONFIG", "DRYSTONE_BIN"];

/// A snapshot of environment variables. Variables that are not UTF-8 are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Takes a snapshot of this process's environment.
    pub fn read() -> Self {
        Self(std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect())
    }

    /// The value of a variable; an empty one counts as not set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Variables with our prefix that mean nothing to us: most likely a misspelt key.
    pub(super) fn unknown(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str).filter(|name| {
            name.starts_with(PREFIX) && !OTHER.contains(name) && !KEYS.iter().any(|key| key.variable() == *name)
        })
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}
