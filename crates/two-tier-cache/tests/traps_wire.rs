//! Traps of the wire, on a real server: messages that are lost, late, doubled or out of order, and
//! connections that look alive. `docs/testing.md` lists all traps.

mod common;

use std::time::{Duration, Instant};

use common::wire::{Instance, NEVER, Ways};
use common::{PATIENCE, SlowLoad, namespace, quick, until_gone};
use fleetwide_core_traits::log::CHANNEL_PART;
use fleetwide_core_traits::{Channel, Namespace};
use fleetwide_testkit::{Direction, Fault, Proxy, RedisServer, Reply, eventually, seed};
use fleetwide_two_tier_cache::{CacheTag, Freshness, PutOptions, Tier};
use futures_util::stream;
use rand::seq::SliceRandom;

/// The default of a cache.
const BOUND: Duration = Duration::from_secs(1);

fn key() -> String {
    "key".to_owned()
}

/// A server, a network in front of it, and two instances of which the second meets that network.
struct Scene {
    server: RedisServer,
    proxy: Proxy,
    a: Instance,
    b: Instance,
}

impl Scene {
    /// `ways` says which ways of the second instance lead through the proxy.
    async fn new(ways: impl FnOnce(Ways, String) -> Ways) -> Self {
        let server = RedisServer::start().await.unwrap();
        let proxy = Proxy::start(server.addr()).await.unwrap();
        let namespace = namespace();
        let a = Ways::to(&server).instance(&namespace).await;
        let through = proxy.url_like(&server.url());
        let b = ways(Ways::to(&server), through).instance(&namespace).await;
        Self { server, proxy, a, b }
    }

    /// Gives both a value in L1.
    async fn share(&self, value: &str) {
        self.a.cache.put(&key(), value.to_owned()).await.unwrap();
        until_gone(&self.b.cache, "key").await;
        let hit = self.b.cache.get(&key()).await.unwrap();
        assert_eq!((&**hit, hit.tier()), (value, Tier::L2));
    }

    /// Reads on the second instance until it has heard of a write that returned Ok at `written`. Not
    /// a single hit in between may be verified and older than the bound allows (C2).
    async fn until_seen(&self, written: Instant, value: &str) {
        loop {
            let asked = Instant::now();
            let hit = self.b.cache.get(&key()).await.unwrap();
            if *hit == value {
                return;
            }
            let late = asked.saturating_duration_since(written);
            let lies = hit.freshness() == Freshness::Verified && late > BOUND;
            assert!(!lies, "verified, but {late:?} behind");
            assert!(late < PATIENCE, "it never hears of the write");
            tokio::task::yield_now().await;
        }
    }
}

/// Reconnect gap: what was published while a subscription was away is published to nobody. Most
/// caches subscribe again, and go on with what they had.
///
/// Red when a subscription that stands again did not have the log read.
#[tokio::test]
async fn what_was_invalidated_while_the_subscription_was_away_is_gone_when_it_is_back() {
    let scene = Scene::new(|ways, proxy| ways.messages(proxy).heartbeat(NEVER)).await;
    for round in 0..3 {
        scene.share(&round.to_string()).await;
        scene.proxy.refuse();
        scene.proxy.cut();
        let away = || async { scene.proxy.stats().live == 0 };
        eventually(PATIENCE, "the subscription is away", away).await;
        scene.a.cache.invalidate(&key()).await.unwrap();
        assert!(scene.b.cache.peek(&key()).is_some(), "nothing can have told it");
        scene.proxy.pass();
        until_gone(&scene.b.cache, "key").await;
        assert!(scene.b.cache.get(&key()).await.is_none());
    }
}

/// A read with a bound of its own joins no load that began before a write which it has not heard of.
///
/// Red without the look at `may_join`.
#[tokio::test]
async fn a_read_without_staleness_joins_no_load_from_before_a_write_that_nobody_told_of() {
    let scene = Scene::new(|ways, proxy| ways.messages(proxy).heartbeat(NEVER)).await;
    let (slow, cache) = (SlowLoad::new(), scene.b.cache.clone());
    let loader = slow.loader("old");
    let first = tokio::spawn(async move { cache.get_or_load(&key(), loader).await });
    slow.began().await;
    scene.proxy.hold();
    scene.a.cache.invalidate(&key()).await.unwrap();
    let strict = key();
    let read = scene.b.cache.at(&strict).max_staleness(Duration::ZERO);
    let hit = tokio::time::timeout(PATIENCE, read.get_or_load(quick("new"))).await;
    assert_eq!(*hit.expect("it waits for no other load").unwrap(), "new");
    slow.finish();
    first.await.unwrap().unwrap();
}

/// Pairs from before a write of another instance, of which nothing was heard yet, do not undo it.
///
/// Red without the wait for what the log has.
#[tokio::test]
async fn a_warm_up_stores_no_pair_from_before_a_write_that_nobody_told_of() {
    let scene = Scene::new(|ways, proxy| ways.messages(proxy).heartbeat(NEVER)).await;
    scene.proxy.stall();
    let writer = scene.a.cache.clone();
    // The origin is read, and then the key is invalidated elsewhere.
    let pairs = stream::once(async move {
        writer.invalidate(&key()).await.unwrap();
        (key(), "old".to_owned())
    });
    scene.b.cache.warm(pairs).run().await.unwrap();
    assert!(scene.a.cache.get(&key()).await.is_none(), "it is in L2");
    // The same again, told of everything: the pair counts.
    scene.proxy.pass();
    let heard = || async { scene.b.cache.stats().invalidations_applied == 1 };
    eventually(PATIENCE, "it has heard of the write", heard).await;
    let pairs = stream::iter([(key(), "new".to_owned())]);
    scene.b.cache.warm(pairs).run().await.unwrap();
    let stored = || async { scene.a.cache.get(&key()).await.is_some_and(|hit| *hit == "new") };
    eventually(PATIENCE, "it is in L2", stored).await;
}

/// Half-open socket, and: written, but the message is lost. The connection for messages stands, and
/// nothing comes through it. A cache that trusts the silence is wrong until the ttl.
///
/// Red without the beat.
#[tokio::test]
async fn messages_that_are_swallowed_make_no_verified_hit_older_than_the_bound() {
    let scene = Scene::new(Ways::messages).await;
    scene.share("before").await;
    scene.proxy.drop_bytes(Direction::ToClient);
    for round in 0..5 {
        let value = round.to_string();
        scene.a.cache.put(&key(), value.clone()).await.unwrap();
        scene.until_seen(Instant::now(), &value).await;
        scene.b.cache.get(&key()).await.unwrap();
    }
}

/// Half-open socket: everything that the instance sends is lost, and nobody tells it. Its hits must
/// stop to claim what they cannot know, and a strict read must go past them.
///
/// Red when every hit was marked as verified.
#[tokio::test]
async fn behind_a_half_open_network_hits_stop_to_be_verified_and_a_strict_read_loads() {
    let scene = Scene::new(|ways, proxy| ways.commands(proxy.clone()).messages(proxy)).await;
    scene.share("old").await;
    scene.proxy.hold();
    scene.a.cache.put(&key(), "new".to_owned()).await.unwrap();
    let written = Instant::now();
    let unverified = loop {
        let (asked, hit) = (Instant::now(), scene.b.cache.get(&key()).await.unwrap());
        assert_eq!((&**hit, hit.tier()), ("old", Tier::L1), "it cannot know");
        if hit.freshness() == Freshness::Unverified {
            break written.elapsed();
        }
        assert!(asked.saturating_duration_since(written) <= BOUND, "verified for too long");
        tokio::task::yield_now().await;
    };
    assert!(unverified < PATIENCE, "{unverified:?}");
    let strict = scene.b.cache.at(&key()).strict().get_or_load(quick("origin")).await.unwrap();
    assert_eq!((&**strict, strict.tier()), ("origin", Tier::Load));
    scene.proxy.pass();
    let back = || async {
        let hit = scene.b.cache.get(&key()).await;
        hit.is_some_and(|hit| *hit == "new" && hit.freshness() == Freshness::Verified)
    };
    eventually(PATIENCE, "it is back", back).await;
}

/// Reply and push reordered, and: delete against promote. The reply with the old value is on its way
/// when the invalidation overtakes it on the other connection. A cache that puts the reply into L1
/// afterwards keeps it there for good: nothing will name the key again.
///
/// Red without the floors of stripes or of clears in `admit`, and without the look at the tags'
/// versions that follows the reply.
#[tokio::test]
async fn a_reply_that_an_invalidation_has_overtaken_leaves_nothing_in_l1() {
    let long = |ways: Ways, proxy| {
        let patient = ways.commands(proxy).heartbeat(NEVER);
        patient.redis(|redis| redis.command_timeout(PATIENCE).total_timeout(PATIENCE))
    };
    let scene = Scene::new(long).await;
    let (a, b) = (&scene.a.cache, &scene.b.cache);
    let colour = CacheTag::new("colour").unwrap();
    for round in 0..6 {
        let plain = PutOptions::default();
        let options = if round % 3 == 1 { plain.tag(colour.clone()) } else { plain };
        a.put_with(&key(), "old".to_owned(), options).await.unwrap();
        scene.b.has_applied(2 * round + 1).await;
        let carried_out = async || scene.server.command_stats().await.unwrap().get("mget").copied();
        let before = carried_out().await;
        scene.proxy.set(Direction::ToClient, Fault::Stall);
        let reading = b.clone();
        let reader = tokio::spawn(async move { reading.get(&key()).await });
        let asked = || async { carried_out().await > before };
        eventually(PATIENCE, "the server has answered", asked).await;
        match round % 3 {
            0 => a.invalidate(&key()).await,
            1 => a.invalidate_tag(&colour).await,
            _ => a.clear().await,
        }
        .unwrap();
        scene.b.has_applied(2 * round + 2).await;
        scene.proxy.pass();
        let read = reader.await.unwrap();
        assert!(read.is_none_or(|hit| *hit == "old"), "it asked before");
        assert!(b.peek(&key()).is_none(), "round {round}");
        assert!(b.get(&key()).await.is_none(), "round {round}");
    }
}

/// The other order: replies come before the messages that were published earlier. The writer must
/// read its own writes, and late echoes must take nothing away.
///
/// Red when an own write neither raised a floor nor set a fence, and when an entry of the log voided
/// what is here without a look at its number.
#[tokio::test]
async fn a_writer_whose_messages_are_late_reads_its_own_writes() {
    let scene = Scene::new(|ways, proxy| ways.messages(proxy).heartbeat(NEVER)).await;
    let (a, b) = (&scene.a.cache, &scene.b.cache);
    scene.share("old").await;
    scene.proxy.set(Direction::ToClient, Fault::Stall);
    for round in 0..20 {
        a.put(&key(), format!("theirs {round}")).await.unwrap();
        b.put(&key(), format!("ours {round}")).await.unwrap();
        assert_eq!(*b.get(&key()).await.unwrap(), format!("ours {round}"));
        b.invalidate(&key()).await.unwrap();
        assert!(b.get(&key()).await.is_none());
        let loaded = b.get_or_load(&key(), quick("loaded")).await.unwrap();
        assert_eq!((&**loaded, loaded.tier()), ("loaded", Tier::Load));
        assert_eq!(b.get(&key()).await.unwrap().tier(), Tier::L1, "it counts at once");
    }
    scene.proxy.pass();
    scene.b.has_applied(61).await;
    assert_eq!(b.peek(&key()).expect("the echoes are older").as_str(), "loaded");
}

/// Published before it can be read: where the message and the value are two steps, whoever hears of
/// a write may look too early, and keep what was there before. Here both are one step.
///
/// Red when `put` invalidated in a step of its own before it wrote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_hears_of_a_put_finds_it_in_l2() {
    let scene = Scene::new(|ways, _| ways.heartbeat(NEVER)).await;
    for round in 1..=300 {
        let writer = scene.a.cache.clone();
        let put = tokio::spawn(async move { writer.put(&key(), round.to_string()).await });
        let asked = Instant::now();
        while scene.b.cache.stats().invalidations_applied < round {
            assert!(asked.elapsed() < PATIENCE, "the message does not come");
            tokio::task::yield_now().await;
        }
        let hit = scene.b.cache.get(&key()).await.expect("what was announced is there");
        assert_eq!((&**hit, hit.tier()), (round.to_string().as_str(), Tier::L2));
        put.await.unwrap().unwrap();
    }
}

/// Written, and the answer is lost; or sent, and never arrived. The writer cannot tell the two
/// apart. In neither case may anybody go on with the old value once the network is back.
///
/// Red without the queue of writes that were not confirmed.
#[tokio::test]
async fn a_write_whose_answer_is_lost_is_an_error_and_leaves_nothing_old_behind() {
    for lost in [Direction::ToClient, Direction::ToServer] {
        // The second instance writes, because it is the one that the proxy stands before.
        let scene = Scene::new(Ways::commands).await;
        let (writer, other) = (&scene.b.cache, &scene.a.cache);
        scene.share("old").await;
        scene.proxy.drop_bytes(lost);
        let error = writer.put(&key(), "new".to_owned()).await.unwrap_err();
        assert!(error.is_queued(), "{error}");
        assert_eq!(*writer.get(&key()).await.unwrap(), "new", "the writer reads its own write");
        scene.proxy.pass();
        let repeated = || async { writer.stats().queued == 0 };
        eventually(PATIENCE, "the queue is empty", repeated).await;
        until_gone(other, "key").await;
        for cache in [writer, other] {
            assert!(cache.get(&key()).await.is_none_or(|hit| *hit != "old"));
        }
    }
}

/// Messages come twice, in any order, and again long afterwards. Here they are carried from one
/// server to another by the test itself, which is free to do so.
///
/// Red when an entry that was applied before was applied again (`Verdict::Duplicate`), and when an
/// entry that came too early was dropped and the log was not asked for what lies between.
#[tokio::test]
async fn messages_that_come_twice_and_in_any_order_are_applied_once() {
    let (server, relay) =
        (RedisServer::start().await.unwrap(), RedisServer::start().await.unwrap());
    let (namespace, mut random) = (namespace(), seed().rng());
    let a = Ways::to(&server).instance(&namespace).await;
    let b = Ways::to(&server).messages(relay.url()).heartbeat(NEVER).instance(&namespace).await;
    let channel = channel(&namespace);
    let mut heard = server.connect_admin().await.unwrap();
    heard.command(&[b"SUBSCRIBE", channel.as_bytes()]).await.unwrap();
    let mut teller = relay.connect_admin().await.unwrap();
    let names: Vec<String> = (0..5).map(|number| format!("key {number}")).collect();
    let mut all = Vec::new();
    for round in 1..=20_u64 {
        for name in &names {
            for write in ["first", "second"] {
                a.cache.put(name, format!("{write} {round}")).await.unwrap();
            }
        }
        let mut batch = Vec::new();
        while batch.len() < 2 * names.len() {
            // Signals travel on the same channel; only entries raise the log's number.
            let Reply::Array(parts) = heard.receive().await.unwrap() else { panic!("no message") };
            let [_, _, Reply::Bulk(payload)] = &parts[..] else { panic!("{parts:?}") };
            batch.push(payload.clone());
        }
        all.extend(batch.clone());
        batch.extend(batch.clone());
        batch.shuffle(&mut random);
        for payload in &batch {
            teller.command(&[b"PUBLISH", channel.as_bytes(), payload]).await.unwrap();
        }
        b.has_applied(round * 2 * names.len() as u64).await;
        for name in &names {
            assert_eq!(*b.cache.get(name).await.unwrap(), format!("second {round}"));
        }
    }
    all.shuffle(&mut random);
    for payload in &all {
        teller.command(&[b"PUBLISH", channel.as_bytes(), payload]).await.unwrap();
    }
    // One more entry, which comes after all of those: when it is applied, they were looked at.
    a.cache.invalidate(&"last".to_owned()).await.unwrap();
    let Reply::Array(parts) = heard.receive().await.unwrap() else { panic!("no message") };
    let Some(Reply::Bulk(last)) = parts.last() else { panic!("{parts:?}") };
    teller.command(&[b"PUBLISH", channel.as_bytes(), last]).await.unwrap();
    b.has_applied(all.len() as u64 + 1).await;
    for name in &names {
        let hit = b.cache.peek(name).expect("nothing has taken it away");
        assert_eq!(&**hit, "second 20");
    }
    assert_eq!(b.cache.stats().resets, 0);
}

fn channel(namespace: &Namespace) -> Channel {
    namespace.tag("cache", b"values").unwrap().channel(CHANNEL_PART)
}
