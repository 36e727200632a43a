//! Who answers a request: the operator's endpoints or S3.

use std::sync::Arc;

use axum::Router;
use http::{Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::service::TowerToHyperService;

use super::expectation::Expectation;
use super::{BoxBody, Service};

/// The two sides behind the port. Cheap to clone.
#[derive(Clone)]
pub struct Front {
    s3: Arc<dyn Service>,
    operator: TowerToHyperService<Router>,
    domains: Arc<[String]>,
}

impl Front {
    /// `domains` are those under which `BUCKET.DOMAIN` addresses a bucket, in lower case.
    pub fn new(s3: Arc<dyn Service>, operator: Router, domains: &[String]) -> Self {
        Self { s3, operator: TowerToHyperService::new(operator), domains: domains.into() }
    }

    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<BoxBody> {
        if !is_operator(&request, &self.domains) {
            let expectation = Expectation::of(&request);
            let mut answer = self.s3.serve(request).await;
            expectation.settle(&mut answer);
            return answer;
        }
        match hyper::service::Service::call(&self.operator, request).await {
            Ok(response) => response.map(|body| body.map_err(Into::into).boxed_unsync()),
            Err(never) => match never {},
        }
    }
}

/// Whether a request is for the operator's endpoints: its path is below `/-/` (no bucket can be called `-`), and its
/// host does not name a bucket, in which case `/-/…` is a key of that bucket.
fn is_operator<B>(request: &Request<B>, domains: &[String]) -> bool {
    let path = request.uri().path();
    if path != "/-" && !path.starts_with("/-/") {
        return false;
    }
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| request.uri().host()).unwrap_or_default();
    !domains.iter().any(|domain| names_bucket(host, domain))
}

/// Whether `host` is `BUCKET.domain`, whatever its case and port.
fn names_bucket(host: &str, domain: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _port)| name).trim_end_matches('.').as_bytes();
    let (name_len, domain_len) = (name.len(), domain.len());
    name_len > domain_len + 1
        && name[name_len - domain_len..].eq_ignore_ascii_case(domain.as_bytes())
        && name[name_len - domain_len - 1] == b'.'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operator(uri: &str, host: &str) -> bool {
        let request = Request::builder().uri(uri).header("host", host).body(()).unwrap();
        is_operator(&request, &["s3.example.org".to_owned()])
    }

    #[test]
    fn only_paths_below_the_dash_are_the_operators() {
        for path in ["/-/live", "/-/", "/-", "/-/admin/v1/keys?x=1"] {
            assert!(operator(path, "127.0.0.1:9000"), "{path}");
        }
        for path in ["/", "/bucket/-/live", "/-x/key", "/--/live", "//-/live", "/%2D/live"] {
            assert!(!operator(path, "127.0.0.1:9000"), "{path}");
        }
    }

    #[test]
    fn a_bucket_host_makes_the_dash_a_key() {
        for host in ["b.s3.example.org", "B.S3.Example.ORG:9000", "a.b.s3.example.org.", "-.s3.example.org"] {
            assert!(!operator("/-/live", host), "{host}");
        }
        for host in ["s3.example.org", "s3.example.org:9000", "xs3.example.org", ".s3.example.org", "10.0.0.1", ""] {
            assert!(operator("/-/live", host), "{host}");
        }
    }
}
