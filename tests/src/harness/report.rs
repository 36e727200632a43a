//! What tests say besides passing: on standard error itself, which no runner captures.

use std::io::Write;
use std::path::Path;

/// Says a line.
pub fn note(line: &str) {
    // Nobody can be told that standard error is gone.
    writeln!(std::io::stderr().lock(), "{line}").unwrap_or_default();
}

/// Says loudly that something was not tested and why.
pub fn skip(what: &str, why: &str) {
    note(&format!("\nSKIPPED: {what}: {why}"));
}

/// The last lines of a text.
pub(super) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The last lines of a file, or why it cannot be read.
#[must_use]
pub fn tail(path: &Path, count: usize) -> String {
    match std::fs::read(path) {
        Ok(bytes) => last_lines(&String::from_utf8_lossy(&bytes), count),
        Err(cause) => format!("({cause})"),
    }
}
