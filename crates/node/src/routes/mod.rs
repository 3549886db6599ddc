//! One file per resource.

pub(crate) mod cache;
pub(crate) mod events;
pub(crate) mod health;
pub(crate) mod limited;
pub(crate) mod load;
pub(crate) mod metrics;
pub(crate) mod sessions;
pub(crate) mod source;
