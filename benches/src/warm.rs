//! Sides that have all customers in L1, ready to be asked for them.
//!
//! All hits of a batch run inside one `block_on`, the floor's too, so what is measured is the hit
//! and not how its future was entered.

use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{Local, Namespace};
use fleetwide_mem_backend::{Memory, MokaLocal};
use fleetwide_two_tier_cache::{Freshness, Tier};
use tokio::runtime::Handle;

use crate::node::{Node, NodeOptions};
use crate::peers::{cachet, hitbox, multi_tier};
use crate::record::{User, keys};

/// Does so many hits on the calling thread. The first number tells the threads apart.
pub type Hits = Box<dyn Fn(u64, u64) + Send + Sync>;

/// Customers in each L1. A power of two, so that walking through them costs next to nothing.
const CUSTOMERS: u64 = 1024;
/// Room for all of them in every L1.
const L1_ENTRIES: u64 = 4 * CUSTOMERS;
const L1_BYTES: u64 = 64 << 20;
/// What an entry weighs: a customer, and its place in the tables.
const ENTRY_BYTES: u32 = 512;
const HOUR: Duration = Duration::from_hours(1);

/// The floor: a bare `moka::sync` cache, weighed in bytes.
pub fn bare(runtime: &Handle) -> Hits {
    moka(runtime, RandomState::new(), None)
}

/// The floor with the hasher that our L1 uses: what is left is the work that we add to moka's.
pub fn bare_with_our_hasher(runtime: &Handle) -> Hits {
    moka(runtime, foldhash::fast::RandomState::default(), None)
}

/// The floor with an expiry time: the least that a cache of data which changes can do.
pub fn bare_with_a_ttl(runtime: &Handle) -> Hits {
    moka(runtime, RandomState::new(), Some(HOUR))
}

fn moka<S>(runtime: &Handle, hasher: S, ttl: Option<Duration>) -> Hits
where
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    let options = moka::sync::Cache::builder()
        .max_capacity(L1_BYTES)
        .weigher(|_: &String, _: &Arc<User>| ENTRY_BYTES);
    let options = match ttl {
        Some(ttl) => options.time_to_live(ttl),
        None => options,
    };
    let cache = options.build_with_hasher(hasher);
    for (id, key) in (0..).zip(keys(CUSTOMERS)) {
        cache.insert(key, Arc::new(User::new(id)));
    }
    cache.run_pending_tasks();
    repeat(runtime, async move |key| {
        black_box(cache.get(key).expect("everything is in L1"));
    })
}

/// The tier that our cache keeps its entries in, alone.
pub fn our_tier(runtime: &Handle) -> Hits {
    let tier: MokaLocal<String, Arc<User>> = MokaLocal::builder().bytes_max(L1_BYTES).build();
    for (id, key) in (0..).zip(keys(CUSTOMERS)) {
        tier.insert(key, Arc::new(User::new(id)), ENTRY_BYTES);
    }
    tier.settle();
    repeat(runtime, async move |key| {
        black_box(tier.get(key).expect("everything is in L1"));
    })
}

/// Our cache, its log followed.
///
/// # Panics
/// If a hit is not what it should be: from L1, and verified.
pub fn ours(runtime: &Handle) -> Hits {
    let memory = Memory::new();
    let namespace = Namespace::new("bench").expect("a plain name");
    let options = NodeOptions { l1_bytes: L1_BYTES };
    let (executor, bus) = (memory.executor().clone(), memory.bus().clone());
    let node = runtime.block_on(async {
        let node = Node::start(executor, bus, &namespace, options).await;
        for (id, key) in (0..).zip(keys(CUSTOMERS)) {
            node.cache.put(&key, User::new(id)).await.expect("the memory backend is there");
        }
        // Two customers in a stripe: the later put made the earlier one a miss in L1, once.
        for key in keys(CUSTOMERS) {
            node.cache.get(&key).await.expect("everything is in L2");
        }
        for key in keys(CUSTOMERS) {
            let hit = node.cache.get(&key).await.expect("everything is in L1");
            assert_eq!((hit.tier(), hit.freshness()), (Tier::L1, Freshness::Verified));
        }
        node
    });
    repeat(runtime, async move |key| {
        black_box(node.cache.get(key).await.expect("everything is in L1"));
    })
}

/// `oxcache`, its tier in memory, which keeps JSON.
///
/// # Panics
/// If it does not take a value.
pub fn oxcache(runtime: &Handle) -> Hits {
    let cache = runtime.block_on(async {
        let options = oxcache::Cache::<String, User>::builder().capacity(L1_ENTRIES).ttl(HOUR);
        let cache = options.build().await.expect("options within bounds");
        for (id, key) in (0..).zip(keys(CUSTOMERS)) {
            cache.set(&key, &User::new(id)).await.expect("memory takes it");
        }
        cache
    });
    repeat(runtime, async move |key| {
        let hit = cache.get(key).await.expect("memory answers");
        black_box(hit.expect("everything is in L1"));
    })
}

/// `cachet`, values as they are.
///
/// # Panics
/// If it does not take a value.
pub fn cachet(runtime: &Handle) -> Hits {
    let _inside = runtime.enter();
    let cache = cachet::in_memory(L1_ENTRIES);
    runtime.block_on(async {
        for (id, key) in (0..).zip(keys(CUSTOMERS)) {
            cache.insert(key, Arc::new(User::new(id))).await.expect("memory takes it");
        }
    });
    repeat(runtime, async move |key| {
        let hit = cache.get(key).await.expect("memory answers");
        black_box(hit.expect("everything is in L1"));
    })
}

/// `multi-tier-cache`, which decodes on each hit.
///
/// # Panics
/// If it does not take a value.
pub fn multi_tier(runtime: &Handle) -> Hits {
    let cache = multi_tier::in_memory(L1_ENTRIES);
    fill_multi_tier(runtime, &cache);
    repeat(runtime, async move |key| {
        let hit = cache.get_typed::<User>(key).await.expect("memory answers");
        black_box(hit.expect("everything is in L1"));
    })
}

/// `multi-tier-cache` without decoding: the bytes that it stores.
///
/// # Panics
/// If it does not take a value.
pub fn multi_tier_bytes(runtime: &Handle) -> Hits {
    let cache = multi_tier::in_memory(L1_ENTRIES);
    fill_multi_tier(runtime, &cache);
    repeat(runtime, async move |key| {
        let hit = cache.get(key).await.expect("memory answers");
        black_box(hit.expect("everything is in L1"));
    })
}

fn fill_multi_tier(runtime: &Handle, cache: &multi_tier_cache::CacheManager) {
    runtime.block_on(async {
        for (id, key) in (0..).zip(keys(CUSTOMERS)) {
            let load = || async move { Ok(User::new(id)) };
            let loaded = cache.get_or_compute_typed(&key, multi_tier::STRATEGY, load).await;
            loaded.expect("memory takes it");
        }
    });
}

/// `hitbox`, which decodes on each hit.
///
/// # Panics
/// If it does not take a value.
pub fn hitbox(runtime: &Handle) -> Hits {
    let _inside = runtime.enter();
    let cache = hitbox::in_memory(L1_ENTRIES);
    let made = hitbox::Origin::new(|_| async { User::new(0) });
    runtime.block_on(async {
        for key in keys(CUSTOMERS) {
            hitbox::user(key, made.clone()).cache(&cache).await;
        }
    });
    let none = hitbox::Origin::new(|key| async move { panic!("{key} should be in L1") });
    repeat(runtime, async move |key| {
        black_box(hitbox::user(key.clone(), none.clone()).cache(&cache).await);
    })
}

fn repeat(runtime: &Handle, one: impl AsyncFn(&String) + Send + Sync + 'static) -> Hits {
    let (runtime, keys) = (runtime.clone(), keys(CUSTOMERS));
    Box::new(move |thread, count| {
        // Threads walk through the same customers half a round apart.
        let start = thread * CUSTOMERS / 2;
        runtime.block_on(async {
            for at in start..start + count {
                one(&keys[(at % CUSTOMERS) as usize]).await;
            }
        });
    })
}
