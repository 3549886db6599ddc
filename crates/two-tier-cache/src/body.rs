//! What the cache writes into its log.
//!
//! One byte says what happened, the bytes of the key or the tag follow. A reader that meets a byte it does not
//! know acts as if everything was cleared: a later version may say more, and must be safe to ignore.

use bytes::Bytes;

use crate::tags::CacheTag;

const INVALIDATE: u8 = 1;
const PUT: u8 = 2;
const CLEAR: u8 = 3;
const BUMP: u8 = 4;
const INVALIDATE_MANY: u8 = 5;
const PUT_MANY: u8 = 6;

/// What an entry says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// This key was written or removed.
    Changed(Bytes),
    /// These keys were written or removed.
    ChangedMany(Vec<Bytes>),
    /// What carries this tag was removed.
    Bumped(Bytes),
    /// Everything was removed, or something that this version does not know.
    Cleared,
}

pub(crate) fn invalidate(wire: &[u8]) -> Bytes {
    with_key(INVALIDATE, wire)
}

pub(crate) fn put(wire: &[u8]) -> Bytes {
    with_key(PUT, wire)
}

pub(crate) fn bump(tag: &[u8]) -> Bytes {
    with_key(BUMP, tag)
}

pub(crate) fn invalidate_many<'a>(wires: impl Iterator<Item = &'a Bytes>) -> Bytes {
    with_keys(INVALIDATE_MANY, wires)
}

pub(crate) fn put_many<'a>(wires: impl Iterator<Item = &'a Bytes>) -> Bytes {
    with_keys(PUT_MANY, wires)
}

pub(crate) fn clear() -> Bytes {
    Bytes::from_static(&[CLEAR])
}

pub(crate) fn read(body: &Bytes) -> Said {
    match body.first() {
        Some(&(INVALIDATE | PUT)) => Said::Changed(body.slice(1..)),
        // What is longer than any tag would take room for nothing.
        Some(&BUMP) if (2..=CacheTag::BYTES_MAX + 1).contains(&body.len()) => {
            Said::Bumped(body.slice(1..))
        }
        Some(&(INVALIDATE_MANY | PUT_MANY)) => {
            keys(body.slice(1..)).map_or(Said::Cleared, Said::ChangedMany)
        }
        _ => Said::Cleared,
    }
}

/// Whether what was changed was written, and not only removed.
pub(crate) fn is_put(body: &Bytes) -> bool {
    matches!(body.first(), Some(&(PUT | PUT_MANY)))
}

/// `None` if the lengths do not add up.
fn keys(mut rest: Bytes) -> Option<Vec<Bytes>> {
    let mut keys = Vec::new();
    while !rest.is_empty() {
        let (len, _) = rest.split_first_chunk()?;
        let len = u32::from_be_bytes(*len) as usize;
        let end = len.checked_add(4).filter(|end| *end <= rest.len())?;
        keys.push(rest.split_to(end).slice(4..));
    }
    Some(keys)
}

/// Each key with its length in front, 4 bytes.
fn with_keys<'a>(said: u8, wires: impl Iterator<Item = &'a Bytes>) -> Bytes {
    let mut body = vec![said];
    for wire in wires {
        body.extend((wire.len() as u32).to_be_bytes());
        body.extend_from_slice(wire);
    }
    Bytes::from(body)
}

fn with_key(said: u8, wire: &[u8]) -> Bytes {
    let mut body = Vec::with_capacity(1 + wire.len());
    body.push(said);
    body.extend_from_slice(wire);
    Bytes::from(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_clears() {
        assert_eq!(read(&put(b"k")), Said::Changed(Bytes::from_static(b"k")));
        assert_eq!(read(&invalidate(b"k")), Said::Changed(Bytes::from_static(b"k")));
        assert_eq!(read(&bump(b"t")), Said::Bumped(Bytes::from_static(b"t")));
        assert_eq!(read(&clear()), Said::Cleared);
        assert_eq!(read(&Bytes::from_static(&[9, 1])), Said::Cleared);
        for no_tag in [0, CacheTag::BYTES_MAX + 1] {
            assert_eq!(read(&bump(&vec![b't'; no_tag])), Said::Cleared, "{no_tag} bytes");
        }
        assert_eq!(read(&Bytes::new()), Said::Cleared);
    }

    #[test]
    fn many_keys_read_as_they_were_written_and_a_broken_list_clears() {
        let (one, two) = (Bytes::from_static(b"k"), Bytes::from_static(b"\0key"));
        let body = put_many([&one, &two].into_iter());
        assert_eq!(read(&body), Said::ChangedMany(vec![one, two]));
        for end in 2..body.len() {
            let whole_keys = end == 6;
            assert_eq!(read(&body.slice(..end)) == Said::Cleared, !whole_keys, "cut at {end}");
        }
        assert_eq!(read(&Bytes::from_static(b"\x05\xff\xff\xff\xff")), Said::Cleared);
    }
}
