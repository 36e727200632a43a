//! Reads pieces of extents: from the data chunk itself, or rebuilt from k others when that one is missing, corrupt or
//! slow.
//!
//! Reed–Solomon works byte by byte: the range a..b of a missing chunk follows from the ranges a..b of any k others
//! (Reed and Solomon 1960; Plank 1997), so a degraded read moves k times the piece, never the extent.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use drystone_transport::LogLimit;
use futures_util::StreamExt as _;
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, timeout};

use super::chunk_client::ChunkClient;
use super::piece::Piece;
use crate::ids::{ChunkId, DriveId};
use crate::index::ExtentRecord;
use crate::member::Member;
use crate::peer::Fault;
use crate::placement::{DriveCondition, Health};
use crate::store::{StoreError, Unavailable};

/// A chunk read that takes longer is hedged by rebuilding from the others. Ten times what a busy drive of this kind
/// takes for 1 MiB, so that a loaded but healthy cluster does not double its own work.
const HEDGE_DELAY: Duration = Duration::from_millis(400);

/// Reads extents from one worker.
#[derive(Clone)]
pub(crate) struct ExtentReader {
    member: Arc<Member>,
    chunks: ChunkClient,
    log_limit: Arc<LogLimit>,
}

impl ExtentReader {
    pub(crate) fn new(member: Arc<Member>, chunks: ChunkClient) -> Self {
        Self { member, chunks, log_limit: Arc::default() }
    }

    /// The verified bytes of `piece`, in as many parts as they came.
    pub(crate) async fn read(&self, extent: &ExtentRecord, piece: &Piece) -> Result<Vec<Bytes>, StoreError> {
        if extent.scheme.data == 1 { self.read_copy(extent, piece).await } else { self.read_coded(extent, piece).await }
    }

    /// Any copy will do: the local one first, then one after the other.
    async fn read_copy(&self, extent: &ExtentRecord, piece: &Piece) -> Result<Vec<Bytes>, StoreError> {
        let mut failures = Failures::default();
        let mut waiting = self.copies_nearest_first(extent).into_iter();
        let mut reading = FuturesUnordered::new();
        loop {
            if reading.is_empty() {
                match waiting.next() {
                    Some(slot) => reading.push(self.read_slot(extent, slot, piece)),
                    None => return Err(failures.into_error(0, 1)),
                }
            }
            match timeout(HEDGE_DELAY, reading.next()).await {
                Ok(Some((_, Ok(bytes)))) => return Ok(bytes),
                Ok(Some((slot, Err(fault)))) => self.note(extent, slot, fault, &mut failures),
                Ok(None) => {}
                Err(_) => {
                    if let Some(slot) = waiting.next() {
                        self.member.metrics().hedged_reads.inc();
                        reading.push(self.read_slot(extent, slot, piece));
                    } else if let Some((slot, read)) = reading.next().await {
                        match read {
                            Ok(bytes) => return Ok(bytes),
                            Err(fault) => self.note(extent, slot, fault, &mut failures),
                        }
                    }
                }
            }
        }
    }

    fn copies_nearest_first(&self, extent: &ExtentRecord) -> Vec<u8> {
        let topology = self.member.topology();
        let health = self.member.health();
        let mut slots: Vec<u8> = (0..).take(extent.drives.len()).collect();
        slots.sort_by_key(|slot| {
            let drive = extent.drives[usize::from(*slot)];
            (!is_up(&health, drive), topology.node_of(drive) != Some(self.member.node()), *slot)
        });
        slots
    }

    async fn read_coded(&self, extent: &ExtentRecord, piece: &Piece) -> Result<Vec<Bytes>, StoreError> {
        let drive = extent.drives[usize::from(piece.slot)];
        if is_up(&self.member.health(), drive) {
            self.read_direct_or_rebuild(extent, piece).await
        } else {
            self.rebuild_or_read_direct(extent, piece).await
        }
    }

    /// From the data chunk; from the others when it cannot be read, or as soon as they are faster.
    async fn read_direct_or_rebuild(&self, extent: &ExtentRecord, piece: &Piece) -> Result<Vec<Bytes>, StoreError> {
        let mut failures = Failures::default();
        let mut direct = pin!(self.read_slot(extent, piece.slot, piece));
        match timeout(HEDGE_DELAY, &mut direct).await {
            Ok((_, Ok(bytes))) => return Ok(bytes),
            Ok((slot, Err(fault))) => {
                self.note(extent, slot, fault, &mut failures);
                return self.rebuild(extent, piece).await.map_err(|short| short.into_error(failures));
            }
            Err(_) => self.member.metrics().hedged_reads.inc(),
        }
        let short = match select(direct, pin!(self.rebuild(extent, piece))).await {
            Either::Left(((_, Ok(bytes)), _)) | Either::Right((Ok(bytes), _)) => return Ok(bytes),
            Either::Left(((slot, Err(fault)), rebuild)) => {
                self.note(extent, slot, fault, &mut failures);
                match rebuild.await {
                    Ok(bytes) => return Ok(bytes),
                    Err(short) => short,
                }
            }
            Either::Right((Err(short), direct)) => match direct.await {
                (_, Ok(bytes)) => return Ok(bytes),
                (slot, Err(fault)) => {
                    self.note(extent, slot, fault, &mut failures);
                    short
                }
            },
        };
        Err(short.into_error(failures))
    }

    /// From the other chunks, because the data chunk's drive is thought away; from that drive when they are too few:
    /// the thought may be old, or wrong.
    async fn rebuild_or_read_direct(&self, extent: &ExtentRecord, piece: &Piece) -> Result<Vec<Bytes>, StoreError> {
        let short = match self.rebuild(extent, piece).await {
            Ok(bytes) => return Ok(bytes),
            Err(short) => short,
        };
        match self.read_slot(extent, piece.slot, piece).await {
            (_, Ok(bytes)) => Ok(bytes),
            (slot, Err(fault)) => {
                let mut failures = Failures::default();
                self.note(extent, slot, fault, &mut failures);
                Err(short.into_error(failures))
            }
        }
    }

    /// Rebuilds `piece` from the same range of any k other chunks, asking k at once, and one more for each that fails
    /// and whenever nothing came for the hedge delay.
    async fn rebuild(&self, extent: &ExtentRecord, piece: &Piece) -> Result<Vec<Bytes>, Shortfall> {
        let needed = usize::from(extent.scheme.data);
        let mut failures = Failures::default();
        let mut others = self.copies_nearest_first(extent).into_iter().filter(|slot| *slot != piece.slot);
        let mut reading: FuturesUnordered<_> =
            others.by_ref().take(needed).map(|slot| self.read_slot(extent, slot, piece)).collect();
        let mut shards = Vec::with_capacity(needed);
        while shards.len() < needed {
            match timeout(HEDGE_DELAY, reading.next()).await {
                Ok(Some((slot, Ok(bytes)))) => shards.push((slot, joined(bytes))),
                Ok(Some((slot, Err(fault)))) => {
                    self.note(extent, slot, fault, &mut failures);
                    reading.extend(others.next().map(|slot| self.read_slot(extent, slot, piece)));
                }
                Ok(None) => return Err(Shortfall::TooFewChunks { failures, readable: shards.len(), needed }),
                Err(_) => {
                    if let Some(slot) = others.next() {
                        self.member.metrics().hedged_reads.inc();
                        reading.push(self.read_slot(extent, slot, piece));
                    }
                }
            }
        }
        self.member.metrics().degraded_reads.inc();
        self.decode(extent, piece, &shards).map_err(Shortfall::Decode)
    }

    fn decode(&self, extent: &ExtentRecord, piece: &Piece, shards: &[(u8, Bytes)]) -> Result<Vec<Bytes>, StoreError> {
        let present: Vec<(u8, &[u8])> = shards.iter().map(|(slot, bytes)| (*slot, bytes.as_ref())).collect();
        let mut rebuilt = self.member.buffers().take(piece.len() as usize);
        self.member
            .codecs()
            .get(extent.scheme)
            .and_then(|codec| codec.reconstruct(&present, &mut [(piece.slot, &mut rebuilt)]))
            .map_err(|error| StoreError::Internal(format!("rebuilding {}: {error}", extent.scheme)))?;
        Ok(vec![rebuilt.freeze()])
    }

    async fn read_slot(&self, extent: &ExtentRecord, slot: u8, piece: &Piece) -> (u8, Result<Vec<Bytes>, Fault>) {
        let chunk = ChunkId { extent: extent.id, slot };
        (slot, self.chunks.read(extent.drives[usize::from(slot)], chunk, piece.range.clone()).await)
    }

    fn note(&self, extent: &ExtentRecord, slot: u8, fault: Fault, failures: &mut Failures) {
        let drive = extent.drives[usize::from(slot)];
        if let Some(unsaid) = self.log_limit.note(Instant::now()) {
            tracing::warn!(%drive, extent = %extent.id, slot, %fault, unsaid, "a chunk could not be read");
        }
        self.member.metrics().chunk_read_failures.inc();
        match fault {
            Fault::ChunkCorrupt | Fault::ChunkNotFound => failures.damaged = true,
            _ => failures.unreachable = true,
        }
    }
}

/// Whether a read of this drive is worth trying first.
fn is_up(health: &Health, drive: DriveId) -> bool {
    !matches!(health.of(drive), DriveCondition::Suspect | DriveCondition::Failed | DriveCondition::Down)
}

/// Why a piece could not be rebuilt.
enum Shortfall {
    /// Too few other chunks could be read.
    TooFewChunks { failures: Failures, readable: usize, needed: usize },
    /// The code refused them.
    Decode(StoreError),
}

impl Shortfall {
    /// The error, in view of what else failed.
    fn into_error(self, others: Failures) -> StoreError {
        match self {
            Self::TooFewChunks { failures, readable, needed } => failures.and(others).into_error(readable, needed),
            Self::Decode(error) => error,
        }
    }
}

/// Why chunks could not be read: says whether waiting may help.
#[derive(Default)]
struct Failures {
    damaged: bool,
    unreachable: bool,
}

impl Failures {
    fn and(self, other: Self) -> Self {
        Self { damaged: self.damaged || other.damaged, unreachable: self.unreachable || other.unreachable }
    }

    fn into_error(self, readable: usize, needed: usize) -> StoreError {
        if self.damaged && !self.unreachable {
            StoreError::Damaged { readable, needed }
        } else {
            Unavailable::TooFewChunks { readable, needed }.into()
        }
    }
}

fn joined(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() == 1 {
        return pieces.remove(0);
    }
    let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    for piece in pieces {
        whole.extend_from_slice(&piece);
    }
    whole.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_called_damaged_only_if_no_chunk_may_come_back() {
        let short = |damaged, unreachable| Shortfall::TooFewChunks {
            failures: Failures { damaged, unreachable },
            readable: 1,
            needed: 2,
        };
        let damaged = || Failures { damaged: true, unreachable: false };
        let unreachable = || Failures { damaged: false, unreachable: true };
        assert_eq!(short(true, false).into_error(damaged()), StoreError::Damaged { readable: 1, needed: 2 });
        let later = StoreError::from(Unavailable::TooFewChunks { readable: 1, needed: 2 });
        assert_eq!(short(true, false).into_error(unreachable()), later);
        assert_eq!(short(true, true).into_error(damaged()), later);
    }
}
