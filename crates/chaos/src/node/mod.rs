//! One node of the fleet: a process of its own that reads and writes a cache at random, as fast as
//! it is let, and writes down what came of it.

mod load;
mod read;
mod recorder;
mod value;
mod watch;
mod write;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::time::Duration;
use std::{error, io};

use fleetwide::cache::{Cache, CacheTag};
use fleetwide::env::RedisUrl;
use fleetwide::{Fleetwide, Namespace};
use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::origin::Origin;
use crate::settings::{L1_TTL_MS, L2_BUDGET_MS, LEASE_MS, NodeSettings, STALENESS_BOUND_MS};
use crate::signs::{Behind, Phase, PhaseFile};
use recorder::Recorder;
use value::Value;
use watch::Trouble;

/// Tasks that read, and tasks that write keys which anybody may write.
const READERS: u64 = 8;
const WRITERS: u64 = 3;

/// A process of the fleet.
struct Node {
    settings: NodeSettings,
    cache: Cache<u32, Value>,
    origin: Origin,
    recorder: Recorder,
    trouble: Trouble,
    phase: AtomicU8,
    loads: AtomicU32,
    invalidated: AtomicBool,
    converged: AtomicBool,
    behind: Mutex<Behind>,
}

/// Whatever ends a node before it is told to end.
type Failure = Box<dyn error::Error + Send + Sync>;

/// Runs the node whose settings lie at `path`, until it is told to end.
///
/// # Errors
/// What a run cannot go on after: the operating system's errors, and settings that are none.
pub async fn run(path: &Path) -> Result<(), Failure> {
    let settings = NodeSettings::read(path)?;
    let (phase, status) = (PhaseFile::open(&settings.folder)?, File::create(settings.status())?);
    let fleet = Fleetwide::builder()
        .namespace(Namespace::new("chaos")?)
        .redis(&RedisUrl::parse(&settings.redis_url)?)
        .build()?;
    let cache = fleet
        .cache::<u32, Value>("chaos")
        .staleness_bound(Duration::from_millis(STALENESS_BOUND_MS))
        .l1_ttl(Duration::from_millis(L1_TTL_MS))
        // Every policy that lets an old value live on, or makes a load without being asked: none of
        // them may bring back what was invalidated.
        .options(|cache| {
            cache
                .lease(Duration::from_millis(LEASE_MS))
                .l2_budget(Duration::from_millis(L2_BUDGET_MS))
                .jitter(0.1)
                .early_refresh(1.0)
                .soft_timeout(Duration::from_millis(30))
                .stale_while_revalidate(Duration::from_millis(700))
                .stale_if_error(Duration::from_secs(3))
        })
        .build()?;
    // The first tag of a history acts like a clear, and takes their leases from the loads that run.
    // No load of this fleet has begun before it. If it fails, there is trouble that excuses them.
    let first = CacheTag::new("the first tag")?;
    let _queued = cache.invalidate_tag(&first).await;
    let node = Arc::new(Node {
        cache,
        origin: Origin::open(&settings.origin())?,
        recorder: Recorder::create(&settings.history())?,
        trouble: Trouble::default(),
        phase: AtomicU8::new(phase.get()? as u8),
        loads: AtomicU32::new(0),
        invalidated: AtomicBool::new(false),
        converged: AtomicBool::new(false),
        behind: Mutex::default(),
        settings,
    });
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..READERS {
        tasks.spawn(Arc::clone(&node).read_on(node.rng(task)));
    }
    for task in 0..WRITERS {
        tasks.spawn(Arc::clone(&node).write_on(node.rng(100 + task)));
    }
    tasks.spawn(Arc::clone(&node).write_owned_on(node.rng(200)));
    tasks.spawn(Arc::clone(&node).finish());
    tasks.spawn(Arc::clone(&node).watch(phase, status));
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    node.recorder.flush()?;
    fleet.shutdown().await;
    Ok(())
}

impl Node {
    fn rng(&self, task: u64) -> StdRng {
        let NodeSettings { seed, node, life, .. } = self.settings;
        StdRng::seed_from_u64(seed ^ (u64::from(node) << 32) ^ (u64::from(life) << 40) ^ task)
    }

    fn is_in(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Relaxed) == phase as u8
    }
}

/// What a task of a node ends with.
type Ended = io::Result<()>;
