//! The scripts of a log and their twins in memory give the same replies and keep the same state.

mod common;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::log::{Append, EntryId, Epoch, Incoming, LogCell, ROLL_PART, Stamp};
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Clock, Effects, Executor, ExecutorExt, Key, Malformed, Script, ScriptClock,
    ServerTime, Tag, Wire,
};
use fleetwide_mem_backend::Memory;
use fleetwide_pubsub_invalidation::ops::{
    Beat, Muster, Page, Presence, Publish, RaiseEpoch, Replay,
};
use fleetwide_redis_backend::{Redis, RedisUrl};
use fleetwide_testkit::suite::differential::{Histories, Side, compare};
use fleetwide_testkit::{RedisServer, SimClock};
use rand::Rng;
use rand::rngs::StdRng;

/// Any step of a log, so that one history can mix them.
#[derive(Debug)]
enum Step {
    Beat(Beat),
    Replay(Replay),
    Raise(RaiseEpoch),
    Publish(Publish),
    Muster(Muster),
    Forget(Forget),
    ReadRoll(ReadRoll),
}

/// The whole roll as it is kept, to be compared.
#[derive(Debug)]
struct ReadRoll {
    key: [Key; 1],
}

static READ_ROLL: Script =
    Script::untimed("test_read_roll", &["return redis.call('HGETALL', KEYS[1])"]);

impl AtomicOp for ReadRoll {
    type State = LogCell;
    type Reply = BTreeMap<Vec<u8>, Vec<u8>>;

    fn script(&self) -> &'static Script {
        &READ_ROLL
    }

    fn keys(&self) -> &[Key] {
        &self.key
    }

    fn args(&self, _to: &mut dyn ArgSink) {}

    fn apply(
        &self,
        cells: &[Option<&LogCell>],
        _now: ServerTime,
        _out: &mut Effects<LogCell>,
    ) -> Self::Reply {
        let Some(roll) = cells[0].and_then(LogCell::as_roll) else { return BTreeMap::new() };
        let since = roll.since.as_micros().to_be_bytes().to_vec();
        let signs = roll.signs.iter().map(|(name, sign)| {
            let life = sign.life.as_micros() as u64;
            let mut raw = sign.seen_at.as_micros().to_be_bytes().to_vec();
            raw.extend(life.to_be_bytes());
            raw.extend(sign.at.epoch.0);
            raw.extend(sign.at.seq.to_be_bytes());
            (name.to_vec(), raw)
        });
        signs.chain([(Vec::new(), since)]).collect()
    }

    fn decode(&self, reply: Wire) -> Result<Self::Reply, Malformed> {
        let flat = reply.into_vec()?.into_iter().map(|item| Ok(item.into_bytes()?.to_vec()));
        let flat = flat.collect::<Result<Vec<_>, Malformed>>()?;
        Ok(flat.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
    }
}

/// The log disappears: its meta is deleted. A server may then still have the stream.
#[derive(Debug)]
struct Forget {
    keys: [Key; 2],
}

static FORGET: Script = Script::untimed("test_forget", &["return redis.call('DEL', KEYS[1])"]);

macro_rules! each {
    ($self:ident, $op:ident => $do:expr) => {
        match $self {
            Step::Beat($op) => $do,
            Step::Replay($op) => $do,
            Step::Raise($op) => $do,
            Step::Publish($op) => $do,
            Step::Muster($op) => $do,
            Step::Forget($op) => $do,
            Step::ReadRoll($op) => $do,
        }
    };
}

impl AtomicOp for Step {
    type State = LogCell;
    /// The reply as text: the types differ by step.
    type Reply = String;

    fn script(&self) -> &'static Script {
        each!(self, op => op.script())
    }

    fn keys(&self) -> &[Key] {
        each!(self, op => op.keys())
    }

    fn cells(&self) -> usize {
        each!(self, op => op.cells())
    }

    fn args(&self, to: &mut dyn ArgSink) {
        each!(self, op => op.args(to));
    }

    fn apply(
        &self,
        cells: &[Option<&LogCell>],
        now: ServerTime,
        out: &mut Effects<LogCell>,
    ) -> String {
        each!(self, op => format!("{:?}", op.apply(cells, now, out)))
    }

    fn decode(&self, reply: Wire) -> Result<String, Malformed> {
        Ok(each!(self, op => format!("{:?}", op.decode(reply)?)))
    }
}

impl AtomicOp for Forget {
    type State = LogCell;
    type Reply = bool;

    fn script(&self) -> &'static Script {
        &FORGET
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn cells(&self) -> usize {
        1
    }

    fn args(&self, _to: &mut dyn ArgSink) {}

    fn apply(
        &self,
        cells: &[Option<&LogCell>],
        _now: ServerTime,
        out: &mut Effects<LogCell>,
    ) -> bool {
        out.delete(0);
        cells[0].is_some()
    }

    fn decode(&self, reply: Wire) -> Result<bool, Malformed> {
        Ok(reply.into_int()? == 1)
    }
}

/// Few epochs, so that a history meets them again.
fn epoch(rng: &mut StdRng) -> Epoch {
    Epoch([rng.random_range(1..4); 8])
}

/// A sign of one of four followers, which may have applied what the log has, or had, or never had.
fn presence(last: Option<&Applied>, rng: &mut StdRng) -> Presence {
    let id = |rng: &mut StdRng| [rng.random_range(0..4); 8];
    let applied = match rng.random_range(0..4) {
        0 => None,
        1 => Some((Stamp { epoch: epoch(rng), seq: rng.random_range(0..9) }, id(rng))),
        _ => last.copied(),
    };
    let life = Duration::from_millis(rng.random_range(1..20_000));
    Presence { follower: [rng.random_range(0..4); 8], life, applied }
}

/// A place in the log and the name of the entry there.
type Applied = (Stamp, EntryId);

fn step(tag: &Tag, seen: &[Applied], rng: &mut StdRng) -> Step {
    match rng.random_range(0..23) {
        0..4 => {
            let last = seen.len().checked_sub(1 + rng.random_range(0..6));
            let presence = presence(last.and_then(|last| seen.get(last)), rng);
            let beat = Beat::new(tag, epoch(rng), presence);
            Step::Beat(beat.renew(rng.random()).followers_max(3))
        }
        20..22 => Step::Muster(Muster::new(tag, Duration::from_secs(rng.random_range(1..9)))),
        22 => Step::ReadRoll(ReadRoll { key: [tag.part(ROLL_PART)] }),
        4..8 => {
            let replay = Replay::new(tag, rng.random_range(0..12));
            Step::Replay(replay.entries_max(rng.random_range(2..6)))
        }
        8 => Step::Raise(RaiseEpoch::new(tag, epoch(rng), epoch(rng))),
        9 => Step::Forget(Forget { keys: Append::keys(tag).into() }),
        _ => {
            // Now and then one that fills a page by itself.
            let len = if rng.random_ratio(1, 20) { Append::BODY_BYTES_MAX } else { 30 };
            let body = vec![rng.random(); rng.random_range(0..=len)];
            let (fresh, id, source) = (epoch(rng), rng.random(), rng.random());
            let append = Append::new(tag, fresh, id, source, rng.random(), Bytes::from(body));
            Step::Publish(Publish::new(tag, append.unwrap().entries_max(6)))
        }
    }
}

/// All that a log has: its meta, its entries, and who follows it.
async fn state(executor: &impl Executor, history: &RefCell<Option<History>>) -> State {
    let tag = history.borrow().as_ref().expect("a history has begun").tag.clone();
    let page = executor.run(&Replay::new(&tag, 0).entries_max(1000)).await.unwrap();
    if let Some(history) = &mut *history.borrow_mut() {
        history.seen = page.entries.iter().map(place).collect();
    }
    let roll = ReadRoll { key: [tag.part(ROLL_PART)] };
    (page, executor.run(&roll).await.unwrap())
}

type State = (Page, BTreeMap<Vec<u8>, Vec<u8>>);

/// The log that is played on, and the entries that it had when it was looked at last.
struct History {
    tag: Tag,
    seen: Vec<Applied>,
}

fn place(entry: &Bytes) -> Applied {
    match Incoming::read(entry) {
        Ok(Incoming::Entry(entry)) => (entry.stamp, entry.id),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn scripts_and_twins_agree_on_every_step_of_a_log() {
    let clock = std::sync::Arc::new(SimClock::new());
    let memory = Memory::builder().clock(clock.clone()).build();
    let server = RedisServer::start().await.unwrap();
    let redis = Redis::builder(RedisUrl::parse(&server.url()).unwrap())
        .script_clock(ScriptClock::Argument)
        .command_timeout(common::DEADLINE)
        .total_timeout(common::DEADLINE)
        .clock(clock.clone())
        .build()
        .unwrap();
    redis.ready(common::DEADLINE).await.unwrap();
    let (left, right) = (memory.executor(), redis.executor());
    let history = RefCell::new(None);
    let (memory, server) = (
        Side { executor: left, probe: async |_: &Key| state(left, &history).await },
        Side { executor: &right, probe: async |_: &Key| state(&right, &history).await },
    );
    let histories = Histories { count: 60, steps: 100, ..Histories::seeded() };
    let steps = compare(histories, memory, server, |_rng, namespace| {
        let tag = namespace.tag("log", b"twin").unwrap();
        history.replace(Some(History { tag: tag.clone(), seen: Vec::new() }));
        let (clock, history) = (clock.clone(), &history);
        move |rng: &mut StdRng| {
            clock.advance(Duration::from_micros(rng.random_range(0..1_000_000)));
            if rng.random_ratio(1, 20) {
                clock.step_server_back(Duration::from_millis(rng.random_range(0..9_000)));
            }
            assert!(clock.server_time() < ServerTime::MAX);
            let seen = history.borrow().as_ref().map(|history| history.seen.clone());
            step(&tag, &seen.unwrap_or_default(), rng)
        }
    });
    assert_eq!(steps.await, if histories.only.is_some() { 100 } else { 6_000 });
}
