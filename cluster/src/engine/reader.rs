//! An opened version and the stream of its bytes: reads ahead within a byte budget, in order.
//!
//! Each piece is read by a task of its own, so that its bytes leave the transport when they arrive and not when the
//! client takes them: what a slow client left there would fill the connection's window, which it shares with index
//! calls and other clients' chunks, and would make healthy drives look slow.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio_util::task::AbortOnDropHandle;

use super::Engine;
use super::body_writer::EXTENT_LEN_MAX;
use super::index_client::Found;
use super::piece::{Piece, plan_extents, plan_pieces};
use crate::ids::{BucketId, UploadId, VersionId};
use crate::index::{Content, ExtentRecord, ObjectEntry, PartRecord, PartRef};
use crate::member::Admitted;
use crate::store::{Key, ObjectHead, PartSpan, Read, Reader, StoreError, Unavailable};

/// Most bytes read ahead of the client. Two extents' worth of half chunks: keeps every drive of a small cluster busy.
const READ_AHEAD_BYTES_MAX: u64 = 4 << 20;
/// Part records fetched at once. An object of no more parts stays readable when it is overwritten meanwhile, for as long
/// as its chunks do.
const PART_RECORDS_AHEAD: usize = 1000;
/// Extents in the part records fetched at once, beyond those of the first: some 1 MiB of records, so that the answer
/// fits one message however large the parts are.
const PART_EXTENTS_AHEAD: u64 = 8192;

/// An opened version.
pub struct ClusterReader {
    engine: Arc<Engine>,
    bucket: BucketId,
    key: Key,
    head: ObjectHead,
    content: Content,
}

impl ClusterReader {
    pub(super) fn new(engine: Arc<Engine>, bucket: BucketId, key: Key, entry: ObjectEntry) -> Self {
        let head = ObjectHead {
            version: entry.version,
            len: entry.len,
            etag: entry.etag,
            modified_ms: entry.modified_ms,
            metadata: entry.metadata,
            checksum: entry.checksum,
            parts: spans(&entry.content),
        };
        Self { engine, bucket, key, head, content: entry.content }
    }
}

fn spans(content: &Content) -> Vec<PartSpan> {
    let Content::Parts { parts, .. } = content else { return Vec::new() };
    let mut offset = 0;
    let mut spans = Vec::with_capacity(parts.len());
    for part in parts {
        spans.push(PartSpan { number: part.number, offset, len: part.len, checksum: part.checksum.clone() });
        offset += part.len;
    }
    spans
}

impl Reader for ClusterReader {
    type Read = ClusterRead;

    fn head(&self) -> &ObjectHead {
        &self.head
    }

    fn read(&self, range: Range<u64>) -> ClusterRead {
        let mut read = ClusterRead::new(Arc::clone(&self.engine));
        match &self.content {
            Content::Inline(bytes) => read.ready.push_back(slice(&bytes.0, &range)),
            Content::Extents(extents) => read.plan_extents(extents, range),
            Content::Parts { upload, parts } => {
                read.parts = Some(PartsAhead {
                    bucket: self.bucket,
                    key: self.key.clone(),
                    upload: *upload,
                    version: self.head.version,
                    waiting: plan_parts(parts, range),
                });
            }
        }
        read
    }
}

fn slice(bytes: &Bytes, range: &Range<u64>) -> Bytes {
    let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(at(range.start)..at(range.end))
}

/// A part whose bytes are needed.
#[derive(Debug, PartialEq, Eq)]
struct NeededPart {
    number: u32,
    /// Length in bytes of the whole part.
    len: u64,
    /// Bytes needed of it.
    range: Range<u64>,
}

/// The parts that cover the bytes `range`, in order.
fn plan_parts(parts: &[PartRef], range: Range<u64>) -> VecDeque<NeededPart> {
    let mut offset = 0;
    let mut planned = VecDeque::new();
    for part in parts {
        let (from, to) = (range.start.max(offset), range.end.min(offset + part.len));
        if from < to {
            planned.push_back(NeededPart { number: part.number, len: part.len, range: from - offset..to - offset });
        }
        offset += part.len;
    }
    planned
}

/// How many of the records of `waiting` to fetch at once: no more than are needed, and no more than fit a message.
fn count_records_ahead(waiting: &VecDeque<NeededPart>) -> u32 {
    let mut extent_count = 0;
    let fits = |part: &&NeededPart| {
        let fits = extent_count <= PART_EXTENTS_AHEAD;
        extent_count += part.len.div_ceil(EXTENT_LEN_MAX);
        fits
    };
    let count = waiting.iter().take(PART_RECORDS_AHEAD).take_while(fits).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The bytes of a range on their way to the client.
pub struct ClusterRead {
    engine: Arc<Engine>,
    parts: Option<PartsAhead>,
    planned: VecDeque<Step>,
    ahead: VecDeque<Ahead>,
    ready: VecDeque<Bytes>,
    /// The memory of what is ready.
    ready_admitted: Option<Admitted>,
}

/// What comes next for the client.
enum Step {
    Piece(Arc<ExtentRecord>, Piece),
    /// Bytes of a part so small that they lie in its record.
    Inline(Bytes),
}

/// A step that was begun.
enum Ahead {
    Piece { len: u64, reading: AbortOnDropHandle<Result<Vec<Bytes>, StoreError>>, admitted: Option<Admitted> },
    Inline(Bytes),
}

impl Ahead {
    fn len(&self) -> u64 {
        match self {
            Self::Piece { len, .. } => *len,
            Self::Inline(bytes) => bytes.len() as u64,
        }
    }
}

/// Parts whose records are not read yet.
struct PartsAhead {
    bucket: BucketId,
    key: Key,
    upload: UploadId,
    version: VersionId,
    waiting: VecDeque<NeededPart>,
}

impl ClusterRead {
    fn new(engine: Arc<Engine>) -> Self {
        Self {
            engine,
            parts: None,
            planned: VecDeque::new(),
            ahead: VecDeque::new(),
            ready: VecDeque::new(),
            ready_admitted: None,
        }
    }

    fn plan_extents(&mut self, extents: &[ExtentRecord], range: Range<u64>) {
        for (index, range) in plan_extents(extents, range) {
            let extent = Arc::new(extents[index].clone());
            let pieces = plan_pieces(&extent, range);
            self.planned.extend(pieces.into_iter().map(|piece| Step::Piece(Arc::clone(&extent), piece)));
        }
    }

    /// Reads the records of the next parts and plans their pieces.
    async fn plan_next_parts(&mut self) -> Result<(), StoreError> {
        let Some(parts) = &mut self.parts else { return Ok(()) };
        let Some(first) = parts.waiting.front() else { return Ok(()) };
        let records = parts.read_records(&self.engine, first.number).await?;
        let mut planned = Vec::new();
        for (number, record) in records {
            if parts.waiting.front().is_some_and(|next| next.number == number)
                && let Some(part) = parts.waiting.pop_front()
            {
                planned.push((record.content, part.range));
            }
        }
        for (content, range) in planned {
            match content {
                Content::Inline(bytes) => self.planned.push_back(Step::Inline(slice(&bytes.0, &range))),
                Content::Extents(extents) => self.plan_extents(&extents, range),
                Content::Parts { .. } => return Err(StoreError::Internal("a part made of parts".to_owned())),
            }
        }
        Ok(())
    }

    /// Begins what is planned, as far as the read-ahead and the node's memory go. The first piece needs no memory of
    /// the node's budget, so that every read makes progress.
    fn start_planned(&mut self) {
        let mut ahead_bytes: u64 = self.ahead.iter().map(Ahead::len).sum();
        while self.ahead.is_empty() || ahead_bytes < READ_AHEAD_BYTES_MAX {
            let begun = match self.planned.pop_front() {
                None => return,
                Some(Step::Inline(bytes)) => Ahead::Inline(bytes),
                Some(Step::Piece(extent, piece)) => {
                    let len = u64::from(piece.len());
                    let admitted = self.engine.member.try_admit_ahead(len);
                    if admitted.is_none() && !self.ahead.is_empty() {
                        return self.planned.push_front(Step::Piece(extent, piece));
                    }
                    let engine = Arc::clone(&self.engine);
                    let reading = tokio::spawn(async move { engine.extents.read(&extent, &piece).await });
                    Ahead::Piece { len, reading: AbortOnDropHandle::new(reading), admitted }
                }
            };
            ahead_bytes += begun.len();
            self.ahead.push_back(begun);
        }
    }

    /// Waits for the first step that was begun; whether there was one. Dropped midway, it loses nothing.
    async fn finish_first(&mut self) -> Result<bool, StoreError> {
        let read = match self.ahead.front_mut() {
            None => return Ok(false),
            Some(Ahead::Inline(_)) => None,
            Some(Ahead::Piece { reading, .. }) => Some(reading.await),
        };
        let (bytes, admitted) = match (read, self.ahead.pop_front()) {
            (Some(read), Some(Ahead::Piece { admitted, .. })) => (read.map_err(ended)??, admitted),
            (_, Some(Ahead::Inline(bytes))) => (vec![bytes], None),
            _ => (Vec::new(), None),
        };
        self.ready.extend(bytes);
        self.ready_admitted = admitted;
        Ok(true)
    }
}

/// A task that read a piece did not come to its end.
fn ended(error: tokio::task::JoinError) -> StoreError {
    if error.is_panic() {
        StoreError::Internal(format!("reading a piece: {error}"))
    } else {
        Unavailable::NotServing("stopping").into()
    }
}

impl PartsAhead {
    /// The next part records that are needed, beginning with that of `first`.
    async fn read_records(&self, engine: &Engine, first: u32) -> Result<Vec<(u32, PartRecord)>, StoreError> {
        let limit = count_records_ahead(&self.waiting);
        let read = || engine.index.parts(self.bucket, &self.key, self.upload, first.saturating_sub(1), limit);
        let has_first = |records: &[(u32, PartRecord)]| records.first().is_some_and(|(number, _)| *number == first);
        let records = read().await?;
        if has_first(&records) {
            return Ok(records);
        }
        self.check_current(engine).await?;
        let records = read().await?;
        if has_first(&records) {
            return Ok(records);
        }
        self.check_current(engine).await?;
        Err(StoreError::Internal(format!("part {first} of a current object has no record")))
    }

    /// Part records go with the version that uses them. The head of this one was handed out already, so its successor's
    /// bytes cannot stand in for it.
    async fn check_current(&self, engine: &Engine) -> Result<(), StoreError> {
        match engine.index.object(self.bucket, &self.key).await? {
            Found::Here(entry) if entry.version == self.version => Ok(()),
            Found::Here(_) | Found::Missing | Found::BucketSealed => Err(Unavailable::Replaced.into()),
        }
    }
}

impl Read for ClusterRead {
    async fn chunk(&mut self) -> Result<Option<Bytes>, StoreError> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                if bytes.is_empty() {
                    continue;
                }
                return Ok(Some(bytes));
            }
            self.ready_admitted = None;
            if self.planned.is_empty() && self.parts.as_ref().is_some_and(|parts| !parts.waiting.is_empty()) {
                self.plan_next_parts().await?;
            }
            self.start_planned();
            if !self.finish_first().await? {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: u32, len: u64) -> PartRef {
        PartRef { number, len, checksum: None }
    }

    #[test]
    fn only_parts_that_hold_bytes_of_the_range_are_needed() {
        let parts = [part(1, 100), part(4, 50), part(9, 70)];
        let needed = |number, len, range| NeededPart { number, len, range };
        assert_eq!(plan_parts(&parts, 90..120), [needed(1, 100, 90..100), needed(4, 50, 0..20)]);
        assert_eq!(plan_parts(&parts, 150..220), [needed(9, 70, 0..70)]);
        assert_eq!(plan_parts(&parts, 100..100), []);
    }

    #[test]
    fn no_more_part_records_are_fetched_than_needed_and_than_fit_a_message() {
        let waiting = |count: u32, len| plan_parts(&(1..=count).map(|n| part(n, len)).collect::<Vec<_>>(), 0..u64::MAX);
        assert_eq!(count_records_ahead(&waiting(3, 5 << 20)), 3);
        assert_eq!(count_records_ahead(&waiting(10_000, 5 << 20)), 1000);
        // A part of 5 GiB has 640 extents: twelve reach 7,680, the thirteenth passes the bound.
        assert_eq!(count_records_ahead(&waiting(1000, 5 << 30)), 13);
        assert_eq!(count_records_ahead(&waiting(1, 5 << 40)), 1);
    }
}
