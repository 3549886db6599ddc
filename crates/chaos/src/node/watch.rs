//! What a node does beside its work: it hears the phase, says how it is doing, and notices when it
//! did not run.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use super::{Ended, Node};
use crate::clock::now_us;
use crate::record::Record;
use crate::signs::{Phase, PhaseFile, Status};

/// How often it looks.
const TICK: Duration = Duration::from_millis(10);
/// A tick that comes so late is a pause, µs.
const PAUSE_US_MIN: u64 = 50_000;
/// How long after a request that failed the connection counts as in trouble, µs.
const TROUBLE_US: u64 = 500_000;

impl Node {
    pub(super) async fn watch(self: Arc<Self>, phase: PhaseFile, status: File) -> Ended {
        let mut last = now_us();
        let mut flushed = last;
        loop {
            sleep(TICK).await;
            let now = now_us();
            if now - last > PAUSE_US_MIN {
                self.recorder.record(Record::Pause { from: last, to: now })?;
            }
            last = now;
            self.in_trouble(now);
            if now - flushed > crate::record::RUN_US_MAX {
                self.recorder.flush()?;
                flushed = now;
            }
            let told = phase.get()?;
            self.phase.store(told as u8, Ordering::Relaxed);
            self.status(now).write(&status)?;
            if told == Phase::End {
                return Ok(());
            }
        }
    }

    fn status(&self, at: u64) -> Status {
        Status {
            at,
            reads: self.recorder.reads(),
            verified_at: self.recorder.verified_at(),
            invalidated: self.invalidated.load(Ordering::Relaxed),
            converged: self.converged.load(Ordering::Relaxed),
            behind: *self.behind.lock(),
        }
    }

    /// Whether a request to Redis has failed lately.
    pub(super) fn in_trouble(&self, now: u64) -> bool {
        self.trouble.look(self.cache.stats().l2_errors, now)
    }
}

/// When a request to Redis has failed last, as the cache's own count shows it.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    errors: AtomicU64,
    since: AtomicU64,
}

impl Trouble {
    fn look(&self, errors: u64, now: u64) -> bool {
        if self.errors.fetch_max(errors, Ordering::Relaxed) < errors {
            self.since.store(now, Ordering::Relaxed);
        }
        let since = self.since.load(Ordering::Relaxed);
        since > 0 && now.saturating_sub(since) < TROUBLE_US
    }
}
