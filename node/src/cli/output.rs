//! Results for people or for programs.

use std::io::Write;

use serde_json::Value;

use super::CliError;

/// Where results go: standard output in the binary, a buffer in tests.
pub struct Output<'a> {
    json: bool,
    out: &'a mut dyn Write,
    progress: &'a mut dyn Write,
}

impl<'a> Output<'a> {
    /// Results go to `out`, as JSON if asked; progress and hints to `progress`.
    pub fn new(json: bool, out: &'a mut dyn Write, progress: &'a mut dyn Write) -> Self {
        Self { json, out, progress }
    }

    /// Prints a result in the form that was asked for.
    pub(super) fn result(&mut self, json: &Value, text: &str) -> Result<(), CliError> {
        let line = if self.json { json.to_string() } else { text.trim_end().to_owned() };
        writeln!(self.out, "{line}").and_then(|()| self.out.flush()).map_err(CliError::Output)
    }

    /// Prints why the command failed. A closed standard error is no reason to fail differently.
    pub fn fail(&mut self, error: &CliError) {
        drop(if self.json {
            let line = serde_json::json!({ "error": error.to_string(), "exit": error.exit() as u8 });
            writeln!(self.progress, "{line}")
        } else {
            writeln!(self.progress, "drystone: {error}")
        });
    }

    /// Prints a line about what is going on. A closed standard error is no reason to fail.
    pub(super) fn progress(&mut self, line: &str) {
        drop(writeln!(self.progress, "{line}"));
    }
}
