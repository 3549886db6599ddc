//! What the cache writes into its log.
//!
//! One byte says what happened, the bytes of the key or the tag follow. A reader that meets a byte it does not
//! know acts as if everything was cleared: a later version may say more, and must be safe to ignore.

use bytes::Bytes;

const INVALIDATE: u8 = 1;
const PUT: u8 = 2;
const CLEAR: u8 = 3;
const BUMP: u8 = 4;

/// What an entry says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// This key was written or removed.
    Changed(Bytes),
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

pub(crate) fn clear() -> Bytes {
    Bytes::from_static(&[CLEAR])
}

pub(crate) fn read(body: &Bytes) -> Said {
    match body.first() {
        Some(&(INVALIDATE | PUT)) => Said::Changed(body.slice(1..)),
        Some(&BUMP) => Said::Bumped(body.slice(1..)),
        _ => Said::Cleared,
    }
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
        assert_eq!(read(&Bytes::new()), Said::Cleared);
    }
}
