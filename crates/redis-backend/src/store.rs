//! The plain store over the wire.

use std::sync::Arc;

use bytes::Bytes;
use fleetwide_core_traits::{BackendError, Key, Malformed, Store, Ttl, Wire};
use redis::{Cmd, RedisWrite};

use crate::handle::Handle;

/// Plain values on the server, over the shared connections.
#[derive(Clone)]
pub struct RedisStore {
    handle: Arc<Handle>,
}

impl RedisStore {
    pub(crate) fn new(handle: Arc<Handle>) -> Self {
        Self { handle }
    }

    async fn command(&self, command: Cmd) -> Result<Wire, BackendError> {
        let shared = &self.handle.shared;
        shared.command(command, shared.budget()).await
    }
}

impl Store for RedisStore {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, BackendError> {
        let reply = self.command(keyed("GET", key, 0)).await?;
        Ok(reply.into_optional_bytes()?)
    }

    async fn set(&self, key: &Key, value: Bytes, ttl: Ttl) -> Result<(), BackendError> {
        let mut set = keyed("SET", key, value.len() + 32);
        set.write_arg(&value);
        set.write_arg(b"PX");
        set.write_arg_fmt(ttl.as_millis());
        match self.command(set).await? {
            Wire::Bytes(text) if text.as_ref() == b"OK" => Ok(()),
            _ => Err(Malformed::new("OK", "something else").into()),
        }
    }

    async fn remove(&self, key: &Key) -> Result<bool, BackendError> {
        Ok(self.command(keyed("DEL", key, 0)).await?.into_unsigned()? > 0)
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, BackendError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        // One server holds all slots, so one command does.
        let bytes = keys.iter().map(|key| key.as_bytes().len()).sum::<usize>();
        let mut mget = Cmd::with_capacity(keys.len() + 1, bytes + 8);
        mget.write_arg(b"MGET");
        for key in keys {
            mget.write_arg(key.as_bytes());
        }
        let values = self.command(mget).await?.into_vec()?;
        if values.len() != keys.len() {
            return Err(Malformed::new("a value for each key", "another number of them").into());
        }
        values.into_iter().map(|value| Ok(value.into_optional_bytes()?)).collect()
    }
}

fn keyed(name: &str, key: &Key, more: usize) -> Cmd {
    let key = key.as_bytes();
    let mut command = Cmd::with_capacity(5, name.len() + key.len() + more);
    command.write_arg(name.as_bytes());
    command.write_arg(key);
    command
}
