//! The steps of the directory: which place has which short id.

mod allot;
mod ask;
#[cfg(test)]
mod twin;

pub(crate) use allot::Allot;
pub(crate) use ask::{IdOf, PlaceOf};

use bytes::Bytes;
use fleetwide_core_traits::{Key, KeyError, Namespace, Script, Tag};

use crate::id::ShortId;

/// What a cell of the directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IdCell {
    /// The id of a place.
    Id(ShortId),
    /// The place of an id, in its wire form.
    Place(Bytes),
}

/// All scripts of this crate, for [`Executor::prepare`](fleetwide_core_traits::Executor::prepare).
pub(crate) fn scripts() -> [&'static Script; 1] {
    [allot::script()]
}

/// The tag of a directory's shard, by [`ShortId::shard`].
pub(crate) fn shard(namespace: &Namespace, name: &str, shard: &str) -> Result<Tag, KeyError> {
    namespace.tag("session-ids", format!("{name}/{shard}").as_bytes())
}

/// The key that holds the id of a place; `longest` is the longest that it could have.
fn id_key(shard: &Tag, longest: &ShortId) -> Result<Key, KeyError> {
    shard.named("of", longest.as_str().as_bytes())
}

/// The key that holds the place of an id.
pub(crate) fn place_key(shard: &Tag, id: &ShortId) -> Result<Key, KeyError> {
    shard.named("is", id.as_str().as_bytes())
}
