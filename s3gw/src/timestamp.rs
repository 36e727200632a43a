//! The three date forms of S3, from and to milliseconds since the Unix epoch. Knows no clock.
//!
//! The calendar arithmetic is Howard Hinnant's `days_from_civil` and `civil_from_days`
//! (<https://howardhinnant.github.io/date_algorithms.html>), which is exact for all years used here (1970–9999).

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY_S: u64 = 86_400;
/// The last millisecond of the year 9999, where the forms' four-digit years end.
const LAST_MS: u64 = 253_402_300_799_999;

struct Civil {
    year: u64,
    month: u64,
    day: u64,
    second_of_day: u64,
}

fn civil(seconds: u64) -> Civil {
    let z = seconds / DAY_S + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    Civil { year, month, day, second_of_day: seconds % DAY_S }
}

fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let era = year / 400;
    let year_of_era = year % 400;
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Appends `2009-10-12T17:50:30.000Z`, the form of S3's XML.
pub(crate) fn push_iso8601(out: &mut String, ms: u64) {
    let ms = ms.min(LAST_MS);
    let Civil { year, month, day, second_of_day: s } = civil(ms / 1000);
    let (hour, minute, second, milli) = (s / 3600, s / 60 % 60, s % 60, ms % 1000);
    write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
        .expect("a String takes all that is written");
}

/// `20130524T000000Z`, the form of `x-amz-date`.
pub(crate) fn amz_date(ms: u64) -> String {
    let Civil { year, month, day, second_of_day: s } = civil(ms.min(LAST_MS) / 1000);
    let (hour, minute, second) = (s / 3600, s / 60 % 60, s % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Reads `20130524T000000Z`; `None` for anything else, dates before 1970 and dates that do not exist included.
pub(crate) fn parse_amz_date(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let number = |range: std::ops::Range<usize>| {
        bytes[range]
            .iter()
            .try_fold(0_u64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))
    };
    let (year, month, day) = (number(0..4)?, number(4..6)?, number(6..8)?);
    let (hour, minute, second) = (number(9..11)?, number(11..13)?, number(13..15)?);
    if year < 1970 || !(1..=12).contains(&month) || day == 0 || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days_from_civil(year, month, day);
    let back = civil(days * DAY_S);
    if (back.month, back.day) != (month, day) {
        return None;
    }
    Some((days * DAY_S + hour * 3600 + minute * 60 + second) * 1000)
}

/// `Wed, 21 Oct 2015 07:28:00 GMT`, the form of HTTP headers; milliseconds are cut.
pub(crate) fn http_date(ms: u64) -> String {
    httpdate::fmt_http_date(system_time(ms))
}

/// Reads any of the three HTTP date forms, in whole seconds.
pub(crate) fn parse_http_date(text: &str) -> Option<u64> {
    let time = httpdate::parse_http_date(text.trim()).ok()?;
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    since.as_secs().checked_mul(1000)
}

fn system_time(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms.min(LAST_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iso(ms: u64) -> String {
        let mut out = String::new();
        push_iso8601(&mut out, ms);
        out
    }

    #[test]
    fn dates_have_the_forms_of_s3() {
        assert_eq!(iso(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(iso(1_255_369_830_007), "2009-10-12T17:50:30.007Z");
        assert_eq!(iso(u64::MAX), "9999-12-31T23:59:59.999Z");
        assert_eq!(amz_date(1_369_353_600_000), "20130524T000000Z");
        assert_eq!(http_date(1_445_412_480_000), "Wed, 21 Oct 2015 07:28:00 GMT");
        assert_eq!(parse_http_date("Wed, 21 Oct 2015 07:28:00 GMT"), Some(1_445_412_480_000));
    }

    #[test]
    fn dates_that_do_not_exist_are_refused() {
        for text in
            ["20130229T000000Z", "20131301T000000Z", "20130524T240000Z", "20130524 000000Z", "19691231T235959Z", ""]
        {
            assert_eq!(parse_amz_date(text), None, "{text}");
        }
        assert_eq!(parse_amz_date("20160229T235959Z"), Some(1_456_790_399_000));
    }

    proptest::proptest! {
        #[test]
        fn amz_dates_come_back(seconds in 0..=LAST_MS / 1000) {
            proptest::prop_assert_eq!(parse_amz_date(&amz_date(seconds * 1000)), Some(seconds * 1000));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,20}") {
            parse_amz_date(&text);
            parse_http_date(&text);
        }
    }
}
