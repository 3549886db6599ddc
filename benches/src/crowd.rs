//! Operations by several threads, or by several tasks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// A runtime as services have it, with a worker per core.
///
/// # Panics
/// If the system has no room for its threads.
pub fn runtime() -> Runtime {
    Builder::new_multi_thread().enable_all().build().expect("there is room for a few threads")
}

/// Divides `count` operations over `threads`, and measures from when all are ready until the last
/// is done. `work` gets the number of its thread and how many operations to do.
///
/// # Panics
/// If `work` panics.
pub fn on_threads(threads: u64, count: u64, work: impl Fn(u64, u64) + Sync) -> Duration {
    let each = count.div_ceil(threads);
    if threads == 1 {
        let start = Instant::now();
        work(0, each);
        return start.elapsed();
    }
    let ready = Barrier::new(threads as usize + 1);
    thread::scope(|scope| {
        for thread in 0..threads {
            let (ready, work) = (&ready, &work);
            scope.spawn(move || {
                ready.wait();
                work(thread, each);
                ready.wait();
            });
        }
        ready.wait();
        let start = Instant::now();
        ready.wait();
        start.elapsed()
    })
}

/// What one task does: its loop over [`Turns`]. Made by [`work`].
pub type Work = Arc<dyn Fn(Turns) -> BoxFuture<'static, ()> + Send + Sync>;

/// The turns of one task. Tasks draw from one row of numbers, so each operation has its own.
pub struct Turns {
    next: Arc<AtomicU64>,
    left: u64,
}

impl Turns {
    /// The one turn with this number.
    pub(crate) fn one(number: u64) -> Self {
        Self { next: Arc::new(AtomicU64::new(number)), left: 1 }
    }

    /// The number of the next operation, until this task has done its share.
    #[expect(clippy::should_implement_trait, reason = "a loop over it awaits in between")]
    pub fn next(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        Some(self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// Turns a loop into [`Work`]. The box is per task, not per operation.
pub fn work<F>(one_task: impl Fn(Turns) -> F + Send + Sync + 'static) -> Work
where
    F: Future<Output = ()> + Send + 'static,
{
    Arc::new(move |turns| Box::pin(one_task(turns)))
}

/// A side that divides its operations over `tasks` of `runtime`. A single task is spawned too,
/// because services run theirs on workers.
///
/// # Panics
/// If an operation panics.
pub fn on_tasks<'a>(
    runtime: &'a Runtime,
    tasks: u64,
    work: &Work,
) -> impl FnMut(u64) -> Duration + use<'a> {
    let work = Arc::clone(work);
    // Kept over batches: a batch that began at 0 again would find in L1 what the last one read.
    let next = Arc::new(AtomicU64::new(0));
    move |count| {
        let left = count.div_ceil(tasks);
        runtime.block_on(async {
            let mut crowd = JoinSet::new();
            let start = Instant::now();
            for _ in 0..tasks {
                crowd.spawn(work(Turns { next: Arc::clone(&next), left }));
            }
            while let Some(ended) = crowd.join_next().await {
                ended.expect("no operation of a bench may panic");
            }
            start.elapsed()
        })
    }
}
