//! The one place where the process environment is read. Everything else gets an [`Environment`] value, so that tests
//! and several nodes in one process do not share variables.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::table::KEYS;

/// Prefix of every variable that sets a configuration key.
pub const PREFIX: &str = "DRYSTONE_";

/// Names the configuration file.
const CONFIG_FILE: &str = "DRYSTONE_CONFIG";

/// Variables with our prefix that are not configuration keys: the configuration file, and the binary that
/// `scripts/cluster` runs.
const OTHER: [&str; 2] = [CONFIG_FILE, "DRYSTONE_BIN"];

/// A snapshot of environment variables. Of those that are not UTF-8 only the names are kept, and of ours only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    values: BTreeMap<String, String>,
    unreadable: BTreeSet<String>,
}

impl Environment {
    /// Takes a snapshot of this process's environment.
    pub fn read() -> Self {
        Self::of(std::env::vars_os())
    }

    fn of(variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut environment = Self::default();
        for (name, value) in variables {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => drop(environment.values.insert(name, value)),
                Err(_) if name.starts_with(PREFIX) => drop(environment.unreadable.insert(name)),
                Err(_) => {}
            }
        }
        environment
    }

    /// The value of a variable; an empty one counts as not set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The configuration file: the one given as an argument, else that of `DRYSTONE_CONFIG`, else none.
    pub fn config_file(&self, given: Option<&Path>) -> Option<PathBuf> {
        given.map(Path::to_path_buf).or_else(|| self.get(CONFIG_FILE).map(PathBuf::from))
    }

    /// Variables with our prefix that mean nothing to us: most likely a misspelt key.
    pub(super) fn unknown(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str).filter(|name| {
            name.starts_with(PREFIX) && !OTHER.contains(name) && !KEYS.iter().any(|key| key.variable() == *name)
        })
    }

    /// Variables with our prefix whose value is not UTF-8.
    pub(super) fn unreadable(&self) -> impl Iterator<Item = &str> {
        self.unreadable.iter().map(String::as_str)
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        let values = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { values, unreadable: BTreeSet::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;
    use crate::config::{Config, Problems};

    #[test]
    fn a_value_of_ours_that_is_not_utf8_is_refused_and_another_programs_is_not_our_business() {
        let no_text = || OsString::from_vec(vec![b'/', 0xff]);
        let variables = [("DRYSTONE_STATE_DIR", no_text()), ("DRYSTONE_CONFIG", no_text()), ("HOME", no_text())];
        let environment = Environment::of(variables.into_iter().map(|(name, value)| (name.into(), value)));
        let Err(Problems(problems)) = Config::parse(None, &environment) else { panic!("taken") };
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let expected = ["DRYSTONE_CONFIG", "state_dir"].map(|key| {
            let variable = if key == "state_dir" { "DRYSTONE_STATE_DIR" } else { key };
            format!("{key} (set by {variable}): the value is not UTF-8")
        });
        assert_eq!(said, expected);
    }

    #[test]
    fn the_configuration_file_is_the_one_given_else_that_of_the_environment() {
        let environment: Environment = [("DRYSTONE_CONFIG", "/etc/d.toml")].into_iter().collect();
        assert_eq!(environment.config_file(Some(Path::new("/x"))), Some("/x".into()));
        assert_eq!(environment.config_file(None), Some("/etc/d.toml".into()));
        let empty: Environment = [("DRYSTONE_CONFIG", "")].into_iter().collect();
        assert_eq!(empty.config_file(None), None);
    }
}
