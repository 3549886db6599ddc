//! Waiting until all who follow the log have applied something.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::log::{Applied, Behind, Stamp, WaitError};
use fleetwide_core_traits::{BackendError, Executor, ExecutorExt, Outage, Tag};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::ops::{Muster, Mustered};

/// First and longest pause between two looks at the roll. A nudged follower signs within a few
/// round trips; one that is away signs when it is back, or its life ends.
const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// The looks of all who wait in this process keep this distance, however many they are.
const DISTANCE: Duration = Duration::from_millis(2);

/// Reads the roll for all who wait in this process.
pub(crate) struct RollCall {
    read: Box<dyn Fn() -> Reading + Send + Sync>,
    last: Mutex<Option<Look>>,
}

type Reading = Pin<Box<dyn Future<Output = Result<Mustered, BackendError>> + Send>>;

/// One look at the roll.
#[derive(Clone)]
struct Look {
    began: Instant,
    found: Result<Mustered, BackendError>,
}

impl RollCall {
    pub(crate) fn new<E: Executor>(executor: Arc<E>, tag: &Tag, life: Duration) -> Self {
        let muster = Arc::new(Muster::new(tag, life));
        let read = move || -> Reading {
            let (executor, muster) = (Arc::clone(&executor), Arc::clone(&muster));
            Box::pin(async move { executor.run(&*muster).await })
        };
        Self { read: Box::new(read), last: Mutex::new(None) }
    }

    /// Waits until everything up to `stamp` has been applied by all who live.
    pub(crate) async fn applied(
        &self,
        stamp: Stamp,
        within: Duration,
    ) -> Result<Applied, WaitError> {
        let ends = Instant::now() + within;
        let late = BackendError::NotSent(Outage::Deadline(within));
        let mut last = Err(WaitError::Unavailable(late));
        let mut pause = PAUSE_MIN;
        loop {
            let Ok(found) = timeout_at(ends, self.look(Instant::now())).await else { return last };
            last = judge(found, stamp);
            if matches!(last, Ok(_) | Err(WaitError::Superseded)) {
                return last;
            }
            let spread = pause.mul_f64(rand::random_range(0.5..=1.0));
            sleep_until(ends.min(Instant::now() + spread)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// What the roll says, by a look that began at `asked` or later. Whoever waits behind a look
    /// that is under way shares the next one.
    async fn look(&self, asked: Instant) -> Result<Mustered, BackendError> {
        let mut last = self.last.lock().await;
        if let Some(look) = last.as_ref().filter(|look| look.began >= asked) {
            return look.found.clone();
        }
        if let Some(look) = &*last {
            sleep_until(look.began + DISTANCE).await;
        }
        let began = Instant::now();
        let found = (self.read)().await;
        *last = Some(Look { began, found: found.clone() });
        found
    }
}

fn judge(found: Result<Mustered, BackendError>, stamp: Stamp) -> Result<Applied, WaitError> {
    let roll = found.map_err(WaitError::Unavailable)?;
    match roll.has_applied(stamp) {
        Some(true) => Ok(Applied::by(roll.live)),
        Some(false) => Err(WaitError::Late(Behind::new(roll.live, roll.complete))),
        None => Err(WaitError::Superseded),
    }
}
