//! Values that nobody but the fleet can read, change or move.
#![cfg(feature = "encryption")]

mod common;

use common::{PATIENCE, namespace, quick};
use fleetwide_core_traits::Namespace;
use fleetwide_mem_backend::MokaLocal;
use fleetwide_redis_backend::{Redis, RedisExecutor, RedisUrl};
use fleetwide_testkit::{RedisServer, Reply, RespConnection, eventually};
use fleetwide_two_tier_cache::{Cache, KeyRing, Tier};

const SECRET: &str = "a value that is nobody's business, and long enough to be compressed: ";

type Values = Cache<String, String, RedisExecutor>;

/// A server, and instances of one cache on it without an L1, so that each read asks the server.
struct Stage {
    _server: RedisServer,
    redis: Redis,
    admin: RespConnection,
    namespace: Namespace,
}

impl Stage {
    async fn new() -> Self {
        let server = RedisServer::start().await.unwrap();
        let redis = Redis::builder(RedisUrl::parse(&server.url()).unwrap()).build().unwrap();
        redis.ready(PATIENCE).await.unwrap();
        let admin = server.connect_admin().await.unwrap();
        Self { _server: server, redis, admin, namespace: namespace() }
    }

    fn instance(&self, ring: Option<KeyRing>) -> Values {
        let local = MokaLocal::builder().bytes_max(1 << 20).build();
        let builder = Cache::builder(self.redis.executor(), &self.namespace, "values", local);
        let builder = builder.compress_above(64);
        match ring {
            Some(ring) => builder.seal(ring).build().unwrap(),
            None => builder.build().unwrap(),
        }
    }

    fn place(cache: &Values, key: &str) -> Vec<u8> {
        cache.tag().named("v", key.as_bytes()).unwrap().as_bytes().to_vec()
    }

    async fn raw(&mut self, cache: &Values, key: &str) -> Vec<u8> {
        let place = Self::place(cache, key);
        match self.admin.command(&[b"GET".as_slice(), &place]).await.unwrap() {
            Reply::Bulk(bytes) => bytes.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    async fn set_raw(&mut self, cache: &Values, key: &str, raw: &[u8]) {
        let place = Self::place(cache, key);
        self.admin.command(&[b"SET".as_slice(), &place, raw]).await.unwrap();
    }
}

fn key(name: &str) -> String {
    name.to_owned()
}

fn ring() -> KeyRing {
    KeyRing::new(1, &[1; 32])
}

/// Red without the head or the key in the context, each for its own half.
#[tokio::test]
async fn what_was_changed_or_moved_on_the_server_is_a_miss_that_is_counted() {
    let mut stage = Stage::new().await;
    let cache = stage.instance(Some(ring()));
    let secret = SECRET.repeat(3);
    cache.put(&key("a"), secret.clone()).await.unwrap();
    cache.put(&key("b"), "another".to_owned()).await.unwrap();
    assert_eq!(*cache.get(&key("a")).await.unwrap(), secret);
    let raw = stage.raw(&cache, "a").await;
    assert!(!raw.windows(8).any(|part| SECRET.as_bytes().windows(8).any(|word| word == part)));
    assert!(raw.len() < secret.len(), "it was compressed before it was encrypted");

    // Another key's value, which is sealed as well as this one.
    stage.set_raw(&cache, "b", &raw).await;
    assert!(cache.get(&key("b")).await.is_none());
    // Each byte of the envelope: the head, the number of the key, the nonce, the value.
    for at in 32..raw.len() {
        let mut changed = raw.clone();
        changed[at] ^= 1;
        stage.set_raw(&cache, "a", &changed).await;
        assert!(cache.get(&key("a")).await.is_none(), "byte {at} counts");
    }
    let stats = cache.stats();
    assert!(stats.unopened > 50, "{stats:?}");
    // A miss is a load, and what is loaded is stored again.
    let hit = cache.get_or_load(&key("a"), quick("loaded")).await.unwrap();
    assert_eq!((hit.tier(), &**hit), (Tier::Load, "loaded"));
    let stored = || async { cache.get(&key("a")).await.is_some_and(|hit| *hit == "loaded") };
    eventually(PATIENCE, "the damaged value is replaced", stored).await;
}

/// Else anybody who can write to the server could give the fleet values. Red if `unprotect` takes
/// what is not sealed.
#[tokio::test]
async fn what_is_not_sealed_is_not_taken_by_who_seals_nor_the_other_way_round() {
    let stage = Stage::new().await;
    let (plain, sealing) = (stage.instance(None), stage.instance(Some(ring())));
    plain.put(&key("k"), "anybody's".to_owned()).await.unwrap();
    assert!(sealing.get(&key("k")).await.is_none());
    assert_eq!(sealing.stats().unopened, 1);
    sealing.put(&key("k"), "ours".to_owned()).await.unwrap();
    assert!(plain.get(&key("k")).await.is_none());
    assert_eq!(plain.stats().undecodable, 1);
}

#[tokio::test]
async fn a_fleet_changes_its_key_without_a_miss() {
    let stage = Stage::new().await;
    let old = stage.instance(Some(ring()));
    let learning = stage.instance(Some(ring().open_with(2, &[2; 32])));
    let new = stage.instance(Some(KeyRing::new(2, &[2; 32]).open_with(1, &[1; 32])));
    old.put(&key("a"), "by the old key".to_owned()).await.unwrap();
    new.put(&key("b"), "by the new key".to_owned()).await.unwrap();
    for cache in [&learning, &new] {
        assert_eq!(*cache.get(&key("a")).await.unwrap(), "by the old key");
        assert_eq!(*cache.get(&key("b")).await.unwrap(), "by the new key");
        assert_eq!(cache.stats().unopened, 0);
    }
    assert!(old.get(&key("b")).await.is_none(), "which is why the key is learned first");
}

/// The bulk calls go their own way through both tiers.
#[tokio::test]
async fn what_is_written_and_read_in_bulk_is_sealed_too() {
    let mut stage = Stage::new().await;
    let cache = stage.instance(Some(ring()));
    let keys = [key("a"), key("b")];
    cache.put_many(keys.iter().map(|key| (key.clone(), format!("secret {key}")))).await.unwrap();
    let found = cache.get_many(&keys).get().await;
    for key in &keys {
        assert_eq!(**found.get(key).unwrap(), format!("secret {key}"));
    }
    let raw = stage.raw(&cache, "a").await;
    assert!(!raw.windows(6).any(|part| part == b"secret"));
    stage.set_raw(&cache, "b", &raw).await;
    let found = cache.get_many(&keys).get().await;
    assert!(found.get(&keys[0]).is_some() && found.get(&keys[1]).is_none());
}
