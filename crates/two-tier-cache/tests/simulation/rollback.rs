//! The story of a writer that saw again what it had just invalidated.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use fleetwide_core_traits::Namespace;
use fleetwide_mem_backend::MokaLocal;
use fleetwide_pubsub_invalidation::Log;
use fleetwide_testkit::{Recorder, Weather, World, WorldTime};
use fleetwide_two_tier_cache::Cache;
use parking_lot::Mutex;
use tokio::time::sleep;

use crate::client::SimCache;
use crate::day::server;

/// A value is loaded at number 11 of the log. The server is restored to number 1, and before any
/// beat can find that out, the same node invalidates the key: the server gives that write number 2,
/// and 11 is above it. Red without the fence that `agree` sets beside the floor.
#[test]
fn a_writer_never_sees_what_it_invalidated_on_a_server_that_went_back() {
    let time = WorldTime::new();
    let servers = vec![server(&time), server(&time)];
    let recorder = Recorder::in_memory();
    let mut world = World::new(1, time, servers, recorder);
    let flags: [Arc<AtomicBool>; 3] = Default::default();
    let [loaded, restored, done] = flags.clone();
    world.add(move |site| {
        let namespace = Namespace::new("rollback").unwrap();
        let local = MokaLocal::builder().build();
        let cache: SimCache = Cache::builder(site.remote.clone(), &namespace, "values", local)
            .clock(Arc::clone(&site.clock))
            .build()
            .unwrap();
        let log = Log::builder(site.remote.clone(), site.remote, cache.tag().clone())
            .follower(cache.follower())
            .clock(site.clock)
            .heartbeat(Duration::from_secs(5))
            .start();
        tokio::spawn(async move {
            log.begun().await.unwrap();
            cache.keep(Box::new(log)).unwrap();
            for key in 100..110 {
                cache.invalidate(&key).await.unwrap();
            }
            let load = |_| async { Ok::<_, std::io::Error>(7) };
            cache.get_or_load(&1, load).await.unwrap();
            loaded.store(true, SeqCst);
            while !restored.load(SeqCst) {
                sleep(Duration::from_millis(1)).await;
            }
            assert!(cache.peek(&1).is_some(), "nobody knows yet");
            cache.invalidate(&1).await.unwrap();
            assert!(cache.peek(&1).is_none());
            done.store(true, SeqCst);
        });
    });
    world.run(Duration::from_millis(20));
    world.freeze(1);
    world.run(Duration::from_millis(400));
    assert!(flags[0].load(SeqCst));
    world.fail_over(1);
    flags[1].store(true, SeqCst);
    world.run(Duration::from_millis(100));
    assert!(flags[2].load(SeqCst), "the task has failed: see above");
}

/// A write is confirmed, and the server is restored to just before it. The message of the write came
/// to nobody, so no follower has applied it: only its writer knows what the log has lost. Found by the
/// simulation. Red without `known`: the other node then serves the old value for good, as verified.
#[test]
fn a_write_that_only_its_writer_knows_of_is_missed_when_the_server_goes_back() {
    // The server's numbers stop before the lost one, or have overtaken it when somebody looks.
    for overtaken in [false, true] {
        let time = WorldTime::new();
        let servers = vec![server(&time), server(&time)];
        let mut world = World::new(1, time, servers, Recorder::in_memory());
        let [loaded, frozen, written, restored]: [Arc<AtomicBool>; 4] = Default::default();
        let caches = Arc::new(Mutex::new(Vec::new()));
        for writes in [true, false] {
            let (loaded, frozen) = (Arc::clone(&loaded), Arc::clone(&frozen));
            let (written, restored) = (Arc::clone(&written), Arc::clone(&restored));
            let caches = Arc::clone(&caches);
            world.add(move |site| {
                let namespace = Namespace::new("rollback").unwrap();
                let local = MokaLocal::builder().build();
                let cache: SimCache =
                    Cache::builder(site.remote.clone(), &namespace, "values", local)
                        .clock(Arc::clone(&site.clock))
                        .build()
                        .unwrap();
                let log = Log::builder(site.remote.clone(), site.remote, cache.tag().clone())
                    .follower(cache.follower())
                    .clock(site.clock)
                    .heartbeat(Duration::from_millis(200))
                    .start();
                caches.lock().push(cache.clone());
                tokio::spawn(async move {
                    log.begun().await.unwrap();
                    cache.keep(Box::new(log)).unwrap();
                    let until = async |flag: &AtomicBool| {
                        while !flag.load(SeqCst) {
                            sleep(Duration::from_millis(1)).await;
                        }
                    };
                    if writes {
                        until(&frozen).await;
                        cache.invalidate(&1).await.unwrap();
                        written.store(true, SeqCst);
                    } else {
                        let load = |_| async { Ok::<_, std::io::Error>(7) };
                        cache.get_or_load(&1, load).await.unwrap();
                        loaded.store(true, SeqCst);
                        until(&restored).await;
                        for key in 100..103 {
                            if overtaken {
                                cache.invalidate(&key).await.unwrap();
                            }
                        }
                    }
                });
            });
        }
        world.run(Duration::from_millis(450));
        assert!(loaded.load(SeqCst));
        for node in 0..2 {
            world.set_weather(node, Weather { message_lost: 1.0, ..Weather::fair() });
        }
        world.freeze(1);
        frozen.store(true, SeqCst);
        while !written.load(SeqCst) {
            world.step();
        }
        world.fail_over(1);
        restored.store(true, SeqCst);
        for node in 0..2 {
            world.set_weather(node, Weather::fair());
        }
        world.run(Duration::from_secs(2));
        assert!(caches.lock()[1].peek(&1).is_none(), "overtaken: {overtaken}");
    }
}
