//! Each script and its pure twin give the same replies and leave the same state.
//!
//! Random histories run against a real server and in memory, on one clock that the test moves.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::log::{Append, Epoch, Guard, LogCell, LogState};
use fleetwide_core_traits::{
    AtomicOp, Clock, ExecutorExt, Key, Namespace, ScriptClock, ServerTime, Tag, Ttl,
};
use fleetwide_mem_backend::{MemExecutor, Memory};
use fleetwide_redis_backend::{Redis, RedisExecutor, RedisUrl};
use fleetwide_testkit::{RedisServer, Reply, RespConnection, SimClock, seed, unique_namespace};
use rand::Rng;
use rand::rngs::StdRng;

use super::guard::live_guards;
use super::layout::layout_key;
use super::state::{live_lease, live_values};
use super::variants::{self, variants};
use super::{
    Agree, Bump, Clear, EntryKeys, Fill, Hold, Invalidate, InvalidateMany, Lease, Lookup,
    LookupMany, OnePut, Put, PutMany, Reader, Release, Renew, SetGuard, Versions, Wake, tags_key,
};

const HISTORIES: usize = 1_000;
const STEPS: usize = 25;
const KEYS: [&[u8]; 2] = [b"a", b"b"];
/// More than are kept, so that they are pruned.
const TAGS: [&[u8]; 5] = [b"t0", b"t1", b"t2", b"t3", b"t4"];

const LAYOUTS: [&[u8]; 3] = [b"one", b"two", b"three"];

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
    /// Whether values run out within this history. The scripts see that by the test's clock; a plain
    /// read would not, so it is left out then.
    short: bool,
    /// Whether little is written in this history.
    calm: bool,
    /// How often a string with several variants was compared.
    several: usize,
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

    /// One of more schemas than a string may hold, in what is an envelope as far as scripts look.
    fn envelope(&mut self) -> Bytes {
        let (schema, rest) = (self.schema(), self.rng.random_range(0..99));
        if self.rng.random_bool(0.02) {
            return Bytes::from_static(b"short");
        }
        Bytes::from(
            [b"FW\x01\x01\x00".to_vec(), schema.to_be_bytes().to_vec(), vec![rest]].concat(),
        )
    }

    fn schema(&mut self) -> u32 {
        self.rng.random_range(0..5)
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
        let seconds = if self.short { 1..90 } else { 3_600..9_999 };
        let ttl = Ttl::clamped(Duration::from_secs(self.rng.random_range(seconds)));
        let (envelope, schema) = (self.envelope(), self.schema());
        let wake = Wake::new(&self.tag, name);
        // Leases, fills and looks alone now and then, so that values of several schemas come to lie
        // side by side before something removes them.
        let calm = self.calm && self.rng.random_bool(0.9);
        let kinds = if calm {
            [0, 4, 5, 22][self.rng.random_range(0..4)]
        } else {
            self.rng.random_range(0..26)
        };
        match kinds {
            0..4 => {
                let mut op = Lease::new(&keys, token, length, Epoch(self.rng.random()), schema);
                let cell = self.memory.peek_state::<LogCell>(&keys.value);
                let values = live_values(cell.as_ref(), self.clock.server_time());
                let stored = values.map(|value| value.stored_at).last();
                op.ignore(stored.filter(|_| self.rng.random_bool(0.3)));
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
            17..20 => self.random_step_on_many().await,
            23 => {
                let append = self.append(b"guard");
                if self.rng.random() {
                    self.step("guard", SetGuard::begin(&keys, append, token, length)).await;
                } else {
                    self.step("guard's end", SetGuard::end(&keys, append, token)).await;
                }
            }
            24 => self.step("hold", Hold::new(&keys, token, length)).await,
            25 => {
                let layout = LAYOUTS[self.rng.random_range(0..LAYOUTS.len())];
                self.step("agree", Agree::new(&self.tag, Bytes::from_static(layout))).await;
            }
            _ if self.short => {}
            20 => {
                let meta = Append::keys(&self.tag).0;
                let now = self.rng.random_bool(0.8).then(|| self.clock.server_time());
                let (names, reader) = (KEYS.into_iter(), Reader { schema, now });
                let op = LookupMany::new(&self.tag, &meta, names, reader).unwrap();
                self.step("lookup many", op).await;
            }
            _ => {
                let meta = Append::keys(&self.tag).0;
                let now = self.rng.random_bool(0.8).then(|| self.clock.server_time());
                let reader = Reader { schema, now };
                self.step("lookup", Lookup::new(&self.tag, &meta, name, reader).unwrap()).await;
            }
        }
    }

    async fn random_step_on_many(&mut self) {
        let names: Vec<_> = KEYS.into_iter().filter(|_| self.rng.random_bool(0.7)).collect();
        if names.is_empty() || self.rng.random_bool(0.3) {
            let append = self.append(b"many gone");
            let names = KEYS.into_iter();
            let op = InvalidateMany::new(&self.tag, names, append).unwrap();
            return self.step("invalidate many", op).await;
        }
        let mut puts = Vec::new();
        for name in names {
            let seconds = if self.short { 1..90 } else { 3_600..9_999 };
            let ttl = Ttl::clamped(Duration::from_secs(self.rng.random_range(seconds)));
            let (wire, envelope) = (Bytes::from_static(name), self.envelope());
            puts.push(OnePut { wire, envelope, ttl, tagged: self.rng.random() });
        }
        let append = self.append(b"many put");
        let second = Duration::from_secs(self.rng.random_range(0..2));
        let early = ServerTime::from_micros(self.clock.server_time().as_micros() - 1).plus(second);
        let until = self.rng.random_bool(0.5).then_some(early);
        self.step("put many", PutMany::new(&self.tag, puts, append, until).unwrap()).await;
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
        let record = layout_key(&self.tag);
        let held = self.memory.peek_state::<LogCell>(&record);
        let held = held.as_ref().and_then(LogCell::as_layout);
        let held = held
            .map(|held| [&held.alive_until.as_micros().to_be_bytes()[..], &held.layout].concat());
        assert_eq!(self.raw(&record).await, held, "layout");
        for name in KEYS {
            let keys = EntryKeys::new(&self.tag, name).unwrap();
            let cell = self.memory.peek_state::<LogCell>(&keys.value);
            let values: Vec<_> = live_values(cell.as_ref(), now).cloned().collect();
            let shared = self.raw(&keys.value).await.map(Bytes::from).unwrap_or_default();
            let all: Vec<_> = variants(&shared).collect();
            self.several += usize::from(all.len() > 1);
            if !shared.is_empty() {
                assert_eq!(variants::write(&all), shared, "the form of a value");
            }
            let live: Vec<_> = all.into_iter().filter(|value| value.expires_at > now).collect();
            assert_eq!(live, values, "values");
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
            self.compare_guards(&keys.guards, now).await;
        }
    }

    /// Takes a cache over, and is kept out of it: with a log that is there, and a clock that jumps.
    async fn history_of_layouts(&mut self) {
        for _ in 0..60 {
            match self.rng.random_range(0..5) {
                0 => {
                    let append = self.append(b"clear");
                    self.step("clear", Clear::new(&self.tag, append)).await;
                }
                1 => self.clock.advance(Duration::from_secs(self.rng.random_range(1..70))),
                2 if !self.forward => {
                    let back = Duration::from_secs(self.rng.random_range(1..300));
                    self.clock.step_server_back(back);
                }
                _ => {
                    let layout = LAYOUTS[self.rng.random_range(0..LAYOUTS.len())];
                    let op = Agree::new(&self.tag, Bytes::from_static(layout));
                    self.step("agree", op).await;
                }
            }
            self.compare_states().await;
        }
    }

    /// More guards than have a place of their own.
    async fn crowd_of_guards(&mut self) {
        let keys = EntryKeys::new(&self.tag, KEYS[0]).unwrap();
        for number in 1..=70_u64 {
            let append = self.append(b"guard");
            let life = Duration::from_millis(self.rng.random_range(50_000..60_000));
            let op = SetGuard::begin(&keys, append, number.to_be_bytes(), life);
            self.step("one of a crowd", op).await;
        }
        self.compare_guards(&keys.guards, self.clock.server_time()).await;
        for number in 1..=70_u64 {
            let append = self.append(b"guard");
            self.step("its end", SetGuard::end(&keys, append, number.to_be_bytes())).await;
            self.compare_guards(&keys.guards, self.clock.server_time()).await;
        }
        let left = self.raw(&keys.guards).await.map(|raw| raw.len());
        assert_eq!(left, Some(16), "the crowd can only run out");
    }

    async fn compare_guards(&mut self, key: &Key, now: ServerTime) {
        let raw = self.raw(key).await.unwrap_or_default();
        let guards = raw.chunks(16).map(|guard| Guard {
            token: guard[..8].try_into().unwrap(),
            expires_at: ServerTime::from_micros(u64::from_be_bytes(guard[8..].try_into().unwrap())),
        });
        let shared = LogCell::Guards(guards.collect());
        let cell = self.memory.peek_state::<LogCell>(key);
        assert_eq!(live_guards(Some(&shared), now), live_guards(cell.as_ref(), now), "guards");
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
    let head = [&tags.epoch.0[..], tags.floor.to_string().as_bytes()].concat();
    bumps.chain([(Vec::new(), head)]).collect()
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
        short: false,
        calm: false,
        several: 0,
    };
    for history in 0..HISTORIES {
        twins.tag = namespace.tag("cache", format!("history-{history}").as_bytes()).unwrap();
        twins.clock.set_server_time(SimClock::new().server_time());
        twins.forward = history % 2 == 0;
        twins.short = history % 6 == 0;
        twins.calm = history % 7 < 3;
        for _ in 0..STEPS {
            twins.random_step().await;
        }
        twins.compare_states().await;
    }
    for history in 0..20 {
        twins.tag = namespace.tag("cache", format!("layouts-{history}").as_bytes()).unwrap();
        twins.forward = history % 2 == 0;
        twins.history_of_layouts().await;
    }
    twins.tag = namespace.tag("cache", b"crowd").unwrap();
    twins.crowd_of_guards().await;
    assert!(twins.several > HISTORIES / 20, "variants were compared: {}", twins.several);
}
