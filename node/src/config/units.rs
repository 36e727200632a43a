//! Human units: byte sizes (`64MiB`) and durations (`5s`). Whole numbers only, so that what is written is exactly
//! what is meant; no fractions, no signs, no implied unit for time.

use std::time::Duration;

/// A text that is not a size or a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a byte size.
    #[error(
        "{0:?} is not a size; write a whole number with B, KiB, MiB, GiB, TiB, KB, MB, GB or TB, such as \"64MiB\""
    )]
    Size(String),
    /// Not a duration.
    #[error("{0:?} is not a duration; write a whole number with ms, s, min, h or d, such as \"5s\"")]
    Duration(String),
}

const SIZES: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
    ("", 1),
];

const SPANS_MS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a size in bytes. A bare number is bytes.
///
/// # Errors
/// [`UnitError::Size`] when the text is not a whole number with a known unit or does not fit 64 bits.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    split(text, &SIZES).ok_or_else(|| UnitError::Size(text.to_owned()))
}

/// Reads a duration. The unit is required.
///
/// # Errors
/// [`UnitError::Duration`] when the text is not a whole number with a known unit.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    split(text, &SPANS_MS).map(Duration::from_millis).ok_or_else(|| UnitError::Duration(text.to_owned()))
}

/// Writes a size with the largest binary unit that leaves a whole number.
pub fn format_bytes(bytes: u64) -> String {
    SIZES[..4]
        .iter()
        .find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit))
        .map_or_else(|| format!("{bytes}B"), |(name, unit)| format!("{}{name}", bytes / unit))
}

/// Splits `12MiB` into number and unit and multiplies. The unit must match exactly, but for one space before it.
fn split(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let factor = units.iter().find(|(name, _)| *name == unit)?.1;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_binary_and_decimal_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("7B", 7),
            ("4KiB", 4096),
            ("64 MiB", 64 << 20),
            ("1GiB", 1 << 30),
            ("2TiB", 2 << 40),
            ("5MB", 5_000_000),
            ("3TB", 3_000_000_000_000),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_whole_number_with_a_known_unit_is_refused() {
        for text in ["", "MiB", "1.5GiB", "-1", "4kib", "4  KiB", "18446744073709551616", "16777216TiB", "1 2", "5s"] {
            assert_eq!(parse_bytes(text), Err(UnitError::Size(text.to_owned())), "{text}");
        }
        for text in ["", "5", "s", "0.5s", "-3s", "5 minutes", "5MiB"] {
            assert_eq!(parse_duration(text), Err(UnitError::Duration(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn durations_need_their_unit() {
        for (text, ms) in [("250ms", 250), ("5s", 5_000), ("15min", 900_000), ("2h", 7_200_000), ("7d", 604_800_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn formatted_sizes_read_back(bytes in proptest::num::u64::ANY) {
            proptest::prop_assert_eq!(parse_bytes(&format_bytes(bytes)), Ok(bytes));
        }

        #[test]
        fn any_text_is_answered_without_panic(text in ".{0,40}") {
            // The value does not matter here: the property is that no input can panic the parser.
            drop((parse_bytes(&text), parse_duration(&text)));
        }
    }
}
