//! Which bytes of an object a read asks for (RFC 9110 §14). Pure.

use std::ops::Range;

/// What a `Range` header comes to for an object of a known length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// All of it: no range, one that cannot be read, or several (as AWS does).
    Whole,
    /// These bytes.
    Part(Range<u64>),
    /// None of the bytes asked for exist.
    Unsatisfiable,
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // More digits than a u64 holds are a position past any object.
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// Reads a `Range` header's value.
pub(crate) fn select(header: &str, len: u64) -> Selection {
    let Some((unit, range)) = header.trim().split_once('=') else { return Selection::Whole };
    let Some((first, last)) = range.trim().split_once('-') else { return Selection::Whole };
    if !unit.eq_ignore_ascii_case("bytes") {
        return Selection::Whole;
    }
    let part = match (first.trim(), last.trim()) {
        ("", suffix) => match number(suffix) {
            None => return Selection::Whole,
            Some(suffix) => len.saturating_sub(suffix)..len,
        },
        (first, "") => match number(first) {
            None => return Selection::Whole,
            Some(first) => first..len,
        },
        (first, last) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(len),
            _ => return Selection::Whole,
        },
    };
    if part.start < part.end { Selection::Part(part) } else { Selection::Unsatisfiable }
}

/// Why a `x-amz-copy-source-range` selects nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InvalidCopyRange {
    /// It is not of the form `bytes=FIRST-LAST`.
    Malformed,
    /// It reaches beyond the source.
    Outside,
}

/// Reads `x-amz-copy-source-range`, which must be `bytes=FIRST-LAST`, both within the source.
pub(crate) fn select_copy(header: &str, len: u64) -> Result<Range<u64>, InvalidCopyRange> {
    let bounds = header.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
    let numbers = bounds.and_then(|(first, last)| Some((number(first)?, number(last)?)));
    match numbers {
        Some((first, last)) if first <= last && last < len => Ok(first..last + 1),
        Some((first, last)) if first <= last => Err(InvalidCopyRange::Outside),
        _ => Err(InvalidCopyRange::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_select_as_rfc_9110_says() {
        for (header, selection) in [
            ("bytes=0-0", Selection::Part(0..1)),
            ("bytes=2-5", Selection::Part(2..6)),
            ("bytes=2-", Selection::Part(2..10)),
            ("bytes=-3", Selection::Part(7..10)),
            ("bytes=-30", Selection::Part(0..10)),
            ("bytes=9-99999999999999999999999", Selection::Part(9..10)),
            ("bytes=10-", Selection::Unsatisfiable),
            ("bytes=10-11", Selection::Unsatisfiable),
            ("bytes=-0", Selection::Unsatisfiable),
            ("bytes=5-2", Selection::Whole),
            ("bytes=0-1,3-4", Selection::Whole),
            ("bytes=a-b", Selection::Whole),
            ("bytes=-", Selection::Whole),
            ("lines=1-2", Selection::Whole),
            ("nonsense", Selection::Whole),
        ] {
            assert_eq!(select(header, 10), selection, "{header}");
        }
        assert_eq!(select("bytes=-1", 0), Selection::Unsatisfiable);
        assert_eq!(select("bytes=0-", 0), Selection::Unsatisfiable);
    }

    #[test]
    fn a_copy_range_must_lie_within_its_source() {
        assert_eq!(select_copy("bytes=0-9", 10), Ok(0..10));
        for header in ["bytes=0-10", "bytes=0-18446744073709551615"] {
            assert_eq!(select_copy(header, 10), Err(InvalidCopyRange::Outside), "{header}");
        }
        for header in ["bytes=5-", "bytes=-5", "bytes=6-5", "0-5", "bytes=a-b", ""] {
            assert_eq!(select_copy(header, 10), Err(InvalidCopyRange::Malformed), "{header}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_selected_exists(header in "bytes=[0-9]{0,21}-[0-9]{0,21}|.{0,20}", len in proptest::prelude::any::<u64>()) {
            if let Selection::Part(range) = select(&header, len) {
                proptest::prop_assert!(range.start < range.end && range.end <= len);
            }
            if let Ok(range) = select_copy(&header, len) {
                proptest::prop_assert!(range.start < range.end && range.end <= len);
            }
        }
    }
}
