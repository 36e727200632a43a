//! The consensus library's own suite for storage, against ours.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, StorageError};
use tokio::time::Instant;

use super::harness::{CountingMap, GROUP};
use crate::beat::Beat;
use crate::consensus::codec::v1;
use crate::consensus::keys;
use crate::consensus::log::Log;
use crate::consensus::machine::{Applied, Machine};
use crate::consensus::raft::{Entry, LogId, Types};
use crate::consensus::runtime::{GroupRuntime, Ticks};
use crate::consensus::view::State;
use crate::kv::{Batch, Executor, KeyRange, Kv, KvView, LogMetrics, LogWriter, MemoryKv, Space};

struct Builder;

impl StoreBuilder<Types, Log, Machine, ()> for Builder {
    async fn build(&self) -> Result<((), Log, Machine), StorageError<Types>> {
        let kv: Arc<dyn Kv> = Arc::new(MemoryKv::new());
        let writer = LogWriter::start(
            Arc::clone(&kv),
            Executor::Tasks { sync_delay: Duration::ZERO },
            LogMetrics::unregistered(),
        )
        .unwrap();
        let log = Log::open(GROUP, Arc::clone(&kv), writer.clone(), 1 << 10).unwrap();
        let (sweeper, _) = tokio::sync::mpsc::unbounded_channel();
        let state = Arc::new(State::new(Arc::clone(&kv), GROUP, 1, 2, sweeper));
        let applied = Applied::read(&*kv, GROUP).unwrap();
        let machine = Machine::new(state, writer, Arc::new(CountingMap), applied).unwrap();
        Ok(((), log, machine))
    }
}

fn log_id(index: u64) -> LogId {
    v1::LogId { term: 1, leader: 1, index }.into()
}

#[tokio::test(start_paused = true)]
async fn a_purge_far_beyond_the_log_deletes_only_what_is_there() {
    let kv = Arc::new(MemoryKv::new());
    let metrics = LogMetrics::unregistered();
    let executor = Executor::Tasks { sync_delay: Duration::ZERO };
    let writer = LogWriter::start(Arc::clone(&kv) as Arc<dyn Kv>, executor, metrics.clone()).unwrap();
    let mut log = Log::open(GROUP, Arc::clone(&kv) as Arc<dyn Kv>, writer.clone(), 1 << 10).unwrap();
    let entries = (0..10).map(|index| Entry { log_id: log_id(index), payload: EntryPayload::Blank });
    log.append(entries, IOFlushed::noop()).await.unwrap();
    writer.write_durably(Batch::new()).await.unwrap();
    let before = metrics.bytes.get();
    log.purge(log_id(10_000_000)).await.unwrap();
    writer.write_durably(Batch::new()).await.unwrap();
    let written = metrics.bytes.get() - before;
    assert!(written < 1_000, "{written} bytes to delete ten entries");
    let state = log.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(10_000_000)), Some(log_id(10_000_000))));
    let mut left = 0;
    kv.scan(Space::Log, &KeyRange::prefix(&keys::entries(GROUP)), &mut |_, _| {
        left += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test(start_paused = true)]
async fn our_storage_passes_the_suite_of_the_library() {
    let ticks = Ticks { beat: Beat::new(Instant::now(), Duration::ZERO), period: Duration::from_millis(100) };
    GroupRuntime::scope(1, ticks, Suite::<Types, Log, Machine, Builder, ()>::test_all(Builder)).await.unwrap();
}
