//! The atomic steps of the cache: each a script and its pure twin.

mod fill;
mod guard;
#[cfg(test)]
mod hostile;
mod invalidate;
mod invalidate_many;
mod layout;
mod lease;
mod lookup;
mod lookup_many;
mod put;
mod put_many;
mod state;
mod tags;
#[cfg(test)]
mod twin;
pub(crate) mod variants;

pub(crate) use fill::Fill;
pub(crate) use guard::{Hold, SetGuard};
pub(crate) use invalidate::{Clear, Invalidate};
pub(crate) use invalidate_many::InvalidateMany;
pub(crate) use layout::{Agree, SIGN_LIFE};
pub(crate) use lease::{Lease, Leased, Release, Renew, Wake};
pub(crate) use lookup::{Found, Lookup};
pub(crate) use lookup_many::{FoundMany, LookupMany};
pub(crate) use put::Put;
pub(crate) use put_many::{OnePut, PutMany};
pub(crate) use state::LEASE_MAX;
pub(crate) use tags::{Bump, Versions, tags_key};
pub(crate) use variants::{Reader, VARIANTS_MAX};

use fleetwide_core_traits::{Key, KeyError, Script, Tag, log};

/// The keys that steps on one entry use. Values and leases are two keys and one cell.
#[derive(Clone, Debug)]
pub(crate) struct EntryKeys {
    value: Key,
    meta: Key,
    tags: Key,
    guards: Key,
    lease: Key,
    stream: Key,
}

impl EntryKeys {
    pub(crate) fn new(tag: &Tag, key: &[u8]) -> Result<Self, KeyError> {
        let (meta, stream) = log::Append::keys(tag);
        let (value, lease) = (value_key(tag, key)?, tag.named("l", key)?);
        let guards = tag.named("g", key)?;
        Ok(Self { value, meta, tags: tags_key(tag), guards, lease, stream })
    }
}

/// The key of a value in L2.
pub(crate) fn value_key(tag: &Tag, key: &[u8]) -> Result<Key, KeyError> {
    tag.named("v", key)
}

/// All scripts of this crate, for [`Executor::prepare`](fleetwide_core_traits::Executor::prepare).
pub(crate) fn scripts() -> [&'static Script; 13] {
    [
        layout::script(),
        tags::script(),
        lease::lease_script(),
        lease::renew_script(),
        lease::release_script(),
        fill::script(),
        guard::guard_script(),
        guard::hold_script(),
        put::script(),
        put_many::script(),
        invalidate::invalidate_script(),
        invalidate_many::script(),
        invalidate::clear_script(),
    ]
}
