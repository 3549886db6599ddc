//! One budget of bytes for everything that waits: flights under way, and writes to be repeated.
//!
//! Keys can be long, so a number of them bounds nothing. What is drawn is held by a [`Place`] and
//! goes back when that is dropped, on whatever path: what the ledger says is what lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The bytes in use, and how many there may be.
pub(crate) struct Ledger {
    max: u64,
    in_use: AtomicU64,
    /// The part of them that is the queue's.
    queued: AtomicU64,
}

/// What a place is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// A look into L2 that others can join. Those who wait for it are their callers' own.
    Lookup,
    /// A load that others can join: its flight, and its task.
    Load,
    /// A write that is to be repeated.
    Write,
}

/// Some bytes of a ledger. Dropping it gives them back.
pub(crate) struct Place {
    ledger: Arc<Ledger>,
    bytes: u64,
    used_for: Use,
}

/// Flights leave this part of the budget to writes: a crowd of misses must not turn the first write
/// that fails into a clear.
const WRITES_PART: u64 = 4;

impl Ledger {
    pub(crate) fn new(max: u64) -> Arc<Self> {
        Arc::new(Self { max, in_use: AtomicU64::new(0), queued: AtomicU64::new(0) })
    }

    /// A place for something that waits under a name of so many bytes; `None` if there is no room.
    pub(crate) fn place(self: &Arc<Self>, used_for: Use, name_bytes: usize) -> Option<Place> {
        let bytes = used_for.bytes(name_bytes);
        let max = match used_for {
            Use::Lookup | Use::Load => self.max - self.max / WRITES_PART,
            Use::Write => self.max,
        };
        let more = |in_use: u64| in_use.checked_add(bytes).filter(|sum| *sum <= max);
        self.in_use.fetch_update(Relaxed, Relaxed, more).ok()?;
        if used_for == Use::Write {
            self.queued.fetch_add(bytes, Relaxed);
        }
        Some(Place { ledger: Arc::clone(self), bytes, used_for })
    }

    /// Bytes of all flights.
    pub(crate) fn flight_bytes(&self) -> u64 {
        // Two numbers that are read one after the other: at worst one place off.
        self.in_use.load(Relaxed).saturating_sub(self.queue_bytes())
    }

    /// Bytes of all writes that are to be repeated.
    pub(crate) fn queue_bytes(&self) -> u64 {
        self.queued.load(Relaxed)
    }
}

impl Use {
    /// What one takes: a constant, and so many copies of its name. `tests/unwanted_keys.rs` weighs
    /// loads and writes; a lookup is worked out from the sizes of its types.
    pub(crate) fn bytes(self, name_bytes: usize) -> u64 {
        let (place, copies) = match self {
            Self::Lookup => (384, 1),
            // The bytes of the key, and the key itself in the job and with the loader.
            Self::Load => (1280, 3),
            Self::Write => (256, 1),
        };
        place + copies * name_bytes as u64
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.used_for == Use::Write {
            self.ledger.queued.fetch_sub(self.bytes, Relaxed);
        }
        self.ledger.in_use.fetch_sub(self.bytes, Relaxed);
    }
}
