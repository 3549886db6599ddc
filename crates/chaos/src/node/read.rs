//! How a node reads.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fleetwide::cache::{Freshness, Hit, Tier};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::{sleep, timeout};

use super::recorder::Seen;
use super::{Ended, Node, Value};
use crate::clock::now_us;
use crate::keys::Class;
use crate::record::Record;
use crate::signs::{Behind, Phase};

/// Reads between two pauses, and how long these are, ms: a hit never waits, so without them one
/// task would keep a processor to itself.
const BURST: u32 = 256;
const PAUSE_MS_MAX: u64 = 4;

/// Pauses of the last part, while something is not yet as it should be.
const RETRY: Duration = Duration::from_millis(20);

impl Node {
    pub(super) async fn read_on(self: Arc<Self>, mut rng: StdRng) -> Ended {
        while !self.is_in(Phase::End) {
            for _ in 0..BURST {
                let key = self.settings.keys.pick(&mut rng);
                self.read_one(key, &mut rng).await?;
            }
            sleep(Duration::from_millis(rng.random_range(0..=PAUSE_MS_MAX))).await;
        }
        Ok(())
    }

    async fn read_one(self: &Arc<Self>, key: u32, rng: &mut StdRng) -> io::Result<()> {
        // Before the call: nothing that is checked later may seem fresher than it was.
        let at = now_us();
        let hit = match rng.random_range(0..1000) {
            0..20 => self.cache.get(&key).await,
            20..25 => {
                // A caller who goes away; the load goes on without it.
                let patience = Duration::from_micros(rng.random_range(0..5000));
                timeout(patience, self.get_or_load(key)).await.ok().flatten()
            }
            25..75 => {
                let hit = self.get_strictly(key).await;
                if hit.as_ref().is_some_and(is_ruled_out) {
                    self.recorder.record(Record::Nonsense { key, at })?;
                }
                hit
            }
            _ => self.get_or_load(key).await,
        };
        self.take(key, at, hit.as_ref())
    }

    async fn get_or_load(self: &Arc<Self>, key: u32) -> Option<Hit<Value>> {
        let node = Arc::clone(self);
        self.cache.get_or_load_with(&key, |context| node.load(context)).await.ok()
    }

    /// A read that takes no value out of L1 which is not verified.
    async fn get_strictly(self: &Arc<Self>, key: u32) -> Option<Hit<Value>> {
        let node = Arc::clone(self);
        let read = self.cache.at(&key).strict();
        read.get_or_load_with(|context| node.load(context)).await.ok()
    }

    /// Writes down what a read has returned.
    fn take(&self, key: u32, at: u64, hit: Option<&Hit<Value>>) -> io::Result<()> {
        let Some(hit) = hit else { return Ok(()) };
        if !hit.is_of(key) {
            return self.recorder.record(Record::Nonsense { key, at });
        }
        let (tier, freshness) = (hit.tier().into(), hit.freshness().into());
        self.recorder.hit(key, at, Seen { version: hit.version, tier, freshness })
    }

    /// The last part: invalidates the hot keys that are this node's to write, until each is done;
    /// then reads all hot keys, until each has its last version and is verified.
    pub(super) async fn finish(self: Arc<Self>) -> Ended {
        while !self.is_in(Phase::Finish) {
            if self.is_in(Phase::End) {
                return Ok(());
            }
            sleep(RETRY).await;
        }
        for key in 0..self.settings.keys.hot {
            while self.is_mine_at_the_end(key) && !self.is_in(Phase::End) {
                if self.invalidate(key).await? {
                    break;
                }
                sleep(RETRY).await;
            }
        }
        self.invalidated.store(true, Ordering::Relaxed);
        while !self.is_in(Phase::End) {
            self.converged.store(self.is_right().await?, Ordering::Relaxed);
            sleep(RETRY).await;
        }
        Ok(())
    }

    fn is_mine_at_the_end(&self, key: u32) -> bool {
        let keys = self.settings.keys;
        match keys.class(key) {
            Class::Owned { by } => by == self.settings.node,
            _ => key % keys.nodes == self.settings.node,
        }
    }

    async fn is_right(self: &Arc<Self>) -> io::Result<bool> {
        for key in 0..self.settings.keys.hot {
            let at = now_us();
            let hit = self.get_or_load(key).await;
            self.take(key, at, hit.as_ref())?;
            let last = self.origin.read(key)?;
            // A value whose time is over is served while it is renewed. It is the last one all the
            // same; only what is not verified may be an older one tomorrow.
            let unverified =
                hit.as_ref().is_some_and(|hit| hit.freshness() == Freshness::Unverified);
            let version = hit.map_or(u64::MAX, |hit| hit.version);
            if version != last || unverified {
                *self.behind.lock() = Behind { key: key.into(), version, unverified, last };
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether a strict read may not return this.
fn is_ruled_out(hit: &Hit<Value>) -> bool {
    hit.tier() == Tier::L1 && hit.freshness() == Freshness::Unverified
}
