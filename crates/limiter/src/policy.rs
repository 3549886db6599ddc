//! The name of a policy, parsed once.

use std::fmt;
use std::sync::Arc;

/// What a limiter is called: in keys, in metrics and in logs.
///
/// 1 to 64 ASCII letters, digits, `.`, `_` or `-`. Limiters with one name and one algorithm share
/// what was spent, on whatever instance they are.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PolicyName(Arc<str>);

impl PolicyName {
    const BYTES_MAX: usize = 64;

    /// Parses a name.
    ///
    /// # Errors
    /// [`PolicyNameError`] if it is empty, too long, or has another character.
    pub fn new(name: &str) -> Result<Self, PolicyNameError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if name.is_empty() {
            Err(PolicyNameError::Empty)
        } else if name.len() > Self::BYTES_MAX {
            Err(PolicyNameError::TooLong)
        } else if name.bytes().all(plain) {
            Ok(Self(name.into()))
        } else {
            Err(PolicyNameError::Character)
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no [`PolicyName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyNameError {
    /// It has no character.
    #[error("a policy's name must not be empty")]
    Empty,
    /// It has more than 64 bytes.
    #[error("a policy's name may have at most 64 characters")]
    TooLong,
    /// It has a character that names do not take.
    #[error("a policy's name takes ASCII letters, digits, '.', '_' and '-'")]
    Character,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_checked_once() {
        assert_eq!(PolicyName::new(""), Err(PolicyNameError::Empty));
        assert_eq!(PolicyName::new(&"n".repeat(65)), Err(PolicyNameError::TooLong));
        assert_eq!(PolicyName::new("a/b"), Err(PolicyNameError::Character));
        assert_eq!(PolicyName::new("per-user.v2").unwrap().as_str(), "per-user.v2");
    }
}
