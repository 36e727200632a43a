//! Checksums as headers, trailers and XML carry them: names, base64 values, composite suffixes; and computing them over
//! a passing body. Combining the checksums of parts is the cluster's business.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use crc_fast::CrcAlgorithm;
use drystone_cluster::store::{Checksum, ChecksumAlgorithm, ChecksumKind};
use http::HeaderMap;
use http::header::HeaderName;
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use crate::error::{ErrorCode, S3Error};

/// All algorithms.
pub(crate) const ALGORITHMS: [ChecksumAlgorithm; 5] = [
    ChecksumAlgorithm::Crc32,
    ChecksumAlgorithm::Crc32c,
    ChecksumAlgorithm::Crc64Nvme,
    ChecksumAlgorithm::Sha1,
    ChecksumAlgorithm::Sha256,
];

/// What an object gets when its client asks for nothing, as AWS does it.
pub(crate) const DEFAULT_ALGORITHM: ChecksumAlgorithm = ChecksumAlgorithm::Crc64Nvme;

/// The name in `x-amz-checksum-algorithm` and XML.
pub fn name(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        ChecksumAlgorithm::Crc32 => "CRC32",
        ChecksumAlgorithm::Crc32c => "CRC32C",
        ChecksumAlgorithm::Crc64Nvme => "CRC64NVME",
        ChecksumAlgorithm::Sha1 => "SHA1",
        ChecksumAlgorithm::Sha256 => "SHA256",
    }
}

/// The name in AWS's messages.
pub(crate) fn lower_name(algorithm: ChecksumAlgorithm) -> String {
    name(algorithm).to_ascii_lowercase()
}

/// The XML element that holds a value of the algorithm.
pub(crate) fn element(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        ChecksumAlgorithm::Crc32 => "ChecksumCRC32",
        ChecksumAlgorithm::Crc32c => "ChecksumCRC32C",
        ChecksumAlgorithm::Crc64Nvme => "ChecksumCRC64NVME",
        ChecksumAlgorithm::Sha1 => "ChecksumSHA1",
        ChecksumAlgorithm::Sha256 => "ChecksumSHA256",
    }
}

/// The header or trailer that holds a value of the algorithm.
pub fn header(algorithm: ChecksumAlgorithm) -> HeaderName {
    HeaderName::from_static(match algorithm {
        ChecksumAlgorithm::Crc32 => "x-amz-checksum-crc32",
        ChecksumAlgorithm::Crc32c => "x-amz-checksum-crc32c",
        ChecksumAlgorithm::Crc64Nvme => "x-amz-checksum-crc64nvme",
        ChecksumAlgorithm::Sha1 => "x-amz-checksum-sha1",
        ChecksumAlgorithm::Sha256 => "x-amz-checksum-sha256",
    })
}

/// Length in bytes of a value.
pub(crate) const fn value_len(algorithm: ChecksumAlgorithm) -> usize {
    match algorithm {
        ChecksumAlgorithm::Crc32 | ChecksumAlgorithm::Crc32c => 4,
        ChecksumAlgorithm::Crc64Nvme => 8,
        ChecksumAlgorithm::Sha1 => 20,
        ChecksumAlgorithm::Sha256 => 32,
    }
}

/// The algorithm of that name, in any case.
pub(crate) fn parse_name(text: &str) -> Option<ChecksumAlgorithm> {
    ALGORITHMS.into_iter().find(|algorithm| name(*algorithm).eq_ignore_ascii_case(text))
}

/// The algorithm a client asks for by that name.
///
/// # Errors
/// `InvalidRequest` for one that S3 does not have.
pub(crate) fn parse_asked(text: &str) -> Result<ChecksumAlgorithm, S3Error> {
    parse_name(text).ok_or_else(|| {
        S3Error::new(
            ErrorCode::InvalidRequest,
            "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]",
        )
    })
}

/// The algorithm whose header or trailer has that name.
pub(crate) fn parse_header_name(text: &str) -> Option<ChecksumAlgorithm> {
    parse_name(text.trim().to_ascii_lowercase().strip_prefix("x-amz-checksum-")?)
}

/// `FULL_OBJECT` or `COMPOSITE`.
pub(crate) fn kind_name(kind: ChecksumKind) -> &'static str {
    match kind {
        ChecksumKind::FullObject => "FULL_OBJECT",
        ChecksumKind::Composite => "COMPOSITE",
    }
}

/// Reads `FULL_OBJECT` or `COMPOSITE`.
pub(crate) fn parse_kind(text: &str) -> Option<ChecksumKind> {
    match text {
        "FULL_OBJECT" => Some(ChecksumKind::FullObject),
        "COMPOSITE" => Some(ChecksumKind::Composite),
        _ => None,
    }
}

/// The digest as base64, without the number of parts.
pub(crate) fn format_digest(checksum: &Checksum) -> String {
    BASE64.encode(&checksum.value)
}

/// The value as text: base64, with `-N` for a composite of N parts.
pub fn format_value(checksum: &Checksum) -> String {
    let mut text = format_digest(checksum);
    if checksum.kind == ChecksumKind::Composite && checksum.part_count > 0 {
        text.push('-');
        text.push_str(&checksum.part_count.to_string());
    }
    text
}

/// Reads a value as [`format_value`] writes it; `None` if it is not of the algorithm's form.
pub fn parse_value(algorithm: ChecksumAlgorithm, text: &str) -> Option<Checksum> {
    let text = text.trim();
    let (digest, part_count) = match text.split_once('-') {
        Some((digest, count)) => (digest, count.parse().ok().filter(|count| (1..=10_000).contains(count))?),
        None => (text, 0),
    };
    let value = BASE64.decode(digest).ok().filter(|value| value.len() == value_len(algorithm))?;
    let kind = if part_count == 0 { ChecksumKind::FullObject } else { ChecksumKind::Composite };
    Some(Checksum { algorithm, kind, value, part_count })
}

/// The one checksum a request declares in its headers.
///
/// # Errors
/// `InvalidRequest` for more than one, or a value that cannot be one.
pub(crate) fn declared(headers: &HeaderMap) -> Result<Option<Checksum>, S3Error> {
    let mut found = None;
    for algorithm in ALGORITHMS {
        let name = header(algorithm);
        let Some(value) = headers.get(&name) else { continue };
        if found.is_some() {
            return Err(S3Error::new(
                ErrorCode::InvalidRequest,
                "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
            ));
        }
        let checksum = value.to_str().ok().and_then(|text| parse_value(algorithm, text));
        found =
            Some(checksum.ok_or_else(|| {
                S3Error::new(ErrorCode::InvalidRequest, format!("Value for {name} header is invalid."))
            })?);
    }
    Ok(found)
}

/// The digests wanted of one body, updated together while the bytes are in the cache.
#[derive(Clone)]
pub(crate) struct Digester {
    md5: Md5,
    crc32: Option<crc_fast::Digest>,
    crc32c: Option<crc_fast::Digest>,
    crc64: Option<crc_fast::Digest>,
    sha1: Option<Sha1>,
    sha256: Option<Sha256>,
}

impl Digester {
    /// MD5 alone; see [`Digester::want`].
    pub(crate) fn new() -> Self {
        Self { md5: Md5::new(), crc32: None, crc32c: None, crc64: None, sha1: None, sha256: None }
    }

    /// Asks for `algorithm` too. Asking twice costs nothing more.
    pub(crate) fn want(&mut self, algorithm: ChecksumAlgorithm) {
        let crc = |algorithm| Some(crc_fast::Digest::new(algorithm));
        match algorithm {
            ChecksumAlgorithm::Crc32 => self.crc32 = crc(CrcAlgorithm::Crc32IsoHdlc),
            ChecksumAlgorithm::Crc32c => self.crc32c = crc(CrcAlgorithm::Crc32Iscsi),
            ChecksumAlgorithm::Crc64Nvme => self.crc64 = crc(CrcAlgorithm::Crc64Nvme),
            ChecksumAlgorithm::Sha1 => self.sha1 = Some(Sha1::new()),
            ChecksumAlgorithm::Sha256 => self.sha256 = Some(Sha256::new()),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.md5.update(bytes);
        for crc in [&mut self.crc32, &mut self.crc32c, &mut self.crc64].into_iter().flatten() {
            crc.update(bytes);
        }
        if let Some(sha1) = &mut self.sha1 {
            sha1.update(bytes);
        }
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
    }

    /// MD5 of all bytes so far.
    pub(crate) fn md5(&self) -> [u8; 16] {
        self.md5.clone().finalize().into()
    }

    /// The value of an algorithm that was wanted.
    pub(crate) fn value(&self, algorithm: ChecksumAlgorithm) -> Option<Vec<u8>> {
        let crc32 = |crc: &crc_fast::Digest| crc.finalize().to_be_bytes()[4..].to_vec();
        match algorithm {
            ChecksumAlgorithm::Crc32 => self.crc32.as_ref().map(crc32),
            ChecksumAlgorithm::Crc32c => self.crc32c.as_ref().map(crc32),
            ChecksumAlgorithm::Crc64Nvme => self.crc64.as_ref().map(|crc| crc.finalize().to_be_bytes().to_vec()),
            ChecksumAlgorithm::Sha1 => self.sha1.as_ref().map(|sha1| sha1.clone().finalize().to_vec()),
            ChecksumAlgorithm::Sha256 => self.sha256.as_ref().map(|sha256| sha256.clone().finalize().to_vec()),
        }
    }

    /// The same as a full-object checksum.
    pub(crate) fn checksum(&self, algorithm: ChecksumAlgorithm) -> Option<Checksum> {
        let value = self.value(algorithm)?;
        Some(Checksum { algorithm, kind: ChecksumKind::FullObject, value, part_count: 0 })
    }
}

/// The full-object checksum of `bytes`, for clients that declare one.
pub fn compute(algorithm: ChecksumAlgorithm, bytes: &[u8]) -> Checksum {
    let mut digester = Digester::new();
    digester.want(algorithm);
    digester.update(bytes);
    let value = digester.value(algorithm).unwrap_or_default();
    Checksum { algorithm, kind: ChecksumKind::FullObject, value, part_count: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_have_their_catalogued_values() {
        // The check values of "123456789" in the CRC catalogue (<https://reveng.sourceforge.io/crc-catalogue/all.htm>)
        // and FIPS 180.
        let hex_of = |algorithm| hex::encode(compute(algorithm, b"123456789").value);
        assert_eq!(hex_of(ChecksumAlgorithm::Crc32), "cbf43926");
        assert_eq!(hex_of(ChecksumAlgorithm::Crc32c), "e3069283");
        assert_eq!(hex_of(ChecksumAlgorithm::Crc64Nvme), "ae8b14860a799888");
        assert_eq!(hex_of(ChecksumAlgorithm::Sha1), "f7c3bc1d808e04732adf679965ccc34ca7ae3441");
        assert_eq!(
            hex_of(ChecksumAlgorithm::Sha256),
            "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"
        );
    }

    #[test]
    fn values_come_back_from_their_text() {
        for algorithm in ALGORITHMS {
            let whole = compute(algorithm, b"stone");
            assert_eq!(parse_value(algorithm, &format_value(&whole)), Some(whole.clone()));
            let composite = Checksum { kind: ChecksumKind::Composite, part_count: 7, ..whole };
            assert!(format_value(&composite).ends_with("-7"));
            assert_eq!(parse_value(algorithm, &format_value(&composite)), Some(composite));
            assert_eq!(parse_header_name(header(algorithm).as_str()), Some(algorithm));
        }
        assert_eq!(parse_value(ChecksumAlgorithm::Crc32, "AAAA"), None);
        assert_eq!(parse_value(ChecksumAlgorithm::Crc32, "AAAAAA==-0"), None);
        assert_eq!(parse_value(ChecksumAlgorithm::Sha1, "bad"), None);
    }
}
