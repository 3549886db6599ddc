//! By a field of the request that names a tenant.

use std::borrow::Cow;

use http::HeaderName;
use http::request::Parts;

use super::{KeyError, KeyExtractor, RequestKey};

/// Names of tenants are short; a longer value is a mistake or an attack.
const BYTES_MAX: usize = 512;

/// Counts by the tenant that a field of the request names: `X-Tenant-Id` unless said otherwise.
///
/// The field must stand once, with 1 to 512 visible ASCII characters. A field that is empty counts as
/// not there. It is the caller's word: unless a gateway sets it, put the address
/// ([`ClientAddress`](super::ClientAddress)) beside it, and expect that callers who change their
/// tenant have a quota for each.
///
/// # Examples
/// ```
/// use fleetwide_http::client::TrustedProxies;
/// use fleetwide_http::rate_limit::{ClientAddress, KeyExtractor, TenantHeader};
///
/// let by_tenant = TenantHeader::new().or_tenant("anonymous");
/// let by_both = by_tenant.and(ClientAddress::new(TrustedProxies::nobody()));
/// # let _ = by_both;
/// ```
#[derive(Clone, Debug)]
#[must_use = "an extractor does nothing by itself"]
pub struct TenantHeader {
    name: HeaderName,
    default: Option<Cow<'static, str>>,
}

impl TenantHeader {
    /// By `X-Tenant-Id`.
    pub const fn new() -> Self {
        Self::named(HeaderName::from_static("x-tenant-id"))
    }

    /// By the field of this name.
    pub const fn named(name: HeaderName) -> Self {
        Self { name, default: None }
    }

    /// Sets which tenant a request belongs to that names none. Default: it has no key, which is
    /// [`KeyError::Missing`].
    pub fn or_tenant(self, tenant: impl Into<Cow<'static, str>>) -> Self {
        Self { default: Some(tenant.into()), ..self }
    }

    fn value<'a>(&self, request: &'a Parts) -> Result<Option<&'a [u8]>, KeyError> {
        let mut values = request.headers.get_all(&self.name).iter();
        let value = values.next().map(http::HeaderValue::as_bytes).unwrap_or_default();
        // Of two fields, the one that a client smuggled in might be taken for a gateway's.
        let is_once = values.next().is_none();
        let is_plain = value.iter().all(|byte| matches!(byte, b' '..=b'~'));
        match value {
            _ if !is_once => Err(self.invalid("one value")),
            [] => Ok(None),
            _ if value.len() > BYTES_MAX => Err(self.invalid("1 to 512 bytes")),
            _ if !is_plain => Err(self.invalid("visible ASCII")),
            value => Ok(Some(value)),
        }
    }

    fn invalid(&self, takes: &'static str) -> KeyError {
        KeyError::Invalid { what: self.name.as_str().to_owned().into(), takes }
    }
}

impl Default for TenantHeader {
    fn default() -> Self {
        Self::new()
    }
}

impl KeyExtractor for TenantHeader {
    fn extract(&self, request: &Parts, key: &mut RequestKey) -> Result<(), KeyError> {
        match (self.value(request)?, &self.default) {
            (Some(tenant), _) => key.push("tenant", tenant),
            (None, Some(tenant)) => key.push("tenant", tenant.as_bytes()),
            (None, None) => Err(KeyError::Missing(self.name.as_str().to_owned().into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{head, key};
    use super::*;

    #[test]
    fn tenant_is_the_one_that_the_field_names() {
        let by = TenantHeader::new();
        assert_eq!(key(&by, &head(&[("X-Tenant-Id", b"acme")])), "tenant=acme");
        assert_eq!(key(&by, &head(&[("x-tenant-id", b"a|b=c")])), r"tenant=a\|b\=c");
        assert_eq!(key(&by, &head(&[])), "x-tenant-id is missing");
        let by = by.or_tenant("anonymous");
        assert_eq!(key(&by, &head(&[])), "tenant=anonymous");
        assert_eq!(key(&by, &head(&[("X-Tenant-Id", b"")])), "tenant=anonymous");
        let by = TenantHeader::named(HeaderName::from_static("x-org"));
        assert_eq!(key(&by, &head(&[("X-Org", b"acme")])), "tenant=acme");
    }

    #[test]
    fn value_that_is_no_name_is_refused_and_not_repeated() {
        let by = TenantHeader::new().or_tenant("anonymous");
        let long = [b'x'; 513];
        for value in [&b"\xff"[..], b"caf\xc3\xa9", b"a\tb", &long] {
            let said = key(&by, &head(&[("X-Tenant-Id", value)]));
            assert!(
                said == "x-tenant-id takes visible ASCII"
                    || said == "x-tenant-id takes 1 to 512 bytes"
            );
        }
        let twice = head(&[("X-Tenant-Id", b"a"), ("X-Tenant-Id", b"b")]);
        assert_eq!(key(&by, &twice), "x-tenant-id takes one value");
    }
}
