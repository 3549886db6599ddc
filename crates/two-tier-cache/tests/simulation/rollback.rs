//! The story of a writer that saw again what it had just invalidated.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use fleetwide_core_traits::Namespace;
use fleetwide_mem_backend::MokaLocal;
use fleetwide_pubsub_invalidation::Log;
use fleetwide_testkit::{Recorder, World, WorldTime};
use fleetwide_two_tier_cache::Cache;
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
