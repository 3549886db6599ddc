//! How a node loads: as slowly, and as rarely in vain, as real databases do.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fleetwide::cache::LoadContext;
use rand::Rng;
use tokio::time::sleep;

use super::{Node, Value};
use crate::clock::now_us;
use crate::keys::Class;
use crate::record::Record;

impl Node {
    /// Loads `key` from the database. Where in its time it looks there is left to chance.
    pub(super) async fn load(
        self: Arc<Self>,
        context: LoadContext<u32, Value>,
    ) -> io::Result<Value> {
        let key = *context.key();
        let load = self.loads.fetch_add(1, Ordering::Relaxed);
        let now = now_us();
        self.recorder.record(Record::Loading {
            key,
            load,
            at: now,
            trouble: self.in_trouble(now),
        })?;
        let result = self.look(&context).await;
        let now = now_us();
        self.recorder.record(Record::Loaded {
            key,
            load,
            at: now,
            trouble: self.in_trouble(now),
        })?;
        result
    }

    async fn look(&self, context: &LoadContext<u32, Value>) -> io::Result<Value> {
        let key = *context.key();
        pause().await;
        if let Class::Tagged { group } = self.settings.keys.class(key) {
            context.tag(tag(group)).map_err(io::Error::other)?;
        }
        if expires_soon(key) {
            let ttl = rand::rng().random_range(200..2000);
            context.ttl(Duration::from_millis(ttl)).map_err(io::Error::other)?;
        }
        let version = self.origin.read(key)?;
        pause().await;
        if rand::rng().random_ratio(1, 200) {
            return Err(io::Error::other("the database fails now and then"));
        }
        Ok(Value::new(key, version))
    }
}

/// One key in eight lives so shortly that it is renewed and served stale all the time.
const fn expires_soon(key: u32) -> bool {
    key % 8 == 4
}

/// The tag of a group of keys.
pub(super) fn tag(group: u32) -> String {
    format!("group {group}")
}

/// Mostly nothing, often some milliseconds, rarely more than a lease.
async fn pause() {
    let millis = {
        let mut rng = rand::rng();
        match rng.random_range(0..1000) {
            0..600 => return,
            600..950 => rng.random_range(0..10),
            950..997 => rng.random_range(10..100),
            _ => rng.random_range(500..3000),
        }
    };
    sleep(Duration::from_millis(millis)).await;
}
