//! Percent-encoding as S3 wants it: strict on the way in, RFC 3986's unreserved characters on the way out.

/// What `/` is in a text to encode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slash {
    /// Kept, as in paths and listed keys.
    Kept,
    /// Encoded, as in query parameters.
    Encoded,
}

/// What `+` is in a text to decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plus {
    /// Itself, as in paths.
    Kept,
    /// A space, as in query parameters.
    Space,
}

fn hex_value(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Decodes percent-encoded bytes; `None` for a `%` without two hexadecimal digits.
pub(crate) fn decode(text: &str, plus: Plus) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => {
                let (high, low) = (*bytes.get(at + 1)?, *bytes.get(at + 2)?);
                out.push(hex_value(high)? << 4 | hex_value(low)?);
                at += 2;
            }
            b'+' if plus == Plus::Space => out.push(b' '),
            byte => out.push(byte),
        }
        at += 1;
    }
    Some(out)
}

/// [`decode`] of what must be UTF-8.
pub(crate) fn decode_utf8(text: &str, plus: Plus) -> Option<String> {
    String::from_utf8(decode(text, plus)?).ok()
}

/// Appends `bytes`, all but unreserved characters percent-encoded with upper-case digits.
pub(crate) fn encode_into(out: &mut String, bytes: &[u8], slash: Slash) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            b'/' if slash == Slash::Kept => out.push('/'),
            _ => {
                out.push('%');
                out.push(char::from(DIGITS[usize::from(byte >> 4)]));
                out.push(char::from(DIGITS[usize::from(byte & 15)]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_escapes_are_refused() {
        for text in ["%", "%2", "%zz", "a%4", "%%41"] {
            assert_eq!(decode(text, Plus::Kept), None, "{text}");
        }
        assert_eq!(decode_utf8("%ff", Plus::Kept), None);
        assert_eq!(decode_utf8("a+b%20c", Plus::Kept).as_deref(), Some("a+b c"));
        assert_eq!(decode_utf8("a+b%2B", Plus::Space).as_deref(), Some("a b+"));
    }

    proptest::proptest! {
        #[test]
        fn encoded_bytes_come_back(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
            for (slash, plus) in [(Slash::Kept, Plus::Kept), (Slash::Encoded, Plus::Space)] {
                let mut text = String::new();
                encode_into(&mut text, &bytes, slash);
                proptest::prop_assert_eq!(decode(&text, plus), Some(bytes.clone()));
            }
        }
    }
}
