//! Sides that have all customers in Redis and hardly any in L1.
//!
//! Each walks through many more customers than its L1 has room for, so a read is answered by Redis
//! and taken into L1, where it pushes another one out.

use std::hint::black_box;
use std::sync::Arc;

use fleetwide_core_traits::Namespace;
use fleetwide_redis_backend::RedisExecutor;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use redis::aio::MultiplexedConnection;

use crate::crowd::{Turns, Work, work};
use crate::node::{Node, NodeOptions};
use crate::peers::{cachet, hitbox, multi_tier};
use crate::record::{User, keys};
use crate::server::Server;

/// Customers in Redis.
const CUSTOMERS: u64 = 64 * 1024;
/// About 500 entries of ours: less than one read of a hundred can be a hit in L1.
const L1_BYTES: u64 = 256 << 10;
const L1_ENTRIES: u64 = 512;
/// Writes under way while Redis is filled.
const FILLING: usize = 64;

/// The instance that our side reads through.
pub type OurNode = Arc<Node<RedisExecutor>>;

/// What all sides ask for, in its order.
#[derive(Clone)]
pub struct Customers(Arc<[String]>);

impl Customers {
    /// All of them.
    pub fn new() -> Self {
        Self(keys(CUSTOMERS).into())
    }

    fn key(&self, turn: u64) -> &String {
        &self.0[(turn % CUSTOMERS) as usize]
    }

    /// Runs `one` for each, some at the same time.
    async fn each<F: Future<Output = ()>>(&self, one: impl Fn(User, String) -> F) {
        let all = (0..).zip(self.0.iter()).map(|(id, key)| one(User::new(id), key.clone()));
        stream::iter(all).buffer_unordered(FILLING).collect::<Vec<()>>().await;
    }
}

impl Default for Customers {
    fn default() -> Self {
        Self::new()
    }
}

/// The keys of the floor, in the form that the user of the tests may read.
fn bare_keys(customers: &Customers) -> Arc<[String]> {
    customers.0.iter().map(|key| format!("{{bench:bare:users}}:{key}")).collect()
}

/// Fills what [`bare`] reads.
///
/// # Panics
/// If Redis does not take a value.
pub async fn fill_bare(connection: MultiplexedConnection, customers: &Customers) {
    let keys = bare_keys(customers);
    let sets = (0..).zip(keys.iter()).map(|(id, key)| {
        let mut connection = connection.clone();
        async move {
            let mut set = redis::cmd("SET");
            set.arg(key).arg(User::new(id).to_bincode());
            set.query_async::<()>(&mut connection).await.expect("the server takes it");
        }
    });
    stream::iter(sets).buffer_unordered(FILLING).collect::<Vec<()>>().await;
}

/// The floor: GET over a multiplexed connection, and decoding.
pub fn bare(connection: MultiplexedConnection, customers: &Customers) -> Work {
    let keys = bare_keys(customers);
    work(move |mut turns| {
        let (mut connection, keys) = (connection.clone(), Arc::clone(&keys));
        async move {
            while let Some(turn) = turns.next() {
                let mut get = redis::cmd("GET");
                get.arg(&keys[(turn % CUSTOMERS) as usize]);
                let bytes: Vec<u8> =
                    get.query_async(&mut connection).await.expect("everything is in Redis");
                black_box(User::from_bincode(&bytes));
            }
        }
    })
}

/// The floor of many keys at once: MGET of `size` keys that follow each other, and decoding.
pub fn bare_many(connection: MultiplexedConnection, customers: &Customers, size: usize) -> Work {
    let keys = bare_keys(customers);
    work(move |mut turns| {
        let (mut connection, keys) = (connection.clone(), Arc::clone(&keys));
        async move {
            while let Some(turn) = turns.next() {
                let mut mget = redis::cmd("MGET");
                mget.arg(group(&keys, turn, size));
                let found: Vec<Vec<u8>> =
                    mget.query_async(&mut connection).await.expect("everything is in Redis");
                for bytes in &found {
                    black_box(User::from_bincode(bytes));
                }
            }
        }
    })
}

/// Our `get_many` of the same keys.
pub fn ours_many(node: &OurNode, customers: &Customers, size: usize) -> Work {
    let (node, customers) = (Arc::clone(node), customers.clone());
    work(move |mut turns| {
        let (node, customers) = (Arc::clone(&node), customers.clone());
        async move {
            while let Some(turn) = turns.next() {
                let found = node.cache.get_many(group(&customers.0, turn, size)).get().await;
                assert_eq!(found.len(), size, "everything is in Redis");
                black_box(found);
            }
        }
    })
}

/// `single` done `size` times in one turn, all at once.
pub fn at_once(single: &Work, size: usize) -> Work {
    let single = Arc::clone(single);
    work(move |mut turns| {
        let single = Arc::clone(&single);
        async move {
            while let Some(turn) = turns.next() {
                let one = |at| single(Turns::one(turn * size as u64 + at));
                join_all((0..size as u64).map(one)).await;
            }
        }
    })
}

/// The keys of one question. Questions follow each other, and begin again before the end.
fn group(keys: &[String], turn: u64, size: usize) -> &[String] {
    let at = (turn % (CUSTOMERS / size as u64)) as usize * size;
    &keys[at..at + size]
}

/// Our cache, and the instance it belongs to, whose counts tell where hits came from.
///
/// # Panics
/// If Redis does not take a value.
pub async fn ours(server: &Server, customers: &Customers) -> (OurNode, Work) {
    let redis = server.ours().await;
    let namespace = Namespace::new("bench").expect("a plain name");
    let options = NodeOptions { l1_bytes: L1_BYTES };
    let node = Arc::new(Node::start(redis.executor(), redis.bus(), &namespace, options).await);
    let cache = &node.cache;
    let put = async |user, key| {
        cache.put(&key, user).await.expect("the server takes it");
    };
    customers.each(put).await;
    let (reader, customers) = (Arc::clone(&node), customers.clone());
    let read = work(move |mut turns| {
        let (node, customers) = (Arc::clone(&reader), customers.clone());
        async move {
            while let Some(turn) = turns.next() {
                let hit = node.cache.get(customers.key(turn)).await;
                let why = || panic!("everything is in Redis, but {:?}", node.cache.stats());
                black_box(hit.unwrap_or_else(why));
            }
        }
    });
    (node, read)
}

/// `cachet` with the tier on Redis of these benches.
///
/// # Panics
/// If Redis does not take a value.
pub async fn cachet(server: &Server, customers: &Customers) -> Work {
    let cache = Arc::new(cachet::on_redis(L1_ENTRIES, server.bare().await));
    let insert = async |user, key| {
        cache.insert(key, Arc::new(user)).await.expect("the server takes it");
    };
    customers.each(insert).await;
    let customers = customers.clone();
    work(move |mut turns| {
        let (cache, customers) = (Arc::clone(&cache), customers.clone());
        async move {
            while let Some(turn) = turns.next() {
                let hit = cache.get(customers.key(turn)).await.expect("the server answers");
                black_box(hit.expect("everything is in Redis"));
            }
        }
    })
}

/// `multi-tier-cache`.
///
/// # Panics
/// If Redis does not take a value.
pub async fn multi_tier(server: &Server, customers: &Customers) -> Work {
    let cache = Arc::new(multi_tier::on_redis(L1_ENTRIES, &server.url_for_peers()).await);
    let store = async |user: User, key: String| {
        let load = || async move { Ok(user) };
        let stored = cache.get_or_compute_typed(&key, multi_tier::STRATEGY, load).await;
        stored.expect("the server takes it");
    };
    customers.each(store).await;
    let customers = customers.clone();
    work(move |mut turns| {
        let (cache, customers) = (Arc::clone(&cache), customers.clone());
        async move {
            while let Some(turn) = turns.next() {
                let hit = cache.get_typed::<User>(customers.key(turn)).await;
                black_box(hit.expect("the server answers").expect("everything is in Redis"));
            }
        }
    })
}

/// `hitbox`.
pub async fn hitbox(server: &Server, customers: &Customers) -> Work {
    let cache = Arc::new(hitbox::on_redis(L1_ENTRIES, &server.url_for_peers()).await);
    let store = async |user: User, key: String| {
        let made = hitbox::Origin::new(move |_| std::future::ready(user.clone()));
        hitbox::user(key, made).cache(&*cache).await;
    };
    customers.each(store).await;
    let none = hitbox::Origin::new(|key| async move { panic!("{key} should be in Redis") });
    let customers = customers.clone();
    work(move |mut turns| {
        let (cache, customers) = (Arc::clone(&cache), customers.clone());
        let none = none.clone();
        async move {
            while let Some(turn) = turns.next() {
                let key = customers.key(turn).clone();
                black_box(hitbox::user(key, none.clone()).cache(&*cache).await);
            }
        }
    })
}
