//! Writes one extent: place, encode, seal, send all chunks in parallel, replace what fails.
//!
//! The extent's buffer is kept until every chunk is safe, so a chunk can be sent again to another drive, or the
//! whole extent placed anew with a smaller scheme when too few domains are left.

use std::sync::Arc;

use bytes::Bytes;
use drystone_erasure::{AlignedBuf, AppendClass, ChunkHeader, Owner, SealedChunk};
use drystone_transport::LogLimit;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::chunk_client::ChunkClient;
use crate::ids::{ChunkId, DriveId, ExtentId};
use crate::index::{ExtentRecord, GarbageExtent};
use crate::member::Member;
use crate::peer::Fault;
use crate::placement::{Placement, Refusal, Want, place, place_replacement};
use crate::store::{StoreError, Unavailable};
use crate::topology::Topology;

/// Writes extents from one worker.
#[derive(Clone)]
pub(crate) struct ExtentWriter {
    member: Arc<Member>,
    chunks: ChunkClient,
    log_limit: Arc<LogLimit>,
}

/// An extent that is safe.
pub(crate) struct Written {
    /// What the index will refer to.
    pub(crate) record: ExtentRecord,
    /// Chunks that may lie on drives but that nothing will refer to.
    pub(crate) strays: Vec<GarbageExtent>,
}

/// What became of one extent so far. Dropped before [`Attempts::settle`] — the write failed, or whoever waited for it
/// is gone — all chunks that may lie on drives go to `abandon`.
struct Attempts<F: Fn(GarbageExtent)> {
    abandon: F,
    excluded: Excluded,
    /// Chunks of earlier placements.
    strays: Vec<GarbageExtent>,
    /// Chunks sent, wherever to, under the placement at hand.
    sent: Option<GarbageExtent>,
}

impl<F: Fn(GarbageExtent)> Attempts<F> {
    fn new(abandon: F) -> Self {
        Self { abandon, excluded: Excluded::default(), strays: Vec::new(), sent: None }
    }

    fn begin(&mut self, extent: ExtentId, drives: &[DriveId]) {
        self.strays.extend(self.sent.take());
        self.sent = Some(GarbageExtent { id: extent, chunks: (0..).zip(drives.iter().copied()).collect() });
    }

    fn replaced(&mut self, slot: u8, drive: DriveId) {
        if let Some(sent) = &mut self.sent {
            sent.chunks.push((slot, drive));
        }
    }

    /// Chunks that may lie on drives though `record`, which is safe, does not refer to them: a drive that failed or did
    /// not answer may hold its chunk nevertheless.
    fn settle(mut self, record: &ExtentRecord) -> Vec<GarbageExtent> {
        if let Some(mut sent) = self.sent.take() {
            sent.chunks.retain(|(slot, drive)| record.drives.get(usize::from(*slot)) != Some(drive));
            self.strays.push(sent);
        }
        self.strays.retain(|stray| !stray.chunks.is_empty());
        std::mem::take(&mut self.strays)
    }
}

impl<F: Fn(GarbageExtent)> Drop for Attempts<F> {
    fn drop(&mut self) {
        self.strays.drain(..).chain(self.sent.take()).for_each(&self.abandon);
    }
}

/// Drives that this write does not try again.
#[derive(Debug, Default, PartialEq, Eq)]
struct Excluded {
    drives: Vec<DriveId>,
    /// Those of them that are full.
    full: Vec<DriveId>,
}

impl Excluded {
    /// A node that cannot be reached takes all its drives with it; waiting for each of them would cost a deadline.
    fn note(&mut self, topology: &Topology, drive: DriveId, fault: &Fault) {
        let node = topology.nodes.values().find(|node| node.drives.contains(&drive));
        match (fault, node) {
            (Fault::Unreachable { .. } | Fault::NotServing, Some(node)) => self.drives.extend(&node.drives),
            _ => self.drives.push(drive),
        }
        if *fault == Fault::DriveFull {
            self.full.push(drive);
        }
    }

    /// What the client is told: that the cluster is full only if it would take the write with space on the drives that
    /// said they are full.
    fn refusal(
        &self,
        refusal: Refusal,
        place_without: impl FnOnce(&[DriveId]) -> Result<Placement, Refusal>,
    ) -> StoreError {
        let failed: Vec<DriveId> = self.drives.iter().copied().filter(|drive| !self.full.contains(drive)).collect();
        match refusal {
            Refusal::TooFewDomains { up, needed }
                if self.full.is_empty() || matches!(place_without(&failed), Err(Refusal::TooFewDomains { .. })) =>
            {
                Unavailable::TooFewDomains { up, needed }.into()
            }
            Refusal::TooFewDomains { .. } | Refusal::Full => StoreError::Full,
        }
    }
}

impl ExtentWriter {
    pub(crate) fn new(member: Arc<Member>, chunks: ChunkClient) -> Self {
        Self { member, chunks, log_limit: Arc::default() }
    }

    /// Stores the first `len` bytes of `buffer`, which is padded with zeros, as an extent of `owner`. When it returns,
    /// all `k + m` chunks are durable on distinct domains. Dropped midway, it hands what it sent to the garbage worker.
    pub(crate) async fn write(&self, owner: Owner, buffer: AlignedBuf, len: u32) -> Result<Written, StoreError> {
        let bytes = buffer.freeze();
        let mut attempts = Attempts::new(|stray| self.member.abandon(stray));
        // Each placement that fails excludes at least one of its drives, so there are no more than drives.
        loop {
            let extent = self.member.randomness().with(ExtentId::random);
            let placement = self
                .place(extent, len, &attempts.excluded.drives)
                .map_err(|refusal| attempts.excluded.refusal(refusal, |failed| self.place(extent, len, failed)))?;
            let chunks = self.seal(extent, &owner, &bytes, len, &placement)?;
            attempts.begin(extent, &placement.drives);
            if let Some(record) = self.send_all(extent, len, placement, chunks, &mut attempts).await {
                let strays = attempts.settle(&record);
                return Ok(Written { record, strays });
            }
        }
    }

    fn place(&self, extent: ExtentId, len: u32, exclude: &[DriveId]) -> Result<Placement, Refusal> {
        place(&self.member.topology(), &self.member.health(), &self.want(extent, len, exclude))
    }

    fn want<'w>(&self, extent: ExtentId, len: u32, exclude: &'w [DriveId]) -> Want<'w> {
        Want { extent, len, exclude, local: Some(self.member.node()) }
    }

    /// Cuts the padded buffer into k slices, computes m parity chunks and hashes all of them.
    fn seal(
        &self,
        extent: ExtentId,
        owner: &Owner,
        bytes: &Bytes,
        len: u32,
        placement: &Placement,
    ) -> Result<Vec<SealedChunk>, StoreError> {
        let scheme = placement.scheme;
        let payloads = self.encode(bytes, len, placement)?;
        let header = |slot| ChunkHeader {
            chunk: ChunkId { extent, slot },
            scheme,
            extent_len: len,
            cluster: *self.member.cluster().as_bytes(),
            owner: owner.clone(),
            payload_len: scheme.chunk_len(len),
            created_ms: self.member.now_ms(),
        };
        let seal = |(slot, payload)| SealedChunk::seal(header(slot), vec![payload]);
        let sealed: Result<_, _> = (0_u8..).zip(payloads).map(seal).collect();
        sealed.map_err(|error| StoreError::Internal(format!("sealing an extent of {len} bytes: {error}")))
    }

    fn encode(&self, bytes: &Bytes, len: u32, placement: &Placement) -> Result<Vec<Bytes>, StoreError> {
        let scheme = placement.scheme;
        let chunk_len = scheme.chunk_len(len) as usize;
        let data_count = usize::from(scheme.data);
        let mut payloads: Vec<Bytes> =
            (0..data_count).map(|slot| bytes.slice(slot * chunk_len..(slot + 1) * chunk_len)).collect();
        if scheme.data == 1 {
            payloads.resize(scheme.chunk_count(), payloads[0].clone());
            return Ok(payloads);
        }
        let mut parity = self.member.buffers().take(usize::from(scheme.parity) * chunk_len);
        {
            let data: Vec<&[u8]> = payloads.iter().map(Bytes::as_ref).collect();
            let mut slices: Vec<&mut [u8]> = parity.chunks_exact_mut(chunk_len).collect();
            self.member
                .codecs()
                .get(scheme)
                .and_then(|codec| codec.encode(&data, &mut slices))
                .map_err(|error| StoreError::Internal(format!("encoding {scheme}: {error}")))?;
        }
        let parity = parity.freeze();
        payloads
            .extend((0..usize::from(scheme.parity)).map(|slot| parity.slice(slot * chunk_len..(slot + 1) * chunk_len)));
        Ok(payloads)
    }

    /// Sends every chunk; a chunk whose drive fails goes to another drive. `None` when no drive is left for a chunk
    /// under this placement.
    async fn send_all(
        &self,
        extent: ExtentId,
        len: u32,
        mut placement: Placement,
        chunks: Vec<SealedChunk>,
        attempts: &mut Attempts<impl Fn(GarbageExtent)>,
    ) -> Option<ExtentRecord> {
        let mut sending: FuturesUnordered<_> = (0_u8..)
            .zip(chunks)
            .map(|(slot, chunk)| self.send(slot, placement.drives[usize::from(slot)], chunk))
            .collect();
        let mut complete = true;
        while let Some(sent) = sending.next().await {
            let Err(fault) = sent.outcome else { continue };
            if let Some(unsaid) = self.log_limit.note(Instant::now()) {
                tracing::warn!(
                    drive = %sent.drive, %extent, slot = sent.slot, %fault, unsaid, "a chunk could not be stored"
                );
            }
            self.member.metrics().chunk_write_failures.inc();
            attempts.excluded.note(&self.member.topology(), sent.drive, &fault);
            match self.replace(extent, len, &mut placement, sent.slot, &attempts.excluded.drives) {
                Ok(drive) => {
                    attempts.replaced(sent.slot, drive);
                    sending.push(self.send(sent.slot, drive, sent.chunk));
                }
                Err(_) => complete = false,
            }
        }
        let Placement { scheme, drives } = placement;
        complete.then_some(ExtentRecord { id: extent, len, scheme, drives })
    }

    fn replace(
        &self,
        extent: ExtentId,
        len: u32,
        placement: &mut Placement,
        slot: u8,
        failed: &[DriveId],
    ) -> Result<DriveId, Refusal> {
        let (topology, health) = (self.member.topology(), self.member.health());
        let slot = usize::from(slot);
        let drive = place_replacement(&topology, &health, &self.want(extent, len, failed), &placement.drives, slot)?;
        placement.drives[slot] = drive;
        self.member.metrics().chunk_write_replacements.inc();
        Ok(drive)
    }

    async fn send(&self, slot: u8, drive: DriveId, chunk: SealedChunk) -> Sent {
        let outcome = self.chunks.write(drive, chunk.clone(), AppendClass::Client).await;
        Sent { slot, drive, chunk, outcome }
    }
}

struct Sent {
    slot: u8,
    drive: DriveId,
    chunk: SealedChunk,
    outcome: Result<(), Fault>,
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::ids::Scheme;
    use crate::placement::{DriveCondition, Health};
    use crate::topology::tests::cluster;

    fn unreachable() -> Fault {
        Fault::Unreachable { reason: "gone".to_owned(), may_have_acted: true }
    }

    fn drives_of(topology: &Topology, node: usize) -> Vec<DriveId> {
        topology.nodes.values().nth(node).unwrap().drives.clone()
    }

    fn told(topology: &Topology, excluded: &Excluded) -> StoreError {
        let drives = topology.nodes.values().flat_map(|node| node.drives.clone());
        let up = DriveCondition::Up { free_bytes: 1 << 40, weight_percent: 100 };
        let health: Health = drives.map(|drive| (drive, up)).collect();
        let place_without = |exclude: &[DriveId]| {
            place(topology, &health, &Want { extent: ExtentId::from_bytes([1; 16]), len: 1, exclude, local: None })
        };
        excluded.refusal(place_without(&excluded.drives).unwrap_err(), place_without)
    }

    #[test]
    fn a_write_that_is_dropped_abandons_every_chunk_it_sent_and_a_finished_one_what_it_replaced() {
        let (first, second) = (ExtentId::from_bytes([1; 16]), ExtentId::from_bytes([2; 16]));
        let drive = |n: u8| DriveId::from_bytes([n; 8]);
        let garbage = |id, chunks: &[(u8, DriveId)]| GarbageExtent { id, chunks: chunks.to_vec() };
        let abandoned = RefCell::new(Vec::new());
        let attempt = || {
            let mut attempts = Attempts::new(|stray| abandoned.borrow_mut().push(stray));
            attempts.begin(first, &[drive(1), drive(2)]);
            attempts.begin(second, &[drive(3), drive(4)]);
            attempts.replaced(1, drive(5));
            attempts
        };
        let given_up = garbage(first, &[(0, drive(1)), (1, drive(2))]);
        drop(attempt());
        let sent = garbage(second, &[(0, drive(3)), (1, drive(4)), (1, drive(5))]);
        assert_eq!(abandoned.take(), [given_up.clone(), sent]);
        let scheme = Scheme { data: 1, parity: 1 };
        let record = ExtentRecord { id: second, len: 1, scheme, drives: vec![drive(3), drive(5)] };
        assert_eq!(attempt().settle(&record), [given_up, garbage(second, &[(1, drive(4))])]);
        assert_eq!(abandoned.take(), []);
    }

    #[test]
    fn an_unreachable_node_is_excluded_with_all_its_drives_and_a_failed_drive_alone() {
        let topology = cluster(&[None; 3], 2);
        let mut excluded = Excluded::default();
        excluded.note(&topology, drives_of(&topology, 0)[0], &unreachable());
        excluded.note(&topology, drives_of(&topology, 1)[0], &Fault::DriveFailed { reason: "EIO".to_owned() });
        let expected = [drives_of(&topology, 0), vec![drives_of(&topology, 1)[0]]].concat();
        assert_eq!(excluded, Excluded { drives: expected, full: vec![] });
    }

    #[test]
    fn a_write_is_refused_as_full_only_if_space_would_help() {
        let topology = cluster(&[None; 3], 1);
        let refused = |faults: [Fault; 2]| {
            let mut excluded = Excluded::default();
            for (node, fault) in faults.iter().enumerate() {
                excluded.note(&topology, drives_of(&topology, node)[0], fault);
            }
            told(&topology, &excluded)
        };
        let too_few = StoreError::from(Unavailable::TooFewDomains { up: 1, needed: 2 });
        assert_eq!(refused([Fault::DriveFull, Fault::DriveFull]), StoreError::Full);
        assert_eq!(refused([Fault::DriveFull, unreachable()]), StoreError::Full);
        assert_eq!(refused([unreachable(), unreachable()]), too_few);
    }
}
