//! The canonical request. One function for both ends, so that signer and verifier cannot drift apart.

use http::{HeaderMap, Method, Uri, header};

use crate::route::{Plus, Query, Slash, decode, encode_into};

/// What is canonicalised.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CanonicalInput<'a> {
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) query: &'a Query,
    pub(crate) headers: &'a HeaderMap,
    /// Lower-case names in the order signed, joined with `;`.
    pub(crate) signed_headers: &'a str,
    /// The payload's hash or its stand-in.
    pub(crate) payload: &'a str,
}

/// The canonical request; `None` if the path has a broken escape.
pub(crate) fn canonical_request(input: &CanonicalInput<'_>) -> Option<Vec<u8>> {
    let mut text = String::with_capacity(512);
    text.push_str(input.method.as_str());
    text.push('\n');
    let path = match input.uri.path() {
        "" => "/",
        path => path,
    };
    encode_into(&mut text, &decode(path, Plus::Kept)?, Slash::Kept);
    text.push('\n');
    push_query(&mut text, input.query);
    text.push('\n');
    let mut out = text.into_bytes();
    for name in input.signed_headers.split(';') {
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        push_values(&mut out, name, input.headers, input.uri);
        out.push(b'\n');
    }
    out.push(b'\n');
    out.extend_from_slice(input.signed_headers.as_bytes());
    out.push(b'\n');
    out.extend_from_slice(input.payload.as_bytes());
    Some(out)
}

fn push_query(out: &mut String, query: &Query) {
    let encoded = |text: &str| {
        let mut out = String::with_capacity(text.len());
        encode_into(&mut out, text.as_bytes(), Slash::Encoded);
        out
    };
    let mut pairs: Vec<(String, String)> = query
        .pairs()
        .iter()
        .filter(|(name, _)| name != "X-Amz-Signature")
        .map(|(name, value)| (encoded(name), encoded(value)))
        .collect();
    pairs.sort_unstable();
    for (index, (name, value)) in pairs.iter().enumerate() {
        if index > 0 {
            out.push('&');
        }
        out.push_str(name);
        out.push('=');
        out.push_str(value);
    }
}

/// The `host` a request is for: the header, or in HTTP/2 the authority.
pub(crate) fn host_of<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<&'a str> {
    match headers.get(header::HOST) {
        Some(host) => host.to_str().ok(),
        None => uri.authority().map(http::uri::Authority::as_str),
    }
}

fn push_values(out: &mut Vec<u8>, name: &str, headers: &HeaderMap, uri: &Uri) {
    if name == "host" && !headers.contains_key(header::HOST) {
        out.extend_from_slice(host_of(headers, uri).unwrap_or_default().as_bytes());
        return;
    }
    for (index, value) in headers.get_all(name).iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_collapsed(out, value.as_bytes().trim_ascii());
    }
}

/// Runs of spaces become one.
fn push_collapsed(out: &mut Vec<u8>, value: &[u8]) {
    let mut last = 0;
    for &byte in value {
        if !(byte == b' ' && last == b' ') {
            out.push(byte);
        }
        last = byte;
    }
}
