//! Where an entry is: the session it belongs to, and its key in it.

use std::fmt;
use std::sync::Arc;

use fleetwide_two_tier_cache::{CacheKey, CacheTag};

/// The name of a session, 1 to 256 bytes of text. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Arc<str>);

/// First byte of the tag that all entries of a session carry.
const SESSION_TAG: u8 = b's';
/// First byte of a tag that a user has named, so that it can never be a session's.
const USER_TAG: u8 = b'u';

impl SessionId {
    /// Bytes that the name of a session may have.
    pub const BYTES_MAX: usize = 256;

    /// Parses a name.
    ///
    /// # Errors
    /// [`NameError`] if it is empty or too long.
    pub fn new(id: &str) -> Result<Self, NameError> {
        check(id, Self::BYTES_MAX)?;
        Ok(Self(id.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tag whose bump ends the session.
    pub(crate) fn tag(&self) -> CacheTag {
        // With its first byte it has 2 to 257 bytes, which is less than a tag may have.
        tagged(SESSION_TAG, self.0.as_bytes()).unwrap_or_else(|_| unreachable!("it fits"))
    }
}

/// A tag as a user names it, in the form that entries carry.
pub(crate) fn user_tag(tag: &CacheTag) -> Result<CacheTag, fleetwide_two_tier_cache::TagError> {
    tagged(USER_TAG, tag.as_bytes())
}

fn tagged(kind: u8, name: &[u8]) -> Result<CacheTag, fleetwide_two_tier_cache::TagError> {
    CacheTag::new([&[kind], name].concat())
}

/// Whose tag was bumped.
pub(crate) enum TagOf {
    Session(SessionId),
    User(CacheTag),
    /// Written by a version that this one does not know.
    Unknown,
}

impl TagOf {
    pub(crate) fn read(tag: &CacheTag) -> Self {
        let read = match tag.as_bytes().split_first() {
            Some((&SESSION_TAG, id)) => std::str::from_utf8(id)
                .ok()
                .and_then(|id| SessionId::new(id).ok())
                .map(Self::Session),
            Some((&USER_TAG, name)) => CacheTag::new(name).ok().map(Self::User),
            _ => None,
        };
        read.unwrap_or(Self::Unknown)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A session and a key in it. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    session: SessionId,
    key: Arc<str>,
}

impl Place {
    /// Bytes that a key may have.
    pub const KEY_BYTES_MAX: usize = 512;

    /// The place of `key` in `session`.
    ///
    /// # Errors
    /// [`NameError`] if `key` is empty or longer than [`KEY_BYTES_MAX`](Self::KEY_BYTES_MAX).
    pub fn new(session: &SessionId, key: &str) -> Result<Self, NameError> {
        check(key, Self::KEY_BYTES_MAX)?;
        Ok(Self { session: session.clone(), key: key.into() })
    }

    /// The session.
    pub fn session(&self) -> &SessionId {
        &self.session
    }

    /// The key in it.
    pub fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn shared_key(&self) -> &Arc<str> {
        &self.key
    }

    /// The form in which the place travels; see [`CacheKey::write`].
    pub(crate) fn to_wire(&self) -> Vec<u8> {
        let mut wire = Vec::with_capacity(self.session.0.len() + self.key.len() + 5);
        self.write(&mut wire);
        wire
    }

    /// Reads what [`CacheKey::write`] wrote. `None` for anything else; never panics.
    pub(crate) fn read(wire: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(wire).ok()?;
        let (len, rest) = text.split_once('.')?;
        let len: usize = len.parse().ok()?;
        let (session, key) = rest.split_at_checked(len)?;
        let place = Self::new(&SessionId::new(session).ok()?, key.strip_prefix('/')?).ok()?;
        // One place has one form: `07.` or `+7.` would be a second.
        (place.to_wire() == wire).then_some(place)
    }
}

impl CacheKey for Place {
    /// `LEN.SESSION/KEY`; the length stands in front, so no two places share a form.
    fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self.session.0.len().to_string().as_bytes());
        to.push(b'.');
        to.extend_from_slice(self.session.0.as_bytes());
        to.push(b'/');
        to.extend_from_slice(self.key.as_bytes());
    }
}

/// Why a text is no name of a session, or no key in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing names nothing.
    #[error("a session and a key must not be empty")]
    Empty,
    /// Longer than it may be.
    #[error("it may have {max} bytes, and has {len}")]
    TooLong {
        /// Bytes that it has.
        len: usize,
        /// Bytes that it may have.
        max: usize,
    },
}

fn check(name: &str, max: usize) -> Result<(), NameError> {
    match name.len() {
        0 => Err(NameError::Empty),
        len if len > max => Err(NameError::TooLong { len, max }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(session: &str, key: &str) -> Place {
        Place::new(&SessionId::new(session).unwrap(), key).unwrap()
    }

    #[test]
    fn the_wire_form_stays_as_it_is() {
        assert_eq!(place("chat-7", "node/3").to_wire(), b"6.chat-7/node/3");
    }

    #[test]
    fn names_are_checked_once() {
        assert_eq!(SessionId::new(""), Err(NameError::Empty));
        let long = SessionId::new(&"s".repeat(257));
        assert_eq!(long, Err(NameError::TooLong { len: 257, max: 256 }));
        let session = SessionId::new(&"s".repeat(256)).unwrap();
        assert!(matches!(TagOf::read(&session.tag()), TagOf::Session(read) if read == session));
        assert!(Place::new(&session, &"k".repeat(513)).is_err());
    }

    #[test]
    fn a_users_tag_is_never_a_sessions() {
        let session = SessionId::new("x").unwrap().tag();
        let user = user_tag(&CacheTag::new("x").unwrap()).unwrap();
        assert_ne!(session, user);
        assert!(matches!(TagOf::read(&user), TagOf::User(tag) if tag.as_bytes() == b"x"));
        assert!(matches!(TagOf::read(&CacheTag::new("zx").unwrap()), TagOf::Unknown));
        assert!(matches!(TagOf::read(&CacheTag::new(b"s\xff").unwrap()), TagOf::Unknown));
    }

    proptest! {
        #[test]
        fn a_place_reads_as_it_was_written(session in "\\PC{1,40}", key in "\\PC{1,40}") {
            let place = place(&session, &key);
            prop_assert_eq!(Place::read(&place.to_wire()), Some(place));
        }

        #[test]
        fn any_bytes_read_without_a_panic(wire: Vec<u8>, text in "[0-9]{0,3}[./a]{0,9}") {
            for wire in [&wire[..], text.as_bytes()] {
                prop_assert!(Place::read(wire).is_none_or(|place| place.to_wire() == wire));
            }
        }
    }
}
