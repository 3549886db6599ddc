//! One day of a fleet: the nodes, their clients, and the course of events.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use fleetwide_core_traits::Namespace;
use fleetwide_mem_backend::{MemBus, MemExecutor, Memory, MokaLocal};
use fleetwide_pubsub_invalidation::Log;
use fleetwide_testkit::{
    Checker, Event, History, Mark, Read, Recorder, Report, Site, Weather, World, WorldTime,
};
use fleetwide_two_tier_cache::Cache;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::client::{self, Busy, Shared, SimCache};
use crate::habits::Habits;
use crate::trouble;

pub(crate) const NODES: usize = 3;
const CLIENTS_PER_NODE: u32 = 3;
/// Copies of the server that can take its place.
pub(crate) const COPIES: usize = 2;

const STALENESS_BOUND: Duration = Duration::from_millis(400);
const L2_BUDGET: Duration = Duration::from_millis(40);
const HEARTBEAT: Duration = Duration::from_millis(60);
const LEASE: Duration = Duration::from_millis(500);

/// Writes come in bursts: in between, nothing but a heartbeat can show what was missed.
const BURST: u64 = 500;
const QUIET: u64 = 900;
/// Troubles last for so long, ms; then all is mended.
const TROUBLED: u64 = 7_000;
/// How long everything takes to be well again, ms: the longest stop, and the longest pause between
/// two tries of whatever had failed.
const CALM: u64 = 3_500;

/// A fleet and its day.
pub(crate) struct Day {
    pub(crate) world: World<MemExecutor, MemBus>,
    pub(crate) recorder: Recorder,
    pub(crate) rng: StdRng,
    /// ms since the morning.
    pub(crate) now: u64,
    pub(crate) habits: Arc<Habits>,
    shared: Arc<Shared>,
    caches: Arc<Mutex<Vec<Option<SimCache>>>>,
    namespace: Namespace,
}

impl Day {
    pub(crate) fn new(seed: u64) -> Self {
        let time = WorldTime::new();
        let servers = (0..=COPIES).map(|_| server(&time)).collect();
        let moment = time.clone();
        let recorder = Recorder::in_memory_of(1 << 26, move || moment.moment());
        let world = World::new(seed, time, servers, recorder.clone());
        let mut rng = StdRng::seed_from_u64(seed);
        let habits = Arc::new(Habits::new(&mut rng));
        let (shared, caches) = (Arc::default(), Arc::new(Mutex::new(vec![None; NODES])));
        let namespace = Namespace::new("simulation").expect("it is a name");
        let mut day = Self { world, recorder, rng, now: 0, habits, shared, caches, namespace };
        for _ in 0..NODES {
            let boot = day.boot();
            day.world.add(boot);
        }
        day
    }

    /// Plays the day, and lets the checker judge it.
    pub(crate) fn play(mut self) -> Report {
        self.pass(100);
        self.shared.may_work.store(true, Relaxed);
        let mut troubles = trouble::Troubles::new(&mut self.rng);
        while self.now < TROUBLED || troubles.is_calming() {
            let may_write = if troubles.is_calming() {
                self.habits.writes_in_loss
            } else {
                self.now % (BURST + QUIET) < BURST
            };
            self.shared.may_write.store(may_write, Relaxed);
            troubles.cause(&mut self);
            self.pass(1);
        }
        self.mend();
        self.shared.may_write.store(false, Relaxed);
        self.pass(CALM);
        while self.queued() > 0 {
            assert!(self.now < 60_000, "what was queued is never repeated: {}", self.queued());
            self.pass(1);
        }
        // What a node has confirmed, the others hear of within a few beats.
        self.pass(200);
        self.recorder.record(&Event::Settled { at: self.recorder.now() });
        self.pass(500);
        let well = self.recorder.now();
        self.pass(1_000);
        for cache in self.caches.lock().iter().flatten() {
            assert_eq!(cache.stats().queued, 0);
        }
        let checker = Checker::new().staleness_bound(STALENESS_BOUND).join_bound(L2_BUDGET);
        let history = self.recorder.finish().expect("it is in memory");
        if let Ok(path) = std::env::var("SIMULATION_HISTORY") {
            write(&history, &path);
        }
        assert_verified(&history, well);
        checker.check(&history).expect("it was just recorded")
    }

    /// Lets so many ms pass.
    pub(crate) fn pass(&mut self, millis: u64) {
        for _ in 0..millis {
            self.world.step();
            self.now += 1;
        }
    }

    /// Fair weather for all.
    pub(crate) fn mend(&mut self) {
        for node in 0..NODES {
            self.world.set_weather(node, Weather::fair());
        }
    }

    /// Kills a node; it is back at once, and knows nothing.
    pub(crate) fn restart(&mut self, node: usize) {
        self.caches.lock()[node] = None;
        let boot = self.boot();
        self.world.restart(node, boot);
    }

    /// An empty server in the place of the one there is.
    pub(crate) fn replace_server(&mut self) {
        self.world.replace(server(self.world.time()));
    }

    fn queued(&self) -> u64 {
        self.caches.lock().iter().flatten().map(|cache| cache.stats().queued).sum()
    }

    /// What runs on a node: a cache, the follower of its log, and clients.
    fn boot(&mut self) -> impl FnOnce(Site<MemExecutor, MemBus>) + use<> {
        let (shared, caches) = (Arc::clone(&self.shared), Arc::clone(&self.caches));
        let habits = Arc::clone(&self.habits);
        let (recorder, namespace) = (self.recorder.clone(), self.namespace.clone());
        let seed = self.rng.random::<u64>();
        move |site| {
            let local = MokaLocal::builder().bytes_max(1 << 20).build();
            let remote = site.remote.clone();
            let cache: SimCache = Cache::builder(remote, &namespace, "values", local)
                .ttl(Duration::from_secs(30))
                .l1_ttl(Duration::from_secs(20))
                .staleness_bound(STALENESS_BOUND)
                .l2_budget(L2_BUDGET)
                .lease(LEASE)
                .tags_max(habits.tags_max)
                .clock(Arc::clone(&site.clock))
                .build()
                .expect("these options fit");
            let log = Log::builder(site.remote.clone(), site.remote, cache.tag().clone())
                .follower(cache.follower())
                .heartbeat(HEARTBEAT)
                .clock(site.clock)
                .start();
            cache.keep(Box::new(log)).expect("nothing was kept before");
            caches.lock()[site.number] = Some(cache.clone());
            tokio::spawn(client::warm_up(cache.clone()));
            for number in 0..CLIENTS_PER_NODE {
                let busy = Busy {
                    cache: cache.clone(),
                    client: recorder.client(site.process, number),
                    shared: Arc::clone(&shared),
                    habits: Arc::clone(&habits),
                    rng: StdRng::seed_from_u64(seed.wrapping_add(number.into())),
                };
                tokio::spawn(busy.run());
            }
        }
    }
}

/// Being well again is a promise too: from this moment on every hit is verified.
fn assert_verified(history: &History, well: u64) {
    let (mut reads, mut doubtful) = (0, 0);
    let each = |event| {
        let Event::Read(Read { at, seen: Some(seen), .. }) = event else { return };
        reads += u64::from(at.start > well);
        doubtful += u64::from(at.start > well && seen.mark != Mark::Verified);
    };
    history.for_each(each).expect("it was just recorded");
    assert!(reads > 0 && doubtful == 0, "{doubtful} of the last {reads} reads are not verified");
}

/// Writes all events down, one to a line, for somebody who wants to know why.
fn write(history: &History, path: &str) {
    let events = history.events().expect("it was just recorded");
    let lines: Vec<String> = events.iter().map(|event| format!("{event:?}")).collect();
    std::fs::write(path, lines.join("\n"))
        .expect("SIMULATION_HISTORY names a file that can be written");
}

/// An empty server.
pub(crate) fn server(time: &WorldTime) -> (MemExecutor, MemBus) {
    let memory = Memory::builder().clock(time.server()).queue_max(256).build();
    (memory.executor().clone(), memory.bus().clone())
}
