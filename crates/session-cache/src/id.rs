//! Short ids: names of places that a person can read out and a prompt can hold.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::place::Place;

/// A short name of an entry, the same on every instance: 8 digits, rarely 10, 13 or 26.
///
/// Digits are those of Crockford's base 32, in lower case: no `i`, `l`, `o` or `u`. Reading is
/// lenient: case does not matter, `o` is read as `0`, and `i` and `l` as `1`.
///
/// An id is a name and no secret: who guesses one can look it up, unless the caller checks.
///
/// # Examples
/// ```
/// use fleetwide_session_cache::ShortId;
///
/// let id: ShortId = "7K3M-".parse::<ShortId>().unwrap_or("7K3MQ0ZO".parse()?);
/// assert_eq!(id.to_string(), "7k3mq0z0");
/// # Ok::<(), fleetwide_session_cache::ShortIdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShortId {
    digits: [u8; DIGITS_MAX],
    len: u8,
}

const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 130 bits: two places that share all of it do not exist.
const DIGITS_MAX: usize = 26;
/// The digits that an id may have. Among a million entries about one in a million needs the second
/// length (40 bits), and only somebody who searches for it the third (50 bits).
const LENGTHS: [usize; 4] = [8, 10, 13, DIGITS_MAX];
/// How many ids a place could have.
pub(crate) const CANDIDATES: usize = LENGTHS.len();
/// The first digits of all candidates of a place decide where they are stored.
const SHARD_DIGITS: usize = 2;

impl ShortId {
    /// The ids that `place` could have, shortest first. Each begins with the one before it.
    pub(crate) fn candidates(place: &Place) -> [Self; CANDIDATES] {
        let hash = Sha256::digest(place.to_wire());
        let mut digits = [0; DIGITS_MAX];
        for (at, digit) in digits.iter_mut().enumerate() {
            *digit = DIGITS[five_bits(&hash, at * 5)];
        }
        LENGTHS.map(|len| {
            let mut cut = [0; DIGITS_MAX];
            cut[..len].copy_from_slice(&digits[..len]);
            Self { digits: cut, len: len as u8 }
        })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // Only ASCII gets in.
        std::str::from_utf8(&self.digits[..usize::from(self.len)]).unwrap_or_default()
    }

    /// Names the shard that the id is stored in; the same for all candidates of a place.
    pub(crate) fn shard(&self) -> &str {
        &self.as_str()[..SHARD_DIGITS]
    }

    /// Whether `place` could have this id.
    pub(crate) fn fits(&self, place: &Place) -> bool {
        Self::candidates(place).contains(self)
    }
}

/// Five bits of `bytes` from bit `at` on, the highest bit of the first byte being bit 0.
fn five_bits(bytes: &[u8], at: usize) -> usize {
    let pair = usize::from(bytes[at / 8]) << 8 | usize::from(bytes[at / 8 + 1]);
    pair >> (11 - at % 8) & 31
}

impl FromStr for ShortId {
    type Err = ShortIdError;

    fn from_str(text: &str) -> Result<Self, ShortIdError> {
        if !LENGTHS.contains(&text.len()) {
            return Err(ShortIdError::Length);
        }
        let mut digits = [0; DIGITS_MAX];
        for (digit, byte) in digits.iter_mut().zip(text.bytes()) {
            *digit = match byte.to_ascii_lowercase() {
                b'o' => b'0',
                b'i' | b'l' => b'1',
                other if DIGITS.contains(&other) => other,
                _ => return Err(ShortIdError::Digit),
            };
        }
        Ok(Self { digits, len: text.len() as u8 })
    }
}

impl fmt::Display for ShortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ShortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is no [`ShortId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShortIdError {
    /// It has another length.
    #[error("a short id has 8, 10, 13 or 26 digits")]
    Length,
    /// It has another character.
    #[error("a short id has digits and letters other than `u`")]
    Digit,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::place::SessionId;

    fn place(session: &str, key: &str) -> Place {
        Place::new(&SessionId::new(session).unwrap(), key).unwrap()
    }

    /// Written down once: an id must not change with a version.
    #[test]
    fn ids_stay_as_they_are() {
        let ids = ShortId::candidates(&place("chat-7", "node/3")).map(|id| id.to_string());
        assert_eq!(ids, GOLDEN);
        assert!(ids.windows(2).all(|pair| pair[1].starts_with(&pair[0])));
    }

    const GOLDEN: [&str; 4] =
        ["vgsmfg7z", "vgsmfg7zw5", "vgsmfg7zw5b94", "vgsmfg7zw5b948zy7wv26c24fc"];

    #[test]
    fn every_digit_is_used() {
        let mut seen = [false; 32];
        for number in 0..200 {
            let [.., longest] = ShortId::candidates(&place("s", &number.to_string()));
            for digit in longest.as_str().bytes() {
                seen[DIGITS.iter().position(|known| *known == digit).unwrap()] = true;
            }
        }
        assert_eq!(seen, [true; 32]);
    }

    #[test]
    fn reading_is_lenient_where_a_person_would_be() {
        assert_eq!("7K3MQ0ZO".parse::<ShortId>().unwrap().as_str(), "7k3mq0z0");
        assert_eq!("ILil0000".parse::<ShortId>().unwrap().as_str(), "11110000");
        assert_eq!("7k3mq0z".parse::<ShortId>(), Err(ShortIdError::Length));
        assert_eq!("7k3mq0zu".parse::<ShortId>(), Err(ShortIdError::Digit));
        assert_eq!("7k3mq0\u{fc}".parse::<ShortId>(), Err(ShortIdError::Digit));
    }

    proptest! {
        #[test]
        fn any_text_reads_without_a_panic(text in "\\PC{0,30}") {
            if let Ok(id) = text.parse::<ShortId>() {
                prop_assert_eq!(id.as_str().parse(), Ok(id));
                prop_assert_eq!(id.shard().len(), SHARD_DIGITS);
            }
        }

        #[test]
        fn a_place_fits_all_its_ids_and_no_other_place_does(one in "[a-z]{1,9}", other in "[A-Z]{1,9}") {
            for id in ShortId::candidates(&place("s", &one)) {
                prop_assert!(id.fits(&place("s", &one)) && !id.fits(&place("s", &other)));
                prop_assert_eq!(id.as_str().parse(), Ok(id));
            }
        }
    }
}
