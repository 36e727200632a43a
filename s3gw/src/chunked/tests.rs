use drystone_cluster::store::BodyError;
use proptest::collection::vec;
use proptest::prelude::{any, proptest};
use proptest::{prop_assert, prop_assert_eq};

use super::*;
use crate::sig::{ChunkSigner, ChunkVerifier};

fn verifier() -> ChunkVerifier {
    ChunkVerifier::new([7; 32], "20130524T000000Z".to_owned(), "20130524/us-east-1/s3/aws4_request".to_owned(), [9; 32])
}

fn signed(trailer: bool) -> Framing {
    Framing::Signed { verifier: Box::new(verifier()), trailer }
}

/// A body and its trailers.
type Decoded = (Vec<u8>, Vec<(String, String)>);

/// Decodes `wire` given in pieces cut at `cuts`.
fn decode(framing: Framing, wire: &Bytes, cuts: &[usize]) -> Result<Decoded, BodyError> {
    let mut decoder = ChunkedDecoder::new(framing);
    let mut body = Vec::new();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (wire.len() + 1)).chain([0, wire.len()]).collect();
    cuts.sort_unstable();
    for pair in cuts.windows(2) {
        let mut input = wire.slice(pair[0]..pair[1]);
        while let Step::Data(data) = decoder.step(&mut input)? {
            assert!(!data.is_empty());
            body.extend_from_slice(&data);
        }
        assert!(input.is_empty());
    }
    decoder.end_of_input()?;
    Ok((body, decoder.trailers().to_vec()))
}

fn encode_signed(chunks: &[Vec<u8>], trailers: &[(&str, &str)]) -> Bytes {
    let mut signer = ChunkSigner::of_chain(verifier());
    let mut wire = Vec::new();
    for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
        wire.extend_from_slice(&signer.frame(chunk));
    }
    wire.extend_from_slice(&signer.finish(trailers));
    Bytes::from(wire)
}

proptest! {
    #[test]
    fn bodies_come_back_however_they_are_cut(
        chunks in vec(vec(any::<u8>(), 0..40), 0..6),
        cuts in vec(any::<usize>(), 0..12),
        trailer in any::<bool>(),
    ) {
        let trailers: &[(&str, &str)] = if trailer { &[("x-amz-checksum-crc32", "AAAAAA==")] } else { &[] };
        let owned: Vec<(String, String)> = trailers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let wire = encode_signed(&chunks, trailers);
        prop_assert_eq!(decode(signed(trailer), &wire, &cuts), Ok((chunks.concat(), owned.clone())));
        let mut plain = Vec::new();
        for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
            plain.extend_from_slice(&ChunkSigner::frame_unsigned(chunk));
        }
        plain.extend_from_slice(&ChunkSigner::finish_unsigned(trailers));
        prop_assert_eq!(decode(Framing::Unsigned, &Bytes::from(plain), &cuts), Ok((chunks.concat(), owned)));
    }

    #[test]
    fn a_changed_byte_is_never_accepted_as_another_body(
        chunks in vec(vec(any::<u8>(), 1..30), 1..4),
        at in any::<usize>(),
        flip in 1..=255_u8,
    ) {
        let wire = encode_signed(&chunks, &[("x-amz-checksum-crc32", "AAAAAA==")]);
        let mut changed = wire.to_vec();
        let at = at % changed.len();
        changed[at] ^= flip;
        // Line ends and the case of hexadecimal digits carry no meaning; all else is covered by a signature.
        if let Ok((body, trailers)) = decode(signed(true), &Bytes::from(changed), &[]) {
            prop_assert_eq!(body, chunks.concat());
            prop_assert_eq!(trailers, vec![("x-amz-checksum-crc32".to_owned(), "AAAAAA==".to_owned())]);
        }
    }

    #[test]
    fn a_cut_body_is_refused(chunks in vec(vec(any::<u8>(), 1..30), 1..4), at in any::<usize>()) {
        let wire = encode_signed(&chunks, &[]);
        // The last empty line may be missing.
        let at = at % (wire.len() - 2);
        prop_assert!(decode(signed(false), &wire.slice(..at), &[]).is_err());
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in vec(any::<u8>(), 0..200), cuts in vec(any::<usize>(), 0..5)) {
        for framing in [signed(true), signed(false), Framing::Unsigned] {
            drop(decode(framing, &Bytes::from(bytes.clone()), &cuts));
        }
    }

    #[test]
    fn any_lines_are_decoded_or_refused(text in "([0-9a-f]{0,3}(;chunk-signature=[0-9a-f]{0,4})?\r?\n|[a-z:]{0,5}\r\n){0,8}") {
        for framing in [signed(true), signed(false), Framing::Unsigned] {
            drop(decode(framing, &Bytes::from(text.clone()), &[]));
        }
    }
}

#[test]
fn malformed_framing_is_refused() {
    let long_line = "0".repeat(HEADER_LEN_MAX + 1);
    let many_trailers = format!("0\r\n{}\r\n", "a:b\r\n".repeat(2000));
    let long_trailer = format!("0\r\n{}", "a".repeat(TRAILERS_LEN_MAX + 1));
    for wire in [
        "",
        "5\r\nhello",
        "5\r\nhello\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "x\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "\r\n",
        "11111111111111111\r\n",
        "0\r\n\r\nmore",
        "0\r\na:b",
        &long_line,
    ] {
        let decoded = decode(Framing::Unsigned, &Bytes::copy_from_slice(wire.as_bytes()), &[]);
        assert!(matches!(decoded, Err(BodyError::Malformed(_))), "{}: {decoded:?}", &wire[..wire.len().min(40)]);
    }
    for wire in ["0\r\nno colon\r\n\r\n", &many_trailers, &long_trailer] {
        let decoded = decode(Framing::Unsigned, &Bytes::copy_from_slice(wire.as_bytes()), &[]);
        assert!(matches!(decoded, Err(BodyError::MalformedTrailer(_))), "{}: {decoded:?}", &wire[..wire.len().min(40)]);
    }
    let without_signature = encode_signed(&[b"hello".to_vec()], &[]);
    assert!(matches!(decode(signed(true), &without_signature, &[]), Err(BodyError::MalformedTrailer(_))));
    let unsigned = Bytes::from_static(b"5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(decode(signed(false), &unsigned, &[]), Err(BodyError::Malformed("a chunk is not signed")));
}

#[test]
fn a_huge_chunk_is_never_gathered() {
    let mut decoder = ChunkedDecoder::new(Framing::Unsigned);
    let mut input = Bytes::from_static(b"ffffffffffffffff\r\n");
    assert_eq!(decoder.step(&mut input), Ok(Step::Starved));
    for _ in 0..3 {
        let mut input = Bytes::from(vec![1; 1000]);
        assert_eq!(decoder.step(&mut input), Ok(Step::Data(Bytes::from(vec![1; 1000]))));
    }
    assert!(decoder.line.capacity() < 100);
}
