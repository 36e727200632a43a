//! The log and the vote of a replica, in the drive's shared store.
//!
//! Appends are answered once the drive's [`LogWriter`] has synced them; votes are durable before they are answered.
//! Recent entries stay in memory, so that replicating and applying them does not read the store.
//!
//! Invariants:
//! - entries in the store are contiguous after every prefix of writes: truncation deletes from the newest backwards, and
//!   purging deletes behind the `purged` record;
//! - log entries are purged only after a sync that covers the state they led to, so that a crash cannot leave a state
//!   behind that the log no longer reaches.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, ControlFlow, Range, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::Stream;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};

use super::codec::{self, v1};
use super::error::StartError;
use super::ids::GroupId;
use super::keys;
use super::raft::{Entry, LogId, Types, Vote};
use crate::kv::{Batch, KeyRange, Kv, KvError, LogWriter, Space};

/// Bytes of entries read from the log at once, for one message or one batch to apply; one entry may exceed it.
const READ_BYTES_MAX: usize = 1 << 20;
/// Keys deleted by one batch.
const DELETE_COUNT_MAX: u64 = 2_000;

struct Cached {
    entry: Entry,
    len: usize,
}

/// What is known of the log without reading it. `recent` ends at `last` and is contiguous.
#[derive(Default)]
struct Cache {
    recent: VecDeque<Cached>,
    recent_bytes: usize,
    last: Option<LogId>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    /// Everything before this index is written to the store; what is not must stay in `recent`.
    written_before: u64,
}

impl Cache {
    fn next_index(&self) -> u64 {
        next_index(self.last.or(self.purged))
    }

    fn first_recent(&self) -> Option<u64> {
        self.recent.front().map(|cached| cached.entry.log_id.index)
    }

    fn push(&mut self, entry: Entry, len: usize) {
        self.last = Some(entry.log_id);
        self.recent_bytes += len;
        self.recent.push_back(Cached { entry, len });
    }

    fn evict(&mut self, bytes_max: usize) {
        while self.recent_bytes > bytes_max {
            match self.recent.front() {
                Some(front) if front.entry.log_id.index < self.written_before => {
                    self.recent_bytes -= front.len;
                    self.recent.pop_front();
                }
                _ => return,
            }
        }
    }

    fn truncate_after(&mut self, last: Option<LogId>) {
        let next = next_index(last);
        if next >= self.next_index() {
            return;
        }
        while self.recent.back().is_some_and(|back| back.entry.log_id.index >= next) {
            if let Some(back) = self.recent.pop_back() {
                self.recent_bytes -= back.len;
            }
        }
        self.last = last.or(self.purged);
        self.written_before = self.written_before.min(next);
    }

    fn purge(&mut self, upto: LogId) {
        while self.recent.front().is_some_and(|front| front.entry.log_id.index <= upto.index) {
            if let Some(front) = self.recent.pop_front() {
                self.recent_bytes -= front.len;
            }
        }
        self.purged = Some(upto);
        if self.last.is_none_or(|last| last.index <= upto.index) {
            self.last = Some(upto);
            self.written_before = self.written_before.max(upto.index + 1);
        }
    }
}

fn next_index(id: Option<LogId>) -> u64 {
    id.map_or(0, |id| id.index + 1)
}

struct Shared {
    group: GroupId,
    kv: Arc<dyn Kv>,
    writer: LogWriter,
    cache_bytes_max: usize,
    cache: Mutex<Cache>,
}

/// The log of one replica. Clones are handles of the same log.
#[derive(Clone)]
pub(super) struct Log {
    shared: Arc<Shared>,
}

impl Log {
    /// Reads what is stored: vote, purge mark and the end of the log.
    pub(super) fn open(
        group: GroupId,
        kv: Arc<dyn Kv>,
        writer: LogWriter,
        cache_bytes_max: usize,
    ) -> Result<Self, StartError> {
        let damaged = |record| StartError::Damaged { group, record };
        let vote = match kv.get(Space::Log, &keys::vote(group))? {
            Some(record) => Some(codec::decode::<v1::Vote>(&record).map_err(|_| damaged("the vote"))?.into()),
            None => None,
        };
        let purged: Option<LogId> = match kv.get(Space::Log, &keys::purged(group))? {
            Some(record) => Some(codec::decode::<v1::LogId>(&record).map_err(|_| damaged("the purge mark"))?.into()),
            None => None,
        };
        let end = find_end(&*kv, group, next_index(purged))?;
        let last = match end.checked_sub(1).filter(|last| *last >= next_index(purged)) {
            Some(last) => {
                let record = kv.get(Space::Log, &keys::entry(group, last))?;
                let entry = record.as_deref().map(decode_entry);
                Some(entry.and_then(Result::ok).ok_or(damaged("the last log entry"))?.log_id)
            }
            None => purged,
        };
        let cache = Cache { last, purged, vote, written_before: end, ..Cache::default() };
        let log = Self { shared: Arc::new(Shared { group, kv, writer, cache_bytes_max, cache: Mutex::new(cache) }) };
        if let Some(purged) = purged {
            log.delete_leftovers(purged)?;
        }
        Ok(log)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.shared.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deletes entries behind the purge mark, which a crash in the middle of purging leaves.
    fn delete_leftovers(&self, purged: LogId) -> Result<(), KvError> {
        let group = self.shared.group;
        let range = KeyRange {
            start: Bound::Included(keys::entries(group)),
            end: Bound::Included(keys::entry(group, purged.index)),
        };
        let (mut first, mut end) = (None, 0);
        self.shared.kv.scan(Space::Log, &range, &mut |key, _| {
            let index = keys::entry_index(key);
            first = first.or(index);
            end = index.map_or(end, |index| index + 1);
            ControlFlow::Continue(())
        })?;
        if let Some(first) = first {
            self.submit_deletes(first..end, None);
        }
        Ok(())
    }

    /// Deletes entries oldest first, in bounded batches. `mark` goes with the first batch.
    fn submit_deletes(&self, indexes: Range<u64>, mark: Option<LogId>) {
        let group = self.shared.group;
        let mut batch = Batch::new();
        if let Some(mark) = mark {
            batch.put(Space::Log, keys::purged(group), codec::encode(&v1::LogId::from(mark)));
        }
        for (count, index) in (1..).zip(indexes) {
            batch.delete(Space::Log, keys::entry(group, index));
            if count % DELETE_COUNT_MAX == 0 {
                self.shared.writer.submit(std::mem::take(&mut batch), log_failure);
            }
        }
        if !batch.is_empty() {
            self.shared.writer.submit(batch, log_failure);
        }
    }

    /// The entries from `start` on, before `end`, up to [`READ_BYTES_MAX`] but at least one.
    fn read(&self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let (cached_from, start, end) = {
            let cache = self.cache();
            let start = start.max(next_index(cache.purged));
            let end = end.min(cache.next_index());
            let cached_from = cache.first_recent().unwrap_or(end);
            if start >= cached_from {
                return Ok(take_cached(&cache.recent, start - cached_from, end));
            }
            (cached_from, start, end)
        };
        let stored = self.read_stored(start, end.min(cached_from))?;
        if !stored.is_empty() {
            return Ok(stored);
        }
        let cache = self.cache();
        let skip = cached_from.saturating_sub(cache.first_recent().unwrap_or(cached_from));
        Ok(take_cached(&cache.recent, skip, end))
    }

    fn read_stored(&self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        if start >= end {
            return Ok(Vec::new());
        }
        let group = self.shared.group;
        let range = KeyRange::half_open(keys::entry(group, start), keys::entry(group, end));
        let mut entries = Vec::new();
        let mut len = 0;
        let mut damaged = false;
        self.shared.kv.scan(Space::Log, &range, &mut |_, record| {
            let Ok(entry) = decode_entry(record) else {
                damaged = true;
                return ControlFlow::Break(());
            };
            entries.push(entry);
            len += record.len();
            if len >= READ_BYTES_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if damaged {
            return Err(io::Error::other(KvError::Read {
                reason: format!("log entry of {group} at {start} is damaged"),
            }));
        }
        Ok(entries)
    }
}

/// Entries that begin later than asked for, or skip some, would leave a hole in a follower's log or in the state.
fn check_contiguous(entries: &[Entry], start: u64) -> io::Result<()> {
    let contiguous = entries.iter().zip(start..).all(|(entry, index)| entry.log_id.index == index);
    if contiguous { Ok(()) } else { Err(io::Error::other(format!("log entries from {start} on are missing"))) }
}

fn take_cached(recent: &VecDeque<Cached>, skip: u64, end: u64) -> Vec<Entry> {
    let mut len = 0;
    let mut entries = Vec::new();
    for cached in recent.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)) {
        if cached.entry.log_id.index >= end || len >= READ_BYTES_MAX {
            break;
        }
        len += cached.len;
        entries.push(cached.entry.clone());
    }
    entries
}

/// The index after the last stored entry, given that entries from `first` on are contiguous: gallop, then bisect.
fn find_end(kv: &dyn Kv, group: GroupId, first: u64) -> Result<u64, KvError> {
    let exists = |index| kv.get(Space::Log, &keys::entry(group, index)).map(|record| record.is_some());
    let mut step = 1;
    let mut present = first;
    if !exists(first)? {
        return Ok(first);
    }
    while exists(present + step)? {
        present += step;
        step *= 2;
    }
    let mut absent = present + step;
    while absent - present > 1 {
        let middle = present + (absent - present) / 2;
        if exists(middle)? {
            present = middle;
        } else {
            absent = middle;
        }
    }
    Ok(absent)
}

fn decode_entry(record: &[u8]) -> Result<Entry, codec::Malformed> {
    codec::decode::<v1::Entry>(record)?.try_into()
}

/// The writer has remembered the error and every replica of the drive stops; here is nothing left to do.
fn log_failure(result: Result<(), KvError>) {
    if let Err(error) = result {
        tracing::warn!(%error, "could not delete old log entries");
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<Types> for Log {
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let log = self.clone();
        // Read piece by piece: a replica that starts far behind must not hold its whole log in memory.
        futures_util::stream::unfold((start, VecDeque::new(), false), move |(start, mut ready, failed)| {
            let log = log.clone();
            async move {
                if failed {
                    return None;
                }
                if ready.is_empty() {
                    let read = log.read(start, end);
                    match read.and_then(|entries| check_contiguous(&entries, start).map(|()| entries)) {
                        Ok(entries) => ready.extend(entries),
                        Err(error) => return Some((Err(error), (start, ready, true))),
                    }
                }
                let entry: Entry = ready.pop_front()?;
                let next = entry.log_id.index + 1;
                Some((Ok(entry), (next, ready, false)))
            }
        })
    }

    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (mut start, end) = bounds(&range);
        let mut entries = Vec::new();
        loop {
            let part = self.read(start, end)?;
            let Some(last) = part.last() else {
                return Ok(entries);
            };
            start = last.log_id.index + 1;
            entries.extend(part);
        }
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.cache().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let entries = self.read(start, end)?;
        check_contiguous(&entries, start)?;
        Ok(entries)
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let cache = self.cache();
        Ok(LogState { last_purged_log_id: cache.purged, last_log_id: cache.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let mut batch = Batch::new();
        batch.put(Space::Log, keys::vote(self.shared.group), codec::encode(&v1::Vote::from(*vote)));
        self.shared.writer.write_durably(batch).await?;
        self.cache().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut batch = Batch::new();
        {
            let mut cache = self.cache();
            for entry in entries {
                let record = codec::encode(&v1::Entry::from(&entry));
                let len = record.len();
                batch.put(Space::Log, keys::entry(self.shared.group, entry.log_id.index), record);
                cache.push(entry, len);
            }
        }
        let written_before = self.cache().next_index();
        let shared = Arc::downgrade(&self.shared);
        self.shared.writer.submit(batch, move |result| {
            if let (Ok(()), Some(shared)) = (&result, shared.upgrade()) {
                let mut cache = shared.cache.lock().unwrap_or_else(PoisonError::into_inner);
                // A truncation may have come since; it has lowered the end.
                let written_before = written_before.min(cache.next_index());
                cache.written_before = cache.written_before.max(written_before);
                cache.evict(shared.cache_bytes_max);
            }
            callback.io_completed(result.map_err(Into::into));
        });
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let group = self.shared.group;
        let (next, end) = {
            let mut cache = self.cache();
            let end = cache.next_index();
            cache.truncate_after(last);
            (next_index(last), end)
        };
        let mut batch = Batch::new();
        for (count, index) in (1..).zip((next..end).rev()) {
            batch.delete(Space::Log, keys::entry(group, index));
            if count % DELETE_COUNT_MAX == 0 {
                self.shared.writer.submit(std::mem::take(&mut batch), log_failure);
            }
        }
        self.shared.writer.write_durably(batch).await?;
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        // A barrier: whatever state was applied from these entries is durable before they go.
        self.shared.writer.write_durably(Batch::new()).await?;
        let stored = {
            let mut cache = self.cache();
            // A state that was taken over whole is ahead of the log, maybe by millions of entries that never were here.
            let stored = next_index(cache.purged)..cache.next_index().min(upto.index + 1);
            cache.purge(upto);
            stored
        };
        self.submit_deletes(stored, Some(upto));
        Ok(())
    }
}
