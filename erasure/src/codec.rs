//! Reed–Solomon arithmetic: k data chunks in, m parity chunks out, and any k of them back to the missing ones.
//!
//! The code is the systematic Vandermonde code of `reed-solomon-erasure` (the same bytes as Backblaze's and
//! klauspost's), over GF(2⁸). It is bytewise: equal sub-ranges of k chunks rebuild the same sub-range of a missing
//! one, so a range read never needs whole chunks. Nothing here detects a wrong byte; verify chunks first
//! ([`crate::chunk`]).
//!
//! `k = 1` is plain copies and `m = 0` nothing at all; neither touches the arithmetic.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use reed_solomon_erasure::galois_8;

use crate::ids::Scheme;

/// Largest k. Wider stripes would cost a degraded read more drives than a node has.
pub const DATA_CHUNKS_MAX: u8 = 16;
/// Largest m.
pub const PARITY_CHUNKS_MAX: u8 = 8;

/// Bytes of each chunk handled at a time while rebuilding: k + 1 strips stay in a core's second-level cache.
const STRIP_LEN: usize = 16 * 1024;

/// Why chunks could not be encoded or rebuilt. Always a caller's mistake or too few chunks, never bad data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// k or m is outside `1..=16` and `0..=8`.
    #[error("scheme {0} is not supported: k must be 1 to {DATA_CHUNKS_MAX} and m at most {PARITY_CHUNKS_MAX}")]
    UnsupportedScheme(Scheme),
    /// Another number of slices than the scheme says.
    #[error("expected {expected} chunks, got {found}")]
    ChunkCount {
        /// What the scheme asks for.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// Slices of different lengths.
    #[error("chunks of different lengths: {expected} and {found} bytes")]
    ChunkLength {
        /// Length of the first slice.
        expected: usize,
        /// Length of the offending one.
        found: usize,
    },
    /// A slot that the scheme does not have, or one named twice.
    #[error("slot {0} does not exist or was given twice")]
    Slot(u8),
    /// Fewer than k chunks are present.
    #[error("{present} chunks are present, {needed} are needed")]
    TooFewChunks {
        /// k.
        needed: usize,
        /// How many were given.
        present: usize,
    },
    /// The arithmetic refused; cannot happen for a supported scheme.
    #[error("the code matrix of scheme {0} is not invertible")]
    Matrix(Scheme),
}

/// The processor lacks what the compiled arithmetic needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this processor lacks {0}, which the erasure code is compiled for; run on a processor that has it")]
pub struct UnsupportedCpu(pub &'static str);

/// Says whether this processor can run the erasure code: on x86-64 its C kernel is compiled for AVX2 and would die
/// of an illegal instruction without it. Call once at start, before anything is encoded.
///
/// # Errors
/// [`UnsupportedCpu`] names the missing feature.
pub fn check_cpu() -> Result<(), UnsupportedCpu> {
    #[cfg(target_arch = "x86_64")]
    if !std::arch::is_x86_feature_detected!("avx2") {
        return Err(UnsupportedCpu("AVX2"));
    }
    Ok(())
}

/// The arithmetic of one scheme. Cloning is a reference count; safe to share between threads.
#[derive(Clone)]
pub struct Codec {
    inner: Arc<Inner>,
}

struct Inner {
    scheme: Scheme,
    /// Absent for k = 1 or m = 0, where there is nothing to compute.
    code: Option<galois_8::ReedSolomon>,
    /// Row `slot` of the encoding matrix: identity above, parity coefficients below.
    rows: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Codec({})", self.inner.scheme)
    }
}

impl Codec {
    /// Prepares the arithmetic of `scheme`; costs some microseconds, so keep it ([`Codecs`]).
    ///
    /// # Errors
    /// [`CodecError::UnsupportedScheme`] outside `1..=16` + `0..=8`.
    pub fn new(scheme: Scheme) -> Result<Self, CodecError> {
        if scheme.data == 0 || scheme.data > DATA_CHUNKS_MAX || scheme.parity > PARITY_CHUNKS_MAX {
            return Err(CodecError::UnsupportedScheme(scheme));
        }
        let k = usize::from(scheme.data);
        let mut rows: Vec<Vec<u8>> = (0..k).map(|i| unit_row(k, i)).collect();
        let mut code = None;
        if k == 1 {
            rows.extend((0..scheme.parity).map(|_| vec![1]));
        } else if scheme.parity > 0 {
            let rs = galois_8::ReedSolomon::new(k, usize::from(scheme.parity))
                .map_err(|_| CodecError::UnsupportedScheme(scheme))?;
            // Encoding the identity matrix yields the parity rows: column i is what data chunk i contributes.
            let identity = rows.clone();
            let mut parity = vec![vec![0u8; k]; usize::from(scheme.parity)];
            rs.encode_sep(&identity, &mut parity).map_err(|_| CodecError::Matrix(scheme))?;
            rows.extend(parity);
            code = Some(rs);
        }
        Ok(Self { inner: Arc::new(Inner { scheme, code, rows }) })
    }

    /// The scheme this is the arithmetic of.
    pub fn scheme(&self) -> Scheme {
        self.inner.scheme
    }

    /// Computes the m parity chunks of k equally long data chunks, in place and without copying the data (k = 1:
    /// copies it m times).
    ///
    /// # Errors
    /// Wrong number or lengths of slices.
    pub fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) -> Result<(), CodecError> {
        let scheme = self.inner.scheme;
        check_count(usize::from(scheme.data), data.len())?;
        check_count(usize::from(scheme.parity), parity.len())?;
        let len = data[0].len();
        check_lengths(len, data.iter().map(|chunk| chunk.len()))?;
        check_lengths(len, parity.iter().map(|chunk| chunk.len()))?;
        match &self.inner.code {
            Some(code) if len > 0 => code.encode_sep(data, parity).map_err(|_| CodecError::Matrix(scheme)),
            Some(_) => Ok(()),
            None => {
                for copy in parity {
                    copy.copy_from_slice(data[0]);
                }
                Ok(())
            }
        }
    }

    /// Rebuilds the `wanted` slots from at least k `present` ones; each is a slot number with the same byte range of
    /// that chunk. Present chunks are only read; only what is wanted is computed. More than k present chunks are
    /// fine: data chunks are preferred, as they cost least.
    ///
    /// # Errors
    /// Too few chunks, unequal lengths, or a slot that does not exist or is given twice.
    pub fn reconstruct(&self, present: &[(u8, &[u8])], wanted: &mut [(u8, &mut [u8])]) -> Result<(), CodecError> {
        let k = usize::from(self.inner.scheme.data);
        let sources = self.choose_sources(present, wanted)?;
        if wanted.is_empty() {
            return Ok(());
        }
        let slots: Vec<u8> = sources.iter().map(|(slot, _)| *slot).collect();
        let decode = self.decode_matrix(&slots)?;
        let len = sources[0].1.len();
        for (slot, out) in wanted {
            let row = &self.inner.rows[usize::from(*slot)];
            // wanted row × decode matrix: what each source contributes to the wanted chunk.
            let weights: Vec<u8> =
                (0..k).map(|column| (0..k).fold(0, |sum, i| sum ^ galois_8::mul(row[i], decode[i][column]))).collect();
            for start in (0..len).step_by(STRIP_LEN) {
                let end = len.min(start + STRIP_LEN);
                combine(&weights, &sources, start..end, &mut out[start..end]);
            }
        }
        Ok(())
    }

    fn choose_sources<'a>(
        &self,
        present: &[(u8, &'a [u8])],
        wanted: &[(u8, &mut [u8])],
    ) -> Result<Vec<(u8, &'a [u8])>, CodecError> {
        let needed = usize::from(self.inner.scheme.data);
        let mut by_slot = BTreeMap::new();
        for (slot, bytes) in present {
            let exists = usize::from(*slot) < self.inner.rows.len();
            if !exists || by_slot.insert(*slot, *bytes).is_some() {
                return Err(CodecError::Slot(*slot));
            }
        }
        if by_slot.len() < needed {
            return Err(CodecError::TooFewChunks { needed, present: by_slot.len() });
        }
        let sources: Vec<(u8, &[u8])> = by_slot.into_iter().take(needed).collect();
        let len = sources[0].1.len();
        check_lengths(len, present.iter().map(|(_, bytes)| bytes.len()))?;
        check_lengths(len, wanted.iter().map(|(_, bytes)| bytes.len()))?;
        match wanted.iter().find(|(slot, _)| usize::from(*slot) >= self.inner.rows.len()) {
            Some((slot, _)) => Err(CodecError::Slot(*slot)),
            None => Ok(sources),
        }
    }

    /// The inverse of the rows of `slots`: gives data chunks from those chunks. Gauss–Jordan over GF(2⁸).
    fn decode_matrix(&self, slots: &[u8]) -> Result<Vec<Vec<u8>>, CodecError> {
        let k = slots.len();
        let mut work: Vec<Vec<u8>> = slots.iter().map(|slot| self.inner.rows[usize::from(*slot)].clone()).collect();
        let mut inverse: Vec<Vec<u8>> = (0..k).map(|i| unit_row(k, i)).collect();
        for column in 0..k {
            let pivot = (column..k).find(|row| work[*row][column] != 0).ok_or(CodecError::Matrix(self.inner.scheme))?;
            work.swap(column, pivot);
            inverse.swap(column, pivot);
            let scale = galois_8::div(1, work[column][column]);
            for matrix in [&mut work, &mut inverse] {
                matrix[column].iter_mut().for_each(|cell| *cell = galois_8::mul(*cell, scale));
            }
            for row in (0..k).filter(|row| *row != column) {
                let factor = work[row][column];
                for matrix in [&mut work, &mut inverse] {
                    let pivot_row = matrix[column].clone();
                    for (cell, pivot_cell) in matrix[row].iter_mut().zip(pivot_row) {
                        *cell ^= galois_8::mul(factor, pivot_cell);
                    }
                }
            }
        }
        Ok(inverse)
    }
}

fn unit_row(len: usize, one: usize) -> Vec<u8> {
    (0..len).map(|i| u8::from(i == one)).collect()
}

fn combine(weights: &[u8], sources: &[(u8, &[u8])], range: std::ops::Range<usize>, out: &mut [u8]) {
    let mut written = false;
    for (weight, (_, source)) in weights.iter().zip(sources) {
        let input = &source[range.clone()];
        match (*weight, written) {
            (0, _) => {}
            (1, false) => {
                out.copy_from_slice(input);
                written = true;
            }
            (weight, false) => {
                galois_8::mul_slice(weight, input, out);
                written = true;
            }
            (weight, true) => galois_8::mul_slice_xor(weight, input, out),
        }
    }
}

fn check_count(expected: usize, found: usize) -> Result<(), CodecError> {
    if expected == found { Ok(()) } else { Err(CodecError::ChunkCount { expected, found }) }
}

fn check_lengths(expected: usize, mut lengths: impl Iterator<Item = usize>) -> Result<(), CodecError> {
    match lengths.find(|len| *len != expected) {
        Some(found) => Err(CodecError::ChunkLength { expected, found }),
        None => Ok(()),
    }
}

/// The codecs already prepared, by scheme. A handle: clone it, pass it around; at most 16 × 9 entries.
#[derive(Clone, Default)]
pub struct Codecs {
    known: Arc<Mutex<BTreeMap<(u8, u8), Codec>>>,
}

impl Codecs {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// The codec of `scheme`, prepared on first use.
    ///
    /// # Errors
    /// [`CodecError::UnsupportedScheme`].
    pub fn get(&self, scheme: Scheme) -> Result<Codec, CodecError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(codec) = known.get(&(scheme.data, scheme.parity)) {
            return Ok(codec.clone());
        }
        let codec = Codec::new(scheme)?;
        known.insert((scheme.data, scheme.parity), codec.clone());
        Ok(codec)
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "test data is far below any bound")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn extent(k: u8, len: usize, seed: u8) -> Vec<Vec<u8>> {
        (0..k).map(|i| (0..len).map(|j| (j as u8).wrapping_mul(31) ^ i.wrapping_mul(67) ^ seed).collect()).collect()
    }

    fn encode_all(scheme: Scheme, data: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let codec = Codec::new(scheme).unwrap();
        let mut parity = vec![vec![0; data[0].len()]; usize::from(scheme.parity)];
        let slices: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        let mut outs: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
        codec.encode(&slices, &mut outs).unwrap();
        data.iter().cloned().chain(parity).collect()
    }

    proptest! {
        #[test]
        fn any_k_of_n_rebuild_any_range_of_the_rest(
            k in 1u8..=16, m in 0u8..=8, len in 1usize..40_000, seed: u8, order in any::<u64>(), from in 0usize..1000,
        ) {
            let scheme = Scheme { data: k, parity: m };
            let all = encode_all(scheme, &extent(k, len, seed));
            // A seeded permutation decides who survives.
            let mut slots: Vec<u8> = (0..k + m).collect();
            let mut state = order | 1;
            for i in (1..slots.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                slots.swap(i, (state >> 33) as usize % (i + 1));
            }
            let (alive, dead) = slots.split_at(usize::from(k));
            let range = from.min(len - 1)..len;
            let present: Vec<(u8, &[u8])> = alive.iter().map(|s| (*s, &all[usize::from(*s)][range.clone()])).collect();
            let mut outs: Vec<Vec<u8>> = dead.iter().map(|_| vec![0xEE; range.len()]).collect();
            let mut wanted: Vec<(u8, &mut [u8])> =
                dead.iter().zip(&mut outs).map(|(s, out)| (*s, out.as_mut_slice())).collect();
            Codec::new(scheme).unwrap().reconstruct(&present, &mut wanted).unwrap();
            for (slot, out) in dead.iter().zip(&outs) {
                prop_assert_eq!(out.as_slice(), &all[usize::from(*slot)][range.clone()]);
            }
        }
    }

    #[test]
    fn parity_of_a_known_extent_is_frozen() {
        let all = encode_all(
            Scheme { data: 4, parity: 2 },
            &[
                b"\x00\x01\x02\x03".to_vec(),
                b"\x10\x11\x12\x13".to_vec(),
                b"\xf0\xe1\xd2\xc3".to_vec(),
                b"dry!".to_vec(),
            ],
        );
        assert_eq!((hex::encode(&all[4]), hex::encode(&all[5])), ("1815f14d".into(), "37285c4b".into()));
    }

    #[test]
    fn one_data_chunk_is_plain_copies() {
        let all = encode_all(Scheme { data: 1, parity: 3 }, &[b"abc".to_vec()]);
        assert_eq!(all, vec![b"abc".to_vec(); 4]);
    }

    #[test]
    fn misuse_is_an_error() {
        let codec = Codecs::new().get(Scheme { data: 2, parity: 1 }).unwrap();
        let (a, b) = ([1u8, 2], [3u8]);
        let mut out = [0u8; 2];
        assert!(matches!(codec.encode(&[&a, &b], &mut [&mut out]), Err(CodecError::ChunkLength { .. })));
        assert!(matches!(codec.encode(&[&a], &mut [&mut out]), Err(CodecError::ChunkCount { .. })));
        let too_few = codec.reconstruct(&[(0, &a)], &mut [(1, &mut out)]);
        assert_eq!(too_few, Err(CodecError::TooFewChunks { needed: 2, present: 1 }));
        let twice = codec.reconstruct(&[(0, &a), (0, &a)], &mut [(1, &mut out)]);
        assert_eq!(twice, Err(CodecError::Slot(0)));
        let nowhere = codec.reconstruct(&[(0, &a), (2, &a)], &mut [(3, &mut out)]);
        assert_eq!(nowhere, Err(CodecError::Slot(3)));
        assert!(Codec::new(Scheme { data: 17, parity: 0 }).is_err());
        assert!(Codec::new(Scheme { data: 0, parity: 1 }).is_err());
        assert!(Codec::new(Scheme { data: 4, parity: 9 }).is_err());
    }
}
