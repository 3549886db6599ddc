//! The scripts of a log and their twins in memory give the same replies and keep the same state.

mod common;

use std::cell::RefCell;

use bytes::Bytes;
use fleetwide_core_traits::log::{Append, Epoch, LogCell};
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Clock, Effects, Executor, ExecutorExt, Key, Malformed, Script, ScriptClock,
    ServerTime, Tag, Wire,
};
use fleetwide_mem_backend::Memory;
use fleetwide_pubsub_invalidation::ops::{Beat, Page, Publish, RaiseEpoch, Replay};
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
    Forget(Forget),
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
            Step::Forget($op) => $do,
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

fn step(tag: &Tag, rng: &mut StdRng) -> Step {
    match rng.random_range(0..20) {
        0..4 => Step::Beat(Beat::new(tag, epoch(rng))),
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

/// All that a log has: its meta and its entries.
async fn state(executor: &impl Executor, tag: &RefCell<Option<Tag>>) -> Page {
    let tag = tag.borrow().clone().expect("a history has begun");
    executor.run(&Replay::new(&tag, 0).entries_max(1000)).await.unwrap()
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
    let tag = RefCell::new(None);
    let (memory, server) = (
        Side { executor: left, probe: async |_: &Key| state(left, &tag).await },
        Side { executor: &right, probe: async |_: &Key| state(&right, &tag).await },
    );
    let histories = Histories { count: 60, steps: 100, ..Histories::seeded() };
    let steps = compare(histories, memory, server, |_rng, namespace| {
        let fresh = namespace.tag("log", b"twin").unwrap();
        tag.replace(Some(fresh.clone()));
        let clock = clock.clone();
        move |rng: &mut StdRng| {
            clock.advance(std::time::Duration::from_micros(rng.random_range(0..1_000_000)));
            assert!(clock.server_time() < ServerTime::MAX);
            step(&fresh, rng)
        }
    });
    assert_eq!(steps.await, if histories.only.is_some() { 100 } else { 6_000 });
}
