//! The pure halves of the suites' ops against their scripts, and the comparison itself.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::log::{LogCell, Meta};
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Clock, Effects, Key, Malformed, Namespace, Script, ServerTime, Tag, Wire,
};
use fleetwide_mem_backend::Memory;
use fleetwide_testkit::suite::differential::{Histories, Side, compare};
use fleetwide_testkit::suite::ops::{Claim, Claimed, Count, Counted, Record, Say, Transfer};
use fleetwide_testkit::{RedisServer, SimClock};
use futures_util::FutureExt;
use rand::Rng;
use rand::rngs::StdRng;

use crate::client::Client;
use crate::executor::TinyExecutor;
use crate::start;

const HISTORIES: u32 = 10;
/// Longer than any history by the clock of the test, and than the test by the clock on the wall.
const LONG: Duration = Duration::from_secs(3600);
const HOLDERS: [&[u8]; 3] = [b"one", b"\r\n:\0", b""];

#[tokio::test]
async fn pure_steps_and_scripts_are_twins() {
    let pair = Pair::start().await;
    pair.play::<_, u64, _>(number, |rng, names| {
        let tag = tag(names);
        let limit = rng.random_range(1..100);
        move |rng| Count { by: rng.random_range(0..20), limit, ttl: LONG, ..Count::one(&tag.key()) }
    })
    .await;
    pair.play::<_, u64, _>(number, |_, names| {
        let keys = ["a", "b", "c"].map(|part| tag(names).part(part));
        move |rng| {
            let from = rng.random_range(0..3);
            let to = (from + rng.random_range(1..3)) % 3;
            let keys = [from, to].map(|at| keys[at].clone());
            Transfer { keys, amount: rng.random_range(0..2), ttl: LONG }
        }
    })
    .await;
    pair.play::<_, u64, _>(number, |rng, names| {
        let (tag, limit) = (tag(names), rng.random_range(0..60));
        move |_| Say { key: [tag.key()], channel: tag.channel("said"), limit, ttl: LONG }
    })
    .await;
    pair.play::<_, Claimed, _>(claimed, |_, names| {
        let (tag, clock) = (tag(names), pair.clock.clone());
        move |rng| {
            step(&clock, rng);
            let holder = Bytes::from_static(HOLDERS[rng.random_range(0..3)]);
            let lasts = Duration::from_micros(rng.random_range(1..200_000));
            Claim { key: [tag.key()], holder, lasts, ttl: LONG }
        }
    })
    .await;
    pair.play_log().await;
}

#[tokio::test]
async fn the_comparison_names_the_step_that_differs() {
    let pair = Pair::start().await;
    let played = pair.play::<_, u64, _>(number, |_, names| {
        let key = tag(names).key();
        move |_| Forgetful(Count { limit: 7, ..Count::one(&key) })
    });
    let panic = std::panic::AssertUnwindSafe(played).catch_unwind().await.unwrap_err();
    let text = panic.downcast_ref::<String>().expect("a panic with a text");
    assert!(text.starts_with("the reply differs at step 7 of history 0\n"), "{text}");
    assert!(text.contains("FLEETWIDE_SEED=") && text.contains("FLEETWIDE_HISTORY=0"), "{text}");
}

/// Both executors, on one clock.
struct Pair {
    clock: SimClock,
    started: ServerTime,
    memory: Memory,
    redis: TinyExecutor,
    client: Client,
    _server: RedisServer,
}

impl Pair {
    async fn start() -> Self {
        let server = start().await;
        let clock = SimClock::new();
        let memory = Memory::builder().clock(Arc::new(clock.clone())).build();
        let client = Client::of(&server);
        let redis = TinyExecutor::with_clock(client.clone(), Arc::new(clock.clone()));
        let started = clock.server_time();
        Self { clock, started, memory, redis, client, _server: server }
    }

    /// Plays histories of an op whose state is an `S` in memory and a string on the server, which
    /// `read` makes an `S` of.
    async fn play<O, S, G>(
        &self,
        read: fn(&[u8]) -> S,
        mut history: impl FnMut(&mut StdRng, &Namespace) -> G,
    ) where
        O: AtomicOp<Reply: Debug + PartialEq> + Debug,
        S: Lives + Clone + Debug + PartialEq + 'static,
        G: FnMut(&mut StdRng) -> O,
    {
        let living = |state: Option<S>| state.filter(|state| state.lives(self.clock.server_time()));
        let memory = Side {
            executor: self.memory.executor(),
            probe: async |key: &Key| living(self.memory.executor().peek_state(key)),
        };
        let redis = Side {
            executor: &self.redis,
            probe: async |key: &Key| living(self.get(key).await.map(|state| read(&state))),
        };
        let histories = Histories { count: HISTORIES, ..Histories::seeded() };
        let played = compare(histories, memory, redis, |rng, names| {
            self.clock.set_server_time(self.started);
            history(rng, names)
        });
        played.await;
    }

    /// A log is a meta and a stream, of which the meta is a cell.
    async fn play_log(&self) {
        let meta = |cell: LogCell| cell.as_log().map(fleetwide_core_traits::log::LogState::meta);
        let memory = Side {
            executor: self.memory.executor(),
            probe: async |key: &Key| self.memory.executor().peek_state(key).and_then(meta),
        };
        let redis = Side {
            executor: &self.redis,
            probe: async |key: &Key| self.get(key).await.and_then(|meta| Meta::read(&meta).ok()),
        };
        let histories = Histories { count: HISTORIES, ..Histories::seeded() };
        let played = compare(histories, memory, redis, |_, names| {
            let tag = tag(names);
            move |rng| {
                let body: Vec<u8> = (0..rng.random_range(0..9)).map(|_| rng.random()).collect();
                let [fresh, id, number] = rng.random();
                Record::new(&tag, fresh, id, number, body.into()).entries_max(5)
            }
        });
        played.await;
    }

    async fn get(&self, key: &Key) -> Option<Bytes> {
        let reply = self.client.command(&[b"GET".to_vec(), key.as_bytes().to_vec()]).await;
        reply.unwrap().into_optional_bytes().unwrap()
    }
}

/// Whether a state means more than an empty cell does.
trait Lives {
    fn lives(&self, now: ServerTime) -> bool;
}

impl Lives for u64 {
    fn lives(&self, _: ServerTime) -> bool {
        true
    }
}

impl Lives for Claimed {
    fn lives(&self, now: ServerTime) -> bool {
        self.until > now
    }
}

/// Moves the time on, now and then back.
fn step(clock: &SimClock, rng: &mut StdRng) {
    if rng.random_ratio(1, 10) {
        clock.step_server_back(Duration::from_micros(rng.random_range(0..300_000)));
    } else {
        clock.advance(Duration::from_micros(rng.random_range(0..60_000)));
    }
}

fn tag(names: &Namespace) -> Tag {
    names.tag("twins", b"one").unwrap()
}

fn number(text: &[u8]) -> u64 {
    std::str::from_utf8(text).unwrap().parse().unwrap()
}

fn claimed(text: &[u8]) -> Claimed {
    let colon = text.iter().position(|&byte| byte == b':').unwrap();
    let until = ServerTime::from_micros(number(&text[..colon]));
    Claimed { holder: Bytes::copy_from_slice(&text[colon + 1..]), until }
}

/// A [`Count`] whose pure half forgets the limit.
#[derive(Debug)]
struct Forgetful(Count);

impl AtomicOp for Forgetful {
    type State = u64;
    type Reply = Counted;

    fn script(&self) -> &'static Script {
        self.0.script()
    }

    fn keys(&self) -> &[Key] {
        self.0.keys()
    }

    fn args(&self, to: &mut dyn ArgSink) {
        self.0.args(to);
    }

    fn apply(&self, cells: &[Option<&u64>], now: ServerTime, out: &mut Effects<u64>) -> Counted {
        Count { limit: u64::MAX, ..self.0.clone() }.apply(cells, now, out)
    }

    fn decode(&self, reply: Wire) -> Result<Counted, Malformed> {
        self.0.decode(reply)
    }
}
