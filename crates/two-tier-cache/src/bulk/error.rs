//! What can go wrong with some keys of many.

use std::error::Error;
use std::fmt;

use crate::error::{LoadError, WriteError};
use crate::token::WriteToken;

use super::hits::Hits;

/// Some keys of a bulk read could not be loaded. What was found is here all the same.
#[derive(Debug)]
#[non_exhaustive]
pub struct BulkError<K, V> {
    /// What was found or loaded.
    pub found: Hits<K, V>,
    /// The keys that failed, each with its reason; at least one. Keys of one loader call have the
    /// same.
    pub failed: Vec<(K, LoadError)>,
}

impl<K, V> BulkError<K, V> {
    pub(super) const fn new(found: Hits<K, V>, failed: Vec<(K, LoadError)>) -> Self {
        Self { found, failed }
    }

    /// The first loader's own error, if it is a `T`.
    pub fn loader_error<T: Error + 'static>(&self) -> Option<&T> {
        self.failed.iter().find_map(|(_, error)| error.loader_error())
    }
}

impl<K, V> fmt::Display for BulkError<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys could not be loaded", self.failed.len())?;
        match self.failed.first() {
            Some((_, error)) => write!(f, ", the first because {error}"),
            None => Ok(()),
        }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> Error for BulkError<K, V> {
    /// The reason of the first key that failed.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.failed.first().map(|(_, error)| error as _)
    }
}

/// Some writes of many are not known to be done everywhere. The others are done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BulkWriteError<K> {
    /// The keys that failed, each with its reason; at least one.
    pub failed: Vec<(K, WriteError)>,
    /// Covers the writes that were done; `None` if none was.
    pub token: Option<WriteToken>,
}

impl<K> BulkWriteError<K> {
    /// Whether all that failed is queued, so that the caller need not repeat it.
    pub fn is_queued(&self) -> bool {
        self.failed.iter().all(|(_, error)| error.is_queued())
    }
}

impl<K> fmt::Display for BulkWriteError<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys were not written", self.failed.len())?;
        match self.failed.first() {
            Some((_, error)) => write!(f, ", the first because {error}"),
            None => Ok(()),
        }
    }
}

impl<K: fmt::Debug> Error for BulkWriteError<K> {
    /// The reason of the first key that failed.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.failed.first().map(|(_, error)| error as _)
    }
}
