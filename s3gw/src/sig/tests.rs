//! AWS's published examples, and every rule by which a signature is refused.

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use proptest::prelude::proptest;
use secrecy::SecretString;

use super::*;
use crate::error::{ErrorCode, S3Error};
use crate::route::Query;

const KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
/// 2013-05-24T00:00:00Z, the time of AWS's examples.
const NOW_MS: u64 = 1_369_353_600_000;
const TERMS: Terms<'static> = Terms { region: "us-east-1", now_ms: NOW_MS, skew_ms_max: 900_000 };

fn credentials() -> Credentials {
    Credentials { access_key: KEY.to_owned(), secret: SecretString::from(SECRET), region: "us-east-1".to_owned() }
}

fn parts(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn check(head: &Parts, terms: &Terms<'_>) -> Result<Payload, S3Error> {
    let query = Query::parse(head.uri.query())?;
    let claim = parse_claim(head, &query)?;
    assert_eq!(claim.access_key, KEY);
    verify(&claim, head, &query, derive_key(SECRET, claim.date, terms.region), terms)
}

fn refused(head: &Parts) -> ErrorCode {
    check(head, &TERMS).unwrap_err().code()
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>
#[test]
fn aws_s_examples_of_signed_headers_verify() {
    let authorization = |headers: &str, signature: &str| {
        format!(
            "AWS4-HMAC-SHA256 Credential={KEY}/20130524/us-east-1/s3/aws4_request,SignedHeaders={headers},Signature={signature}"
        )
    };
    let host = ("Host", "examplebucket.s3.amazonaws.com");
    let date = ("x-amz-date", "20130524T000000Z");
    let empty = ("x-amz-content-sha256", EMPTY_SHA256_HEX);
    let get = authorization(
        "host;range;x-amz-content-sha256;x-amz-date",
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    );
    let head = parts("GET", "/test.txt", &[host, date, empty, ("Range", "bytes=0-9"), ("Authorization", &get)]);
    assert!(matches!(check(&head, &TERMS), Ok(Payload::Sha256(_))));

    let put = authorization(
        "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    );
    let head = parts(
        "PUT",
        "/test%24file.text",
        &[
            host,
            date,
            ("Date", "Fri, 24 May 2013 00:00:00 GMT"),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
            ("x-amz-content-sha256", "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"),
            ("Authorization", &put),
        ],
    );
    assert!(matches!(check(&head, &TERMS), Ok(Payload::Sha256(_))));

    for (uri, signature) in [
        ("/?lifecycle", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        ("/?max-keys=2&prefix=J", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
        ("/?prefix=J&max-keys=2", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ] {
        let value = authorization("host;x-amz-content-sha256;x-amz-date", signature);
        let head = parts("GET", uri, &[host, date, empty, ("Authorization", &value)]);
        assert!(check(&head, &TERMS).is_ok(), "{uri}");
    }
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html>
#[test]
fn aws_s_example_of_a_presigned_url_is_made_and_verifies() {
    let uri = Uri::from_static("https://examplebucket.s3.amazonaws.com/test.txt");
    let signed = presign(&credentials(), &Method::GET, &uri, &HeaderMap::new(), 86_400, NOW_MS).unwrap();
    assert_eq!(
        signed.to_string(),
        "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256\
         &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z\
         &X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
         &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    );
    let text = signed.path_and_query().unwrap().as_str();
    let host = ("Host", "examplebucket.s3.amazonaws.com");
    assert!(matches!(check(&parts("GET", text, &[host]), &TERMS), Ok(Payload::Unsigned)));
    assert_eq!(refused(&parts("PUT", text, &[host])), ErrorCode::SignatureDoesNotMatch);
    assert_eq!(refused(&parts("GET", text, &[("Host", "other")])), ErrorCode::SignatureDoesNotMatch);
    assert_eq!(refused(&parts("GET", text, &[host, ("x-amz-acl", "private")])), ErrorCode::AccessDenied);
    let at = |now_ms| check(&parts("GET", text, &[host]), &Terms { now_ms, ..TERMS });
    assert!(at(NOW_MS + 86_400_000).is_ok());
    assert!(at(NOW_MS - 900_000).is_ok());
    let expired = at(NOW_MS + 86_400_001).unwrap_err();
    assert_eq!((expired.code(), expired.message()), (ErrorCode::AccessDenied, "Request has expired"));
    let early = at(NOW_MS - 900_001).unwrap_err();
    assert_eq!((early.code(), early.message()), (ErrorCode::AccessDenied, "Request is not valid yet"));
    let long = text.replace("X-Amz-Expires=86400", "X-Amz-Expires=604801");
    assert_eq!(refused(&parts("GET", &long, &[host])), ErrorCode::AuthorizationQueryParametersError);
    let longer = text.replace("X-Amz-Expires=86400", "X-Amz-Expires=86401");
    assert_eq!(refused(&parts("GET", &longer, &[host])), ErrorCode::SignatureDoesNotMatch);
    let bad = presign(&credentials(), &Method::GET, &uri, &HeaderMap::new(), 604_801, NOW_MS);
    assert_eq!(bad, Err(SignError::BadExpiry(604_801)));
}

fn chunked_example(trailer: bool) -> (Parts, ChunkSigner) {
    let mut head = parts(
        "PUT",
        "/examplebucket/chunkObject.txt",
        &[
            ("host", "s3.amazonaws.com"),
            ("content-encoding", "aws-chunked"),
            ("x-amz-decoded-content-length", "66560"),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ],
    );
    let declaration = if trailer {
        head.headers.insert("x-amz-trailer", HeaderValue::from_static("x-amz-checksum-crc32c"));
        PayloadDeclaration::ChunkedTrailer
    } else {
        head.headers.insert("content-length", HeaderValue::from_static("66824"));
        PayloadDeclaration::Chunked
    };
    let signer = sign_request(&credentials(), &mut head, declaration, NOW_MS).unwrap();
    (head, signer)
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html>
#[test]
fn aws_s_example_of_signed_chunks_comes_out_the_same() {
    let (head, mut signer) = chunked_example(false);
    let authorization = head.headers["authorization"].to_str().unwrap();
    assert!(
        authorization.ends_with("4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"),
        "{authorization}"
    );
    assert!(matches!(check(&head, &TERMS), Ok(Payload::Signed { trailer: false, .. })));
    let first = signer.frame(&[b'a'; 65_536]);
    assert!(
        first
            .starts_with(b"10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n")
    );
    let second = signer.frame(&[b'a'; 1024]);
    assert!(
        second.starts_with(b"400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n")
    );
    assert_eq!(
        &signer.finish(&[])[..],
        b"0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n"
    );
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html>
#[test]
fn aws_s_example_of_signed_trailers_comes_out_the_same() {
    let (head, mut signer) = chunked_example(true);
    let authorization = head.headers["authorization"].to_str().unwrap();
    assert!(
        authorization.ends_with("106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"),
        "{authorization}"
    );
    assert!(matches!(check(&head, &TERMS), Ok(Payload::Signed { trailer: true, .. })));
    let first = signer.frame(&[b'a'; 65_536]);
    assert!(
        first
            .starts_with(b"10000;chunk-signature=b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2\r\n")
    );
    let second = signer.frame(&[b'a'; 1024]);
    assert!(
        second.starts_with(b"400;chunk-signature=1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7\r\n")
    );
    assert_eq!(
        String::from_utf8(signer.finish(&[("x-amz-checksum-crc32c", "sOO8/Q==")]).to_vec()).unwrap(),
        "0;chunk-signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992\r\n\
         x-amz-checksum-crc32c:sOO8/Q==\r\n\
         x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n"
    );
}

fn signed(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut head = parts(method, uri, headers);
    sign_request(&credentials(), &mut head, PayloadDeclaration::Empty, NOW_MS).unwrap();
    head
}

#[test]
fn what_is_signed_verifies_and_what_is_changed_does_not() {
    let uri = "/bkt/a%20b+c//%E2%82%AC?prefix=a%2Fb&x=&y=%20%2B&list-type=2";
    let headers = [("host", "node:9000"), ("x-amz-meta-a", "  two  spaces "), ("content-type", "text/plain")];
    let head = signed("PUT", uri, &headers);
    assert!(check(&head, &TERMS).is_ok());
    let change = |change: &dyn Fn(&mut Parts)| {
        let mut head = head.clone();
        change(&mut head);
        refused(&head)
    };
    let mismatch = ErrorCode::SignatureDoesNotMatch;
    assert_eq!(change(&|head| head.method = Method::GET), mismatch);
    assert_eq!(change(&|head| head.uri = Uri::from_static("/bkt/other")), mismatch);
    assert_eq!(change(&|head| head.uri = Uri::from_static("/bkt/a%20b+c//%E2%82%AC?prefix=b")), mismatch);
    for (name, value) in [("content-type", "text/html"), ("x-amz-meta-a", "one"), ("host", "other")] {
        assert_eq!(
            change(&|head| drop(head.headers.insert(name, HeaderValue::from_static(value)))),
            mismatch,
            "{name}"
        );
    }
    let added = |head: &mut Parts| drop(head.headers.insert("x-amz-meta-b", HeaderValue::from_static("x")));
    assert_eq!(change(&added), ErrorCode::AccessDenied);
    let no_host = |head: &mut Parts| {
        let text = head.headers["authorization"].to_str().unwrap().replace("host;", "");
        head.headers.insert("authorization", HeaderValue::from_str(&text).unwrap());
    };
    assert_eq!(change(&no_host), mismatch);
    let bad_digits = |head: &mut Parts| {
        let text = head.headers["authorization"].to_str().unwrap().replace("Signature=", "Signature=zz");
        head.headers.insert("authorization", HeaderValue::from_str(&text).unwrap());
    };
    assert_eq!(change(&bad_digits), mismatch);
}

#[test]
fn clocks_and_regions_that_differ_are_refused() {
    let head = signed("GET", "/bkt", &[("host", "h")]);
    for (now_ms, code) in [
        (NOW_MS + 900_000, None),
        (NOW_MS - 900_000, None),
        (NOW_MS + 900_001, Some(ErrorCode::RequestTimeTooSkewed)),
        (NOW_MS - 900_001, Some(ErrorCode::RequestTimeTooSkewed)),
        (0, Some(ErrorCode::RequestTimeTooSkewed)),
    ] {
        assert_eq!(check(&head, &Terms { now_ms, ..TERMS }).err().map(|error| error.code()), code, "{now_ms}");
    }
    let error = check(&head, &Terms { region: "eu-west-1", ..TERMS }).unwrap_err();
    assert_eq!(error.code(), ErrorCode::AuthorizationHeaderMalformed);
    assert!(error.message().ends_with("the region 'us-east-1' is wrong; expecting 'eu-west-1'"), "{}", error.message());
}

#[test]
fn requests_without_a_proper_signature_are_refused() {
    let claim = |headers: &[(&str, &str)], uri: &str| {
        let head = parts("GET", uri, headers);
        let query = Query::parse(head.uri.query()).unwrap();
        parse_claim(&head, &query).unwrap_err().code()
    };
    let good = format!(
        "AWS4-HMAC-SHA256 Credential={KEY}/20130524/us-east-1/s3/aws4_request,SignedHeaders=host,Signature={}",
        "0".repeat(64)
    );
    let (date, hash) = (("x-amz-date", "20130524T000000Z"), ("x-amz-content-sha256", UNSIGNED_PAYLOAD));
    assert_eq!(claim(&[], "/"), ErrorCode::AccessDenied);
    assert_eq!(claim(&[("authorization", "AWS AKID:sig")], "/"), ErrorCode::InvalidRequest);
    assert_eq!(claim(&[], "/?AWSAccessKeyId=a&Signature=b&Expires=1"), ErrorCode::InvalidRequest);
    assert_eq!(claim(&[("authorization", "Basic abc")], "/"), ErrorCode::InvalidArgument);
    assert_eq!(claim(&[("authorization", &good), date, hash], "/?X-Amz-Algorithm=x"), ErrorCode::InvalidArgument);
    assert_eq!(claim(&[("authorization", &good), date], "/"), ErrorCode::InvalidRequest);
    assert_eq!(claim(&[("authorization", &good), hash], "/"), ErrorCode::AccessDenied);
    assert_eq!(claim(&[("authorization", &good), ("x-amz-date", "x"), hash], "/"), ErrorCode::AccessDenied);
    assert_eq!(
        claim(&[("authorization", &good), ("x-amz-date", "20130525T000000Z"), hash], "/"),
        ErrorCode::AuthorizationHeaderMalformed
    );
    for (from, to) in [
        ("/s3/", "/ec2/"),
        ("20130524", "2013052"),
        ("aws4_request", "aws5"),
        ("SignedHeaders=host,", ""),
        ("Signature=", "Sig="),
    ] {
        let bad = good.replace(from, to);
        assert_eq!(
            claim(&[("authorization", &bad), date, hash], "/"),
            ErrorCode::AuthorizationHeaderMalformed,
            "{bad}"
        );
    }
    assert_eq!(claim(&[], "/?X-Amz-Algorithm=AWS4-HMAC-SHA256"), ErrorCode::AuthorizationQueryParametersError);
}

proptest! {
    #[test]
    fn any_authorization_is_read_or_refused(value in "(AWS4-HMAC-SHA256 )?[ -~]{0,120}", query in "[!-~]{0,80}") {
        let mut head = parts("GET", "/", &[("host", "h"), ("x-amz-date", "20130524T000000Z"), ("x-amz-content-sha256", "x")]);
        head.headers.insert("authorization", HeaderValue::from_str(&value).unwrap());
        if let Ok(query) = Query::parse(Some(&query)) {
            if let Ok(claim) = parse_claim(&head, &query) {
                assert!(verify(&claim, &head, &query, [0; 32], &TERMS).is_err());
            }
            head.headers.remove("authorization");
            drop(parse_claim(&head, &query));
        }
    }

    #[test]
    fn whatever_is_signed_verifies(key in "[^\u{0}]{1,20}", value in "[ -~]{0,20}", parameter in "\\PC{0,10}") {
        let mut uri = String::from("/bkt/");
        crate::route::encode_into(&mut uri, key.as_bytes(), crate::route::Slash::Kept);
        uri.push_str("?prefix=");
        crate::route::encode_into(&mut uri, parameter.as_bytes(), crate::route::Slash::Encoded);
        let head = signed("PUT", &uri, &[("host", "h"), ("x-amz-meta-v", &value)]);
        assert!(check(&head, &TERMS).is_ok());
        let presigned = presign(&credentials(), &Method::GET, &uri.parse().unwrap(), &parts("GET", "/", &[("host", "h")]).headers, 60, NOW_MS).unwrap();
        assert!(check(&parts("GET", &presigned.to_string(), &[("host", "h")]), &TERMS).is_ok());
    }
}
