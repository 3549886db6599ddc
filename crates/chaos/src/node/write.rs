//! How a node writes: the database first, then the cache.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use fleetwide::cache::{CacheTag, WriteError};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use super::load::tag;
use super::{Ended, Node, Value};
use crate::clock::now_us;
use crate::keys::Class;
use crate::record::{ALL_KEYS, Outcome, Record};
use crate::signs::Phase;

/// Pauses between the writes of one task, ms.
const PAUSE_MS_MAX: u64 = 60;
/// Keys whose database entries change before everything is cleared.
const CLEARED_KEYS: usize = 12;
/// How long a put that its caller has left, or that an earlier life of this node has sent, may
/// still be carried out, with room: until then it is a write that goes on, and this node does not
/// write the key.
const PUT_GOES_ON: Duration = Duration::from_millis(2500);

/// What a task does to the cache.
enum Act {
    Invalidate(u32),
    Put(u32, Value),
    Bump(CacheTag),
    Clear,
}

impl Act {
    /// Whether it voids what the cache has of all keys.
    fn is_clear(&self) -> bool {
        matches!(self, Self::Clear)
    }
}

impl Node {
    /// Writes keys that any node may write.
    pub(super) async fn write_on(self: Arc<Self>, mut rng: StdRng) -> Ended {
        while self.goes_on(&mut rng).await {
            if rng.random_ratio(1, 1000) {
                self.clear(&mut rng).await?;
                continue;
            }
            let key = self.settings.keys.pick_to_write(&mut rng);
            match self.settings.keys.class(key) {
                Class::Shared => {
                    let patience = patience(&mut rng);
                    self.write(&[key], Act::Invalidate(key), patience).await?;
                }
                Class::Tagged { group } if rng.random_ratio(1, 8) => {
                    let keys: Vec<u32> = self.settings.keys.group(group).collect();
                    let tag = CacheTag::new(tag(group)).map_err(io::Error::other)?;
                    self.write(&keys, Act::Bump(tag), patience(&mut rng)).await?;
                }
                Class::Tagged { .. } | Class::Owned { .. } => {}
            }
        }
        Ok(())
    }

    /// Writes the keys that this node alone writes, one after the other.
    pub(super) async fn write_owned_on(self: Arc<Self>, mut rng: StdRng) -> Ended {
        let mut left: HashMap<u32, u64> = HashMap::new();
        sleep(PUT_GOES_ON).await;
        while self.goes_on(&mut rng).await {
            let near = self.settings.keys.pick_to_write(&mut rng);
            let Some(key) = self.settings.keys.owned_near(near, self.settings.node) else {
                continue;
            };
            if left.get(&key).is_some_and(|until| now_us() < *until) {
                continue;
            }
            let version = self.bump(&[key])?[0];
            let act = if rng.random_ratio(3, 4) {
                Act::Put(key, Value::new(key, version))
            } else {
                Act::Invalidate(key)
            };
            let outcome = self.act(&[key], &[version], act, patience(&mut rng)).await?;
            if outcome == Outcome::Dropped {
                left.insert(key, now_us() + PUT_GOES_ON.as_micros() as u64);
            }
        }
        Ok(())
    }

    /// Waits a moment. Whether this node still writes.
    async fn goes_on(&self, rng: &mut StdRng) -> bool {
        sleep(Duration::from_millis(rng.random_range(0..=PAUSE_MS_MAX))).await;
        self.is_in(Phase::Run)
    }

    /// Invalidates `key`. Whether that is done for everybody.
    pub(super) async fn invalidate(&self, key: u32) -> io::Result<bool> {
        let outcome = self.write(&[key], Act::Invalidate(key), None).await?;
        Ok(outcome == Outcome::Done)
    }

    async fn clear(&self, rng: &mut StdRng) -> io::Result<()> {
        let keys = self.settings.keys;
        let drawn = std::iter::repeat_with(|| keys.pick_to_write(rng));
        let shared = drawn.filter(|key| keys.class(*key) == Class::Shared);
        let changed: Vec<u32> = shared.take(CLEARED_KEYS).collect();
        self.write(&changed, Act::Clear, None).await.map(drop)
    }

    /// Writes `keys` to the database, and then tells the cache by `act`.
    async fn write(
        &self,
        keys: &[u32],
        act: Act,
        patience: Option<Duration>,
    ) -> io::Result<Outcome> {
        let versions = self.bump(keys)?;
        self.act(keys, &versions, act, patience).await
    }

    fn bump(&self, keys: &[u32]) -> io::Result<Vec<u64>> {
        keys.iter().map(|key| self.origin.bump(*key)).collect()
    }

    async fn act(
        &self,
        keys: &[u32],
        versions: &[u64],
        act: Act,
        patience: Option<Duration>,
    ) -> io::Result<Outcome> {
        // Who clears voids every load under way, of whatever key.
        let all = act.is_clear().then_some((ALL_KEYS, 0));
        let written = || keys.iter().copied().zip(versions.iter().copied()).chain(all);
        let called = now_us();
        for (key, version) in written() {
            self.recorder.record(Record::Writing { key, version, at: called })?;
        }
        let done = self.carry_out(act);
        let outcome = match patience {
            None => done.await,
            Some(Duration::ZERO) => tokio::select! {
                biased;
                outcome = done => outcome,
                // Ready at the second look: the request has just left.
                () = yield_now() => Outcome::Dropped,
            },
            Some(patience) => timeout(patience, done).await.unwrap_or(Outcome::Dropped),
        };
        let returned = now_us();
        for (key, version) in written() {
            self.recorder.record(Record::Written { key, version, outcome, called, returned })?;
        }
        Ok(outcome)
    }

    async fn carry_out(&self, act: Act) -> Outcome {
        let written = match act {
            Act::Invalidate(key) => self.cache.invalidate(&key).await.map(drop),
            Act::Put(key, value) => self.cache.put(&key, value).await.map(drop),
            Act::Bump(tag) => self.cache.invalidate_tag(&tag).await.map(drop),
            Act::Clear => self.cache.clear().await.map(drop),
        };
        match written {
            Ok(()) => Outcome::Done,
            Err(WriteError::Queued(_) | WriteError::Unknown(_)) => Outcome::Queued,
            // Nothing was done, and nothing will be.
            Err(_) => Outcome::Dropped,
        }
    }
}

/// How long a caller waits before it goes away; usually as long as it takes.
fn patience(rng: &mut StdRng) -> Option<Duration> {
    let micros = if rng.random() { 0 } else { rng.random_range(0..3000) };
    rng.random_ratio(1, 25).then_some(Duration::from_micros(micros))
}
