//! What values and leases look like, and when they count; the twin of `value.lua`.

use std::time::Duration;

use fleetwide_core_traits::log::{Lease, LogCell, Meta, Stamp, Stored, StoredValue};
use fleetwide_core_traits::{Effects, ServerTime};

/// The longest lease. A deadline further off is from a clock that has gone back.
pub(crate) const LEASE_MAX: Duration = Duration::from_secs(60);

/// Whether a value was written in this history and after its last clear.
pub(crate) fn usable(stamp: Stamp, meta: &Meta) -> bool {
    stamp.epoch == meta.at.epoch && stamp.seq >= meta.clear_seq
}

/// The values in a cell that have not expired.
pub(super) fn live_values(
    cell: Option<&LogCell>,
    now: ServerTime,
) -> impl Iterator<Item = &StoredValue> {
    let values = stored(cell).into_iter().flat_map(|stored| &stored.values);
    values.filter(move |value| value.expires_at > now)
}

/// The lease in a cell, if it has not run out.
pub(super) fn live_lease(cell: Option<&LogCell>, now: ServerTime) -> Option<Lease> {
    stored(cell)?
        .lease
        .filter(|lease| lease.expires_at > now && lease.expires_at.since(now) <= LEASE_MAX)
}

fn stored(cell: Option<&LogCell>) -> Option<&Stored> {
    cell.and_then(LogCell::as_stored)
}

/// Writes `next` to cell 0, for as long as its longest part counts; nothing if it has none.
pub(super) fn save(next: Stored, now: ServerTime, out: &mut Effects<LogCell>) {
    save_at(0, next, now, out);
}

/// The same for another cell.
pub(super) fn save_at(cell: usize, next: Stored, now: ServerTime, out: &mut Effects<LogCell>) {
    let value = next.values.iter().map(|value| value.expires_at.since(now)).max();
    let lease = next.lease.map(|lease| lease.expires_at.since(now));
    match value.max(lease) {
        Some(ttl) => out.put(cell, LogCell::Stored(next), ttl),
        None => out.delete(cell),
    }
}

/// What the cell's parts are now, for changing one of them.
pub(super) fn parts(cell: Option<&LogCell>, now: ServerTime) -> Stored {
    Stored { values: live_values(cell, now).cloned().collect(), lease: live_lease(cell, now) }
}
