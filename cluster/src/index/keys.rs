//! Where records lie in a shard's state.
//!
//! | table | key after its byte | record |
//! |---|---|---|
//! | 1 | bucket u64 · escaped key | current object |
//! | 2 | bucket · escaped key · … | reserved for non-current versions, newest first under a key |
//! | 3 | bucket · escaped key · upload | open upload |
//! | 4 | bucket · escaped key · upload · part number u32 | part, also of completed uploads |
//! | 5 | sequence u64 | garbage |
//! | 6 | bucket | counters |
//! | 7 | bucket | seal |
//! | 8 | – | next garbage sequence |
//! | 9 | extent · slot · drive | a stray chunk waits to be cleared |
//! | 10 | bucket u64 · escaped key | body of the current object, where it lies apart from its entry |
//!
//! Integers are big-endian. A key is escaped so that byte order is key order whatever follows it: `00` becomes
//! `00 ff`, and `00 00` ends it.

use std::borrow::Cow;

use crate::ids::{BucketId, DriveId, ExtentId, UploadId};

pub(super) const OBJECTS: u8 = 1;
pub(super) const UPLOADS: u8 = 3;
pub(super) const PARTS: u8 = 4;
pub(super) const GARBAGE: u8 = 5;
const USAGE: u8 = 6;
const SEALS: u8 = 7;
const GARBAGE_NEXT: u8 = 8;
const STRAYS: u8 = 9;
const BODIES: u8 = 10;

const BUCKET_END: usize = 9;
const TERMINATOR: [u8; 2] = [0, 0];

fn bucket_prefix(table: u8, bucket: BucketId) -> Vec<u8> {
    let mut key = Vec::with_capacity(96);
    key.push(table);
    key.extend_from_slice(&bucket.0.to_be_bytes());
    key
}

/// The beginning of all of a table's keys in `bucket` whose object keys begin with `prefix`.
pub(super) fn prefix_key(table: u8, bucket: BucketId, prefix: &str) -> Vec<u8> {
    let mut key = bucket_prefix(table, bucket);
    for byte in prefix.bytes() {
        key.push(byte);
        if byte == 0 {
            key.push(0xff);
        }
    }
    key
}

/// The beginning of all of a table's keys for this very object key.
pub(super) fn key_prefix(table: u8, bucket: BucketId, key: &str) -> Vec<u8> {
    let mut prefix = prefix_key(table, bucket, key);
    prefix.extend_from_slice(&TERMINATOR);
    prefix
}

pub(super) fn object_key(bucket: BucketId, key: &str) -> Vec<u8> {
    key_prefix(OBJECTS, bucket, key)
}

pub(super) fn body_key(bucket: BucketId, key: &str) -> Vec<u8> {
    key_prefix(BODIES, bucket, key)
}

pub(super) fn upload_key(bucket: BucketId, key: &str, upload: UploadId) -> Vec<u8> {
    let mut out = key_prefix(UPLOADS, bucket, key);
    out.extend_from_slice(&upload.0);
    out
}

/// The beginning of the keys of all of an upload's parts.
pub(super) fn parts_prefix(bucket: BucketId, key: &str, upload: UploadId) -> Vec<u8> {
    let mut out = key_prefix(PARTS, bucket, key);
    out.extend_from_slice(&upload.0);
    out
}

pub(super) fn part_key(bucket: BucketId, key: &str, upload: UploadId, number: u32) -> Vec<u8> {
    let mut out = parts_prefix(bucket, key, upload);
    out.extend_from_slice(&number.to_be_bytes());
    out
}

pub(super) fn garbage_key(sequence: u64) -> Vec<u8> {
    let mut key = vec![GARBAGE];
    key.extend_from_slice(&sequence.to_be_bytes());
    key
}

pub(super) fn usage_key(bucket: BucketId) -> Vec<u8> {
    bucket_prefix(USAGE, bucket)
}

pub(super) fn seal_key(bucket: BucketId) -> Vec<u8> {
    bucket_prefix(SEALS, bucket)
}

pub(super) fn garbage_next_key() -> Vec<u8> {
    vec![GARBAGE_NEXT]
}

pub(super) fn stray_key(extent: ExtentId, slot: u8, drive: DriveId) -> Vec<u8> {
    let mut key = vec![STRAYS];
    key.extend_from_slice(extent.as_bytes());
    key.push(slot);
    key.extend_from_slice(drive.as_bytes());
    key
}

/// Splits a key of table 1, 3 or 4 into bucket, object key and what follows; `None` if it is none.
pub(super) fn parse(key: &[u8]) -> Option<(BucketId, Cow<'_, str>, &[u8])> {
    let bucket = key.get(1..BUCKET_END)?.try_into().ok()?;
    let escaped = &key[BUCKET_END..];
    let end = terminator(escaped)?;
    let rest = &escaped[end + TERMINATOR.len()..];
    let text = &escaped[..end];
    let text = if text.contains(&0) {
        Cow::Owned(String::from_utf8(unescape(text)).ok()?)
    } else {
        Cow::Borrowed(str::from_utf8(text).ok()?)
    };
    Some((BucketId(u64::from_be_bytes(bucket)), text, rest))
}

/// Where the terminator of an escaped key begins.
fn terminator(escaped: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let zero = from + escaped[from..].iter().position(|byte| *byte == 0)?;
        match escaped.get(zero + 1)? {
            0 => return Some(zero),
            _ => from = zero + 2,
        }
    }
}

fn unescape(escaped: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(escaped.len());
    let mut skip = false;
    for byte in escaped {
        if !std::mem::take(&mut skip) {
            out.push(*byte);
            skip = *byte == 0;
        }
    }
    out
}

/// The upload id that follows a parsed key of table 3 or 4, and what follows it.
pub(super) fn parse_upload(rest: &[u8]) -> Option<(UploadId, &[u8])> {
    let (id, rest) = rest.split_at_checked(16)?;
    Some((UploadId(id.try_into().ok()?), rest))
}

/// The upload id and part number that follow a parsed key of table 4.
pub(super) fn parse_part(rest: &[u8]) -> Option<(UploadId, u32)> {
    let (upload, number) = parse_upload(rest)?;
    Some((upload, u32::from_be_bytes(number.try_into().ok()?)))
}

/// The sequence in a key of table 5.
pub(super) fn parse_garbage(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(1..)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_layout_of_keys_never_changes() {
        let (bucket, upload) = (BucketId(0x0102), UploadId([0xee; 16]));
        assert_eq!(hex::encode(object_key(bucket, "a\0b")), "010000000000000102".to_owned() + "6100ff62" + "0000");
        let upload_text = "ee".repeat(16);
        assert_eq!(hex::encode(upload_key(bucket, "a", upload)), format!("030000000000000102610000{upload_text}"));
        assert_eq!(
            hex::encode(part_key(bucket, "a", upload, 3)),
            format!("040000000000000102610000{upload_text}00000003")
        );
        assert_eq!(hex::encode(garbage_key(5)), "050000000000000005");
        assert_eq!(hex::encode(usage_key(bucket)), "060000000000000102");
        assert_eq!(hex::encode(seal_key(bucket)), "070000000000000102");
        assert_eq!(hex::encode(garbage_next_key()), "08");
        let stray = stray_key(ExtentId::from_bytes([1; 16]), 2, DriveId::from_bytes([3; 8]));
        assert_eq!(hex::encode(stray), format!("09{}02{}", "01".repeat(16), "03".repeat(8)));
        assert_eq!(hex::encode(body_key(bucket, "a")), "0a0000000000000102610000");
    }

    proptest! {
        #[test]
        fn byte_order_is_key_order_and_prefixes_are_prefixes(
            one in "[\0\u{1}ab\u{ff}é]{0,6}", other in "[\0\u{1}ab\u{ff}é]{0,6}", tail: [u8; 16],
        ) {
            let bucket = BucketId(1);
            let key = |text: &str| upload_key(bucket, text, UploadId(tail));
            prop_assert_eq!(key(&one).cmp(&key(&other)), one.cmp(&other));
            let has_prefix = key(&one).starts_with(&prefix_key(UPLOADS, bucket, &other));
            prop_assert_eq!(has_prefix, one.starts_with(&other));
            let bytes = key(&one);
            let (parsed_bucket, text, rest) = parse(&bytes).unwrap();
            prop_assert_eq!((parsed_bucket, text.as_ref()), (bucket, one.as_str()));
            prop_assert_eq!(parse_upload(rest), Some((UploadId(tail), &[][..])));
        }

        #[test]
        fn arbitrary_keys_never_panic(bytes in proptest::collection::vec(0..4_u8, 0..60)) {
            let parsed = parse(&bytes);
            prop_assert!(parsed.is_none() || bytes.len() >= 11);
            prop_assert!(parse_part(&bytes).is_none() || bytes.len() == 20);
            prop_assert!(parse_garbage(&bytes).is_none() || bytes.len() == 9);
        }
    }
}
