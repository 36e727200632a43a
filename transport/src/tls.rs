//! TLS between nodes: version 1.3 only, both ends authenticated, nothing resumed.
//!
//! The chain is checked by webpki; around it stands a check that puts the reason of a refusal into words. The reason is
//! kept for the local end, and travels to the other end as the reason phrase of the QUIC close frame. A certificate
//! that fails never completes the handshake. Resumption is off because rustls takes a resumed client's certificate
//! from the ticket without verifying it again, and 0-RTT because it can be replayed.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use drystone_certs::{ClusterId, Identity, NodeId, PeerRejection, read_claims, read_peer};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, CipherSuite, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore, SignatureScheme,
};

use crate::policy::WallClock;

/// The protocol of peers, agreed in the handshake.
const ALPN: &[u8] = b"drystone/1";

/// Why the certificate of one connection was refused here; empty if it was not.
pub(crate) type Verdict = Arc<OnceLock<PeerRejection>>;

/// Makes the TLS configurations of connections.
pub(crate) struct Tls {
    cluster: ClusterId,
    provider: Arc<CryptoProvider>,
    clock: Arc<dyn TimeProvider>,
    client: rustls::ClientConfig,
    certificate: Arc<dyn ResolvesServerCert>,
    server_check: Arc<WebPkiServerVerifier>,
    client_check: Arc<dyn ClientCertVerifier>,
}

impl Tls {
    pub(crate) fn new(identity: &Identity, clock: Arc<dyn WallClock>) -> Result<Self, rustls::Error> {
        let provider = Arc::new(provider());
        let mut roots = RootCertStore::empty();
        for root in identity.roots() {
            roots.add(root.clone())?;
        }
        let roots = Arc::new(roots);
        let unusable = |error: rustls::client::VerifierBuilderError| rustls::Error::General(error.to_string());
        let server_check =
            WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone()).build().map_err(unusable)?;
        let client_check =
            WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build().map_err(unusable)?;
        let clock: Arc<dyn TimeProvider> = Arc::new(Clock(clock));
        let versions = [&rustls::version::TLS13];
        let chain = identity.chain().to_vec();

        // Only its certificate is kept: each accepted connection has a configuration with a check of its own.
        let server = rustls::ServerConfig::builder_with_details(provider.clone(), clock.clone())
            .with_protocol_versions(&versions)?
            .with_client_cert_verifier(client_check.clone())
            .with_single_cert(chain.clone(), identity.private_key())?;

        let mut client = rustls::ClientConfig::builder_with_details(provider.clone(), clock.clone())
            .with_protocol_versions(&versions)?
            .dangerous()
            .with_custom_certificate_verifier(server_check.clone())
            .with_client_auth_cert(chain, identity.private_key())?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = rustls::client::Resumption::disabled();
        client.enable_early_data = false;
        Ok(Self {
            cluster: identity.cluster(),
            provider,
            clock,
            client,
            certificate: server.cert_resolver,
            server_check,
            client_check,
        })
    }

    /// The configuration for one dial to `expected`.
    pub(crate) fn dial(&self, expected: NodeId, verdict: Verdict) -> Result<Arc<QuicClientConfig>, rustls::Error> {
        let mut config = self.client.clone();
        config.dangerous().set_certificate_verifier(Arc::new(ServerCheck {
            cluster: self.cluster,
            expected,
            chain: self.server_check.clone(),
            verdict,
        }));
        QuicClientConfig::try_from(config).map(Arc::new).map_err(|error| rustls::Error::General(error.to_string()))
    }

    /// The configuration for one accepted connection.
    pub(crate) fn accept(&self, verdict: Verdict) -> Result<Arc<QuicServerConfig>, rustls::Error> {
        let check = ClientCheck { cluster: self.cluster, chain: self.client_check.clone(), verdict };
        let mut config = rustls::ServerConfig::builder_with_details(self.provider.clone(), self.clock.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(check))
            .with_cert_resolver(self.certificate.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        QuicServerConfig::try_from(config).map(Arc::new).map_err(|error| rustls::Error::General(error.to_string()))
    }
}

/// aws-lc-rs named explicitly (a process default could be absent or ambiguous), AES-128-GCM first: it is as safe here
/// and cheaper, and QUIC's first packets need it anyway.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

#[derive(Debug)]
struct Clock(Arc<dyn WallClock>);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        self.0.now().duration_since(UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

fn wall(now: UnixTime) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_secs(now.as_secs())).unwrap_or(UNIX_EPOCH)
}

/// Judges a certificate: its claims first, because they name the reason best, then its chain. All must hold.
fn judge(
    certificate: &CertificateDer<'_>,
    cluster: ClusterId,
    expected: Option<NodeId>,
    now: UnixTime,
    chain: impl FnOnce() -> Result<(), rustls::Error>,
) -> Result<(), PeerRejection> {
    let claims = read_claims(certificate)?;
    if claims.cluster != cluster {
        return Err(PeerRejection::OtherCluster { ours: cluster, theirs: claims.cluster });
    }
    match expected {
        Some(expected) if expected != claims.node => {
            return Err(PeerRejection::WrongNode { expected, found: claims.node });
        }
        _ => {}
    }
    let verified = chain().map_err(|error| match error {
        rustls::Error::InvalidCertificate(cause) => match cause {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                PeerRejection::Expired { node: claims.node, at: claims.valid_until }
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                PeerRejection::NotYetValid { node: claims.node, from: claims.valid_from }
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => PeerRejection::WrongAuthority,
            _ => PeerRejection::Malformed { what: "its chain does not verify" },
        },
        _ => PeerRejection::Malformed { what: "its chain does not verify" },
    });
    verified?;
    read_peer(certificate, cluster, wall(now)).map(|_node| ())
}

/// Keeps the reason here and puts it into the error, whose text the other end is sent.
fn reject(verdict: &Verdict, rejection: PeerRejection) -> rustls::Error {
    // A second certificate in one handshake does not happen; the first reason stands.
    drop(verdict.set(rejection.clone()));
    let spoken = Spoken(rejection);
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(spoken))))
}

/// A rejection whose debug form, which rustls puts into its error text, is its message between marks.
struct Spoken(PeerRejection);

const SPOKEN_OPEN: &str = "<<";
const SPOKEN_CLOSE: &str = ">>";

impl std::fmt::Debug for Spoken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{SPOKEN_OPEN}{}{SPOKEN_CLOSE}", self.0)
    }
}

impl std::fmt::Display for Spoken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Spoken {}

/// The words of a close frame's reason: what stands between the marks, or all of it; printable and bounded, since the
/// peer need not be authenticated.
pub(crate) fn spoken_reason(reason: &[u8]) -> String {
    const REASON_CHARS_MAX: usize = 400;
    let text = String::from_utf8_lossy(reason);
    let words =
        text.split_once(SPOKEN_OPEN).map_or(text.as_ref(), |(_, rest)| rest.split(SPOKEN_CLOSE).next().unwrap_or(rest));
    words.chars().filter(|character| !character.is_control()).take(REASON_CHARS_MAX).collect()
}

/// The dialler's check of the node it reached.
#[derive(Debug)]
struct ServerCheck {
    cluster: ClusterId,
    expected: NodeId,
    chain: Arc<WebPkiServerVerifier>,
    verdict: Verdict,
}

impl ServerCertVerifier for ServerCheck {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = || {
            self.chain
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
                .map(|_verified| ())
        };
        judge(end_entity, self.cluster, Some(self.expected), now, chain)
            .map(|()| ServerCertVerified::assertion())
            .map_err(|rejection| reject(&self.verdict, rejection))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// The accepting end's check of the node that dialled.
#[derive(Debug)]
struct ClientCheck {
    cluster: ClusterId,
    chain: Arc<dyn ClientCertVerifier>,
    verdict: Verdict,
}

impl ClientCertVerifier for ClientCheck {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // None: a dialler of another cluster must show its certificate too, so that the refusal can name it.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let chain = || self.chain.verify_client_cert(end_entity, intermediates, now).map(|_verified| ());
        judge(end_entity, self.cluster, None, now, chain)
            .map(|()| ClientCertVerified::assertion())
            .map_err(|rejection| reject(&self.verdict, rejection))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// The node in the certificate of an established connection, whose chain and cluster the handshake verified.
pub(crate) fn peer_of(connection: &quinn::Connection) -> Result<NodeId, PeerRejection> {
    let identity = connection.peer_identity().ok_or(PeerRejection::Missing)?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().map_err(|_| PeerRejection::Missing)?;
    let leaf = chain.first().ok_or(PeerRejection::Missing)?;
    Ok(read_claims(leaf)?.node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_words_of_a_rejection_survive_the_close_frame() {
        let rejection = PeerRejection::UnknownNode(NodeId::from_bytes([1; 8]));
        let error = reject(&Verdict::default(), rejection.clone());
        assert_eq!(spoken_reason(error.to_string().as_bytes()), rejection.to_string());
        assert_eq!(spoken_reason(b"plain"), "plain");
    }

    #[test]
    fn aes_128_is_offered_first() {
        assert_eq!(provider().cipher_suites[0].suite(), CipherSuite::TLS13_AES_128_GCM_SHA256);
    }

    proptest! {
        #[test]
        fn any_reason_becomes_printable_and_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let words = spoken_reason(&bytes);
            prop_assert!(words.chars().count() <= 400);
            prop_assert!(!words.chars().any(char::is_control));
        }
    }
}
