//! What a write returns: its place in the cache's log.

use std::fmt;
use std::str::FromStr;

use fleetwide_core_traits::log::{Epoch, Stamp};

/// The place of a write in the log of its cache, to be shown to whoever must see that write.
///
/// A caller hands it on, to another instance for instance, in a header or a cookie: as 16 bytes
/// ([`to_bytes`](Self::to_bytes)), or as text, which is 32 hexadecimal digits. It holds no secret
/// and grants nothing: one that was made up can cost a needless load, never a wrong value.
///
/// It means nothing to another cache, and cannot be compared with the token of another write: the
/// server may have begun a new history of the log in between.
///
/// # Examples
/// ```
/// use fleetwide_two_tier_cache::WriteToken;
///
/// let token: WriteToken = "4f1c6ab2990d3e57000000000000002a".parse()?;
/// assert_eq!(token.to_string(), "4f1c6ab2990d3e57000000000000002a");
/// assert_eq!(WriteToken::from_bytes(token.to_bytes()), token);
/// assert!("4f1c".parse::<WriteToken>().is_err());
/// # Ok::<(), fleetwide_two_tier_cache::TokenError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct WriteToken(Stamp);

impl WriteToken {
    /// Bytes of a token.
    pub const BYTES: usize = 16;

    pub(crate) const fn new(stamp: Stamp) -> Self {
        Self(stamp)
    }

    /// The place in the log.
    pub(crate) const fn stamp(self) -> Stamp {
        self.0
    }

    /// The token as bytes: eight that name the history of the log, and the number in it, big-endian.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let (epoch, seq) = bytes.split_at_mut(8);
        epoch.copy_from_slice(&self.0.epoch.0);
        seq.copy_from_slice(&self.0.seq.to_be_bytes());
        bytes
    }

    /// The token that has these bytes. Any bytes are one.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let number = u128::from_be_bytes(bytes);
        let (epoch, seq) = ((number >> 64) as u64, number as u64);
        Self(Stamp { epoch: Epoch(epoch.to_be_bytes()), seq })
    }
}

/// The place of the write, for what follows the log of the cache.
impl From<WriteToken> for Stamp {
    fn from(token: WriteToken) -> Self {
        token.stamp()
    }
}

/// Why a text is no [`WriteToken`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It has another length; the number is how many bytes it has.
    #[error("a write token has 32 hexadecimal digits, this has {0} bytes")]
    Length(usize),
    /// A character is no hexadecimal digit.
    #[error("a write token has hexadecimal digits alone")]
    Digit,
}

impl FromStr for WriteToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        if text.len() != 2 * Self::BYTES {
            return Err(TokenError::Length(text.len()));
        }
        // Checked first, because the parser of numbers takes a sign, too.
        if !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(TokenError::Digit);
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| TokenError::Digit)?;
        Ok(Self::from_bytes(number.to_be_bytes()))
    }
}

impl fmt::Display for WriteToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.to_bytes()))
    }
}

impl fmt::Debug for WriteToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriteToken({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_form_of_a_token_stays_as_it_is() {
        let stamp = Stamp { epoch: Epoch(*b"epoch-01"), seq: 513 };
        let token = WriteToken::new(stamp);
        assert_eq!(&token.to_bytes(), b"epoch-01\0\0\0\0\0\0\x02\x01");
        assert_eq!(token.to_string(), "65706f63682d30310000000000000201");
    }

    #[test]
    fn a_text_that_is_no_token_is_an_error_that_says_why() {
        let digits = "0".repeat(31);
        assert_eq!("".parse::<WriteToken>(), Err(TokenError::Length(0)));
        assert_eq!(digits.parse::<WriteToken>(), Err(TokenError::Length(31)));
        assert_eq!(format!("+{digits}").parse::<WriteToken>(), Err(TokenError::Digit));
        assert_eq!(format!("ä{}", &digits[1..]).parse::<WriteToken>(), Err(TokenError::Digit));
    }

    proptest! {
        #[test]
        fn a_token_reads_as_it_was_written(bytes: [u8; 16]) {
            let token = WriteToken::from_bytes(bytes);
            prop_assert_eq!(token.to_bytes(), bytes);
            prop_assert_eq!(token.to_string().parse(), Ok(token));
            prop_assert_eq!(token.to_string().to_uppercase().parse(), Ok(token));
        }

        #[test]
        fn any_text_parses_without_a_panic(text: String) {
            let _ = text.parse::<WriteToken>();
        }
    }
}
