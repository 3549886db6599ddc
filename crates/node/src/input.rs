//! What a request brings along, parsed once and refused as a problem document.

use std::error::Error;

use axum::body::{HttpBody, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};
use bytes::Bytes;
use http_body_util::LengthLimitError;
use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, Unexpected};

use crate::problem::Problem;

/// Bytes that a key, a topic or another name in a path may have, after percent-decoding.
const NAME_BYTES_MAX: usize = 512;
/// Bytes that a body may have.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// The one name in a path: 1 to 512 bytes of UTF-8 after percent-decoding.
#[derive(Debug)]
pub(crate) struct Name(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(name) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
        check_length("the name in the path", &name)?;
        Ok(Self(name))
    }
}

/// The two names in a path, each as [`Name`].
#[derive(Debug)]
pub(crate) struct Names(pub(crate) String, pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Names {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path((first, second)) = Path::<(String, String)>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
        check_length("the first name in the path", &first)?;
        check_length("the second name in the path", &second)?;
        Ok(Self(first, second))
    }
}

/// Refuses a name that is empty or too long.
fn check_length(what: &str, name: &str) -> Result<(), Problem> {
    if (1..=NAME_BYTES_MAX).contains(&name.len()) {
        return Ok(());
    }
    let length = name.len();
    let detail = format!("{what} must have 1 to {NAME_BYTES_MAX} bytes, and has {length}");
    Err(Problem::bad_request(detail))
}

/// The parameters of the query.
#[derive(Debug)]
pub(crate) struct Params<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::of(&parts.uri).map_err(Problem::bad_request)
    }
}

impl<T: DeserializeOwned> Params<T> {
    /// The parameters in `uri`, or what is wrong with them.
    pub(crate) fn of(uri: &Uri) -> Result<Self, String> {
        if !is_text(uri.query().unwrap_or_default()) {
            return Err("the query is not UTF-8 after percent-decoding".to_owned());
        }
        match Query::try_from_uri(uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(rejection) => Err(rejection.body_text()),
        }
    }
}

/// Whether `query` is UTF-8 after percent-decoding. The decoder behind [`Query`] does not mind, and
/// would make the same text of different bytes.
fn is_text(query: &str) -> bool {
    let mut decoded = Vec::with_capacity(query.len());
    let mut rest = query.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped {
            Some(escaped) if byte == b'%' => {
                decoded.push(escaped);
                rest = &after[2..];
            }
            _ => {
                decoded.push(byte);
                rest = after;
            }
        }
    }
    std::str::from_utf8(&decoded).is_ok()
}

/// The whole body, 1 MiB at most.
#[derive(Debug)]
pub(crate) struct Body(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        // A body that says how long it is need not be read to be refused.
        let body = request.into_body();
        let announced = body.size_hint().lower();
        if announced > BODY_BYTES_MAX as u64 {
            return Err(too_large());
        }
        match to_bytes(body, BODY_BYTES_MAX).await {
            Ok(bytes) => Ok(Self(bytes)),
            Err(error) if is_length_limit(&error) => Err(too_large()),
            Err(_) => Err(Problem::bad_request("the body broke off")),
        }
    }
}

/// Whether the limit was met, and not the end of the connection.
fn is_length_limit(error: &axum::Error) -> bool {
    error.source().is_some_and(<dyn Error>::is::<LengthLimitError>)
}

fn too_large() -> Problem {
    let detail = format!("a body may have {BODY_BYTES_MAX} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large", detail)
}

/// Reads a switch: `1` or `true`, `0` or `false`.
pub(crate) fn switch<'de, D: Deserializer<'de>>(from: D) -> Result<Option<bool>, D::Error> {
    match String::deserialize(from)?.as_str() {
        "1" | "true" => Ok(Some(true)),
        "0" | "false" => Ok(Some(false)),
        other => Err(de::Error::invalid_value(Unexpected::Str(other), &"`1` or `0`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_that_is_no_text_is_known() {
        for text in ["", "a=b", "a=%C3%BC", "100%", "%", "%zz", "a=%E2%82%AC%"] {
            assert!(is_text(text), "{text}");
        }
        for other in ["a=%FF", "%C3%28", "%C3", "a=%E2%82"] {
            assert!(!is_text(other), "{other}");
        }
    }
}
