//! The drive store against simulated and real files. Here: what the tests share.

mod behaviour;
mod crash;
mod damage;
mod real;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

use super::index::MemoryIndexFactory;
use super::*;
use crate::chunk::{ChunkHeader, Owner};
use crate::files::SimFiles;
use crate::ids::{DriveId, ExtentId};

pub(super) const CLUSTER: [u8; 16] = [0xC1; 16];

pub(super) fn identity() -> DriveIdentity {
    DriveIdentity { cluster: CLUSTER, node: [2; 8], drive: DriveId::from_bytes([3; 8]) }
}

/// Small segments, so that tests roll, recycle and compact.
pub(super) fn small_config(dir: &Path, seed: u64) -> DriveConfig {
    DriveConfig {
        segment_len: 512 << 10,
        allocate_step: 128 << 10,
        reserve: Reserve { percent: 0, bytes_min: 0 },
        checkpoint_changes: 24,
        spare_segments: 1,
        ..DriveConfig::new(dir, identity(), BufferPool::new(4 << 20), seed)
    }
}

/// A drive in a simulated file system.
pub(super) struct Rig {
    pub(super) files: SimFiles,
    pub(super) index: MemoryIndexFactory,
    pub(super) config: DriveConfig,
}

impl Rig {
    pub(super) fn new(seed: u64) -> Self {
        let dir = PathBuf::from("/drives/one");
        let files = SimFiles::new(seed);
        Drive::format(&files, &dir, identity(), &mut SmallRng::seed_from_u64(seed)).unwrap();
        Self { files, index: MemoryIndexFactory::new(), config: small_config(&dir, seed) }
    }

    pub(super) fn try_open(&self) -> Result<Drive, OpenError> {
        let metrics = DriveMetrics::unregistered("test").unwrap();
        let (files, index) = (Arc::new(self.files.mount()), Box::new(self.index.clone()));
        Drive::open(self.config.clone(), files, index, Executor::Tasks, metrics)
    }

    pub(super) fn open(&self) -> Drive {
        self.try_open().unwrap()
    }

    /// Power goes and comes back.
    pub(super) fn crash(&self) {
        self.files.crash();
        self.index.crash();
    }

    pub(super) fn segments(&self) -> Vec<PathBuf> {
        let is_live = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "seg");
        self.files.paths(&self.config.dir).into_iter().filter(is_live).collect()
    }

    /// Makes the next start scan all segments.
    pub(super) fn lose_checkpoint(&self) {
        self.files.set_small(&self.config.dir.join("checkpoint"), None);
    }
}

pub(super) fn chunk_id(n: u64) -> ChunkId {
    let mut bytes = [0xE0; 16];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    ChunkId { extent: ExtentId::from_bytes(bytes), slot: (n % 3) as u8 }
}

pub(super) fn payload(n: u64, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    SmallRng::seed_from_u64(n ^ 0xDA7A).fill_bytes(&mut bytes);
    Bytes::from(bytes)
}

pub(super) fn sealed(n: u64, len: usize) -> SealedChunk {
    let header = ChunkHeader {
        chunk: chunk_id(n),
        scheme: Scheme { data: 2, parity: 1 },
        extent_len: 2 * len as u32,
        cluster: CLUSTER,
        owner: Owner { bucket: 1, key: format!("object {n}"), version: [5; 16], part: 0, ordinal: 0 },
        payload_len: len as u32,
        created_ms: 1_795_000_000_000,
    };
    SealedChunk::seal(header, vec![payload(n, len)]).unwrap()
}

/// What a chunk should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Stored(usize),
    Deleted,
    /// Either of the two, wholly.
    Unknown(usize),
}

/// What is known to have been acknowledged.
#[derive(Clone, Default)]
pub(super) struct Model {
    pub(super) fates: BTreeMap<u64, Fate>,
}

impl Model {
    /// Compares the drive with what was acknowledged and settles what was unknown.
    pub(super) async fn check(&mut self, drive: &Drive, context: &str) {
        for (n, fate) in &mut self.fates {
            let id = chunk_id(*n);
            let len = match *fate {
                Fate::Stored(len) | Fate::Unknown(len) => len,
                Fate::Deleted => 1,
            };
            let read = drive.read(id, 0..len as u32).await;
            *fate = match (*fate, read) {
                (Fate::Stored(_) | Fate::Unknown(_), Ok(read)) => {
                    assert!(read.bytes == payload(*n, len), "{context}: chunk {n} has other bytes");
                    Fate::Stored(len)
                }
                (Fate::Deleted | Fate::Unknown(_), Err(DriveError::NotFound { .. })) => Fate::Deleted,
                (fate, read) => {
                    panic!("{context}: chunk {n} should be {fate:?}, read gives {read:?}")
                }
            };
        }
        let scanned: Vec<ChunkId> = drive.scan(None, 10_000).await.unwrap().into_iter().map(|(id, _)| id).collect();
        let stored: Vec<ChunkId> = self.stored().map(|(n, _)| chunk_id(n)).collect();
        assert_eq!(scanned, stored, "{context}: scan");
        assert_eq!(drive.status().chunk_count, stored.len() as u64, "{context}: count");
    }

    pub(super) fn stored(&self) -> impl Iterator<Item = (u64, usize)> + '_ {
        self.fates.iter().filter_map(|(n, fate)| match fate {
            Fate::Stored(len) => Some((*n, *len)),
            _ => None,
        })
    }
}

/// Appends side by side, so that commits are shared. Whether all succeeded.
pub(super) async fn append_together(drive: &Drive, batch: &[(u64, usize)], model: &mut Model) -> bool {
    let mut tasks = tokio::task::JoinSet::new();
    for (n, len) in batch.iter().copied() {
        let drive = drive.clone();
        tasks.spawn(async move { (n, len, drive.append(sealed(n, len)).await) });
    }
    let mut all = true;
    while let Some(result) = tasks.join_next().await {
        let (n, len, result) = result.unwrap();
        all &= result.is_ok();
        model.fates.insert(n, if result.is_ok() { Fate::Stored(len) } else { Fate::Unknown(len) });
    }
    all
}

pub(super) async fn append_all(drive: &Drive, chunks: impl IntoIterator<Item = (u64, usize)>) {
    for (n, len) in chunks {
        drive.append(sealed(n, len)).await.unwrap();
    }
}

/// A length as real chunks have: mostly small, some around block boundaries, some big.
pub(super) fn random_len(rng: &mut SmallRng) -> usize {
    match rng.random_range(0..10) {
        0 => rng.random_range(0..3),
        1..=5 => rng.random_range(100..9000),
        6 => 65_536 - 1 + rng.random_range(0..3),
        7 => rng.random_range(20_000..65_536),
        _ => rng.random_range(65_536..150_000),
    }
}
