//! Whoever waits until all live followers have applied an entry is told the truth: a follower that
//! is behind, frozen or not known yet is waited for, one that is dead only for its life.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{DEADLINE, Fault, Faulty, LossyBus, NEVER, QUICK, Recorder, append, fresh_tag};
use fleetwide_core_traits::log::{Epoch, LogCell, Meta, ROLL_PART, Stamp, WaitError};
use fleetwide_core_traits::{
    ArgSink, AtomicOp, BackendError, Effects, ErasedOp, Executor, ExecutorExt, Key, Malformed,
    Script, ScriptClock, ServerTime, Tag, Wire,
};
use fleetwide_mem_backend::{MemBus, MemExecutor, Memory};
use fleetwide_pubsub_invalidation::Log;
use fleetwide_pubsub_invalidation::ops::{Beat, Muster, Presence};
use fleetwide_redis_backend::{Redis, RedisUrl};
use fleetwide_testkit::{RedisServer, SimClock, eventually};
use futures_util::future::join_all;

/// Longer than a busy machine keeps a beat waiting, and short enough to be waited for.
const LIFE: Duration = Duration::from_millis(300);

/// One follower whose server and messages can fail.
struct Node {
    executor: Faulty<MemExecutor>,
    bus: LossyBus<MemBus>,
    told: Recorder,
    log: Log,
}

/// A log in memory, and who follows it.
struct Setup {
    memory: Memory,
    tag: Tag,
}

impl Setup {
    fn new() -> Self {
        Self { memory: Memory::new(), tag: fresh_tag() }
    }

    async fn node(&self, heartbeat: Duration, life: Duration) -> Node {
        let executor = Faulty::new(self.memory.executor().clone());
        let bus = LossyBus::new(self.memory.bus().clone());
        let told = Recorder::new();
        let log = Log::builder(executor.clone(), bus.clone(), self.tag.clone())
            .follower(told.follower())
            .heartbeat(heartbeat)
            .life(life)
            .start();
        log.begun().await.unwrap();
        Node { executor, bus, told, log }
    }

    async fn append(&self, body: &str) -> Stamp {
        append(self.memory.executor(), &self.tag, body).await.at
    }
}

/// Nobody beats by itself here, and the roll is complete when the clock says so. Red without the
/// nudge; and red if a roll is complete from the start.
#[tokio::test]
async fn all_who_follow_are_nudged_and_have_applied_it_when_the_wait_ends() {
    let clock = SimClock::new();
    let memory = Memory::builder().clock(Arc::new(clock.clone())).build();
    let setup = Setup { memory, tag: fresh_tag() };
    let (a, b) = (setup.node(NEVER, NEVER).await, setup.node(NEVER, NEVER).await);
    clock.advance(NEVER * 2 / 3);
    let stamp = setup.append("first").await;
    let late = a.log.applied_by_all(stamp, LIFE).await;
    assert!(matches!(late, Err(WaitError::Late(behind)) if !behind.complete), "{late:?}");
    clock.advance(NEVER / 2);
    for body in ["a", "b", "c"] {
        let stamp = setup.append(body).await;
        let applied = a.log.applied_by_all(stamp, DEADLINE).await.unwrap();
        assert_eq!(applied.nodes, 2);
        assert!(b.told.text().ends_with(body), "{}", b.told.text());
    }
}

/// Red if whoever has not applied it is not waited for, or if the dead are not told from the living.
#[tokio::test]
async fn a_follower_that_is_cut_off_is_waited_for_until_its_life_is_over() {
    let setup = Setup::new();
    let (a, b) = (setup.node(QUICK, LIFE).await, setup.node(QUICK, LIFE).await);
    let stamp = setup.append("before").await;
    assert_eq!(a.log.applied_by_all(stamp, DEADLINE).await.unwrap().nodes, 2);
    b.bus.lose(usize::MAX);
    b.executor.set(Fault::Away);
    let stamp = setup.append("after").await;
    let late = a.log.applied_by_all(stamp, LIFE / 10).await;
    assert!(matches!(late, Err(WaitError::Late(behind)) if behind.nodes == 2), "{late:?}");
    assert_eq!(a.log.applied_by_all(stamp, DEADLINE).await.unwrap().nodes, 1);
    assert!(!b.told.text().contains("after"));
    // It comes back, and counts again.
    b.executor.set(Fault::None);
    b.told.expect("first@0 before after").await;
    assert_eq!(a.log.applied_by_all(stamp, DEADLINE).await.unwrap().nodes, 2);
}

/// The server evicts the roll, and the log stays. Red if a roll that has just begun counts as
/// complete: the one who waits would find itself alone in it.
#[tokio::test]
async fn a_roll_that_the_server_has_lost_is_not_believed_before_all_can_have_signed_again() {
    let setup = Setup::new();
    let (a, b) = (setup.node(QUICK, LIFE).await, setup.node(LIFE / 3, LIFE).await);
    let first = setup.append("first").await;
    assert_eq!(a.log.applied_by_all(first, DEADLINE).await.unwrap().nodes, 2);
    for round in 0..5 {
        b.bus.lose(usize::MAX);
        setup.memory.executor().run(&Evict::of(&setup.tag)).await.unwrap();
        let stamp = setup.append(&round.to_string()).await;
        let applied = a.log.applied_by_all(stamp, DEADLINE).await.unwrap();
        assert_eq!(applied.nodes, 2, "{}", b.told.text());
        assert!(b.told.text().ends_with(&round.to_string()), "{}", b.told.text());
        b.bus.lose(0);
    }
}

/// Red if a sign is believed by its number alone: a server that went back in time has given the
/// number to another entry, which the follower has not seen.
#[tokio::test]
async fn a_number_that_belongs_to_another_entry_is_not_applied() {
    let setup = Setup::new();
    let first = append(setup.memory.executor(), &setup.tag, "first").await;
    let last = append(setup.memory.executor(), &setup.tag, "last").await;
    for (meta, id, has) in [
        (last, last.last, true),
        (last, *b"another.", false),
        (first, first.last, true),
        (first, last.last, false),
    ] {
        let executor = setup.memory.executor();
        executor.run(&Evict::of(&setup.tag)).await.unwrap();
        let mustered = sign_and_muster(executor, &setup.tag, meta, id).await;
        let applied = mustered.strangers == 0 && mustered.least >= meta.at.seq;
        assert_eq!((mustered.live, applied), (1, has), "{meta:?} as {id:?}");
    }
}

async fn sign_and_muster(
    executor: &MemExecutor,
    tag: &Tag,
    meta: Meta,
    id: [u8; 8],
) -> fleetwide_pubsub_invalidation::ops::Mustered {
    let applied = Some((meta.at, id));
    let presence = Presence { follower: *b"follower", life: LIFE, applied };
    executor.run(&Beat::new(tag, Epoch([1; 8]), presence)).await.unwrap();
    executor.run(&Muster::new(tag, LIFE)).await.unwrap()
}

/// A beat that was on its way while its follower began elsewhere, and entries were appended: it
/// must not sign for them. Red if a sign without a place always takes the log's.
#[tokio::test]
async fn a_first_beat_that_comes_late_signs_for_nothing_new() {
    let setup = Setup::new();
    let executor = setup.memory.executor();
    let presence = Presence { follower: *b"follower", life: DEADLINE, applied: None };
    let beat = Beat::new(&setup.tag, Epoch([1; 8]), presence);
    executor.run(&beat).await.unwrap();
    let stamp = setup.append("new").await;
    executor.run(&beat).await.unwrap();
    let mustered = executor.run(&Muster::new(&setup.tag, LIFE)).await.unwrap();
    assert_eq!((mustered.live, mustered.least, stamp.seq), (1, 0, 1));
}

/// The clock goes back by an hour. Red without the cut of signs from the future: whoever died before
/// would be waited for through that hour.
#[tokio::test]
async fn a_clock_that_goes_back_keeps_nobody_alive_for_longer_than_its_life() {
    let clock = SimClock::new();
    let memory = Memory::builder().clock(Arc::new(clock.clone())).build();
    let tag = fresh_tag();
    let presence = Presence { follower: *b"follower", life: LIFE, applied: None };
    memory.executor().run(&Beat::new(&tag, Epoch([1; 8]), presence)).await.unwrap();
    clock.step_server_back(Duration::from_secs(3600));
    let muster = Muster::new(&tag, LIFE);
    let found = memory.executor().run(&muster).await.unwrap();
    assert_eq!((found.live, found.complete), (1, false));
    clock.advance(LIFE);
    let found = memory.executor().run(&muster).await.unwrap();
    assert_eq!((found.live, found.complete), (0, true));
}

/// Red if the roll takes everybody, or forgets silently that it has not.
#[tokio::test]
async fn a_full_roll_is_never_complete_and_has_room_again_when_the_dead_are_gone() {
    let clock = SimClock::new();
    let memory = Memory::builder().clock(Arc::new(clock.clone())).build();
    let (tag, executor) = (fresh_tag(), memory.executor());
    let beat = |name: u8| {
        let presence = Presence { follower: [name; 8], life: LIFE, applied: None };
        Beat::new(&tag, Epoch([1; 8]), presence).followers_max(2)
    };
    for name in [1, 2] {
        executor.run(&beat(name)).await.unwrap();
    }
    clock.advance(LIFE / 2);
    for name in [1, 2, 3] {
        executor.run(&beat(name)).await.unwrap();
    }
    clock.advance(LIFE * 9 / 10);
    for name in [1, 3] {
        executor.run(&beat(name)).await.unwrap();
    }
    let found = executor.run(&Muster::new(&tag, LIFE)).await.unwrap();
    assert_eq!((found.live, found.complete), (2, false));
    clock.advance(LIFE / 2);
    executor.run(&beat(3)).await.unwrap();
    let found = executor.run(&Muster::new(&tag, LIFE)).await.unwrap();
    assert_eq!((found.live, found.complete), (2, false), "the third has taken the second's place");
    clock.advance(LIFE / 2);
    executor.run(&beat(1)).await.unwrap();
    let found = executor.run(&Muster::new(&tag, LIFE)).await.unwrap();
    assert_eq!((found.live, found.complete), (2, true));
}

#[tokio::test]
async fn a_history_that_has_ended_is_not_waited_for() {
    let setup = Setup::new();
    let a = setup.node(QUICK, LIFE).await;
    let other = Stamp { epoch: Epoch(*b"long ago"), seq: 1 };
    assert_eq!(a.log.applied_by_all(other, DEADLINE).await, Err(WaitError::Superseded));
}

#[tokio::test]
async fn a_server_that_is_away_is_named_when_the_time_is_over() {
    let setup = Setup::new();
    let a = setup.node(QUICK, LIFE).await;
    let stamp = setup.append("a").await;
    a.executor.set(Fault::Away);
    let away = a.log.applied_by_all(stamp, LIFE).await;
    let Err(WaitError::Unavailable(BackendError::NotSent(outage))) = away else {
        panic!("{away:?}")
    };
    assert_eq!(outage.to_string(), "no connection: away");
}

/// Red if each of those who wait looks for itself: a thousand looks for one round.
#[tokio::test]
async fn a_thousand_who_wait_share_their_looks() {
    let (memory, tag) = (Memory::new(), fresh_tag());
    let counted = Counted { inner: memory.executor().clone(), musters: Arc::default() };
    let log = Log::builder(counted.clone(), memory.bus().clone(), tag.clone())
        .heartbeat(QUICK)
        .life(LIFE)
        .start();
    log.begun().await.unwrap();
    let mut stamps = Vec::new();
    for _ in 0..1000 {
        stamps.push(append(memory.executor(), &tag, "a").await.at);
    }
    let waits = stamps.into_iter().map(|stamp| log.applied_by_all(stamp, DEADLINE));
    assert!(join_all(waits).await.into_iter().all(|applied| applied.is_ok()));
    let looks = counted.musters.load(Ordering::SeqCst);
    assert!(looks < 300, "{looks} looks");
}

/// The same over a real server, which is full: a beat must still be taken, or everybody would count
/// as dead. Red without the write before the sign in `beat.lua`.
#[tokio::test]
async fn a_full_server_still_takes_signs_of_life() {
    let server = RedisServer::start().await.unwrap();
    let clock = Arc::new(SimClock::new());
    let url = RedisUrl::parse(&server.url()).unwrap();
    let builder = Redis::builder(url).script_clock(ScriptClock::Argument);
    let redis = builder.clock(clock.clone()).build().unwrap();
    redis.ready(DEADLINE).await.unwrap();
    let tag = fresh_tag();
    let follow = || {
        let log = Log::builder(redis.executor(), redis.bus(), tag.clone());
        log.heartbeat(QUICK).life(LIFE).start()
    };
    let (a, b) = (follow(), follow());
    a.begun().await.unwrap();
    b.begun().await.unwrap();
    let stamp = append(&redis.executor(), &tag, "a").await.at;
    server.config_set("maxmemory", "1").await.unwrap();
    for _ in 0..3 {
        // Whatever was signed before is void now.
        clock.advance(LIFE);
        let both = async || a.applied_by_all(stamp, LIFE).await.is_ok_and(|all| all.nodes == 2);
        eventually(DEADLINE, "both sign again", both).await;
    }
}

/// Counts the looks at the roll.
#[derive(Clone)]
struct Counted {
    inner: MemExecutor,
    musters: Arc<AtomicUsize>,
}

impl Executor for Counted {
    async fn execute(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        if op.script().name() == "log_muster" {
            self.musters.fetch_add(1, Ordering::SeqCst);
            // As over a network.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.inner.execute(op).await
    }

    fn prepare(&self, scripts: &[&'static Script]) {
        self.inner.prepare(scripts);
    }
}

/// The server drops the roll, as one that evicts does.
#[derive(Debug)]
struct Evict {
    keys: [Key; 1],
}

static EVICT: Script = Script::command("DEL");

impl Evict {
    fn of(tag: &Tag) -> Self {
        Self { keys: [tag.part(ROLL_PART)] }
    }
}

impl AtomicOp for Evict {
    type State = LogCell;
    type Reply = ();

    fn script(&self) -> &'static Script {
        &EVICT
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn args(&self, _to: &mut dyn ArgSink) {}

    fn apply(&self, _: &[Option<&LogCell>], _: ServerTime, out: &mut Effects<LogCell>) {
        out.delete(0);
    }

    fn decode(&self, _: Wire) -> Result<(), Malformed> {
        Ok(())
    }
}
