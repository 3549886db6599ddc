//! `Store`: four commands.

use bytes::Bytes;
use fleetwide_core_traits::{BackendError, Key, Store, Ttl, Wire};

use crate::client::Client;

pub(crate) struct TinyStore {
    client: Client,
}

impl TinyStore {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }
}

impl Store for TinyStore {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, BackendError> {
        let reply = self.client.command(&[word("GET"), key.as_bytes().to_vec()]).await?;
        Ok(reply.into_optional_bytes()?)
    }

    async fn set(&self, key: &Key, value: Bytes, ttl: Ttl) -> Result<(), BackendError> {
        let millis = word(&ttl.as_millis().to_string());
        let command = [word("SET"), key.as_bytes().to_vec(), value.to_vec(), word("PX"), millis];
        self.client.command(&command).await.map(drop)
    }

    async fn remove(&self, key: &Key) -> Result<bool, BackendError> {
        let reply = self.client.command(&[word("DEL"), key.as_bytes().to_vec()]).await?;
        Ok(reply.into_int()? == 1)
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, BackendError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = vec![word("MGET")];
        command.extend(keys.iter().map(|key| key.as_bytes().to_vec()));
        let replies = self.client.command(&command).await?.into_vec()?;
        let values: Result<_, _> = replies.into_iter().map(Wire::into_optional_bytes).collect();
        Ok(values?)
    }
}

fn word(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}
