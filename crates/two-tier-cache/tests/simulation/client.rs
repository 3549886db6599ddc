//! What a client of one node does, and how it is recorded.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use fleetwide_mem_backend::{MemBus, MemExecutor};
use fleetwide_testkit::{Client, FoundIn, Mark, ReadSpan, Remote, WriteId, WriteSpan};
use fleetwide_two_tier_cache::{
    Cache, CacheTag, Freshness, Hit, LoadContext, PutOptions, Tier, WriteError, WriteToken,
};
use parking_lot::Mutex;
use rand::Rng;
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand::rngs::StdRng;
use tokio::time::{sleep, timeout};

use crate::habits::Habits;

pub(crate) type SimCache = Cache<u64, u64, Remote<MemExecutor, MemBus>>;

/// Tokens that clients hand to each other.
const TOKENS_MAX: usize = 8;

type Loading = Pin<Box<dyn Future<Output = Result<u64, io::Error>> + Send>>;

/// What all clients share.
#[derive(Default)]
pub(crate) struct Shared {
    /// Names each value that is loaded or put.
    pub(crate) versions: AtomicU64,
    pub(crate) may_work: AtomicBool,
    pub(crate) may_write: AtomicBool,
    tokens: Mutex<Vec<Handed>>,
}

/// A token that whoever likes may read with.
#[derive(Clone, Copy)]
struct Handed {
    write: WriteId,
    token: WriteToken,
    /// What was written, if it is one key.
    key: Option<u64>,
}

/// The first value with tags in a history acts like a clear: it must not come amid the loads.
pub(crate) async fn warm_up(cache: SimCache) {
    let tagged = PutOptions::default().tag(name(0));
    let _put = cache.put_with(&u64::MAX, 0, tagged).await;
}

/// One client.
pub(crate) struct Busy {
    pub(crate) cache: SimCache,
    pub(crate) client: Client,
    pub(crate) shared: Arc<Shared>,
    pub(crate) habits: Arc<Habits>,
    pub(crate) rng: StdRng,
}

impl Busy {
    /// Goes on for as long as its node lives.
    pub(crate) async fn run(mut self) {
        loop {
            sleep(Duration::from_millis(self.rng.random_range(1..25))).await;
            if !self.shared.may_work.load(Relaxed) {
                continue;
            }
            let key = self.rng.random_range(0..self.habits.keys);
            let writes = self.shared.may_write.load(Relaxed) && self.chance(self.habits.writes);
            if writes {
                self.write(key).await;
            } else if self.chance(self.habits.tokens) {
                self.read_with_token(key).await;
            } else {
                match self.rng.random_range(0..12) {
                    0..8 => self.read_through(key).await,
                    8..11 => self.get(key).await,
                    _ => self.peek(key),
                }
            }
        }
    }

    async fn write(&mut self, key: u64) {
        let kinds = WeightedIndex::new(self.habits.kinds).expect("one of them comes");
        match kinds.sample(&mut self.rng) {
            0 => self.invalidate(key).await,
            1 => self.put(key).await,
            2 => self.leave_a_write(key).await,
            3 => self.bump().await,
            _ => self.clear().await,
        }
    }

    fn chance(&mut self, chance: f64) -> bool {
        self.rng.random_bool(chance)
    }

    async fn read_through(&mut self, key: u64) {
        let loader = self.loader(false);
        let span = self.client.read(key);
        let hit = self.cache.get_or_load_with(&key, loader).await;
        seen(span, hit.ok().as_ref());
    }

    async fn get(&self, key: u64) {
        let span = self.client.read(key);
        seen(span, self.cache.get(&key).await.as_ref());
    }

    fn peek(&self, key: u64) {
        let span = self.client.read(key);
        seen(span, self.cache.peek(&key).as_ref());
    }

    async fn read_with_token(&mut self, key: u64) {
        let tokens = self.shared.tokens.lock().clone();
        let last = self.rng.random_range(0..TOKENS_MAX);
        // Half of them with the last one: that is the one which others may not know of yet.
        let Some(handed) = tokens.get(last).or(tokens.last()).copied() else {
            return self.read_through(key).await;
        };
        let key = handed.key.filter(|_| self.rng.random()).unwrap_or(key);
        let Handed { write, token, .. } = handed;
        let loader = self.loader(true);
        let span = self.client.read(key).at_least(write);
        let hit = self.cache.at(&key).at_least(&token).get_or_load_with(loader).await;
        seen(span, hit.ok().as_ref());
    }

    async fn invalidate(&self, key: u64) {
        let span = OrLeft::new(self.client.invalidate(key));
        let answer = self.cache.invalidate(&key).await;
        self.written(span, answer, Some(key));
    }

    async fn put(&mut self, key: u64) {
        let (version, tags) = (self.version(), self.tags());
        let options =
            tags.iter().fold(PutOptions::default(), |options, tag| options.tag(name(*tag)));
        let span = OrLeft::new(self.client.put(key, version, &tags));
        let answer = self.cache.put_with(&key, version, options).await;
        self.written(span, answer, Some(key));
    }

    /// Begins a write and does not wait for its end.
    async fn leave_a_write(&mut self, key: u64) {
        let patience = Duration::from_millis(self.rng.random_range(0..6));
        if self.rng.random() {
            let _gone = timeout(patience, self.invalidate(key)).await;
        } else {
            let _gone = timeout(patience, self.put(key)).await;
        }
    }

    async fn bump(&mut self) {
        let tag = self.rng.random_range(0..self.habits.tags);
        let span = OrLeft::new(self.client.bump(tag));
        let answer = self.cache.invalidate_tag(&name(tag)).await;
        self.written(span, answer, None);
    }

    async fn clear(&self) {
        let span = OrLeft::new(self.client.clear());
        let answer = self.cache.clear().await;
        self.written(span, answer, None);
    }

    fn written(&self, mut span: OrLeft, answer: Result<WriteToken, WriteError>, key: Option<u64>) {
        let Some(span) = span.0.take() else { return };
        match answer {
            Ok(token) => {
                let write = span.ok();
                let mut tokens = self.shared.tokens.lock();
                if tokens.len() == TOKENS_MAX {
                    tokens.remove(0);
                }
                tokens.push(Handed { write, token, key });
            }
            Err(WriteError::Queued(_)) => span.queued(),
            Err(WriteError::Unknown(_)) => span.unknown(),
            Err(other) => panic!("keys, tags and values are in order: {other}"),
        }
    }

    /// A loader that takes its time, records what it does, and sometimes fails.
    fn loader(
        &mut self,
        alone: bool,
    ) -> impl FnOnce(LoadContext<u64, u64>) -> Loading + Send + 'static {
        let (slow, slow_max) = self.habits.slow;
        let time = if self.chance(slow) { slow_max } else { 40 };
        let time = self.rng.random_range(0..time);
        let (tags, fails) = (self.tags(), self.rng.random_bool(0.05));
        let (client, shared) = (self.client.clone(), Arc::clone(&self.shared));
        move |context| {
            Box::pin(async move {
                let span = client.load(*context.key());
                let span = if alone { span.alone() } else { span };
                // What the origin has now is what this value is.
                let version = shared.versions.fetch_add(1, Relaxed);
                sleep(Duration::from_millis(time)).await;
                if fails {
                    return Err(io::Error::other("the origin is tired"));
                }
                for tag in &tags {
                    context.tag(tag.to_be_bytes()).expect("a few tags of eight bytes are in order");
                }
                span.found(version, &tags);
                Ok(version)
            })
        }
    }

    fn version(&self) -> u64 {
        self.shared.versions.fetch_add(1, Relaxed)
    }

    /// None, or some of those that are bumped.
    fn tags(&mut self) -> Vec<u64> {
        let (rng, tagged) = (&mut self.rng, self.habits.tagged);
        (0..self.habits.tags).filter(|_| rng.random_bool(tagged)).collect()
    }
}

/// A write whose caller may leave. The cache settles it all the same, as one of unknown outcome.
struct OrLeft(Option<WriteSpan>);

impl OrLeft {
    fn new(span: WriteSpan) -> Self {
        Self(Some(span))
    }
}

impl Drop for OrLeft {
    fn drop(&mut self) {
        if let Some(span) = self.0.take() {
            span.unknown();
        }
    }
}

fn name(tag: u64) -> CacheTag {
    CacheTag::new(tag.to_be_bytes()).expect("eight bytes are a tag")
}

fn seen(span: ReadSpan<'_>, hit: Option<&Hit<u64>>) {
    let Some(hit) = hit else { return span.missed() };
    let tier = match hit.tier() {
        Tier::L1 => FoundIn::L1,
        Tier::L2 => FoundIn::L2,
        Tier::Load => FoundIn::Load,
        other => panic!("{other:?} is new: say where it comes from"),
    };
    let mark = match hit.freshness() {
        Freshness::Verified => Mark::Verified,
        Freshness::Unverified => Mark::Unverified,
        Freshness::Stale => Mark::Stale,
        other => panic!("{other:?} is new: say what it promises"),
    };
    span.found(**hit.value(), tier, mark);
}
