//! Each script and its pure twin give the same replies and leave the same state.
//!
//! Random histories run against a real server and in memory, on one clock that the test moves.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::log::{Append, Epoch, LogCell, LogState};
use fleetwide_core_traits::{
    AtomicOp, Clock, ExecutorExt, Key, Namespace, ScriptClock, ServerTime, Tag, Ttl,
};
use fleetwide_mem_backend::{MemExecutor, Memory};
use fleetwide_redis_backend::{Redis, RedisExecutor, RedisUrl};
use fleetwide_testkit::{RedisServer, Reply, RespConnection, SimClock, seed, unique_namespace};
use rand::Rng;
use rand::rngs::StdRng;

use super::state::{live_lease, live_value, read_value, write_value};
use super::{
    Bump, Clear, EntryKeys, Fill, Invalidate, Lease, Lookup, Put, Release, Renew, Versions, Wake,
    tags_key,
};

const HISTORIES: usize = 1_000;
const STEPS: usize = 25;
const KEYS: [&[u8]; 2] = [b"a", b"b"];
/// More than are kept, so that they are pruned.
const TAGS: [&[u8]; 5] = [b"t0", b"t1", b"t2", b"t3", b"t4"];

struct Twins {
    admin: RespConnection,
    redis: RedisExecutor,
    memory: MemExecutor,
    clock: SimClock,
    tag: Tag,
    rng: StdRng,
    /// Whether time goes forward or back in this history. Not both: the server's own expiry does
    /// not follow the test's clock, so what had run out here would come back to life there.
    forward: bool,
}

impl Twins {
    /// Runs `op` on both sides and compares the replies.
    async fn step<O>(&self, what: &str, op: O)
    where
        O: AtomicOp<State = LogCell, Reply: PartialEq + Debug>,
    {
        let (shared, local) = (self.redis.run(&op).await, self.memory.run(&op).await);
        assert_eq!(shared, local, "reply of {what}: left is the script's");
    }

    fn tags(&mut self) -> Vec<Bytes> {
        let rng = &mut self.rng;
        TAGS.into_iter().filter(|_| rng.random_bool(0.2)).map(Bytes::from_static).collect()
    }

    fn append(&mut self, body: &'static [u8]) -> Append {
        let (fresh, id) = (Epoch(self.rng.random()), self.rng.random());
        let body = Bytes::from_static(body);
        Append::new(&self.tag, fresh, id, *b"instance", self.rng.random_range(0..9), body)
            .unwrap()
            .entries_max(4)
    }

    async fn random_step(&mut self) {
        let name = KEYS[self.rng.random_range(0..KEYS.len())];
        let keys = EntryKeys::new(&self.tag, name).unwrap();
        let token = [self.rng.random_range(0..3); 8];
        let length = Duration::from_secs(self.rng.random_range(10..=60));
        let ttl = Ttl::clamped(Duration::from_secs(self.rng.random_range(3_600..9_999)));
        let envelope = Bytes::from(format!("envelope {}", self.rng.random_range(0..99)));
        let wake = Wake::new(&self.tag, name);
        match self.rng.random_range(0..19) {
            0..4 => {
                let mut op = Lease::new(&keys, token, length, Epoch(self.rng.random()));
                if self.rng.random_bool(0.2) {
                    op.ignore_value();
                }
                self.step("lease", op).await;
            }
            4..7 => {
                let tags = self.tags();
                self.step("fill", Fill::new(&keys, token, envelope, ttl, wake, tags)).await;
            }
            7 => self.step("renew", Renew::new(&keys, token, length)).await,
            8 => self.step("release", Release::new(&keys, token, wake)).await,
            9 => {
                let (append, tagged) = (self.append(b"put"), self.rng.random());
                let second = Duration::from_secs(self.rng.random_range(0..2));
                let now = self.clock.server_time().as_micros();
                let early = ServerTime::from_micros(now - 1).plus(second);
                let until = self.rng.random_bool(0.5).then_some(early);
                self.step("put", Put::new(&keys, append, envelope, ttl, tagged, until)).await;
            }
            10..12 => {
                let append = self.append(b"gone");
                self.step("invalidate", Invalidate::new(&keys, append)).await;
            }
            12 => {
                let append = self.append(b"clear");
                self.step("clear", Clear::new(&self.tag, append)).await;
            }
            13 if self.forward => {
                self.clock.advance(Duration::from_millis(self.rng.random_range(0..30_000)));
            }
            13 => {
                let back = Duration::from_millis(self.rng.random_range(0..90_000));
                self.clock.step_server_back(back);
            }
            14..16 => {
                let tag = TAGS[self.rng.random_range(0..TAGS.len())];
                let append = self.append(b"bump");
                self.step("bump", Bump::new(&self.tag, append, Bytes::from_static(tag), 3)).await;
            }
            16 => {
                let tags = TAGS.map(Bytes::from_static);
                self.step("versions", Versions::new(&tags_key(&self.tag), &tags)).await;
            }
            _ => {
                let meta = Append::keys(&self.tag).0;
                self.step("lookup", Lookup::new(&self.tag, &meta, name).unwrap()).await;
            }
        }
    }

    async fn compare_states(&mut self) {
        let now = self.clock.server_time();
        let (meta, stream) = Append::keys(&self.tag);
        let log = self.memory.peek_state::<LogCell>(&meta);
        let log = log.as_ref().and_then(LogCell::as_log);
        let held = log.map(|log| log.meta().to_bytes().to_vec());
        assert_eq!(self.raw(&meta).await, held, "meta");
        assert_eq!(self.stream(&stream).await, entries(log), "stream");
        let tags = self.memory.peek_state::<LogCell>(&tags_key(&self.tag));
        assert_eq!(self.hash(&tags_key(&self.tag)).await, fields(tags.as_ref()), "tags");
        for name in KEYS {
            let keys = EntryKeys::new(&self.tag, name).unwrap();
            let cell = self.memory.peek_state::<LogCell>(&keys.value);
            let value = live_value(cell.as_ref(), now).map(write_value);
            let shared = self.raw(&keys.value).await.map(Bytes::from);
            let live = shared.filter(|raw| read_value(raw).unwrap().expires_at > now);
            assert_eq!(live, value, "value");
            let lease = live_lease(cell.as_ref(), now).map(|lease| {
                let mut raw = lease.token.to_vec();
                raw.extend(lease.stamp.epoch.0);
                raw.extend(lease.stamp.seq.to_be_bytes());
                raw.extend(lease.expires_at.as_micros().to_be_bytes());
                raw.push(lease.awaited.into());
                raw
            });
            let live = |raw: &Vec<u8>| {
                let deadline = u64::from_be_bytes(raw[24..32].try_into().unwrap());
                deadline
                    .checked_sub(now.as_micros())
                    .is_some_and(|left| (1..=60_000_000).contains(&left))
            };
            assert_eq!(self.raw(&keys.lease).await.filter(live), lease, "lease");
        }
    }

    async fn raw(&mut self, key: &Key) -> Option<Vec<u8>> {
        match self.admin.command(&[b"GET".as_slice(), key.as_bytes()]).await.unwrap() {
            Reply::Bulk(bytes) => Some(bytes.to_vec()),
            Reply::Nil => None,
            other => panic!("{other:?}"),
        }
    }

    async fn hash(&mut self, key: &Key) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let reply = self.admin.command(&[b"HGETALL".as_slice(), key.as_bytes()]).await.unwrap();
        let bytes = |reply: &Reply| match reply {
            Reply::Bulk(bytes) => bytes.to_vec(),
            other => panic!("{other:?}"),
        };
        reply.as_array().unwrap().chunks(2).map(|pair| (bytes(&pair[0]), bytes(&pair[1]))).collect()
    }

    async fn stream(&mut self, key: &Key) -> Vec<Vec<u8>> {
        let reply =
            self.admin.command(&[b"XRANGE".as_slice(), key.as_bytes(), b"-", b"+"]).await.unwrap();
        let entry = |entry: &Reply| {
            let Reply::Bulk(bytes) = &entry.as_array().unwrap()[1].as_array().unwrap()[1] else {
                panic!("{entry:?}")
            };
            bytes.to_vec()
        };
        reply.as_array().unwrap().iter().map(entry).collect()
    }
}

fn fields(tags: Option<&LogCell>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let Some(tags) = tags.and_then(LogCell::as_tags) else { return BTreeMap::new() };
    let bumps = tags.bumps.iter().map(|(tag, seq)| (tag.to_vec(), seq.to_string().into_bytes()));
    bumps.chain([(Vec::new(), tags.epoch.0.to_vec())]).collect()
}

fn entries(log: Option<&LogState>) -> Vec<Vec<u8>> {
    log.into_iter().flat_map(|log| log.entries_from(0)).map(|entry| entry.to_vec()).collect()
}

#[tokio::test]
async fn scripts_and_their_twins_agree_on_replies_and_states() {
    let seed = seed();
    let server = RedisServer::start().await.unwrap();
    let clock = SimClock::new();
    let redis = Redis::builder(RedisUrl::parse(&server.url()).unwrap())
        .script_clock(ScriptClock::Argument)
        .clock(Arc::new(clock.clone()))
        .build()
        .unwrap();
    redis.ready(Duration::from_secs(10)).await.unwrap();
    let memory = Memory::builder().clock(Arc::new(clock.clone())).build();
    let namespace = Namespace::new(&unique_namespace()).unwrap();
    let mut twins = Twins {
        admin: server.connect_admin().await.unwrap(),
        redis: redis.executor(),
        memory: memory.executor().clone(),
        clock,
        tag: namespace.tag("cache", b"start").unwrap(),
        rng: seed.rng(),
        forward: true,
    };
    for history in 0..HISTORIES {
        twins.tag = namespace.tag("cache", format!("history-{history}").as_bytes()).unwrap();
        twins.clock.set_server_time(SimClock::new().server_time());
        twins.forward = history % 2 == 0;
        for _ in 0..STEPS {
            twins.random_step().await;
        }
        twins.compare_states().await;
    }
}
