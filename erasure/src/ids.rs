//! Names of the things that lie on drives.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use rand::RngCore;

/// A drive: one directory given to a node, the unit of loss.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct DriveId([u8; 8]);

impl DriveId {
    /// Draws a new id.
    pub fn random(rng: &mut impl RngCore) -> Self {
        let mut bytes = [0; 8];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// The id with exactly these bytes.
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// The bytes of the id, in the order of its text form.
    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl fmt::Display for DriveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for DriveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a drive id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a drive id: expected 16 hexadecimal digits")]
pub struct ParseDriveIdError(pub String);

impl FromStr for DriveId {
    type Err = ParseDriveIdError;

    fn from_str(text: &str) -> Result<Self, ParseDriveIdError> {
        let mut bytes = [0; 8];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseDriveIdError(text.to_owned()))?;
        Ok(Self(bytes))
    }
}

/// An extent: at most 8 MiB of an object's bytes, the unit of encoding and placement. Drawn at random for each
/// attempt to write, so two attempts never share chunks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ExtentId([u8; 16]);

impl ExtentId {
    /// Draws a new id.
    pub fn random(rng: &mut impl RngCore) -> Self {
        let mut bytes = [0; 16];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// The id with exactly these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes of the id, in the order of its text form.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for ExtentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ExtentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One of the `k + m` pieces of an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ChunkId {
    /// The extent the chunk belongs to.
    pub extent: ExtentId,
    /// Which piece: `0..k` are data in order, `k..k + m` parity.
    pub slot: u8,
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.extent, self.slot)
    }
}

/// How an extent is cut: `data` chunks and `parity` chunks; `data = 1` is plain copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Scheme {
    /// k, at least 1.
    pub data: u8,
    /// m, may be 0.
    pub parity: u8,
}

impl Scheme {
    /// k + m: how many chunks an extent has.
    pub const fn chunk_count(self) -> usize {
        self.data as usize + self.parity as usize
    }

    /// Length in bytes of each chunk of an extent of `extent_len` bytes: the k-th part, rounded up.
    pub const fn chunk_len(self, extent_len: u32) -> u32 {
        extent_len.div_ceil(self.data as u32)
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.data, self.parity)
    }
}
