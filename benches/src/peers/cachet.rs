//! `cachet`, with the tier on Redis that it does not bring.

use std::sync::Arc;
use std::time::Duration;

use cachet::{Cache, CacheEntry, CacheTier, Error, InsertOutcome};
use redis::RedisError;
use redis::aio::MultiplexedConnection;
use tick::Clock;

use crate::record::User;

const HOUR: Duration = Duration::from_hours(1);

/// A cache in two tiers, both in memory.
///
/// # Panics
/// If called outside a Tokio runtime.
pub fn in_memory(l1_entries: u64) -> Cache<String, Arc<User>> {
    let clock = Clock::new_tokio();
    let l2 = Cache::builder::<String, Arc<User>>(clock.clone()).memory().ttl(HOUR);
    Cache::builder::<String, Arc<User>>(clock)
        .memory_with(|l1| l1.max_capacity(l1_entries))
        .ttl(HOUR)
        .fallback(l2)
        .stampede_protection()
        .build()
}

/// A cache whose second tier is Redis.
///
/// # Panics
/// If called outside a Tokio runtime.
pub fn on_redis(l1_entries: u64, connection: MultiplexedConnection) -> Cache<String, Arc<User>> {
    let clock = Clock::new_tokio();
    // Without a ttl here: Redis has it, and the crate takes an entry without a date for expired.
    let l2 = Cache::builder::<String, Arc<User>>(clock.clone()).storage(RedisTier { connection });
    Cache::builder::<String, Arc<User>>(clock)
        .memory_with(|l1| l1.max_capacity(l1_entries))
        .ttl(HOUR)
        .fallback(l2)
        .stampede_protection()
        .build()
}

/// The least that a tier on Redis can be: GET, SET with a ttl, DEL; values as bincode.
struct RedisTier {
    connection: MultiplexedConnection,
}

impl CacheTier<String, Arc<User>> for RedisTier {
    async fn get(&self, key: &String) -> Result<Option<CacheEntry<Arc<User>>>, Error> {
        let mut connection = self.connection.clone();
        let found: Option<Vec<u8>> =
            redis::cmd("GET").arg(wire(key)).query_async(&mut connection).await.map_err(failed)?;
        Ok(found.map(|bytes| CacheEntry::new(User::from_bincode(&bytes))))
    }

    async fn insert(
        &self,
        key: String,
        entry: CacheEntry<Arc<User>>,
    ) -> Result<InsertOutcome, Error> {
        let mut connection = self.connection.clone();
        let ttl = entry.ttl().unwrap_or(HOUR).as_millis() as u64;
        let mut set = redis::cmd("SET");
        set.arg(wire(&key)).arg(entry.value().to_bincode()).arg("PX").arg(ttl);
        set.query_async::<()>(&mut connection).await.map_err(failed)?;
        Ok(InsertOutcome::Accepted)
    }

    async fn invalidate(&self, key: &String) -> Result<(), Error> {
        let mut connection = self.connection.clone();
        redis::cmd("DEL").arg(wire(key)).query_async::<()>(&mut connection).await.map_err(failed)
    }

    async fn clear(&self) -> Result<(), Error> {
        // No bench clears, and a shared server must not be flushed for one cache.
        Err(Error::from_message("a tier on a shared server cannot be cleared"))
    }
}

/// A prefix keeps the keys of peers apart; the form is the one our user may write.
fn wire(key: &str) -> String {
    format!("{{peer:cachet:users}}:{key}")
}

fn failed(error: RedisError) -> Error {
    Error::from_source(error)
}
