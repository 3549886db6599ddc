//! Who is counted: one trait, ready extractors, and two ways to put them together.

mod address;
mod header;
mod secret;

use std::borrow::Cow;

use http::request::Parts;

pub use address::{ClientAddress, Ipv6Prefix, PeerAddr};
pub use header::TenantHeader;
pub use secret::{BearerToken, KeySecret, SecretError, Subject};

/// Says by what a request is counted. Requests with the same key spend from the same quota.
///
/// A closure is one too:
///
/// ```
/// use fleetwide_http::rate_limit::{KeyError, KeyExtractor, RequestKey};
/// use http::request::Parts;
///
/// let by_method = |request: &Parts, key: &mut RequestKey| -> Result<(), KeyError> {
///     key.push("method", request.method.as_str().as_bytes())
/// };
/// let mut key = RequestKey::default();
/// by_method.extract(&http::Request::put("/").body(())?.into_parts().0, &mut key)?;
/// assert_eq!(key.as_bytes(), b"method=PUT");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait KeyExtractor: Send + Sync {
    /// Adds to `key` what this extractor counts `request` by.
    ///
    /// # Errors
    /// [`KeyError`] if the request has nothing to count it by, or something that is malformed.
    fn extract(&self, request: &Parts, key: &mut RequestKey) -> Result<(), KeyError>;

    /// Counts by this and by `other`: each pair has a quota of its own.
    fn and<K: KeyExtractor>(self, other: K) -> Both<Self, K>
    where
        Self: Sized,
    {
        Both(self, other)
    }

    /// Counts by `other` what has nothing for this one ([`KeyError::Missing`]). What is malformed
    /// stays an error: a caller that could choose between two quotas would have both.
    fn or<K: KeyExtractor>(self, other: K) -> Either<Self, K>
    where
        Self: Sized,
    {
        Either(self, other)
    }
}

impl<F> KeyExtractor for F
where
    F: Fn(&Parts, &mut RequestKey) -> Result<(), KeyError> + Send + Sync,
{
    fn extract(&self, request: &Parts, key: &mut RequestKey) -> Result<(), KeyError> {
        self(request, key)
    }
}

/// Counts by both; made by [`KeyExtractor::and`].
#[derive(Clone, Debug)]
pub struct Both<A, B>(A, B);

impl<A: KeyExtractor, B: KeyExtractor> KeyExtractor for Both<A, B> {
    fn extract(&self, request: &Parts, key: &mut RequestKey) -> Result<(), KeyError> {
        self.0.extract(request, key)?;
        self.1.extract(request, key)
    }
}

/// Counts by the first that the request has something for; made by [`KeyExtractor::or`].
#[derive(Clone, Debug)]
pub struct Either<A, B>(A, B);

impl<A: KeyExtractor, B: KeyExtractor> KeyExtractor for Either<A, B> {
    fn extract(&self, request: &Parts, key: &mut RequestKey) -> Result<(), KeyError> {
        let begun = key.bytes.len();
        match self.0.extract(request, key) {
            Err(KeyError::Missing(_)) => {
                // What a pair has added before its second half was missing.
                key.bytes.truncate(begun);
                self.1.extract(request, key)
            }
            result => result,
        }
    }
}

/// What a request is counted by: parts with a label each, such as `tenant=acme|ip=203.0.113.7`.
///
/// Different parts never make the same key, whatever bytes callers put into them, and a tenant that is
/// called like an address is not taken for that address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestKey {
    bytes: Vec<u8>,
}

impl RequestKey {
    /// Bytes that all parts may have together.
    pub const BYTES_MAX: usize = 4096;

    /// Adds a part.
    ///
    /// # Errors
    /// [`KeyError::Invalid`] if the key would get longer than [`BYTES_MAX`](Self::BYTES_MAX).
    pub fn push(&mut self, label: &'static str, value: &[u8]) -> Result<(), KeyError> {
        // No part is twice as long as its bytes, so a longer one is not even copied.
        if self.bytes.len() + label.len() + value.len() > Self::BYTES_MAX {
            return Err(Self::too_long(label));
        }
        if !self.bytes.is_empty() {
            self.bytes.push(b'|');
        }
        self.escape(label.as_bytes());
        self.bytes.push(b'=');
        self.escape(value);
        if self.bytes.len() > Self::BYTES_MAX { Err(Self::too_long(label)) } else { Ok(()) }
    }

    /// The whole key.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn escape(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if matches!(byte, b'|' | b'=' | b'\\') {
                self.bytes.push(b'\\');
            }
            self.bytes.push(*byte);
        }
    }

    fn too_long(label: &'static str) -> KeyError {
        KeyError::Invalid { what: label.into(), takes: "a shorter value" }
    }
}

/// Why a request has no key. Its text never has the value in it, which may be a secret.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The request does not have what it is counted by.
    #[error("{0} is missing")]
    Missing(Cow<'static, str>),
    /// What the request is counted by has a form that it does not take.
    #[error("{what} takes {takes}")]
    Invalid {
        /// What is malformed.
        what: Cow<'static, str>,
        /// Completes the sentence '`what` takes ...'.
        takes: &'static str,
    },
    /// The server did not say who is connected, which is a mistake in its setup and not the
    /// client's.
    #[error("the server does not know the peer's address")]
    NoPeer,
}

#[cfg(test)]
pub(crate) mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;

    /// The head of a request with these fields.
    pub(crate) fn head(fields: &[(&str, &[u8])]) -> Parts {
        let mut request = Request::get("/");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    /// The key, or why there is none.
    pub(crate) fn key(by: &impl KeyExtractor, request: &Parts) -> String {
        let mut key = RequestKey::default();
        match by.extract(request, &mut key) {
            Ok(()) => String::from_utf8(key.as_bytes().to_vec()).unwrap(),
            Err(error) => error.to_string(),
        }
    }

    fn by(label: &'static str) -> impl KeyExtractor {
        move |request: &Parts, key: &mut RequestKey| match request.headers.get(label) {
            Some(value) => key.push(label, value.as_bytes()),
            None => Err(KeyError::Missing(label.into())),
        }
    }

    #[test]
    fn extractors_are_put_together() {
        let request = head(&[("a", b"1"), ("b", b"2")]);
        assert_eq!(key(&by("a").and(by("b")), &request), "a=1|b=2");
        assert_eq!(key(&by("a").or(by("b")), &request), "a=1");
        assert_eq!(key(&by("c").or(by("b")), &request), "b=2");
        assert_eq!(key(&by("a").and(by("c")), &request), "c is missing");
        assert_eq!(key(&by("a").and(by("c")).or(by("b")), &request), "b=2", "no rest of `a`");
        assert_eq!(key(&by("a").and(by("c").or(by("b"))), &request), "a=1|b=2");
    }

    #[test]
    fn malformed_value_does_not_fall_through_to_another_quota() {
        let malformed = |_: &Parts, _: &mut RequestKey| -> Result<(), KeyError> {
            Err(KeyError::Invalid { what: "a".into(), takes: "less" })
        };
        assert_eq!(key(&malformed.or(by("b")), &head(&[("b", b"2")])), "a takes less");
    }

    #[test]
    fn key_has_a_bound() {
        let mut key = RequestKey::default();
        assert!(key.push("a", &[b'x'; RequestKey::BYTES_MAX - 2]).is_ok());
        assert!(key.push("b", b"").is_err());
        assert!(RequestKey::default().push("a", &[b'|'; RequestKey::BYTES_MAX / 2]).is_err());
    }

    proptest! {
        #[test]
        fn different_parts_never_make_the_same_key(
            first in prop::collection::vec("[ab|=\\\\]{0,4}", 1..4),
            second in prop::collection::vec("[ab|=\\\\]{0,4}", 1..4),
        ) {
            let join = |parts: &[String]| {
                let mut key = RequestKey::default();
                for part in parts {
                    key.push("l", part.as_bytes()).unwrap();
                }
                key
            };
            prop_assert_eq!(join(&first) == join(&second), first == second);
        }
    }
}
