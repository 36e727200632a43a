//! A cluster on a simulated network, and the hand that crashes its nodes and cuts its cables.
//!
//! Everything runs on the thread that steps the world, in one order: same seed, same course.

use std::cell::Cell;
use std::fmt;
use std::sync::{Arc, Once};
use std::time::Duration;

use drystone_cluster::store::{BucketName, StoreError};
use drystone_erasure::files::SimFault;
use drystone_transport::sim::{Weather, WeatherControl};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::oneshot::error::TryRecvError;

use super::founding::found_cluster;
use super::node::{Node, NodeParts};
use super::service::{Ask, Reply};
use super::trace::Trace;

/// How finely simulated time is cut.
const TICK: Duration = Duration::from_millis(1);
/// The longest a run may take in simulated time; only a bound for turmoil.
const DURATION_MAX: Duration = Duration::from_secs(3_600);
/// Datagrams that wait at a socket, as in a kernel.
const UDP_CAPACITY: usize = 4_096;

/// Events shown of a failure, unless asked for more.
const EVENTS_SHOWN_MAX: usize = 60;

/// Why a run is red.
#[derive(Clone, Debug)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// What a node says to a question.
pub type Answer = Result<Reply, StoreError>;

/// How large a world is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Nodes.
    pub node_count: usize,
    /// Drives of each.
    pub drive_count: usize,
}

/// The cluster and its network.
pub struct World {
    sim: turmoil::Sim<'static>,
    nodes: Vec<Arc<Node>>,
    weather: WeatherControl,
    trace: Trace,
    rng: StdRng,
    panics_before: u64,
    events_shown_max: usize,
}

impl World {
    /// Founds and starts a cluster.
    ///
    /// # Errors
    /// It cannot be founded.
    pub fn new(seed: u64, size: Size) -> Result<Self, Failure> {
        count_panics();
        let mut sim = turmoil::Builder::new()
            .simulation_duration(DURATION_MAX)
            .tick_duration(TICK)
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(4))
            .udp_capacity(UDP_CAPACITY)
            .rng_seed(seed)
            .build();
        let failed = |error: &dyn fmt::Display| Failure(format!("founding: {error}"));
        let bucket = BucketName::new("simulated").map_err(|error| failed(&error))?;
        let addresses: Vec<_> = (1..=size.node_count).map(|number| sim.lookup(format!("n{number}"))).collect();
        let founded = found_cluster(&addresses, size.drive_count, seed).map_err(|error| failed(&error))?;
        let (weather, trace, mut rng) = (WeatherControl::default(), Trace::default(), StdRng::seed_from_u64(seed));
        let mut nodes = Vec::new();
        for one in founded {
            let node = Arc::new(Node::new(NodeParts {
                name: one.name,
                identity: one.identity,
                config: one.config,
                disk: one.disk,
                weather: weather.clone(),
                trace: trace.clone(),
                bucket: bucket.clone(),
                seed: rng.random(),
            }));
            let software = Arc::clone(&node);
            sim.host(node.name.as_str(), move || Arc::clone(&software).live());
            nodes.push(node);
        }
        Ok(Self { sim, nodes, weather, trace, rng, panics_before: PANICS.get(), events_shown_max: EVENTS_SHOWN_MAX })
    }

    /// The nodes, by number.
    #[must_use]
    pub fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// What happened so far.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Shows all events of a failure.
    pub fn show_all_events(&mut self) {
        self.events_shown_max = usize::MAX;
    }

    /// The seeded randomness of whoever drives the world.
    pub fn rng(&mut self) -> &mut StdRng {
        &mut self.rng
    }

    /// Simulated milliseconds since the start.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.trace.now_ms()
    }

    /// Runs clients beside the cluster. They end when they like.
    pub fn add_client(&mut self, name: &str, client: impl Future<Output = ()> + 'static) {
        self.sim.client(name, async move {
            client.await;
            Ok(())
        });
    }

    /// One millisecond of all nodes and the network.
    ///
    /// # Errors
    /// An invariant does not hold, a node did not start, something panicked.
    pub fn step(&mut self) -> Result<(), Failure> {
        self.sim.step().map_err(|error| self.failure(format!("a node failed: {error}")))?;
        let now_ms = u64::try_from(self.sim.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.trace.tick(now_ms, self.weather.traffic());
        if PANICS.get() > self.panics_before {
            return Err(self.failure("something panicked".to_owned()));
        }
        match self.trace.violation() {
            Some(violation) => Err(self.failure(violation)),
            None => Ok(()),
        }
    }

    /// Steps until a moment of simulated time.
    ///
    /// # Errors
    /// As [`World::step`].
    pub fn run_until_ms(&mut self, until_ms: u64) -> Result<(), Failure> {
        while self.now_ms() < until_ms {
            self.step()?;
        }
        Ok(())
    }

    /// Asks a node and steps until it answers. `None`: it does not serve, went away, or did not answer within `limit_ms`.
    ///
    /// # Errors
    /// As [`World::step`].
    pub fn ask(&mut self, node: usize, ask: Ask, limit_ms: u64) -> Result<Option<Answer>, Failure> {
        Ok(self.ask_at_once(vec![(node, ask)], limit_ms)?.pop().flatten())
    }

    /// Asks several questions at once; the answers in the order of the questions, each as from [`World::ask`].
    ///
    /// # Errors
    /// As [`World::step`].
    pub fn ask_at_once(&mut self, asks: Vec<(usize, Ask)>, limit_ms: u64) -> Result<Vec<Option<Answer>>, Failure> {
        let until_ms = self.now_ms() + limit_ms;
        let mut answers = vec![None; asks.len()];
        let mut waiting: Vec<_> = asks
            .into_iter()
            .enumerate()
            .filter_map(|(index, (node, ask))| Some((index, self.nodes[node].ask(ask)?)))
            .collect();
        while !waiting.is_empty() && self.now_ms() < until_ms {
            self.step()?;
            waiting.retain_mut(|(index, answered)| match answered.try_recv() {
                Ok(answer) => {
                    answers[*index] = Some(answer);
                    false
                }
                Err(error) => error == TryRecvError::Empty,
            });
        }
        Ok(answers)
    }

    /// Why each node is not ready; empty if all are.
    ///
    /// # Errors
    /// As [`World::step`].
    pub fn not_ready(&mut self) -> Result<Vec<String>, Failure> {
        let mut reasons = Vec::new();
        for node in 0..self.nodes.len() {
            let name = self.nodes[node].name.clone();
            match self.ask(node, Ask::Ready, 100)? {
                Some(Ok(Reply::Ready(Ok(())))) => {}
                Some(Ok(Reply::Ready(Err(reason)))) => reasons.push(format!("{name} is not ready: {reason}")),
                _ => reasons.push(format!("{name} does not serve")),
            }
        }
        Ok(reasons)
    }

    /// Steps until all nodes are ready.
    ///
    /// # Errors
    /// As [`World::step`]; and I9, if that takes longer than `limit_ms`.
    pub fn run_until_ready(&mut self, limit_ms: u64) -> Result<(), Failure> {
        let until_ms = self.now_ms() + limit_ms;
        loop {
            let reasons = self.not_ready()?;
            if reasons.is_empty() {
                return Ok(());
            }
            if self.now_ms() >= until_ms {
                return Err(self.failure(format!("I9: not ready after {limit_ms} ms: {}", reasons.join("; "))));
            }
            self.run_until_ms(self.now_ms() + 100)?;
        }
    }

    /// A failure with the last events.
    #[must_use]
    pub fn failure(&self, what: String) -> Failure {
        Failure(format!("{what}\nlast events:\n{}", self.trace.last_events(self.events_shown_max)))
    }
}

/// Faults.
impl World {
    fn is_up(&mut self, node: usize) -> bool {
        self.sim.is_host_running(self.nodes[node].name.as_str())
    }

    /// Cuts the power of a node, running or not: its process is gone, and with it what was not synced.
    pub fn crash(&mut self, node: usize) {
        let name = self.nodes[node].name.clone();
        self.nodes[node].close_mailbox();
        self.sim.crash(name.as_str());
        let unsynced_count = self.nodes[node].disk.crash(&mut self.rng);
        self.trace.event(&format!("{name} loses power, {unsynced_count} batches unsynced"));
        self.trace.fired("crash");
        if unsynced_count > 0 {
            self.trace.fired("crash with unsynced writes");
        }
    }

    /// Starts a node that is down.
    pub fn restart(&mut self, node: usize) {
        if !self.is_up(node) {
            let name = self.nodes[node].name.clone();
            self.sim.bounce(name.as_str());
            self.trace.fired("restart");
        }
    }

    /// Asks a node to stop in order.
    pub fn stop(&mut self, node: usize) {
        if self.nodes[node].ask(Ask::Stop).is_some() {
            self.trace.fired("planned stop");
        }
    }

    /// Changes the weather of all links.
    pub fn set_weather(&mut self, weather: Weather) {
        self.trace.event(&format!("weather {weather:?}"));
        self.weather.set(weather);
    }

    /// Cuts both ways between each of `these` and each of `those`.
    pub fn cut(&mut self, these: &[usize], those: &[usize]) {
        for (one, other) in self.links(these, those) {
            self.sim.partition(one.as_str(), other.as_str());
        }
        self.trace.event(&format!("cut {these:?} | {those:?}"));
    }

    /// Loses what each of `from` sends to each of `to`, not the other way.
    pub fn cut_one_way(&mut self, from: &[usize], to: &[usize]) {
        for (from, to) in self.links(from, to) {
            self.sim.partition_oneway(from.as_str(), to.as_str());
        }
        self.trace.event(&format!("cut {from:?} -> {to:?}"));
    }

    /// Mends all links.
    pub fn mend_links(&mut self) {
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        for (one, other) in self.links(&all, &all) {
            self.sim.repair(one.as_str(), other.as_str());
        }
        self.trace.event("links mended");
    }

    fn links(&self, these: &[usize], those: &[usize]) -> Vec<(String, String)> {
        let name = |node: &usize| self.nodes[*node].name.clone();
        let pairs = these.iter().flat_map(|one| those.iter().map(move |other| (one, other)));
        pairs.filter(|(one, other)| one != other).map(|(one, other)| (name(one), name(other))).collect()
    }

    /// The files of a node meet a fault.
    ///
    /// One that is down meets none: what a process cannot notice proves nothing.
    pub fn disturb_files(&mut self, node: usize, fault: SimFault) {
        if !self.is_up(node) {
            return;
        }
        self.trace.event(&format!("{} files: {fault:?}", self.nodes[node].name));
        self.nodes[node].disk.files().inject(fault);
    }

    /// The files of a node are healthy again.
    pub fn heal_files(&mut self, node: usize) {
        self.trace.event(&format!("{} files are healthy", self.nodes[node].name));
        self.nodes[node].disk.files().heal();
    }

    /// A node's clock is off by so much.
    pub fn skew_clock(&mut self, node: usize, skew_ms: i64) {
        self.trace.event(&format!("{} clock is off by {skew_ms} ms", self.nodes[node].name));
        self.nodes[node].skew_clock(skew_ms);
    }

    /// Ends all faults: fair weather, whole links, healthy drives, right clocks, every node running.
    pub fn heal(&mut self) {
        self.set_weather(Weather::default());
        self.mend_links();
        for node in 0..self.nodes.len() {
            self.nodes[node].disk.files().heal();
            self.nodes[node].skew_clock(0);
            if !self.nodes[node].serves() {
                // Down, or in the middle of a stop, which the operator does not wait for.
                self.crash(node);
                self.restart(node);
            }
        }
        self.trace.event("all faults end");
    }

    /// Adds the datagrams of the run, and what nodes have counted, to what has happened.
    pub fn count_traffic(&self) {
        self.nodes.iter().for_each(|node| drop(node.settle_metrics()));
        let traffic = self.weather.traffic();
        self.trace.fired_times("datagram lost", traffic.lost);
        self.trace.fired_times("datagram duplicated", traffic.duplicated);
        self.trace.fired_times("datagram corrupted", traffic.corrupted);
        self.trace.fired_times("datagram delivered", traffic.received);
    }
}

thread_local! {
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

/// Has panics counted per thread: those in spawned tasks would otherwise only be lines on the terminal.
fn count_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.set(PANICS.get() + 1);
            before(panic);
        }));
    });
}
