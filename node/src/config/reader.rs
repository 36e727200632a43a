//! Takes typed values out of file and environment and collects what is wrong with them. Pure: the file's text and the
//! environment are arguments.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::time::Duration;

use toml::Value;

use super::environment::Environment;
use super::problem::{Problem, Source};
use super::table::{KEYS, KeyRow};
use super::units::{format_bytes, parse_bytes, parse_duration};

/// The values of all keys with their sources, and the problems found so far.
pub(super) struct Reader {
    values: BTreeMap<&'static str, (Value, Source)>,
    pub(super) problems: Vec<Problem>,
    /// Keys whose value could not be read at all: that says everything, so no further problem of theirs is recorded.
    unreadable: BTreeSet<&'static str>,
}

impl Reader {
    /// Lays environment over file over defaults.
    pub(super) fn new(file: Option<&str>, environment: &Environment) -> Self {
        let mut reader = Self { values: BTreeMap::new(), problems: Vec::new(), unreadable: BTreeSet::new() };
        for key in KEYS {
            reader.values.insert(key.name, (default_of(key), Source::Default));
        }
        match file.unwrap_or_default().parse::<toml::Table>() {
            Ok(table) => reader.take_table("", table),
            Err(error) => reader.problems.push(Problem::Syntax { reason: error.to_string().trim_end().to_owned() }),
        }
        for key in KEYS {
            let variable = key.variable();
            if let Some(text) = environment.get(&variable) {
                reader.values.insert(key.name, (Value::String(text.to_owned()), Source::Environment(variable)));
            }
        }
        for variable in environment.unreadable() {
            let key = KEYS.iter().find(|key| key.variable() == variable).map_or(variable, |key| key.name).to_owned();
            let (source, reason) = (Source::Environment(variable.to_owned()), "the value is not UTF-8".to_owned());
            reader.problems.push(Problem::Value { key, source, reason });
        }
        for variable in environment.unknown() {
            let nearest = nearest(KEYS.iter().map(KeyRow::variable), variable).map(|index| KEYS[index].name);
            let (key, source) = (variable.to_owned(), Source::Environment(variable.to_owned()));
            reader.problems.push(Problem::UnknownKey { key, source, nearest });
        }
        reader
    }

    fn take_table(&mut self, prefix: &str, table: toml::Table) {
        for (name, value) in table {
            let name = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            let key = KEYS.iter().find(|key| key.name == name);
            let is_section = KEYS.iter().any(|key| key.name.starts_with(&format!("{name}.")));
            match (key, value) {
                (None, Value::Table(table)) if is_section => self.take_table(&name, table),
                (None, _) if is_section => {
                    let reason = format!("is a section, not a key; write [{name}] and the keys below it");
                    self.problems.push(Problem::Value { key: name, source: Source::File, reason });
                }
                (None, _) => {
                    let nearest = nearest(KEYS.iter().map(|key| key.name), &name).map(|index| KEYS[index].name);
                    self.problems.push(Problem::UnknownKey { key: name, source: Source::File, nearest });
                }
                (Some(key), value) => {
                    self.values.insert(key.name, (value, Source::File));
                }
            }
        }
    }

    /// Records that the value of `key` cannot be used.
    pub(super) fn refuse(&mut self, key: &str, reason: impl Display) {
        if self.unreadable.contains(key) {
            return;
        }
        let source = self.values.get(key).map_or(Source::Default, |(_, source)| source.clone());
        self.problems.push(Problem::Value { key: key.to_owned(), source, reason: reason.to_string() });
    }

    fn parse<T>(&mut self, key: &'static str, parse: impl Fn(&Value) -> Result<T, String>) -> Option<T> {
        let (value, _) = self.values.get(key)?;
        match parse(value) {
            Ok(parsed) => Some(parsed),
            Err(reason) => {
                self.refuse(key, reason);
                self.unreadable.insert(key);
                None
            }
        }
    }

    /// A text.
    pub(super) fn text(&mut self, key: &'static str) -> String {
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| must_be("a text in quotes", value));
        self.parse(key, text).unwrap_or_default()
    }

    /// A text that [`std::str::FromStr`] understands; `None` when it is empty or wrong (then it is recorded).
    pub(super) fn parsed<T: std::str::FromStr<Err: Display>>(&mut self, key: &'static str, advice: &str) -> Option<T> {
        let text = self.text(key);
        if text.is_empty() {
            return None;
        }
        text.parse().map_err(|error| self.refuse(key, format!("{text:?}: {error}; {advice}"))).ok()
    }

    /// A list of texts; one text is split at commas.
    pub(super) fn list(&mut self, key: &'static str) -> Vec<String> {
        self.parse(key, |value| match value {
            Value::String(text) => {
                Ok(text.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect())
            }
            Value::Array(items) => items
                .iter()
                .map(|item| item.as_str().map(str::to_owned).ok_or_else(|| must_be("a list of texts", item)))
                .collect(),
            other => Err(must_be("a list of texts", other)),
        })
        .unwrap_or_default()
    }

    /// A whole number within `min..=max`.
    pub(super) fn number(&mut self, key: &'static str, min: u64, max: u64) -> u64 {
        self.parse(key, |value| {
            let number = match value {
                Value::Integer(number) => u64::try_from(*number).ok(),
                Value::String(text) => text.trim().parse().ok(),
                _ => None,
            };
            let number = number.ok_or_else(|| must_be("a whole number", value))?;
            within(number, min, max, |number| number.to_string())
        })
        .unwrap_or(min)
    }

    /// A size in bytes within `min..=max`.
    pub(super) fn bytes(&mut self, key: &'static str, min: u64, max: u64) -> u64 {
        self.parse(key, |value| {
            let bytes = match value {
                Value::Integer(number) => {
                    u64::try_from(*number).map_err(|_| must_be("a size such as \"64MiB\"", value))?
                }
                Value::String(text) => parse_bytes(text).map_err(|error| error.to_string())?,
                _ => return Err(must_be("a size such as \"64MiB\"", value)),
            };
            within(bytes, min, max, format_bytes)
        })
        .unwrap_or(min)
    }

    /// A duration within `min..=max`.
    pub(super) fn duration(&mut self, key: &'static str, min: Duration, max: Duration) -> Duration {
        self.parse(key, |value| {
            let text = value.as_str().ok_or_else(|| must_be("a duration such as \"5s\"", value))?;
            let duration = parse_duration(text).map_err(|error| error.to_string())?;
            within(duration, min, max, |duration| format!("{duration:?}"))
        })
        .unwrap_or(min)
    }
}

fn within<T: PartialOrd + Copy>(value: T, min: T, max: T, show: impl Fn(T) -> String) -> Result<T, String> {
    if value < min || value > max {
        return Err(format!("{} is outside {} to {}", show(value), show(min), show(max)));
    }
    Ok(value)
}

fn must_be(wanted: &str, value: &Value) -> String {
    format!("must be {wanted}, not the {} {value}", value.type_str())
}

/// The default of a key as a TOML value. A default that does not parse is caught by a test over the whole table.
fn default_of(key: &KeyRow) -> Value {
    let line = format!("value = {}", key.default);
    line.parse::<toml::Table>()
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(String::new()))
}

/// The index of the candidate within two edits of `name`, if there is one.
fn nearest(candidates: impl Iterator<Item = impl AsRef<str>>, name: &str) -> Option<usize> {
    candidates
        .map(|candidate| edit_distance(candidate.as_ref(), name))
        .enumerate()
        .min_by_key(|(_, distance)| *distance)
        .filter(|(_, distance)| *distance <= 2)
        .map(|(index, _)| index)
}

/// Levenshtein distance, two rows (Wagner & Fischer 1974).
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}
