//! What a node is told, in a file that it is given the path of.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::keys::Keys;

/// The staleness bound of the cache under test, ms: the product's default.
pub(crate) const STALENESS_BOUND_MS: u64 = 1000;
/// The lease of the cache under test, ms: shorter than its default, so that more pauses outlast it.
pub(crate) const LEASE_MS: u64 = 2000;
/// What a read may spend on Redis, ms: the product's default.
pub(crate) const L2_BUDGET_MS: u64 = 100;
/// How long a process keeps a value, ms: far longer than the default, so that a missed
/// invalidation stays visible.
pub(crate) const L1_TTL_MS: u64 = 60_000;

/// One node in one life.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NodeSettings {
    /// Which node, from 0.
    pub(crate) node: u32,
    /// Which process of this node, from 0.
    pub(crate) life: u32,
    /// What all its randomness follows from.
    pub(crate) seed: u64,
    /// Where its way to Redis begins.
    pub(crate) redis_url: String,
    /// The folder that all nodes share.
    pub(crate) folder: PathBuf,
    /// The keys.
    pub(crate) keys: Keys,
}

impl NodeSettings {
    /// Reads the settings that lie at `path`.
    ///
    /// # Errors
    /// The operating system's error, or that they are none.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }

    /// Writes them where a node is to find them, and returns that path.
    ///
    /// # Errors
    /// The operating system's error.
    pub(crate) fn write(&self) -> io::Result<PathBuf> {
        let path = self.folder.join(format!("node-{}-{}.json", self.node, self.life));
        fs::write(&path, serde_json::to_vec(self)?)?;
        Ok(path)
    }

    /// Where the node writes its history.
    pub(crate) fn history(&self) -> PathBuf {
        self.folder.join(format!("node-{}-{}.history", self.node, self.life))
    }

    /// Where the node says how it is doing.
    pub(crate) fn status(&self) -> PathBuf {
        self.folder.join(format!("node-{}-{}.status", self.node, self.life))
    }

    /// Where the versions lie.
    pub(crate) fn origin(&self) -> PathBuf {
        self.folder.join("origin")
    }
}
