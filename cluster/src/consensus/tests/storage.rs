//! The consensus library's own suite for storage, against ours.

use std::sync::Arc;
use std::time::Duration;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tokio::time::Instant;

use super::harness::{CountingMap, GROUP};
use crate::beat::Beat;
use crate::consensus::log::Log;
use crate::consensus::machine::{Applied, Machine};
use crate::consensus::raft::Types;
use crate::consensus::runtime::{GroupRuntime, Ticks};
use crate::consensus::view::State;
use crate::kv::{Executor, Kv, LogMetrics, LogWriter, MemoryKv};

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

#[tokio::test(start_paused = true)]
async fn our_storage_passes_the_suite_of_the_library() {
    let ticks = Ticks { beat: Beat::new(Instant::now(), Duration::ZERO), period: Duration::from_millis(100) };
    GroupRuntime::scope(1, ticks, Suite::<Types, Log, Machine, Builder, ()>::test_all(Builder)).await.unwrap();
}
