//! The file `drive` in a drive's directory: who the drive is, and the secret that authenticates its log.
//!
//! Format version 1, little-endian: `DSDR`, version (1 byte), three zero bytes, cluster id (16), node id (8), drive
//! id (8), log secret (16), CRC-32C of all before (4). The secret makes log frames unforgeable by what clients store:
//! a payload that imitates a frame never verifies.

use std::path::{Path, PathBuf};

use rand::RngCore;

use super::error::OpenError;
use crate::files::Files;
use crate::ids::DriveId;

const MAGIC: [u8; 4] = *b"DSDR";
const VERSION: u8 = 1;
const LEN: usize = 60;

/// Who a drive is and whom it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DriveIdentity {
    /// The cluster.
    pub cluster: [u8; 16],
    /// The node whose drive it is.
    pub node: [u8; 8],
    /// The drive itself.
    pub drive: DriveId,
}

/// Identity and log secret as they lie on the drive.
#[derive(Clone, Copy)]
pub(super) struct Stored {
    pub(super) identity: DriveIdentity,
    pub(super) secret: [u8; 16],
}

fn path(dir: &Path) -> PathBuf {
    dir.join("drive")
}

fn io_error(dir: &Path, error: std::io::Error) -> OpenError {
    OpenError::Io { dir: dir.to_owned(), error }
}

fn encode(stored: &Stored) -> Vec<u8> {
    let mut out = Vec::with_capacity(LEN);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSION, 0, 0, 0]);
    out.extend_from_slice(&stored.identity.cluster);
    out.extend_from_slice(&stored.identity.node);
    out.extend_from_slice(stored.identity.drive.as_bytes());
    out.extend_from_slice(&stored.secret);
    out.extend_from_slice(&crc_fast::crc32_iscsi(&out).to_le_bytes());
    out
}

fn decode(dir: &Path, bytes: &[u8]) -> Result<Stored, OpenError> {
    let damaged = || OpenError::DamagedIdentity(dir.to_owned());
    if bytes.len() < 5 || bytes[..4] != MAGIC {
        return Err(damaged());
    }
    if bytes[4] > VERSION {
        return Err(OpenError::NewerFormat { dir: dir.to_owned(), known: VERSION, found: bytes[4] });
    }
    let bytes: &[u8; LEN] = bytes.try_into().map_err(|_| damaged())?;
    if bytes[4] != VERSION || crc_fast::crc32_iscsi(&bytes[..56]).to_le_bytes() != bytes[56..] {
        return Err(damaged());
    }
    let (mut cluster, mut node, mut drive, mut secret) = ([0; 16], [0; 8], [0; 8], [0; 16]);
    cluster.copy_from_slice(&bytes[8..24]);
    node.copy_from_slice(&bytes[24..32]);
    drive.copy_from_slice(&bytes[32..40]);
    secret.copy_from_slice(&bytes[40..56]);
    Ok(Stored { identity: DriveIdentity { cluster, node, drive: DriveId::from_bytes(drive) }, secret })
}

pub(super) fn format(
    files: &dyn Files,
    dir: &Path,
    identity: DriveIdentity,
    rng: &mut dyn RngCore,
) -> Result<(), OpenError> {
    match load(files, dir) {
        Err(OpenError::Blank(_)) => {}
        Ok(stored) => {
            return Err(OpenError::AlreadyFormatted { dir: dir.to_owned(), found: stored.identity });
        }
        Err(error) => return Err(error),
    }
    let mut secret = [0; 16];
    rng.fill_bytes(&mut secret);
    let segments = dir.join("segments");
    files.create_dir(&segments).map_err(|error| io_error(dir, error))?;
    files.sync_dir(dir).map_err(|error| io_error(dir, error))?;
    files.sync_dir(parent_of(dir)).map_err(|error| io_error(dir, error))?;
    files.write_small(&path(dir), &encode(&Stored { identity, secret })).map_err(|error| io_error(dir, error))
}

/// Where the directory's own name stands: the working directory for a relative path of one part.
fn parent_of(dir: &Path) -> &Path {
    match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => dir,
    }
}

pub(super) fn load(files: &dyn Files, dir: &Path) -> Result<Stored, OpenError> {
    // Longer is read too, so that a newer, longer version is recognised as such.
    match files.read_small(&path(dir), 4096) {
        Ok(Some(bytes)) => decode(dir, &bytes),
        Ok(None) => Err(OpenError::Blank(dir.to_owned())),
        Err(error) => Err(io_error(dir, error)),
    }
}

pub(super) fn check(dir: &Path, expected: DriveIdentity, found: DriveIdentity) -> Result<(), OpenError> {
    let dir = dir.to_owned();
    if expected.cluster != found.cluster {
        return Err(OpenError::ForeignCluster { dir, expected: expected.cluster, found: found.cluster });
    }
    if expected.node != found.node {
        return Err(OpenError::ForeignNode { dir, expected: expected.node, found: found.node });
    }
    if expected.drive != found.drive {
        return Err(OpenError::ForeignDrive { dir, expected: expected.drive, found: found.drive });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Stored {
        Stored {
            identity: DriveIdentity { cluster: [1; 16], node: [2; 8], drive: DriveId::from_bytes([3; 8]) },
            secret: [4; 16],
        }
    }

    #[test]
    fn a_relative_directory_of_one_part_stands_in_the_working_directory() {
        for (dir, parent) in [("d1", "."), ("a/d1", "a"), ("/mnt/d1", "/mnt"), ("/", "/")] {
            assert_eq!(parent_of(Path::new(dir)), Path::new(parent), "{dir}");
        }
    }

    #[test]
    fn golden_bytes_of_version_1() {
        let golden = "445344520100000001010101010101010101010101010101020202020202020203030303030303030404040404040404040404040404040400000000";
        let bytes = encode(&sample());
        assert_eq!(hex::encode(&bytes[..56]), golden[..112]);
        assert_eq!(hex::encode(&bytes[56..]), "e64a409d");
    }

    #[test]
    fn damage_and_newer_versions_are_told_apart() {
        let good = encode(&sample());
        assert_eq!(decode(Path::new("/d"), &good).unwrap().identity, sample().identity);
        let mut newer = good.clone();
        newer[4] = 2;
        newer.push(0);
        assert!(matches!(decode(Path::new("/d"), &newer), Err(OpenError::NewerFormat { found: 2, known: 1, .. })));
        for index in (0..good.len()).filter(|index| *index != 4) {
            let mut bad = good.clone();
            bad[index] ^= 0x40;
            assert!(matches!(decode(Path::new("/d"), &bad), Err(OpenError::DamagedIdentity(_))), "byte {index}");
        }
        for len in 0..good.len() {
            assert!(decode(Path::new("/d"), &good[..len]).is_err());
        }
    }
}
