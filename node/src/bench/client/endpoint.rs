//! Where an S3 service listens.

use std::fmt;
use std::str::FromStr;

/// `http://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    authority: String,
}

/// A text that is not an endpoint we can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an endpoint; write http://HOST:PORT (the built-in client speaks plain HTTP only)")]
pub struct InvalidEndpoint(pub String);

impl Endpoint {
    /// `HOST:PORT`, as in the `Host` header and as `connect` takes it.
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

impl From<std::net::SocketAddr> for Endpoint {
    fn from(address: std::net::SocketAddr) -> Self {
        Self { authority: address.to_string() }
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let invalid = || InvalidEndpoint(text.to_owned());
        let rest = text.strip_prefix("http://").ok_or_else(invalid)?;
        let authority: http::uri::Authority = rest.trim_end_matches('/').parse().map_err(|_| invalid())?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(invalid());
        }
        let port = authority.port_u16().unwrap_or(80);
        Ok(Self { authority: format!("{}:{port}", authority.host()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_plain_http_with_a_port() {
        for (text, authority) in [
            ("http://127.0.0.1:9000", "127.0.0.1:9000"),
            ("http://s3.local/", "s3.local:80"),
            ("http://[::1]:9000", "[::1]:9000"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().authority(), authority);
        }
        for text in ["", "127.0.0.1:9000", "https://x:1", "http://", "http://a b", "http://u@h:1", "http://h:1/path"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
