//! One value in several schemas, in one string; the twin of the first half of `value.lua`.
//!
//! While a fleet is being deployed, instances that know the old form of a type and instances that
//! know the new one share its keys. Each finds its own variant beside the other's, so that neither
//! undoes what the other has loaded; and one `DEL` removes them all.

use bytes::Bytes;
use fleetwide_core_traits::log::{Epoch, Meta, Stamp, StoredValue};
use fleetwide_core_traits::{Envelope, Malformed, ServerTime, VALUE_BYTES_MAX};

use super::state::usable;

/// What a string begins with that holds several variants, where a single one has its epoch.
const VARIANTS: &[u8; 8] = b"\xffFWvar\x00\x01";

/// The form before the deploy, the one after it, and the one of a deploy that is rolled back.
pub(crate) const VARIANTS_MAX: usize = 3;

/// Bytes of all variants of a key: every read of it carries them all.
pub(super) const VARIANTS_BYTES_MAX: usize = VALUE_BYTES_MAX;

/// Bytes in front of an envelope: epoch, seq, stored at, expires at.
pub(super) const HEAD_BYTES: usize = 32;

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reader {
    /// The schema that it understands.
    pub(crate) schema: u32,
    /// What the server's clock shows, if the reader knows. A string with several variants outlives
    /// some of them, so without it none of them is taken; the lease script will know.
    pub(crate) now: Option<ServerTime>,
}

/// What is there for a reader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Variants {
    /// In its schema, if it counts.
    pub(crate) own: Option<StoredValue>,
    /// Whether something that counts is there in another schema.
    pub(crate) other: bool,
}

impl Reader {
    /// What is there in a string of L2.
    pub(crate) fn find(self, raw: &Bytes, meta: &Meta) -> Variants {
        let several = raw.starts_with(VARIANTS);
        self.choose(several, variants(raw), meta)
    }

    /// What there is among values that are taken apart already.
    pub(super) fn choose(
        self,
        several: bool,
        values: impl Iterator<Item = StoredValue>,
        meta: &Meta,
    ) -> Variants {
        let mut found = Variants::default();
        for value in values {
            if Envelope::schema_of(&value.envelope) != self.schema {
                found.other |= usable(value.stamp, meta);
            } else if found.own.is_none() {
                found.own = Some(value);
            }
        }
        let lives =
            |value: &StoredValue| !several || self.now.is_some_and(|now| now < value.expires_at);
        found.own = found.own.filter(|value| usable(value.stamp, meta) && lives(value));
        found
    }
}

/// The variants in a string of L2, up to where it makes no sense.
pub(crate) fn variants(raw: &Bytes) -> impl Iterator<Item = StoredValue> + use<> {
    let several = raw.starts_with(VARIANTS);
    let single = if several { None } else { read_variant(raw).ok() };
    let mut rest = if several { raw.slice(VARIANTS.len()..) } else { Bytes::new() };
    let next = move || {
        let len = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let variant =
            read_variant(&rest.slice(4..len.checked_add(4).filter(|end| *end <= rest.len())?))
                .ok()?;
        rest = rest.slice(4 + len..);
        Some(variant)
    };
    single.into_iter().chain(std::iter::from_fn(next))
}

/// Takes one variant apart.
pub(super) fn read_variant(raw: &Bytes) -> Result<StoredValue, Malformed> {
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

/// What a fill leaves: its own value, then of the values `there` those of other schemas that still
/// count.
pub(super) fn beside(
    own: StoredValue,
    there: impl Iterator<Item = StoredValue>,
    meta: &Meta,
) -> Vec<StoredValue> {
    let schema = Envelope::schema_of(&own.envelope);
    let mut bytes = HEAD_BYTES + own.envelope.len();
    let mut kept = vec![own];
    for value in there {
        let size = HEAD_BYTES + value.envelope.len();
        let fits = kept.len() < VARIANTS_MAX && bytes + size <= VARIANTS_BYTES_MAX;
        let another = Envelope::schema_of(&value.envelope) != schema;
        if fits && another && usable(value.stamp, meta) {
            bytes += size;
            kept.push(value);
        }
    }
    kept
}

/// The string of L2 that holds `values`, as the scripts write it.
#[cfg(test)]
pub(crate) fn write(values: &[StoredValue]) -> Bytes {
    let write_one = |value: &StoredValue| {
        let mut raw = Vec::with_capacity(HEAD_BYTES + value.envelope.len());
        raw.extend(value.stamp.epoch.0);
        raw.extend(value.stamp.seq.to_be_bytes());
        raw.extend(value.stored_at.as_micros().to_be_bytes());
        raw.extend(value.expires_at.as_micros().to_be_bytes());
        raw.extend_from_slice(&value.envelope);
        raw
    };
    if let [value] = values {
        return Bytes::from(write_one(value));
    }
    let mut raw = VARIANTS.to_vec();
    for value in values {
        let one = write_one(value);
        raw.extend((one.len() as u32).to_be_bytes());
        raw.extend(one);
    }
    Bytes::from(raw)
}
