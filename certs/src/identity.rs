//! The identity of a node, in memory and in its directory.
//!
//! A directory (mode 0700) of small files (mode 0600), each replaced atomically: `identity.toml` (which node of which
//! cluster), `node.crt` and `node.key` (PEM), `ca.crt` (the trusted authorities, PEM), `secret` (the node's own
//! randomness, from which its reset key and connection ids derive) and `sealing.key` (the cluster's key for secrets at
//! rest). Loading checks that they belong together: a node never starts with another node's key.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rand::CryptoRng;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::authority::{AuthorityError, ClusterAuthority, NodeCredentials, certificate_pem, key_pem, read_key};
use crate::ids::{ClusterId, NodeId};
use crate::peer::{PeerRejection, read_claims};

const IDENTITY: &str = "identity.toml";
const CERTIFICATE: &str = "node.crt";
const KEY: &str = "node.key";
const AUTHORITIES: &str = "ca.crt";
const SECRET: &str = "secret";
const SEALING_KEY: &str = "sealing.key";

/// No file of an identity is longer than this: more is not read.
const FILE_LEN_MAX: u64 = 1 << 20;

/// Why an identity could not be loaded or saved. Every variant names the file.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The operating system refused.
    #[error("{}: cannot {action}: {cause}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What came back.
        cause: io::Error,
    },
    /// Others on this machine may read a secret.
    #[error("{}: mode {mode:03o} lets others read it; `chmod 600` it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The contents are not what this file holds.
    #[error("{}: {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The certificate is not one of a node.
    #[error("{}: {cause}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: PeerRejection,
    },
    /// The files are each readable but of different nodes or clusters.
    #[error("{}: it is of node {found_node} of cluster {found_cluster}, but {IDENTITY} says node {node} of cluster {cluster}", path.display())]
    Mismatch {
        /// The certificate's file.
        path: PathBuf,
        /// The node of the identity file.
        node: NodeId,
        /// The cluster of the identity file.
        cluster: ClusterId,
        /// The node of the certificate.
        found_node: NodeId,
        /// The cluster of the certificate.
        found_cluster: ClusterId,
    },
    /// The key belongs to another certificate.
    #[error("{}: the key does not belong to the certificate in {CERTIFICATE}", path.display())]
    KeyMismatch {
        /// The key's file.
        path: PathBuf,
    },
}

/// Who this node is, and how it proves it. Secrets are wiped when dropped and have no text form.
#[derive(Clone)]
pub struct Identity {
    cluster: ClusterId,
    node: NodeId,
    chain: Vec<CertificateDer<'static>>,
    key: Zeroizing<Vec<u8>>,
    roots: Vec<CertificateDer<'static>>,
    secret: Zeroizing<[u8; 32]>,
    sealing_key: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("cluster", &self.cluster).field("node", &self.node).finish_non_exhaustive()
    }
}

impl Identity {
    /// The identity of a founding node: a new certificate from the authority and a new node secret. `sealing_key` is
    /// the same for all nodes of the cluster. Nothing is stored.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`] if the certificate cannot be issued.
    pub fn founding(
        authority: &ClusterAuthority,
        node: NodeId,
        sealing_key: [u8; 32],
        now: SystemTime,
        lifetime: Duration,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, AuthorityError> {
        let NodeCredentials { chain, key, .. } = authority.issue(node, now, lifetime, rng)?;
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(secret.as_mut_slice());
        Ok(Self {
            cluster: authority.cluster(),
            node,
            chain,
            key,
            roots: vec![authority.certificate().clone()],
            secret,
            sealing_key: Zeroizing::new(sealing_key),
        })
    }

    /// The cluster this node belongs to.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The node's certificate first, then intermediates.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The authorities whose nodes are peers.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// A copy of the private key for a TLS library.
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.to_vec()))
    }

    /// A key derived from the node's secret for one purpose. The same after every restart of this node, and of no use
    /// for finding the secret or another purpose's key. `purpose` is a constant of the program (BLAKE3 `derive_key`).
    pub fn derive_key(&self, purpose: &str) -> [u8; 32] {
        blake3::derive_key(purpose, self.secret.as_slice())
    }

    /// The cluster-wide key that seals S3 secrets at rest.
    pub fn sealing_key(&self) -> &[u8; 32] {
        &self.sealing_key
    }

    /// When the node's certificate ends.
    ///
    /// # Errors
    ///
    /// [`PeerRejection::Malformed`] if the certificate cannot be read, which loading excludes.
    pub fn valid_until(&self) -> Result<SystemTime, PeerRejection> {
        let certificate = self.chain.first().ok_or(PeerRejection::Missing)?;
        Ok(read_claims(certificate)?.valid_until)
    }

    /// Writes all files of the identity to `dir`, which is made if missing (its parent must exist). When this returns,
    /// they survive a crash; a crash before leaves of each file either the old or the new one.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Io`] with the file it failed at.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        make_private_dir(dir)?;
        let pem = |list: &[CertificateDer<'_>]| -> String {
            list.iter().map(|certificate| certificate_pem(certificate)).collect()
        };
        let text = format!(
            "# Identity of a Drystone node. Do not copy to another node.\nversion = 1\ncluster = \"{}\"\nnode = \"{}\"\n",
            self.cluster, self.node
        );
        replace(dir, KEY, key_pem(&self.key).as_bytes())?;
        replace(dir, CERTIFICATE, pem(&self.chain).as_bytes())?;
        replace(dir, AUTHORITIES, pem(&self.roots).as_bytes())?;
        replace(dir, SECRET, secret_text(&self.secret).as_bytes())?;
        replace(dir, SEALING_KEY, secret_text(&self.sealing_key).as_bytes())?;
        replace(dir, IDENTITY, text.as_bytes())?;
        sync_dir(dir)?;
        match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
            _ => Ok(()),
        }
    }

    /// Reads an identity from `dir` and checks that its parts belong together. Validity in time is not checked here:
    /// an expired node should start and say so.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] with the file and the cause.
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        let (cluster, node) = parse_identity(&read(dir, IDENTITY, Secrecy::Open)?)
            .map_err(|what| IdentityError::Malformed { path: dir.join(IDENTITY), what })?;
        let chain = read_certificates(dir, CERTIFICATE)?;
        let roots = read_certificates(dir, AUTHORITIES)?;
        let malformed_key = || IdentityError::Malformed { path: dir.join(KEY), what: "not an Ed25519 key in PEM" };
        let key =
            PrivatePkcs8KeyDer::from_pem_slice(&read(dir, KEY, Secrecy::Private)?).map_err(|_| malformed_key())?;
        let key = Zeroizing::new(key.secret_pkcs8_der().to_vec());
        let certificate_error = |cause| IdentityError::Certificate { path: dir.join(CERTIFICATE), cause };
        let leaf = chain.first().ok_or_else(|| certificate_error(PeerRejection::Missing))?;
        let claims = read_claims(leaf).map_err(certificate_error)?;
        if (claims.cluster, claims.node) != (cluster, node) {
            return Err(IdentityError::Mismatch {
                path: dir.join(CERTIFICATE),
                node,
                cluster,
                found_node: claims.node,
                found_cluster: claims.cluster,
            });
        }
        let public = read_key(&key).map_err(|_| malformed_key())?;
        let belongs = X509Certificate::from_der(leaf).is_ok_and(|(_, certificate)| {
            certificate.public_key().subject_public_key.data.as_ref() == public.public_key_raw()
        });
        if !belongs {
            return Err(IdentityError::KeyMismatch { path: dir.join(KEY) });
        }
        Ok(Self {
            cluster,
            node,
            chain,
            key,
            roots,
            secret: read_secret(dir, SECRET)?,
            sealing_key: read_secret(dir, SEALING_KEY)?,
        })
    }
}

/// Whether others on the machine may read a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Secrecy {
    Open,
    Private,
}

fn io_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |cause| IdentityError::Io { path, action, cause }
}

fn make_private_dir(dir: &Path) -> Result<(), IdentityError> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
                .map_err(io_error(dir, "make the directory private"))
        }
        Err(error) => Err(io_error(dir, "make the directory")(error)),
    }
}

fn replace(dir: &Path, name: &str, contents: &[u8]) -> Result<(), IdentityError> {
    let (path, staged) = (dir.join(name), dir.join(format!(".{name}.new")));
    match fs::remove_file(&staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error(&staged, "remove what an interrupted write left")(error));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&staged)
        .map_err(io_error(&staged, "create the file"))?;
    file.write_all(contents).map_err(io_error(&staged, "write"))?;
    file.sync_all().map_err(io_error(&staged, "sync"))?;
    fs::rename(&staged, &path).map_err(io_error(&path, "replace the file"))
}

fn sync_dir(dir: &Path) -> Result<(), IdentityError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error(dir, "sync the directory"))
}

fn read(dir: &Path, name: &str, secrecy: Secrecy) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let path = dir.join(name);
    let metadata = fs::metadata(&path).map_err(io_error(&path, "read"))?;
    let mode = metadata.permissions().mode() & 0o777;
    if secrecy == Secrecy::Private && mode & 0o077 != 0 {
        return Err(IdentityError::Exposed { path, mode });
    }
    if metadata.len() > FILE_LEN_MAX {
        return Err(IdentityError::Malformed { path, what: "longer than 1 MiB" });
    }
    fs::read(&path).map(Zeroizing::new).map_err(io_error(&path, "read"))
}

fn read_certificates(dir: &Path, name: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let bytes = read(dir, name, Secrecy::Open)?;
    let malformed = |what| IdentityError::Malformed { path: dir.join(name), what };
    let list = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| malformed("not certificates in PEM"))?;
    if list.is_empty() { Err(malformed("no certificate in it")) } else { Ok(list) }
}

fn secret_text(secret: &[u8; 32]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(hex::encode(secret));
    text.push('\n');
    text
}

fn read_secret(dir: &Path, name: &str) -> Result<Zeroizing<[u8; 32]>, IdentityError> {
    let text = read(dir, name, Secrecy::Private)?;
    let mut secret = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim_ascii(), secret.as_mut_slice())
        .map_err(|_| IdentityError::Malformed { path: dir.join(name), what: "not 64 hexadecimal digits" })?;
    Ok(secret)
}

/// The three keys of `identity.toml`, each exactly once; comments and blank lines are skipped.
fn parse_identity(text: &[u8]) -> Result<(ClusterId, NodeId), &'static str> {
    let text = std::str::from_utf8(text).map_err(|_| "not UTF-8")?;
    let (mut version, mut cluster, mut node) = (None, None, None);
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once('=').ok_or("a line that is not `key = value`")?;
        let value = value.trim().trim_matches('"');
        let slot = match key.trim() {
            "version" => &mut version,
            "cluster" => &mut cluster,
            "node" => &mut node,
            _ => return Err("an unknown key"),
        };
        if slot.replace(value).is_some() {
            return Err("a key that stands twice");
        }
    }
    if version.ok_or("no version")? != "1" {
        return Err("a version this build does not read");
    }
    let cluster = cluster.ok_or("no cluster")?.parse().map_err(|_| "an unreadable cluster id")?;
    let node = node.ok_or("no node")?.parse().map_err(|_| "an unreadable node id")?;
    Ok((cluster, node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::FOUNDING_LIFETIME;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn identity(seed: u64) -> Identity {
        let mut rng = StdRng::seed_from_u64(seed);
        let now = SystemTime::UNIX_EPOCH + FOUNDING_LIFETIME * 50;
        let cluster = ClusterId::random(&mut rng);
        let authority = ClusterAuthority::create(cluster, now, &mut rng).unwrap();
        let node = NodeId::random(&mut rng);
        Identity::founding(&authority, node, [5; 32], now, FOUNDING_LIFETIME, &mut rng).unwrap()
    }

    #[test]
    fn a_saved_identity_loads_again_even_over_an_older_one() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("identity");
        identity(1).save(&dir).unwrap();
        let made = identity(2);
        made.save(&dir).unwrap();
        let read = Identity::load(&dir).unwrap();
        assert_eq!((read.cluster(), read.node()), (made.cluster(), made.node()));
        assert_eq!((read.chain(), read.roots()), (made.chain(), made.roots()));
        assert_eq!(read.private_key(), made.private_key());
        assert_eq!(read.sealing_key(), &[5; 32]);
        assert_eq!(read.derive_key("test"), made.derive_key("test"));
        assert_ne!(read.derive_key("test"), made.derive_key("other"));
    }

    #[test]
    fn files_are_private_and_nothing_is_left_behind() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("identity");
        identity(1).save(&dir).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        let mut names = Vec::new();
        for entry in fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            names.push(entry.file_name().into_string().unwrap());
        }
        names.sort();
        assert_eq!(names, ["ca.crt", "identity.toml", "node.crt", "node.key", "sealing.key", "secret"]);
    }

    #[test]
    fn a_readable_key_is_refused_with_its_mode() {
        let home = tempfile::tempdir().unwrap();
        identity(1).save(home.path()).unwrap();
        let key = home.path().join(KEY);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let error = Identity::load(home.path()).unwrap_err();
        assert!(matches!(&error, IdentityError::Exposed { path, mode: 0o644 } if *path == key));
    }

    #[test]
    fn parts_of_two_nodes_do_not_make_one() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        identity(1).save(one.path()).unwrap();
        identity(2).save(two.path()).unwrap();
        fs::copy(two.path().join(KEY), one.path().join(KEY)).unwrap();
        assert!(matches!(Identity::load(one.path()).unwrap_err(), IdentityError::KeyMismatch { .. }));
        fs::copy(two.path().join(CERTIFICATE), one.path().join(CERTIFICATE)).unwrap();
        assert!(matches!(Identity::load(one.path()).unwrap_err(), IdentityError::Mismatch { .. }));
    }

    #[test]
    fn a_missing_or_damaged_file_is_named() {
        for name in [IDENTITY, CERTIFICATE, KEY, AUTHORITIES, SECRET, SEALING_KEY] {
            let home = tempfile::tempdir().unwrap();
            identity(1).save(home.path()).unwrap();
            fs::write(home.path().join(name), b"nonsense").unwrap();
            let error = Identity::load(home.path()).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
            fs::remove_file(home.path().join(name)).unwrap();
            let error = Identity::load(home.path()).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn secrets_have_no_text_form() {
        let identity = identity(1);
        let text = format!("{identity:?}");
        assert!(text.contains(&identity.node().to_string()));
        assert!(!text.contains(&hex::encode(identity.sealing_key())), "{text}");
        assert!(text.len() < 200, "{text}");
    }

    #[test]
    fn a_missing_directory_is_named_with_what_the_system_says() {
        let dir = tempfile::tempdir().unwrap();
        let error = Identity::load(&dir.path().join("gone")).unwrap_err().to_string();
        assert!(error.starts_with(&dir.path().display().to_string()), "{error}");
        assert!(error.ends_with("cannot read: No such file or directory (os error 2)"), "{error}");
    }
}
