//! Client programs: Python ones in environments under the target directory, others where the system has them.

use std::path::PathBuf;
use std::process::Command;

use super::{HarnessError, run, skip, target_dir, workspace};

/// An environment with the Python clients of one requirements file.
pub struct Python {
    home: PathBuf,
}

impl Python {
    /// The environment of `tests/clients/NAME.txt`, made if it is not there yet. `None`, said loudly, where it cannot
    /// be made.
    ///
    /// # Errors
    /// There is no target directory.
    pub fn prepare(name: &str) -> Result<Option<Self>, HarnessError> {
        let script = workspace().join("tests/tests/clients/setup");
        match run(Command::new(script).arg(name).arg(target_dir()?)) {
            Ok(path) => Ok(Some(Self { home: PathBuf::from(path.trim()) })),
            Err(error) => {
                skip(&format!("clients of {name}.txt"), &error.to_string());
                Ok(None)
            }
        }
    }

    /// A command that runs one of the scripts in `tests/tests/clients`.
    #[must_use]
    pub fn script(&self, name: &str) -> Command {
        let mut command = Command::new(self.home.join("bin/python"));
        command.arg(workspace().join("tests/tests/clients").join(name));
        command
    }

    /// A command that was installed with it.
    #[must_use]
    pub fn tool(&self, name: &str) -> Command {
        Command::new(self.home.join("bin").join(name))
    }
}

/// A program of the system; `None`, said loudly, where it is not installed.
#[must_use]
pub fn system_tool(name: &str) -> Option<Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let found = places.into_iter().map(|place| place.join(name)).find(|path| path.is_file());
    if found.is_none() {
        skip(name, "not installed");
    }
    found.map(Command::new)
}
