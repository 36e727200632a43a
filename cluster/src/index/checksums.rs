//! Entity tags and checksums of multipart objects, computed from those of their parts
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html>, "Full object and composite
//! checksum types").
//!
//! CRCs of a whole are combined from those of its pieces by polynomial arithmetic after Mark Adler's zlib
//! (`crc32_combine`): appending n bytes multiplies a CRC by x^8n modulo the polynomial. All CRCs of S3 are reflected and
//! begin and end with all ones, for which this holds as it stands.

use md5::Digest as _;

use crate::store::{ChecksumAlgorithm, ETag};

/// The ETag of an object made of parts: MD5 of the parts' MD5s, and their number.
pub fn multipart_etag(parts: impl IntoIterator<Item = ETag>) -> ETag {
    let mut hasher = md5::Md5::new();
    let mut part_count = 0;
    for part in parts {
        hasher.update(part.md5);
        part_count += 1;
    }
    ETag { md5: hasher.finalize().into(), part_count }
}

/// The length in bytes of an algorithm's values.
pub const fn value_len(algorithm: ChecksumAlgorithm) -> usize {
    match algorithm {
        ChecksumAlgorithm::Crc32 | ChecksumAlgorithm::Crc32c => 4,
        ChecksumAlgorithm::Crc64Nvme => 8,
        ChecksumAlgorithm::Sha1 => 20,
        ChecksumAlgorithm::Sha256 => 32,
    }
}

/// The checksum of the parts' checksums, one after the other.
pub fn composite<'v>(algorithm: ChecksumAlgorithm, values: impl IntoIterator<Item = &'v [u8]>) -> Vec<u8> {
    let bytes: Vec<u8> = values.into_iter().flatten().copied().collect();
    match algorithm {
        ChecksumAlgorithm::Crc32 => crc_value(crc_fast::CrcAlgorithm::Crc32IsoHdlc, &bytes, 4),
        ChecksumAlgorithm::Crc32c => crc_value(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes, 4),
        ChecksumAlgorithm::Crc64Nvme => crc_value(crc_fast::CrcAlgorithm::Crc64Nvme, &bytes, 8),
        ChecksumAlgorithm::Sha1 => sha1::Sha1::digest(&bytes).to_vec(),
        ChecksumAlgorithm::Sha256 => sha2::Sha256::digest(&bytes).to_vec(),
    }
}

fn crc_value(algorithm: crc_fast::CrcAlgorithm, bytes: &[u8], len: usize) -> Vec<u8> {
    crc_fast::checksum(algorithm, bytes).to_be_bytes()[8 - len..].to_vec()
}

/// The checksum of all bytes, from the value and length of each part in order. `None` for algorithms that cannot be
/// combined (SHA) and for values of a wrong length.
pub fn full_object<'v>(
    algorithm: ChecksumAlgorithm,
    parts: impl IntoIterator<Item = (&'v [u8], u64)>,
) -> Option<Vec<u8>> {
    let mut crc = Crc::of(algorithm)?;
    let mut whole = 0;
    for (value, len) in parts {
        if value.len() != value_len(algorithm) {
            return None;
        }
        let part = value.iter().fold(0, |crc, byte| crc << 8 | u64::from(*byte));
        whole = crc.append(whole, part, len);
    }
    Some(whole.to_be_bytes()[8 - value_len(algorithm)..].to_vec())
}

/// Arithmetic of a reflected CRC: bit `width - 1` of a value is the coefficient of x^0.
struct Crc {
    width: u32,
    polynomial: u64,
    /// The last length and its x^8n: parts are mostly of equal length.
    shift: (u64, u64),
}

impl Crc {
    /// Polynomials as in the CRC catalogue (<https://reveng.sourceforge.io/crc-catalogue/all.htm>), reflected.
    fn of(algorithm: ChecksumAlgorithm) -> Option<Self> {
        let (width, polynomial) = match algorithm {
            ChecksumAlgorithm::Crc32 => (32, 0xedb8_8320),
            ChecksumAlgorithm::Crc32c => (32, 0x82f6_3b78),
            ChecksumAlgorithm::Crc64Nvme => (64, 0x9a6c_9329_ac4b_c9b5),
            ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256 => return None,
        };
        Some(Self { width, polynomial, shift: (0, 1 << (width - 1)) })
    }

    /// The CRC of bytes of CRC `first` followed by `len` bytes of CRC `second`.
    fn append(&mut self, first: u64, second: u64, len: u64) -> u64 {
        if self.shift.0 != len {
            self.shift = (len, self.power(len));
        }
        self.multiply(self.shift.1, first) ^ second
    }

    /// x^(8 · len) modulo the polynomial.
    fn power(&self, len: u64) -> u64 {
        let mut square = 1 << (self.width - 1 - 8);
        let mut power = 1 << (self.width - 1);
        let mut rest = len;
        while rest != 0 {
            if rest & 1 == 1 {
                power = self.multiply(square, power);
            }
            square = self.multiply(square, square);
            rest >>= 1;
        }
        power
    }

    fn multiply(&self, one: u64, other: u64) -> u64 {
        let (mut product, mut shifted) = (0, other);
        for bit in (0..self.width).rev() {
            if one >> bit & 1 == 1 {
                product ^= shifted;
            }
            shifted = if shifted & 1 == 1 { shifted >> 1 ^ self.polynomial } else { shifted >> 1 };
        }
        product
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CRCS: [(ChecksumAlgorithm, crc_fast::CrcAlgorithm); 3] = [
        (ChecksumAlgorithm::Crc32, crc_fast::CrcAlgorithm::Crc32IsoHdlc),
        (ChecksumAlgorithm::Crc32c, crc_fast::CrcAlgorithm::Crc32Iscsi),
        (ChecksumAlgorithm::Crc64Nvme, crc_fast::CrcAlgorithm::Crc64Nvme),
    ];

    #[test]
    fn the_etag_of_parts_is_the_md5_of_their_md5s() {
        let part = |body: &[u8]| ETag::whole(md5::Md5::digest(body).into());
        let joined = [md5::Md5::digest(b"hello "), md5::Md5::digest(b"world")].concat();
        let etag = multipart_etag([part(b"hello "), part(b"world")]);
        assert_eq!(etag, ETag { md5: md5::Md5::digest(&joined).into(), part_count: 2 });
        assert_eq!(etag.to_string(), format!("{}-2", hex::encode(md5::Md5::digest(&joined))));
    }

    #[test]
    fn composites_are_checksums_of_checksums() {
        let parts: [&[u8]; 2] = [&[1, 2], &[3, 4]];
        let composite = |algorithm| hex::encode(composite(algorithm, parts));
        // Of the bytes 01 02 03 04, by zlib, RFC 3720 tables and coreutils.
        assert_eq!(composite(ChecksumAlgorithm::Crc32), "b63cfbcd");
        assert_eq!(composite(ChecksumAlgorithm::Crc32c), "29308cf4");
        assert_eq!(composite(ChecksumAlgorithm::Sha1), "12dada1fff4d4787ade3333147202c3b443e376f");
        assert_eq!(
            composite(ChecksumAlgorithm::Sha256),
            "9f64a747e1b97f131fabb6b447296c9b6f0201e79fb3c5356e6c77e89b6a806a"
        );
    }

    #[test]
    fn digests_do_not_combine_and_wrong_lengths_are_refused() {
        assert_eq!(full_object(ChecksumAlgorithm::Sha256, [(&[0; 32][..], 1)]), None);
        assert_eq!(full_object(ChecksumAlgorithm::Crc32, [(&[0; 8][..], 1)]), None);
        assert_eq!(full_object(ChecksumAlgorithm::Crc32, []), Some(vec![0; 4]));
    }

    #[test]
    fn lengths_beyond_four_gigabytes_combine() {
        for (algorithm, known) in CRCS {
            let (mut crc, len) = (Crc::of(algorithm).unwrap(), 5 << 30);
            let expected = crc_fast::checksum_combine(known, 0x1234_5678, 0x9abc_def0, len);
            assert_eq!(crc.append(0x1234_5678, 0x9abc_def0, len), expected, "{algorithm:?}");
        }
    }

    proptest! {
        #[test]
        fn combining_equals_computing(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6)) {
            for (algorithm, known) in CRCS {
                let len = value_len(algorithm);
                let values: Vec<Vec<u8>> = parts.iter().map(|part| crc_value(known, part, len)).collect();
                let pieces = values.iter().zip(&parts).map(|(value, part)| (value.as_slice(), part.len() as u64));
                prop_assert_eq!(full_object(algorithm, pieces), Some(crc_value(known, &parts.concat(), len)));
            }
        }
    }
}
