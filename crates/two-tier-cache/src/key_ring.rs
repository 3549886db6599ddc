//! A seal with keys that can be exchanged while a fleet runs.

use std::collections::BTreeMap;
use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use fleetwide_core_traits::{Seal, SealError};

/// Bytes of a nonce: enough that random ones never meet.
const NONCE_BYTES: usize = 24;
/// Bytes in front of what is encrypted: number of the key 4, nonce 24.
const HEAD_BYTES: usize = 4 + NONCE_BYTES;

/// Encrypts and authenticates with XChaCha20-Poly1305, by one key at a time.
///
/// Each value names its key by a number, so that keys are exchanged in three deploys: first every
/// instance learns to [`open_with`](Self::open_with) the new key, then it becomes the one that
/// seals, and when the values of the old one have expired, the old one goes.
///
/// A key is 32 random bytes out of a store for secrets; a password is none. Neither `Debug` nor an
/// error shows it, and it is overwritten when the ring is dropped.
///
/// # Examples
/// ```
/// use fleetwide_two_tier_cache::KeyRing;
///
/// let (new, old) = ([7; 32], [3; 32]); // not like this: from where your secrets are
/// let ring = KeyRing::new(2, &new).open_with(1, &old);
/// assert_eq!(format!("{ring:?}"), "KeyRing { seals_with: 2, opens_with: [1, 2] }");
/// ```
#[derive(Clone)]
pub struct KeyRing {
    seals_with: u32,
    ciphers: BTreeMap<u32, XChaCha20Poly1305>,
}

impl KeyRing {
    /// Seals with this key, and opens what it has sealed.
    pub fn new(number: u32, key: &[u8; 32]) -> Self {
        Self { seals_with: number, ciphers: BTreeMap::new() }.open_with(number, key)
    }

    /// Also opens what this key has sealed. The last key of a number counts.
    #[must_use]
    pub fn open_with(mut self, number: u32, key: &[u8; 32]) -> Self {
        self.ciphers.insert(number, XChaCha20Poly1305::new(key.into()));
        self
    }

    fn cipher(&self, number: u32) -> Result<&XChaCha20Poly1305, SealError> {
        self.ciphers.get(&number).ok_or(SealError::UnknownKey(number))
    }
}

impl Seal for KeyRing {
    fn seal(&self, plain: &[u8], context: &[u8], to: &mut Vec<u8>) -> Result<(), SealError> {
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let payload = Payload { msg: plain, aad: context };
        let sealed = self.cipher(self.seals_with)?.encrypt(&XNonce::from(nonce), payload);
        to.extend(self.seals_with.to_be_bytes());
        to.extend(nonce);
        to.extend(sealed.map_err(|_| SealError::Failed)?);
        Ok(())
    }

    fn open(&self, sealed: &[u8], context: &[u8]) -> Result<Vec<u8>, SealError> {
        let (head, msg) = sealed.split_at_checked(HEAD_BYTES).ok_or(SealError::Damaged)?;
        let (number, nonce) = head.split_at(4);
        let number = number.try_into().map(u32::from_be_bytes).map_err(|_| SealError::Damaged)?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().map_err(|_| SealError::Damaged)?;
        let payload = Payload { msg, aad: context };
        let plain = self.cipher(number)?.decrypt(&XNonce::from(nonce), payload);
        plain.map_err(|_| SealError::Damaged)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let opens_with: Vec<u32> = self.ciphers.keys().copied().collect();
        f.debug_struct("KeyRing")
            .field("seals_with", &self.seals_with)
            .field("opens_with", &opens_with)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sealed(ring: &KeyRing, plain: &[u8], context: &[u8]) -> Vec<u8> {
        let mut to = Vec::new();
        ring.seal(plain, context, &mut to).unwrap();
        to
    }

    /// Golden bytes: what version 1 sealed must open for ever, with the key of that time.
    #[test]
    fn what_version_1_sealed_opens() {
        let ring = KeyRing::new(9, &[1; 32]);
        let golden =
            b"\x00\x00\x00\x09\xb1\x75\x81\x23\x08\xcc\x10\x19\xb7\x8e\x22\x36\x70\xd4\x7f\x6c\
            \xb0\xf1\x2b\x4c\x00\xac\x17\x68\xeb\x8b\x89\x52\xd5\xa2\xa1\xd3\xb7\x59\x90\xdd\
            \xe6\xd1\x6c\x26\xa0\xf9\xc7\x5c\xbb";
        assert_eq!(ring.open(golden, b"context").as_deref(), Ok(&b"plain"[..]));
        assert_eq!(golden.len(), HEAD_BYTES + 5 + 16);
    }

    #[test]
    fn a_key_is_exchanged_while_values_of_the_old_one_live() {
        let old = KeyRing::new(1, &[1; 32]);
        let learning = KeyRing::new(1, &[1; 32]).open_with(2, &[2; 32]);
        let new = KeyRing::new(2, &[2; 32]).open_with(1, &[1; 32]);
        let (before, after) = (sealed(&old, b"v", b""), sealed(&new, b"v", b""));
        for ring in [&learning, &new] {
            assert_eq!(ring.open(&before, b"").as_deref(), Ok(&b"v"[..]));
            assert_eq!(ring.open(&after, b"").as_deref(), Ok(&b"v"[..]));
        }
        assert_eq!(old.open(&after, b""), Err(SealError::UnknownKey(2)));
        // A key of the same number that is another one.
        assert_eq!(KeyRing::new(1, &[9; 32]).open(&before, b""), Err(SealError::Damaged));
    }

    #[test]
    fn nothing_of_a_key_or_a_value_is_shown_or_left_in_the_clear() {
        let ring = KeyRing::new(1, b"a key that nobody should ever se");
        assert!(!format!("{ring:?} {ring:#?}").contains("nobody"));
        let (one, other) =
            (sealed(&ring, b"a secret value", b""), sealed(&ring, b"a secret value", b""));
        assert!(!one.windows(6).any(|part| part == b"secret"));
        assert_ne!(one, other, "the same value looks different each time");
    }

    proptest! {
        #[test]
        fn what_was_changed_or_moved_does_not_open(plain: Vec<u8>, context: Vec<u8>, at: prop::sample::Index, flip in 1u8..) {
            let ring = KeyRing::new(1, &[1; 32]);
            let good = sealed(&ring, &plain, &context);
            prop_assert_eq!(ring.open(&good, &context), Ok(plain));
            let moved = [&context[..], b"x"].concat();
            prop_assert_eq!(ring.open(&good, &moved), Err(SealError::Damaged));
            let (mut bad, at) = (good.clone(), at.index(good.len()));
            bad[at] ^= flip;
            prop_assert!(ring.open(&bad, &context).is_err());
            prop_assert!(ring.open(&good[..at], &context).is_err());
        }
    }
}
