//! Names of shared state, parsed once from whatever a user sends.

use std::fmt;
use std::hash::{Hash, Hasher};

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// Keeps the keys of one application apart from all others on the same server.
///
/// 1 to 64 ASCII letters, digits, `.`, `_` or `-`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Namespace(Bytes);

impl Namespace {
    const BYTES_MAX: usize = 64;

    /// Parses a namespace.
    ///
    /// # Errors
    /// [`NamespaceError`] if it is empty, too long, or has another character.
    pub fn new(name: &str) -> Result<Self, NamespaceError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if name.is_empty() {
            Err(NamespaceError::Empty)
        } else if name.len() > Self::BYTES_MAX {
            Err(NamespaceError::TooLong)
        } else if !name.bytes().all(plain) {
            Err(NamespaceError::Character)
        } else {
            Ok(Self(Bytes::copy_from_slice(name.as_bytes())))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // Only ASCII gets past `new`.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The tag `{namespace:capability:name}`, under which all keys share one slot.
    ///
    /// `name` may be any bytes: what is not plain is escaped, and what is long is hashed.
    ///
    /// # Errors
    /// [`KeyError`] if `name` is empty or longer than [`Key::NAME_BYTES_MAX`].
    pub fn tag(&self, capability: &'static str, name: &[u8]) -> Result<Tag, KeyError> {
        let mut tag = Vec::with_capacity(self.0.len() + capability.len() + name.len() + 20);
        tag.push(b'{');
        tag.extend_from_slice(&self.0);
        tag.push(b':');
        tag.extend_from_slice(capability.as_bytes());
        tag.push(b':');
        escape(name, &mut tag)?;
        tag.push(b'}');
        Ok(Tag(Bytes::from(tag)))
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is no [`Namespace`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamespaceError {
    /// It has no character.
    #[error("a namespace must not be empty")]
    Empty,
    /// It has more than 64 bytes.
    #[error("a namespace may have at most 64 characters")]
    TooLong,
    /// It has a character that keys do not take.
    #[error("a namespace takes ASCII letters, digits, '.', '_' and '-'")]
    Character,
}

/// The part of a key between the braces, `{namespace:capability:name}`, with the braces.
///
/// A cluster places keys by it, so all keys of one tag can be used in one step.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Tag(Bytes);

impl Tag {
    /// The tag itself as a key, for state that is one key.
    pub fn key(&self) -> Key {
        Key { bytes: self.0.clone(), tag_len: self.0.len() as u32 }
    }

    /// The key `tag:part`.
    pub fn part(&self, part: &'static str) -> Key {
        self.join(part, |_| Ok(())).unwrap_or_else(|_: KeyError| self.key())
    }

    /// The key `tag:part:name`, with `name` escaped or hashed.
    ///
    /// # Errors
    /// [`KeyError`] if `name` is empty or longer than [`Key::NAME_BYTES_MAX`].
    pub fn named(&self, part: &'static str, name: &[u8]) -> Result<Key, KeyError> {
        self.join(part, |bytes| {
            bytes.push(b':');
            escape(name, bytes)
        })
    }

    /// The channel `tag:part`.
    pub fn channel(&self, part: &'static str) -> Channel {
        Channel(self.part(part).bytes)
    }

    /// The bytes, with the braces.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn join(
        &self,
        part: &'static str,
        name: impl FnOnce(&mut Vec<u8>) -> Result<(), KeyError>,
    ) -> Result<Key, KeyError> {
        let mut bytes = Vec::with_capacity(self.0.len() + part.len() + 48);
        bytes.extend_from_slice(&self.0);
        bytes.push(b':');
        bytes.extend_from_slice(part.as_bytes());
        name(&mut bytes)?;
        Ok(Key { bytes: Bytes::from(bytes), tag_len: self.0.len() as u32 })
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

/// The name of one piece of shared state. Cheap to clone.
#[derive(Clone)]
pub struct Key {
    bytes: Bytes,
    tag_len: u32,
}

impl Key {
    /// Bytes that a user's name may have. Longer ones are refused, not cut.
    pub const NAME_BYTES_MAX: usize = 64 * 1024;

    /// Bytes of an escaped name that stand in a key as they are; longer ones are hashed.
    const PLAIN_BYTES_MAX: usize = 200;

    /// The whole key.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The tag with its braces: keys are in one slot if and only if this is the same.
    pub fn tag(&self) -> &[u8] {
        &self.bytes[..self.tag_len as usize]
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.bytes))
    }
}

/// The name of a pub/sub channel.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Channel(Bytes);

impl Channel {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

/// Why bytes are no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Nothing names nothing.
    #[error("a key must not be empty")]
    Empty,
    /// Longer than [`Key::NAME_BYTES_MAX`].
    #[error("a key may have at most {max} bytes, this one has {0}", max = Key::NAME_BYTES_MAX)]
    TooLong(usize),
}

/// Appends `name` in a form that cannot be taken for anything else: plain bytes stay, others
/// become `%xx`, and what would be too long becomes `#` and a hash. Neither `%` nor `#` is plain,
/// so two names never share a form (up to a collision of 160 bits of SHA-256).
fn escape(name: &[u8], to: &mut Vec<u8>) -> Result<(), KeyError> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    // Plain: no brace, which would move the hash tag; no ':', which separates parts.
    let plain = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'.' | b'_' | b'-' | b'/' | b'@' | b'=' | b'+' | b',' | b'~')
    };
    if name.is_empty() {
        return Err(KeyError::Empty);
    }
    if name.len() > Key::NAME_BYTES_MAX {
        return Err(KeyError::TooLong(name.len()));
    }
    let escaped_len: usize = name.iter().map(|&byte| if plain(byte) { 1 } else { 3 }).sum();
    if escaped_len > Key::PLAIN_BYTES_MAX {
        to.push(b'#');
        for &byte in &Sha256::digest(name)[..20] {
            to.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    } else if escaped_len == name.len() {
        to.extend_from_slice(name);
    } else {
        for &byte in name {
            if plain(byte) {
                to.push(byte);
            } else {
                to.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn tag(name: &[u8]) -> Result<Tag, KeyError> {
        Namespace::new("shop").unwrap().tag("cache", name)
    }

    fn named(name: &str) -> String {
        format!("{:?}", tag(b"users").unwrap().named("v", name.as_bytes()).unwrap())
    }

    #[test]
    fn a_plain_name_stays_readable() {
        assert_eq!(named("user-42"), "{shop:cache:users}:v:user-42");
    }

    #[test]
    fn a_name_cannot_leave_its_place() {
        assert_eq!(named("a}:b{c d"), "{shop:cache:users}:v:a%7d%3ab%7bc%20d");
        assert_eq!(named("%41"), "{shop:cache:users}:v:%2541");
        assert_eq!(named("#"), "{shop:cache:users}:v:%23");
    }

    #[test]
    fn a_long_name_is_hashed_and_a_huge_one_refused() {
        assert_eq!(named(&"x".repeat(200)).len(), "{shop:cache:users}:v:".len() + 200);
        assert_eq!(named(&"x".repeat(201)).len(), "{shop:cache:users}:v:#".len() + 40);
        assert_eq!(tag(&vec![b'x'; 65_537]), Err(KeyError::TooLong(65_537)));
        assert_eq!(tag(b""), Err(KeyError::Empty));
    }

    #[test]
    fn a_namespace_is_checked_once() {
        assert_eq!(Namespace::new(""), Err(NamespaceError::Empty));
        assert_eq!(Namespace::new(&"n".repeat(65)), Err(NamespaceError::TooLong));
        assert_eq!(Namespace::new("a:b"), Err(NamespaceError::Character));
        assert_eq!(Namespace::new("a{b"), Err(NamespaceError::Character));
        assert_eq!(Namespace::new("eu-1.shop_2").unwrap().as_str(), "eu-1.shop_2");
    }

    proptest! {
        #[test]
        fn two_names_never_share_a_key(names in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..90), 1..40)) {
            let mut seen: HashMap<Key, Vec<u8>> = HashMap::new();
            for name in names {
                let key = tag(b"t").unwrap().named("v", &name).unwrap();
                let inner = &key.as_bytes()[key.tag().len()..];
                let out_of_place = |&byte: &u8| matches!(byte, b'{' | b'}' | 0..=32 | 127..);
                let misplaced = inner.iter().copied().find(out_of_place);
                prop_assert_eq!(misplaced, None);
                if let Some(other) = seen.insert(key, name.clone()) {
                    prop_assert_eq!(other, name);
                }
            }
        }
    }
}
