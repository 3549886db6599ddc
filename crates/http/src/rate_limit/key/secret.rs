//! By whom a token belongs to, without the token.

use std::fmt;

use hmac::{Hmac, Mac};
use http::header::AUTHORIZATION;
use http::request::Parts;
use sha2::Sha256;

use super::{KeyError, KeyExtractor, RequestKey};

/// Below it a secret could be found by trying.
const SECRET_BYTES_MIN: usize = 16;
/// Of the 32 bytes of the hash; nobody who does not know the secret can look for two that are equal.
const HASH_BYTES: usize = 16;
/// The longest token, and the longest subject.
const VALUE_BYTES_MAX: usize = 8 * 1024;

/// What tokens and subjects are hashed with: HMAC-SHA-256 under a secret of yours, cut to 128 bits.
///
/// Keys are no safe place: they stand in the server's memory and dumps, in its `SLOWLOG` and
/// `MONITOR`, in traces. A token there is a stolen token. A plain hash would do for tokens with 128 bits
/// of chance in them, but short API keys and subjects such as e-mail addresses can be tried one after
/// the other until the hash fits. Under a secret that cannot be done without the secret.
///
/// All instances need the same secret, or each counts by itself; a new one begins all counts anew.
#[derive(Clone)]
pub struct KeySecret(Hmac<Sha256>);

impl KeySecret {
    /// A secret of at least 16 bytes, as chance made them.
    ///
    /// # Errors
    /// [`SecretError`] if it is shorter.
    pub fn new(secret: impl AsRef<[u8]>) -> Result<Self, SecretError> {
        let secret = secret.as_ref();
        if secret.len() < SECRET_BYTES_MIN {
            return Err(SecretError(secret.len()));
        }
        // HMAC takes keys of every length.
        Hmac::new_from_slice(secret).map(Self).map_err(|_| SecretError(secret.len()))
    }

    /// Adds the hash of `value` to `key`, in hexadecimal digits.
    fn push(
        &self,
        key: &mut RequestKey,
        label: &'static str,
        value: &[u8],
    ) -> Result<(), KeyError> {
        let mut hash = self.0.clone();
        // A token that is somebody else's subject must not have its hash.
        hash.update(label.as_bytes());
        hash.update(&[0]);
        hash.update(value);
        let hash = hash.finalize().into_bytes();
        let mut digits = [0; 2 * HASH_BYTES];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(hash) {
            const DIGITS: &[u8; 16] = b"0123456789abcdef";
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        key.push(label, &digits)
    }
}

impl fmt::Debug for KeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeySecret(..)")
    }
}

/// A secret that is too short to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a secret for keys takes at least 16 bytes, this has {0}")]
pub struct SecretError(usize);

/// Counts by a hash of the bearer token in `Authorization` (RFC 6750).
///
/// The token is not checked. Put the layer behind what checks it, or put the address beside it: who
/// is not checked sends another token with each request, and has a quota for each. Where tokens are
/// renewed often, count by the [`Subject`] instead.
///
/// Without the field, or with another scheme, the request has no key ([`KeyError::Missing`]).
#[derive(Clone, Debug)]
pub struct BearerToken {
    secret: KeySecret,
}

impl BearerToken {
    /// By a hash under this secret.
    pub const fn new(secret: KeySecret) -> Self {
        Self { secret }
    }
}

impl KeyExtractor for BearerToken {
    fn extract(&self, request: &Parts, key: &mut RequestKey) -> Result<(), KeyError> {
        self.secret.push(key, "bearer", bearer(request)?)
    }
}

fn bearer(request: &Parts) -> Result<&[u8], KeyError> {
    const WHAT: &str = "authorization";
    const MISSING: KeyError = KeyError::Missing(std::borrow::Cow::Borrowed("a bearer token"));
    let invalid = |takes| KeyError::Invalid { what: WHAT.into(), takes };
    let mut values = request.headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(MISSING)?.as_bytes();
    if values.next().is_some() {
        return Err(invalid("one value"));
    }
    let (scheme, token) = value.split_at(value.len().min("bearer".len()));
    if !scheme.eq_ignore_ascii_case(b"bearer") || !matches!(token, [] | [b' ', ..]) {
        return Err(MISSING);
    }
    let token = token.trim_ascii();
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
    if token.is_empty() || token.len() > VALUE_BYTES_MAX || !token.iter().all(is_token) {
        return Err(invalid("`Bearer` and one token of up to 8 KiB"));
    }
    Ok(token)
}

/// Counts by a hash of whom a request is made for, such as the `sub` of a token that was checked.
///
/// Where to find it is yours to say: mostly in the request's extensions, where the layer that checked
/// the token has put its claims. This crate does not read claims out of tokens, because whoever has not
/// checked the signature reads what the caller wrote.
///
/// # Examples
/// ```
/// use fleetwide_http::rate_limit::{KeySecret, Subject};
///
/// #[derive(Clone)]
/// struct User(String); // put there by your authentication
///
/// let secret = KeySecret::new(b"0123456789abcdef as chance made it")?;
/// let by_user = Subject::new(secret, |request| Some(request.extensions.get::<User>()?.0.as_str()));
/// # let _ = by_user;
/// # Ok::<(), fleetwide_http::rate_limit::SecretError>(())
/// ```
#[derive(Clone)]
pub struct Subject<F> {
    secret: KeySecret,
    find: F,
}

impl<F> Subject<F>
where
    F: Fn(&Parts) -> Option<&str> + Send + Sync,
{
    /// By a hash under this secret of what `find` finds. Where it finds nothing, the request has no key
    /// ([`KeyError::Missing`]).
    pub const fn new(secret: KeySecret, find: F) -> Self {
        Self { secret, find }
    }
}

impl<F> KeyExtractor for Subject<F>
where
    F: Fn(&Parts) -> Option<&str> + Send + Sync,
{
    fn extract(&self, request: &Parts, key: &mut RequestKey) -> Result<(), KeyError> {
        match (self.find)(request) {
            None | Some("") => Err(KeyError::Missing("the subject".into())),
            Some(subject) if subject.len() > VALUE_BYTES_MAX => {
                Err(KeyError::Invalid { what: "the subject".into(), takes: "up to 8 KiB" })
            }
            Some(subject) => self.secret.push(key, "subject", subject.as_bytes()),
        }
    }
}

impl<F> fmt::Debug for Subject<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{head, key};
    use super::*;

    fn secret(text: &str) -> KeySecret {
        KeySecret::new(text).unwrap()
    }

    fn by_token() -> BearerToken {
        BearerToken::new(secret("secret of sixteen"))
    }

    fn of(authorization: &str) -> String {
        key(&by_token(), &head(&[("authorization", authorization.as_bytes())]))
    }

    // Computed apart from this code:
    // printf 'bearer\0mF_9.B5f-4.1JqM' | openssl dgst -sha256 -hmac 'secret of sixteen'
    #[test]
    fn key_is_the_keyed_hash_of_the_token() {
        assert_eq!(of("Bearer mF_9.B5f-4.1JqM"), "bearer=50ba47405670e9ffea43a016e0e8d553");
        assert_eq!(of("bEARER   mF_9.B5f-4.1JqM"), of("Bearer mF_9.B5f-4.1JqM"));
        assert_ne!(of("Bearer mF_9.B5f-4.1JqN"), of("Bearer mF_9.B5f-4.1JqM"));
    }

    // Red when the token is pushed as it is, and when the hash has no key.
    #[test]
    fn neither_the_token_nor_a_hash_that_others_can_compute_is_in_the_key() {
        let request = head(&[("authorization", b"Bearer hunter2hunter2")]);
        let with = |text: &str| key(&BearerToken::new(secret(text)), &request);
        assert!(!with("secret of sixteen").contains("hunter2"));
        assert_ne!(with("secret of sixteen"), with("secret of another"));
    }

    #[test]
    fn subject_and_token_of_the_same_text_are_two_callers() {
        let subject = Subject::new(secret("secret of sixteen"), |_| Some("mF_9.B5f-4.1JqM"));
        let subject = key(&subject, &head(&[]));
        assert_eq!(subject.len(), "subject=".len() + 32);
        let token = of("Bearer mF_9.B5f-4.1JqM");
        assert_ne!(subject.split_once('=').unwrap().1, token.split_once('=').unwrap().1);
    }

    #[test]
    fn what_is_no_bearer_token_is_missing_or_malformed_and_never_repeated() {
        for missing in ["Basic aHVudGVyMg==", "", "Bear", "Bearerx", "Bearer2 x"] {
            assert_eq!(of(missing), "a bearer token is missing", "{missing}");
        }
        let malformed = "authorization takes `Bearer` and one token of up to 8 KiB";
        let long = format!("Bearer {}", "x".repeat(VALUE_BYTES_MAX + 1));
        for text in ["Bearer", "Bearer ", "Bearer a b", "Bearer hunter2,", "Bearer \"x\"", &long] {
            assert_eq!(of(text), malformed, "{text}");
        }
        let twice = head(&[("authorization", b"Bearer a"), ("authorization", b"Bearer b")]);
        assert_eq!(key(&by_token(), &twice), "authorization takes one value");
        let bytes = head(&[("authorization", b"Bearer \xff")]);
        assert_eq!(key(&by_token(), &bytes), malformed);
        assert_eq!(key(&by_token(), &head(&[])), "a bearer token is missing");
    }

    #[test]
    fn secret_is_long_enough_and_never_shown() {
        assert_eq!(KeySecret::new("fifteen letters").unwrap_err(), SecretError(15));
        let shown = format!("{:?}", by_token());
        assert!(!shown.contains("sixteen"), "{shown}");
    }
}
