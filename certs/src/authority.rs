//! The cluster's certificate authority: makes it and issues node certificates with it.
//!
//! Ed25519 throughout: keys come from a seed, so a simulated cluster gets them from its own randomness, and signatures
//! have one length, so handshakes have one size. The authority may certify only names under its own cluster id.
//! It keeps no list of what it issued and revokes nothing: eviction is the deny list of the topology.

use std::time::{Duration, SystemTime};

use rand::{CryptoRng, RngCore};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ED25519, SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::ids::{ClusterId, NodeId};
use crate::names::{node_domain, node_uri, server_name};
use crate::peer::calendar;

/// How long a founding node's certificate is valid: one year. There is no automatic renewal yet, so this is also how
/// long a cluster runs before an operator must issue new certificates.
pub const FOUNDING_LIFETIME: Duration = Duration::from_secs(365 * 86_400);

/// How long the authority itself is valid: ten years.
pub const AUTHORITY_LIFETIME: Duration = Duration::from_secs(3_650 * 86_400);

/// Certificates are valid from a little before they are made, for nodes whose clocks are behind.
const BACKDATING: Duration = Duration::from_secs(300);

const COMMON_NAME_PREFIX: &str = "drystone cluster ";

/// Why an authority could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The certificate library refused the parameters or the key.
    #[error("the certificate could not be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The text is not PEM of the wanted kind.
    #[error("the authority's {part} is not readable as PEM")]
    Pem {
        /// Which of the two: certificate or key.
        part: &'static str,
    },
    /// The certificate is not that of a Drystone cluster.
    #[error("the certificate is not that of a cluster authority")]
    NotAnAuthority,
    /// The key does not belong to the certificate.
    #[error("the authority's key does not belong to its certificate")]
    KeyMismatch,
    /// The wanted validity lies outside what certificates can say.
    #[error("the validity of the certificate lies outside the years 1970 to 9999")]
    Validity,
}

/// A new node's certificate and key, as issued.
pub struct NodeCredentials {
    /// Whose they are.
    pub node: NodeId,
    /// The node's certificate first, then any intermediates (none today).
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key in PKCS #8, wiped when dropped.
    pub key: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for NodeCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeCredentials").field("node", &self.node).finish_non_exhaustive()
    }
}

/// The authority of one cluster, with its private key in memory.
pub struct ClusterAuthority {
    cluster: ClusterId,
    certificate: CertificateDer<'static>,
    key: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for ClusterAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterAuthority").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// An authority as text: what an operator keeps.
pub struct AuthorityPem {
    /// The certificate; public.
    pub certificate: String,
    /// The private key; whoever has it can make nodes of this cluster.
    pub key: Zeroizing<String>,
}

impl ClusterAuthority {
    /// Makes the authority of a new cluster, valid for [`AUTHORITY_LIFETIME`] from `now`. Nothing is stored.
    ///
    /// # Errors
    ///
    /// [`AuthorityError::Validity`] if `now` is out of range, [`AuthorityError::Certificate`] if the library refuses.
    pub fn create(cluster: ClusterId, now: SystemTime, rng: &mut impl CryptoRng) -> Result<Self, AuthorityError> {
        let key = draw_key(rng);
        let mut params = base_params(now, AUTHORITY_LIFETIME, rng)?;
        params.distinguished_name.push(DnType::CommonName, format!("{COMMON_NAME_PREFIX}{cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName(node_domain(cluster))],
            excluded_subtrees: vec![],
        });
        let certificate = params.self_signed(&read_key(&key)?)?;
        Ok(Self { cluster, certificate: certificate.der().clone(), key })
    }

    /// The cluster it certifies nodes of.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Its certificate: the trust root of every node.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Issues a certificate with a new key for `node`, valid from five minutes before `now` until `lifetime` after it,
    /// good for both ends of a connection.
    ///
    /// # Errors
    ///
    /// [`AuthorityError::Validity`] if the times are out of range, [`AuthorityError::Certificate`] if the library refuses.
    pub fn issue(
        &self,
        node: NodeId,
        now: SystemTime,
        lifetime: Duration,
        rng: &mut impl CryptoRng,
    ) -> Result<NodeCredentials, AuthorityError> {
        let key = draw_key(rng);
        let mut params = base_params(now, lifetime, rng)?;
        params.distinguished_name.push(DnType::CommonName, node.to_string());
        params.subject_alt_names = vec![
            SanType::DnsName(server_name(self.cluster, node).try_into()?),
            SanType::URI(node_uri(self.cluster, node).try_into()?),
        ];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_ca_cert_der(&self.certificate, read_key(&self.key)?)?;
        let certificate = params.signed_by(&read_key(&key)?, &issuer)?;
        Ok(NodeCredentials { node, chain: vec![certificate.der().clone()], key })
    }

    /// The authority as PEM.
    pub fn to_pem(&self) -> AuthorityPem {
        AuthorityPem { certificate: certificate_pem(&self.certificate), key: key_pem(&self.key) }
    }

    /// Reads an authority back from the two texts of [`Self::to_pem`].
    ///
    /// # Errors
    ///
    /// [`AuthorityError::Pem`], [`AuthorityError::NotAnAuthority`] or [`AuthorityError::KeyMismatch`].
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, AuthorityError> {
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|_| AuthorityError::Pem { part: "certificate" })?;
        let key =
            PrivatePkcs8KeyDer::from_pem_slice(key.as_bytes()).map_err(|_| AuthorityError::Pem { part: "key" })?;
        let key = Zeroizing::new(key.secret_pkcs8_der().to_vec());
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|_| AuthorityError::NotAnAuthority)?;
        let cluster = parsed
            .subject()
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok())
            .and_then(|name| name.strip_prefix(COMMON_NAME_PREFIX))
            .and_then(|id| id.parse().ok())
            .filter(|_| parsed.is_ca())
            .ok_or(AuthorityError::NotAnAuthority)?;
        if parsed.public_key().subject_public_key.data.as_ref() != read_key(&key)?.public_key_raw() {
            return Err(AuthorityError::KeyMismatch);
        }
        drop(parsed);
        Ok(Self { cluster, certificate, key })
    }
}

fn base_params(
    now: SystemTime,
    lifetime: Duration,
    rng: &mut impl RngCore,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    // The library's own defaults are valid from 1975 to 4096 and have a serial derived from the key.
    params.not_before = moment(now.checked_sub(BACKDATING))?;
    params.not_after = moment(now.checked_add(lifetime))?;
    let mut serial = [0; 16];
    rng.fill_bytes(&mut serial);
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    Ok(params)
}

fn moment(at: Option<SystemTime>) -> Result<OffsetDateTime, AuthorityError> {
    let at = at.and_then(calendar).ok_or(AuthorityError::Validity)?;
    if (1970..=9999).contains(&at.year()) { Ok(at) } else { Err(AuthorityError::Validity) }
}

/// A PKCS #8 version 1 document (RFC 8410 §7) around a fresh Ed25519 seed.
fn draw_key(rng: &mut impl CryptoRng) -> Zeroizing<Vec<u8>> {
    const PREFIX: [u8; 16] =
        [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    let mut document = Zeroizing::new(vec![0; PREFIX.len() + 32]);
    let (prefix, seed) = document.split_at_mut(PREFIX.len());
    prefix.copy_from_slice(&PREFIX);
    rng.fill_bytes(seed);
    document
}

pub(crate) fn read_key(pkcs8: &[u8]) -> Result<KeyPair, rcgen::Error> {
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), &PKCS_ED25519)
}

pub(crate) fn certificate_pem(der: &[u8]) -> String {
    pem("CERTIFICATE", der).to_string()
}

pub(crate) fn key_pem(der: &[u8]) -> Zeroizing<String> {
    pem("PRIVATE KEY", der)
}

/// PEM (RFC 7468) with 64 columns. Written here so that no copy of a key is left behind unwiped.
fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Zeroizing::new(String::with_capacity(der.len() * 3 / 2 + 128));
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let mut bits = [0u8; 3];
            bits[..group.len()].copy_from_slice(group);
            let [a, b, c] = bits;
            let sextets = [a >> 2, (a << 4 | b >> 4) & 63, (b << 2 | c >> 6) & 63, c & 63];
            for (index, sextet) in sextets.into_iter().enumerate() {
                let printed = if index <= group.len() { ALPHABET[usize::from(sextet)] } else { b'=' };
                text.push(char::from(printed));
            }
        }
        text.push('\n');
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn authority(seed: u64) -> ClusterAuthority {
        let mut rng = StdRng::seed_from_u64(seed);
        let cluster = ClusterId::random(&mut rng);
        ClusterAuthority::create(cluster, SystemTime::UNIX_EPOCH + AUTHORITY_LIFETIME * 5, &mut rng).unwrap()
    }

    #[test]
    fn an_authority_survives_its_text_form() {
        let made = authority(1);
        let text = made.to_pem();
        let read = ClusterAuthority::from_pem(&text.certificate, &text.key).unwrap();
        assert_eq!(read.cluster(), made.cluster());
        assert_eq!(read.certificate(), made.certificate());
        assert_eq!(*read.key, *made.key);
    }

    #[test]
    fn one_seed_makes_one_authority() {
        assert_eq!(authority(1).certificate(), authority(1).certificate());
        assert_ne!(authority(1).certificate(), authority(2).certificate());
    }

    #[test]
    fn a_key_of_another_authority_is_refused() {
        let (ours, theirs) = (authority(1).to_pem(), authority(2).to_pem());
        assert!(matches!(ClusterAuthority::from_pem(&ours.certificate, &theirs.key), Err(AuthorityError::KeyMismatch)));
        assert!(matches!(
            ClusterAuthority::from_pem("", &theirs.key),
            Err(AuthorityError::Pem { part: "certificate" })
        ));
    }

    #[test]
    fn a_node_certificate_is_no_authority() {
        let authority = authority(1);
        let mut rng = StdRng::seed_from_u64(9);
        let now = SystemTime::UNIX_EPOCH + AUTHORITY_LIFETIME * 5;
        let node = authority.issue(NodeId::random(&mut rng), now, FOUNDING_LIFETIME, &mut rng).unwrap();
        assert!(matches!(
            ClusterAuthority::from_pem(&certificate_pem(&node.chain[0]), &key_pem(&node.key)),
            Err(AuthorityError::NotAnAuthority)
        ));
    }

    #[test]
    fn node_certificates_carry_what_verifiers_ask_for() {
        let authority = authority(1);
        let mut rng = StdRng::seed_from_u64(9);
        let now = SystemTime::UNIX_EPOCH + AUTHORITY_LIFETIME * 5;
        let node = NodeId::random(&mut rng);
        let issued = authority.issue(node, now, FOUNDING_LIFETIME, &mut rng).unwrap();
        let (_, certificate) = X509Certificate::from_der(&issued.chain[0]).unwrap();
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.server_auth && usage.client_auth);
        assert!(!certificate.is_ca());
        assert!(certificate.raw_serial().len() >= 15);
        let text = format!("{:?}", certificate.subject_alternative_name().unwrap().unwrap().value);
        assert!(text.contains(&server_name(authority.cluster(), node)), "{text}");
        assert!(text.contains(&node_uri(authority.cluster(), node)), "{text}");
        assert!(certificate.iter_extensions().any(|extension| {
            matches!(extension.parsed_extension(), x509_parser::extensions::ParsedExtension::AuthorityKeyIdentifier(_))
        }));
    }

    #[test]
    fn times_outside_of_certificates_are_refused() {
        let mut rng = StdRng::seed_from_u64(1);
        let far = Duration::from_secs(400_000_000_000);
        let issued = authority(1).issue(NodeId::random(&mut rng), SystemTime::UNIX_EPOCH, far, &mut rng);
        assert!(matches!(issued, Err(AuthorityError::Validity)));
    }
}
