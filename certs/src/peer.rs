//! What a peer's certificate says, and why it is not accepted.
//!
//! This reads claims and judges them against the cluster and the clock. It does not check signatures: the chain up to
//! the cluster's authority is verified by `transport` during the handshake, with the same reasons.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::ids::{ClusterId, NodeId};
use crate::names::parse_server_name;

/// Why a peer's certificate is refused. The text says what is wrong and what an operator can do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerRejection {
    /// No certificate of this cluster's authority signed it.
    #[error(
        "the certificate is not signed by this cluster's authority: give the node a certificate issued by it \
         (`drystone cluster create` makes them, for founding nodes), or check whose state directory it has"
    )]
    WrongAuthority,
    /// It belongs to another cluster.
    #[error(
        "the certificate is of cluster {theirs}, this is cluster {ours}: check the peer addresses and the state \
         directory of the node"
    )]
    OtherCluster {
        /// The cluster that refuses.
        ours: ClusterId,
        /// The cluster in the certificate.
        theirs: ClusterId,
    },
    /// It was valid once.
    #[error(
        "the certificate of node {node} expired at {}: check the clocks of both nodes; nothing renews certificates yet \
         (docs/durability.md, Certificate renewal)",
        moment(*at)
    )]
    Expired {
        /// Whose it is.
        node: NodeId,
        /// The end of its validity.
        at: SystemTime,
    },
    /// It will be valid later.
    #[error("the certificate of node {node} is valid only from {}: check the clocks of both nodes", moment(*from))]
    NotYetValid {
        /// Whose it is.
        node: NodeId,
        /// The start of its validity.
        from: SystemTime,
    },
    /// A valid certificate of another node than the one that was dialled.
    #[error("node {expected} was expected at this address but node {found} answers: check the peer addresses")]
    WrongNode {
        /// The node that was dialled.
        expected: NodeId,
        /// The node in the certificate.
        found: NodeId,
    },
    /// A valid certificate of a node that is not in the topology.
    #[error("node {0} is not in this cluster's topology: it was removed, or never joined")]
    UnknownNode(NodeId),
    /// The node was evicted.
    #[error("node {0} is denied: it was evicted from the cluster")]
    Denied(NodeId),
    /// It is no certificate of a node at all.
    #[error("the certificate cannot be read as that of a node ({what}): issue it with this cluster's authority")]
    Malformed {
        /// What is missing or broken.
        what: &'static str,
    },
    /// The peer showed no certificate.
    #[error("the peer showed no certificate: only nodes of the cluster may connect here")]
    Missing,
}

/// What a certificate says about itself, before anything of it is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The cluster in its name.
    pub cluster: ClusterId,
    /// The node in its name.
    pub node: NodeId,
    /// The first moment of its validity.
    pub valid_from: SystemTime,
    /// The last moment of its validity.
    pub valid_until: SystemTime,
}

/// Reads the claims of a certificate. Pure; nothing is verified.
///
/// # Errors
///
/// [`PeerRejection::Malformed`] if the bytes are no certificate or carry other than exactly one node name.
pub fn read_claims(certificate_der: &[u8]) -> Result<Claims, PeerRejection> {
    let malformed = |what| PeerRejection::Malformed { what };
    let (rest, certificate) = X509Certificate::from_der(certificate_der).map_err(|_| malformed("not X.509"))?;
    if !rest.is_empty() {
        return Err(malformed("trailing bytes"));
    }
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| malformed("unreadable names"))?
        .ok_or_else(|| malformed("no alternative name"))?;
    let mut dns = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    });
    let (cluster, node) = dns.next().and_then(parse_server_name).ok_or_else(|| malformed("no node name"))?;
    if dns.next().is_some() {
        return Err(malformed("more than one name"));
    }
    let validity = certificate.validity();
    Ok(Claims {
        cluster,
        node,
        valid_from: from_unix(validity.not_before.timestamp()),
        valid_until: from_unix(validity.not_after.timestamp()),
    })
}

/// Whose certificate this is, if it is of `expected` and valid `now`. Signatures are not checked here.
///
/// # Errors
///
/// [`PeerRejection`] with the reason: malformed, another cluster, expired, or not yet valid, in this order.
pub fn read_peer(certificate_der: &[u8], expected: ClusterId, now: SystemTime) -> Result<NodeId, PeerRejection> {
    let claims = read_claims(certificate_der)?;
    if claims.cluster != expected {
        return Err(PeerRejection::OtherCluster { ours: expected, theirs: claims.cluster });
    }
    if now < claims.valid_from {
        return Err(PeerRejection::NotYetValid { node: claims.node, from: claims.valid_from });
    }
    if now > claims.valid_until {
        return Err(PeerRejection::Expired { node: claims.node, at: claims.valid_until });
    }
    Ok(claims.node)
}

fn from_unix(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let moment = if seconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    moment.unwrap_or(UNIX_EPOCH)
}

/// A moment as people write it: RFC 3339, to the second, in UTC.
pub fn moment(at: SystemTime) -> String {
    calendar(at).and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| "an unprintable time".to_owned())
}

/// The calendar's name for a moment in whole seconds; `None` outside the years it knows (the library's own
/// conversion panics there) and before 1970.
pub(crate) fn calendar(at: SystemTime) -> Option<OffsetDateTime> {
    let seconds = at.duration_since(UNIX_EPOCH).ok()?.as_secs();
    OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::ClusterAuthority;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    const DAY: Duration = Duration::from_secs(86_400);

    fn certificate(now: SystemTime) -> (ClusterId, NodeId, Vec<u8>) {
        let mut rng = StdRng::seed_from_u64(1);
        let (cluster, node) = (ClusterId::random(&mut rng), NodeId::random(&mut rng));
        let authority = ClusterAuthority::create(cluster, now, &mut rng).unwrap();
        let credentials = authority.issue(node, now, DAY, &mut rng).unwrap();
        (cluster, node, credentials.chain[0].to_vec())
    }

    #[test]
    fn a_current_certificate_names_its_node() {
        let now = UNIX_EPOCH + 20_000 * DAY;
        let (cluster, node, der) = certificate(now);
        assert_eq!(read_peer(&der, cluster, now), Ok(node));
        assert_eq!(read_peer(&der, cluster, now - Duration::from_secs(299)), Ok(node));
        assert_eq!(read_peer(&der, cluster, now + DAY), Ok(node));
    }

    #[test]
    fn each_rejection_has_its_reason() {
        let now = UNIX_EPOCH + 20_000 * DAY;
        let (cluster, node, der) = certificate(now);
        let ours = ClusterId::from_bytes([1; 16]);
        assert_eq!(read_peer(&der, ours, now), Err(PeerRejection::OtherCluster { ours, theirs: cluster }));
        let late = read_peer(&der, cluster, now + DAY + Duration::from_secs(1)).unwrap_err();
        assert_eq!(late, PeerRejection::Expired { node, at: now + DAY });
        assert!(late.to_string().contains("expired at 2024-10-05T00:00:00Z"), "{late}");
        assert!(late.to_string().contains("durability.md, Certificate renewal"), "{late}");
        let from = now - Duration::from_secs(300);
        assert_eq!(
            read_peer(&der, cluster, from - Duration::from_secs(1)),
            Err(PeerRejection::NotYetValid { node, from })
        );
        assert_eq!(read_peer(&der[..der.len() - 1], cluster, now), Err(PeerRejection::Malformed { what: "not X.509" }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(read_claims(&bytes).is_err());
        }

        #[test]
        fn a_damaged_certificate_is_read_without_panic(at in 0usize..400, with in any::<u8>()) {
            let (_, _, mut der) = certificate(UNIX_EPOCH + 20_000 * DAY);
            let at = at % der.len();
            der[at] = with;
            let _read = read_claims(&der);
        }
    }
}
