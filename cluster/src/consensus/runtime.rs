//! The runtime that the consensus library runs on: tokio, with randomness drawn from the group's seed, so that elections
//! repeat exactly in simulation, and with clock ticks on the node's [`Beat`].

use std::fmt;
use std::future::Future;
use std::io;
use std::time::Duration;

use openraft::{AsyncRuntime, OptionalSend, TokioRuntime};
use openraft_rt::deterministic_rng::DeterministicRng;

use crate::beat::Beat;

type Seeded = DeterministicRng<TokioRuntime>;
type Instant = <Seeded as AsyncRuntime>::Instant;

/// Shorter waits are not a clock's: the library waits for a microsecond between two reports of finished syncs. They are
/// never cut short, or a clock that stands still in simulation would be asked again for ever.
const SHORT: Duration = Duration::from_millis(1);

/// When the clocks of a group's library tick.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticks {
    pub(super) beat: Beat,
    pub(super) period: Duration,
}

tokio::task_local! {
    static TICKS: Ticks;
}

/// See the module.
pub(super) struct GroupRuntime(Seeded);

impl GroupRuntime {
    /// Runs `start`, and every task that it spawns through the library, with this seed and these ticks.
    pub(super) async fn scope<F: Future>(seed: u64, ticks: Ticks, start: F) -> F::Output {
        TICKS.scope(ticks, Seeded::scope(seed, start)).await
    }
}

impl fmt::Debug for GroupRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GroupRuntime").field(&self.0).finish()
    }
}

impl AsyncRuntime for GroupRuntime {
    type JoinError = <Seeded as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <Seeded as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <Seeded as AsyncRuntime>::Sleep;
    type Instant = Instant;
    type TimeoutError = <Seeded as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <Seeded as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <Seeded as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <Seeded as AsyncRuntime>::Mpsc;
    type Watch = <Seeded as AsyncRuntime>::Watch;
    type Oneshot = <Seeded as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <Seeded as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        match TICKS.try_with(|ticks| *ticks) {
            Ok(ticks) => Seeded::spawn(TICKS.scope(ticks, future)),
            Err(_) => Seeded::spawn(future),
        }
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Seeded::sleep(duration)
    }

    /// Only the library's clock and its reports of finished syncs sleep until a moment; everything else that waits has a
    /// timeout or a duration, and is not touched.
    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        let now = <Instant as openraft::Instant>::now();
        let left = if deadline > now { deadline - now } else { Duration::ZERO };
        if left <= SHORT {
            return Seeded::sleep(left);
        }
        let now = tokio::time::Instant::now();
        let on_beat = TICKS.try_with(|ticks| ticks.beat.at_or_after(now + left, ticks.period) - now);
        Seeded::sleep(on_beat.unwrap_or(left))
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        Seeded::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        Seeded::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        Seeded::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        Seeded::thread_rng()
    }

    fn new(threads: usize) -> Self {
        Self(Seeded::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }

    fn spawn_blocking<F, T>(work: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        Seeded::spawn_blocking(work)
    }
}
