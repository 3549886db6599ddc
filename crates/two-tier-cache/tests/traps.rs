//! Traps that others fell into, put in order by hand: those of one process, of clocks and of
//! numbers. `traps_wire.rs` has those of the wire; `docs/testing.md` lists all.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Gate, Node, PATIENCE, SlowLoad, clocked, namespace, pair, quick, until_gone};
use fleetwide_core_traits::{MonoTime, Namespace, ServerTime};
use fleetwide_mem_backend::{MemExecutor, Memory, MokaLocal};
use fleetwide_pubsub_invalidation::Log;
use fleetwide_testkit::{SimClock, eventually};
use fleetwide_two_tier_cache::{
    Cache, CacheBuilder, CacheTag, Freshness, LoadContext, PutOptions, Tier,
};

type Executor = Gate<MemExecutor>;
type Builder = CacheBuilder<String, String, Executor>;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const QUARTER: Duration = Duration::from_secs(15 * 60);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn key() -> String {
    "key".to_owned()
}

/// Two instances over one memory, on a clock that stands still unless it is moved.
async fn timed_pair(
    options: impl Fn(Builder) -> Builder,
) -> (SimClock, Node<Executor>, Node<Executor>) {
    let clock = SimClock::new();
    let memory = Memory::builder().clock(Arc::new(clock.clone())).build();
    let namespace = namespace();
    let gate = || Gate::new(memory.executor().clone());
    let a = clocked(gate(), &memory, &clock, &namespace, &options).await;
    let b = clocked(gate(), &memory, &clock, &namespace, &options).await;
    (clock, a, b)
}

/// A value that took a second to load, in both tiers.
async fn loaded_in_a_second(clock: &SimClock, cache: &Cache<String, String, Executor>) {
    let (slow, loading) = (SlowLoad::new(), cache.clone());
    let loader = slow.loader("old");
    let reader = tokio::spawn(async move { loading.get_or_load(&key(), loader).await });
    slow.began().await;
    clock.advance(SECOND);
    slow.finish();
    reader.await.unwrap().unwrap();
    eventually(PATIENCE, "it is in L2", || async { cache.stats().fills_stored == 1 }).await;
}

/// Others stamp a renewed value when its loader is done, so that a removal during the renewal is
/// undone by it. Nobody waits for a renewal, but it holds a lease like any load.
///
/// Red without the lease check in the twin of `fill.lua`: the other instance then finds the old
/// value in L2. Red without the stamp check on a hit: then this instance serves it from L1.
async fn what_is_invalidated_while_it_is_renewed_stays_away(
    options: impl Fn(Builder) -> Builder,
    until_due: Duration,
) {
    let (clock, a, b) = timed_pair(|builder| options(builder.ttl(MINUTE).l1_ttl(MINUTE))).await;
    loaded_in_a_second(&clock, &a.cache).await;
    clock.advance(until_due);
    let renewal = SlowLoad::new();
    // Whoever loaded a value does not know when the server stored it, so an early renewal looks
    // into L2 first, and the next one loads.
    for _ in 0..2 {
        let hit = a.cache.get_or_load(&key(), renewal.loader("also old")).await.unwrap();
        assert_eq!(*hit, "old", "whoever finds it due does not wait");
        tokio::time::sleep(SECOND / 10).await;
    }
    let began = tokio::time::timeout(PATIENCE, renewal.began()).await;
    began.expect("a renewal is under way");
    b.cache.invalidate(&key()).await.unwrap();
    renewal.finish();
    let refused = || async { a.cache.stats().fills_refused == 1 };
    eventually(PATIENCE, "the renewal was refused", refused).await;
    let applied = || async { a.cache.stats().invalidations_applied == 1 };
    eventually(PATIENCE, "the invalidation is applied", applied).await;
    for node in [&a, &b] {
        assert!(node.cache.at(&key()).allow_stale().get().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn an_invalidation_voids_the_renewal_of_a_stale_value_that_began_before_it() {
    let options = |builder: Builder| builder.stale_while_revalidate(10 * MINUTE);
    what_is_invalidated_while_it_is_renewed_stays_away(options, MINUTE + SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn an_invalidation_voids_the_early_renewal_that_began_before_it() {
    let options = |builder: Builder| builder.early_refresh(1.0);
    let due = Duration::from_micros(59_999_990);
    what_is_invalidated_while_it_is_renewed_stays_away(options, due).await;
}

/// The same by a tag that the renewed value carries again.
///
/// Red without `tags_since` in the twin of `fill.lua`.
#[tokio::test(start_paused = true)]
async fn a_bump_voids_the_renewal_that_began_before_it() {
    let (clock, a, b) =
        timed_pair(|builder| builder.ttl(MINUTE).stale_while_revalidate(10 * MINUTE)).await;
    let colour = CacheTag::new("colour").unwrap();
    let options = PutOptions::default().tag(colour.clone());
    a.cache.put_with(&key(), "old".to_owned(), options).await.unwrap();
    clock.advance(MINUTE + SECOND);
    let renewal = SlowLoad::new();
    let loader = renewal.loader("also old");
    let tagged = |context: LoadContext<String, String>| async move {
        context.tag("colour").unwrap();
        loader(context.into_key()).await
    };
    let hit = a.cache.get_or_load_with(&key(), tagged).await.unwrap();
    assert_eq!(hit.freshness(), Freshness::Stale);
    renewal.began().await;
    b.cache.invalidate_tag(&colour).await.unwrap();
    renewal.finish();
    let refused = || async { a.cache.stats().fills_refused == 1 };
    eventually(PATIENCE, "the renewal was refused", refused).await;
    for node in [&a, &b] {
        assert!(node.cache.at(&key()).allow_stale().get().await.is_none());
    }
}

/// Whoever removes what an echo names removes what it has written itself since; whoever ignores its
/// own messages needs another way to keep their order. Here they are applied like all others.
///
/// Red when an entry of the log voided what is here without a look at its number.
#[tokio::test]
async fn the_echo_of_an_own_write_takes_nothing_away_that_was_written_since() {
    let (a, _b) = pair().await;
    for round in 1..=20_u32 {
        a.cache.put(&key(), format!("first {round}")).await.unwrap();
        a.cache.put(&key(), format!("second {round}")).await.unwrap();
        let echoed = || async { a.cache.stats().invalidations_applied == u64::from(2 * round) };
        eventually(PATIENCE, "both echoes are applied", echoed).await;
        let hit = a.cache.peek(&key()).expect("what was written last is still here");
        assert_eq!((&**hit, hit.tier()), (format!("second {round}").as_str(), Tier::L1));
    }
}

/// A table of flights that belongs to the process, and knows keys alone, mixes up caches.
///
/// Red when the name of a cache was left out of its keys.
#[tokio::test]
async fn one_key_in_two_caches_is_two_loads_two_values_and_two_invalidations() {
    let (memory, namespace) = (Memory::new(), namespace());
    let build = async |name: &str| {
        let local = MokaLocal::builder().bytes_max(1 << 20).build();
        let executor = memory.executor().clone();
        let cache: Cache<String, String, _> =
            Cache::builder(executor.clone(), &namespace, name, local).build().unwrap();
        let log = Log::builder(executor, memory.bus().clone(), cache.tag().clone())
            .follower(cache.follower())
            .start();
        log.begun().await.unwrap();
        cache.keep(Box::new(log)).ok().unwrap();
        cache
    };
    let (users, orders) = (build("users").await, build("orders").await);
    let (slow_user, slow_order) = (SlowLoad::new(), SlowLoad::new());
    let read = |cache: &Cache<String, String, MemExecutor>, slow: &SlowLoad, value: &str| {
        let (cache, loader) = (cache.clone(), slow.loader(value));
        tokio::spawn(async move { cache.get_or_load(&key(), loader).await })
    };
    let (user, order) = (read(&users, &slow_user, "user"), read(&orders, &slow_order, "order"));
    // Both loaders run at the same time: neither waits for the other's flight or lease.
    slow_user.began().await;
    slow_order.began().await;
    slow_user.finish();
    slow_order.finish();
    assert_eq!(*user.await.unwrap().unwrap(), "user");
    assert_eq!(*order.await.unwrap().unwrap(), "order");
    let stored = || async { users.stats().fills_stored + orders.stats().fills_stored == 2 };
    eventually(PATIENCE, "both are in L2", stored).await;
    users.invalidate(&key()).await.unwrap();
    assert!(users.get(&key()).await.is_none());
    for read in [orders.get(&key()).await, orders.at(&key()).skip_l1().get().await] {
        assert_eq!(*read.unwrap(), "order");
    }
    users.clear().await.unwrap();
    assert_eq!(*orders.at(&key()).skip_l1().get().await.unwrap(), "order");
}

/// An instance on a machine that started at another time than the server and than the others.
async fn started_at(memory: &Memory, namespace: &Namespace, uptime: Duration) -> Machine {
    let clock = SimClock::at(MonoTime::from_micros(uptime.as_micros() as u64), SERVER_UNUSED);
    let gate = Gate::new(memory.executor().clone());
    let options = |builder: Builder| builder.ttl(MINUTE).l1_ttl(MINUTE);
    Machine { node: clocked(gate, memory, &clock, namespace, options).await, clock }
}

/// Nothing may ask an instance what time it thinks it is: far from any real one.
const SERVER_UNUSED: ServerTime = ServerTime::from_micros(1);

struct Machine {
    node: Node<Executor>,
    clock: SimClock,
}

/// Three machines whose clocks read a quarter of an hour apart, and the server's another time
/// still. A cache that compares timestamps of two machines serves what the one with the late clock
/// has removed, or drops what it has just stored.
///
/// Red when the age of a value was counted from the reader's own clock.
#[tokio::test(start_paused = true)]
async fn machines_whose_clocks_are_a_quarter_of_an_hour_apart_agree_on_everything() {
    let server = SimClock::new();
    let memory = Memory::builder().clock(Arc::new(server.clone())).build();
    let namespace = namespace();
    let machines = [
        started_at(&memory, &namespace, Duration::from_secs(86_400 - 900)).await,
        started_at(&memory, &namespace, DAY).await,
        started_at(&memory, &namespace, DAY + QUARTER).await,
    ];
    let pass = |time: Duration| {
        server.advance(time);
        for machine in &machines {
            machine.clock.advance(time);
        }
    };
    let colour = CacheTag::new("colour").unwrap();
    for (writer, other) in (0..3).flat_map(|a| (0..3).map(move |b| (a, b))).filter(|(a, b)| a != b)
    {
        let (a, b) = (&machines[writer].node.cache, &machines[other].node.cache);
        for step in 0..3 {
            let tagged = PutOptions::default().tag(colour.clone());
            a.put_with(&key(), "value".to_owned(), tagged).await.unwrap();
            until_gone(b, "key").await;
            let hit = b.get(&key()).await.unwrap();
            assert_eq!((hit.tier(), hit.freshness()), (Tier::L2, Freshness::Verified));
            match step {
                0 => a.invalidate(&key()).await,
                1 => a.invalidate_tag(&colour).await,
                _ => a.clear().await,
            }
            .unwrap();
            assert!(a.get(&key()).await.is_none());
            until_gone(b, "key").await;
            assert!(b.get(&key()).await.is_none(), "{writer} {other} {step}");
        }
        a.put(&key(), "value".to_owned()).await.unwrap();
        until_gone(b, "key").await;
        pass(59 * SECOND);
        let hit = b.get(&key()).await.expect("it has a second to live");
        assert!((58 * SECOND..=MINUTE).contains(&hit.age()), "{:?}", hit.age());
        pass(2 * SECOND);
        assert!(a.get(&key()).await.is_none() && b.get(&key()).await.is_none());
    }
}

/// The server's clock goes a quarter of an hour back, or forward, at the worst moments: while a
/// lease is held, while a value lives. No key is blocked for longer than a lease, nothing that was
/// invalidated comes back, and nothing lives for longer than its ttl in a process that has it.
///
/// Red without the look at how far off a lease's deadline is, in the twin of `lease.lua`: the read
/// then waits for the quarter of an hour.
#[tokio::test(start_paused = true)]
async fn a_server_whose_clock_steps_blocks_no_key_and_brings_nothing_back() {
    for forward in [false, true] {
        let (clock, a, b) = timed_pair(|builder| builder.ttl(MINUTE)).await;
        let step = || {
            if forward {
                clock.advance_server(QUARTER);
            } else {
                clock.step_server_back(QUARTER);
            }
        };
        let slow = SlowLoad::new();
        let (loading, loader) = (a.cache.clone(), slow.loader("old"));
        let first = tokio::spawn(async move { loading.get_or_load(&key(), loader).await });
        slow.began().await;
        step();
        let asked = tokio::time::Instant::now();
        let hit = b.cache.get_or_load(&key(), quick("new")).await.unwrap();
        assert!(asked.elapsed() < SECOND, "{:?}", asked.elapsed());
        assert_eq!(*hit, "new");
        slow.finish();
        first.await.unwrap().unwrap();
        a.cache.put(&key(), "put".to_owned()).await.unwrap();
        step();
        b.cache.invalidate(&key()).await.unwrap();
        until_gone(&a.cache, "key").await;
        assert!(a.cache.get(&key()).await.is_none() && b.cache.get(&key()).await.is_none());
        // A value from before a step back lives in L2 for longer, but in no L1.
        a.cache.put(&key(), "put".to_owned()).await.unwrap();
        step();
        clock.advance_mono(MINUTE + SECOND);
        assert!(a.cache.peek(&key()).is_none());
    }
}

/// Values that no L1 can hold: not even the budget of all of it is enough. They are served, from L2,
/// and push nothing out; a small value that such a one replaces is not served any more.
///
/// Red when L1 took what is heavier than its budget: the small values were gone then.
#[tokio::test]
async fn a_value_larger_than_all_of_l1_is_served_from_l2_and_pushes_nothing_out() {
    let (memory, namespace) = (Memory::new(), namespace());
    let whole = 64 * 1024;
    let local = MokaLocal::builder().bytes_max(whole).build();
    let executor = memory.executor().clone();
    let cache: Cache<String, String, _> =
        Cache::builder(executor.clone(), &namespace, "values", local.clone())
            .l1_ttl(MINUTE)
            .compress_above(usize::MAX)
            .build()
            .unwrap();
    let log = Log::builder(executor, memory.bus().clone(), cache.tag().clone())
        .follower(cache.follower())
        .start();
    log.begun().await.unwrap();
    let small: Vec<String> = (0..50).map(|number| format!("small {number}")).collect();
    for name in &small {
        cache.put(name, name.clone()).await.unwrap();
    }
    local.settle();
    let huge = "x".repeat(4 * whole as usize);
    let grown = &small[0];
    cache.put(grown, huge.clone()).await.unwrap();
    cache.get_or_load(&"loaded".to_owned(), quick(&huge)).await.unwrap();
    let stored = || async { cache.stats().fills_stored == 1 };
    eventually(PATIENCE, "the load is in L2", stored).await;
    local.settle();
    assert!(cache.stats().l1_bytes <= whole, "{:?}", cache.stats());
    for name in [grown, &"loaded".to_owned()] {
        for _ in 0..2 {
            let hit = cache.get(name).await.unwrap();
            assert_eq!((hit.tier(), hit.len()), (Tier::L2, huge.len()));
        }
    }
    for name in &small[1..] {
        assert!(cache.peek(name).is_some(), "{name} was pushed out");
    }
}

/// Twenty-five days are 2^31 ms: where a timer or a ttl has 32 bits, a longer one ends at once.
///
/// Red when the milliseconds of a ttl were kept in 32 bits.
#[tokio::test(start_paused = true)]
async fn a_ttl_of_months_or_years_neither_wraps_nor_ends_early() {
    for days in [26, 50, 365, 3_650] {
        let life = DAY * days;
        let options = |builder: Builder| builder.ttl(life).l1_ttl(life).negative_ttl(life);
        let (clock, a, b) = timed_pair(options).await;
        a.cache.put(&key(), "value".to_owned()).await.unwrap();
        a.cache.get_or_load(&"loaded".to_owned(), quick("value")).await.unwrap();
        let nothing = |_| async { Ok::<Option<String>, std::io::Error>(None) };
        a.cache.try_get_or_load(&"none".to_owned(), nothing).await.unwrap();
        let stored = || async { a.cache.stats().fills_stored == 2 };
        eventually(PATIENCE, "all are in L2", stored).await;
        for _ in 0..days - 1 {
            clock.advance(DAY);
            // The log itself needs a word now and then; here time jumps over the beats.
            a.cache.put(&"other".to_owned(), String::new()).await.unwrap();
        }
        for node in [&a, &b] {
            for name in ["key", "loaded"] {
                let hit = node.cache.get(&name.to_owned()).await;
                assert_eq!(*hit.expect("it has a day to live"), "value", "{days} days");
            }
        }
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let count = move |_| async move {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok::<Option<String>, std::io::Error>(None)
        };
        assert!(b.cache.try_get_or_load(&"none".to_owned(), count).await.unwrap().is_none());
        assert_eq!(asked.load(Ordering::SeqCst), 0, "{days} days");
        clock.advance(DAY + SECOND);
        assert!(a.cache.get(&key()).await.is_none() && b.cache.get(&key()).await.is_none());
    }
}
