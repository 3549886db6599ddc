//! What values and leases look like, and when they count; the twin of `value.lua`.

use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::log::{Epoch, Lease, LogCell, Meta, Stamp, Stored, StoredValue};
use fleetwide_core_traits::{Effects, Malformed, ServerTime};

/// The longest lease. A deadline further off is from a clock that has gone back.
pub(crate) const LEASE_MAX: Duration = Duration::from_secs(60);

/// Bytes in front of the envelope: epoch, seq, stored at, expires at.
const HEAD_BYTES: usize = 32;

/// Takes a raw value apart.
pub(crate) fn read_value(raw: &Bytes) -> Result<StoredValue, Malformed> {
    let number = |at: usize| {
        let bytes = raw.get(at..at + 8).and_then(|part| part.try_into().ok());
        u64::from_be_bytes(bytes.unwrap_or_default())
    };
    if raw.len() < HEAD_BYTES {
        return Err(Malformed::new("a cached value", "fewer bytes"));
    }
    Ok(StoredValue {
        stamp: Stamp { epoch: Epoch(number(0).to_be_bytes()), seq: number(8) },
        stored_at: ServerTime::from_micros(number(16)),
        expires_at: ServerTime::from_micros(number(24)),
        envelope: raw.slice(HEAD_BYTES..),
    })
}

/// The raw form of a value, as the scripts write it.
#[cfg(test)]
pub(crate) fn write_value(value: &StoredValue) -> Bytes {
    let mut raw = Vec::with_capacity(HEAD_BYTES + value.envelope.len());
    raw.extend(value.stamp.epoch.0);
    raw.extend(value.stamp.seq.to_be_bytes());
    raw.extend(value.stored_at.as_micros().to_be_bytes());
    raw.extend(value.expires_at.as_micros().to_be_bytes());
    raw.extend_from_slice(&value.envelope);
    Bytes::from(raw)
}

/// Whether a value was written in this history and after its last clear.
pub(crate) fn usable(stamp: Stamp, meta: &Meta) -> bool {
    stamp.epoch == meta.at.epoch && stamp.seq >= meta.clear_seq
}

/// The value in a cell, if it has not expired.
pub(super) fn live_value(cell: Option<&LogCell>, now: ServerTime) -> Option<&StoredValue> {
    stored(cell)?.value.as_ref().filter(|value| value.expires_at > now)
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
    let value = next.value.as_ref().map(|value| value.expires_at.since(now));
    let lease = next.lease.map(|lease| lease.expires_at.since(now));
    match value.max(lease) {
        Some(ttl) => out.put(0, LogCell::Stored(next), ttl),
        None => out.delete(0),
    }
}

/// What the cell's parts are now, for changing one of them.
pub(super) fn parts(cell: Option<&LogCell>, now: ServerTime) -> Stored {
    Stored { value: live_value(cell, now).cloned(), lease: live_lease(cell, now) }
}
