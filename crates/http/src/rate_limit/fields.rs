//! What clients are told of their quota, in the forms that are in use.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::Duration;

use fleetwide_limiter::{Decision, Quota};
use http::header::RETRY_AFTER;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const X_SOURCE: HeaderName = HeaderName::from_static("x-ratelimit-source");

/// Which fields answers have, beside `Retry-After`, which every refusal has that a wait can help.
///
/// | option | fields | default |
/// | --- | --- | --- |
/// | [`ietf`](Self::ietf) | see [`IetfForm`] | [`IetfForm::Current`] |
/// | [`legacy`](Self::legacy) | `X-RateLimit-Limit`, `X-RateLimit-Remaining`, `X-RateLimit-Reset` | yes |
/// | [`source`](Self::source) | `X-RateLimit-Source`: `shared`, or the rung that answered | no |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a choice of fields does nothing by itself"]
pub struct Fields {
    ietf: Option<IetfForm>,
    legacy: bool,
    source: bool,
}

impl Fields {
    /// None but `Retry-After`.
    pub const fn none() -> Self {
        Self { ietf: None, legacy: false, source: false }
    }

    /// Sets the form of the IETF's fields; `None` leaves them out.
    pub fn ietf(self, ietf: impl Into<Option<IetfForm>>) -> Self {
        Self { ietf: ietf.into(), ..self }
    }

    /// Sets whether the fields with `X-` are there. `X-RateLimit-Reset` is in seconds from now.
    pub const fn legacy(self, legacy: bool) -> Self {
        Self { legacy, ..self }
    }

    /// Sets whether it is told who decided. It tells strangers when the backend is away, so it is off
    /// unless you ask for it.
    pub const fn source(self, source: bool) -> Self {
        Self { source, ..self }
    }
}

impl Default for Fields {
    fn default() -> Self {
        Self { ietf: Some(IetfForm::Current), legacy: true, source: false }
    }
}

/// A form of `draft-ietf-httpapi-ratelimit-headers`, which is still a draft and has changed.
///
/// In all of them times are whole seconds from now. On a refusal the time is that of `Retry-After`. Else
/// it is the time until all is back, or longer: the draft asks not to let 'so much within such a time'
/// promise a higher rate than the policy has (section 6), which after a burst under GCRA it would.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IetfForm {
    /// The drafts 08 to 11 (May 2026): `RateLimit-Policy: "api";q=100;w=60` and
    /// `RateLimit: "api";r=50;t=30`. Several layers add an item each.
    Current,
    /// Draft 07: `RateLimit-Policy: 100;w=60` and `RateLimit: limit=100, remaining=50, reset=30`.
    Draft07,
    /// The drafts 04 to 06: `RateLimit-Policy: 100;w=60`, `RateLimit-Limit: 100`,
    /// `RateLimit-Remaining: 50`, `RateLimit-Reset: 30`.
    Draft06,
}

/// What a quota counts, as the draft's registry names it.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QuotaUnit {
    /// Requests, each with its cost. It is the draft's default, so the fields do not name it.
    #[default]
    Requests,
    /// Bytes of content: `qu="content-bytes"`. What can never be admitted is then answered with 413
    /// instead of 400.
    ContentBytes,
    /// Requests that run at the same time: `qu="concurrent-requests"`.
    ConcurrentRequests,
}

impl QuotaUnit {
    const fn name(self) -> Option<&'static str> {
        match self {
            Self::Requests => None,
            Self::ContentBytes => Some("content-bytes"),
            Self::ConcurrentRequests => Some("concurrent-requests"),
        }
    }
}

/// A quota as clients are told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Advertised {
    /// Cells.
    quota: u32,
    /// The time in which so many come back; none if it is not time that brings them back.
    window_us: Option<u64>,
}

impl Advertised {
    pub(super) fn of(quota: &Quota) -> Self {
        let window_us = match quota {
            Quota::SlidingWindow(window) => Some(window.window_us()),
            // The interval was rounded up to whole µs, and a burst of them is too long by less than
            // a µs each: without that, '7 a minute' would be told as 7 in 61 s.
            Quota::Gcra(gcra) => Some(gcra.span_us().saturating_sub((gcra.burst() - 1).into())),
            Quota::TokenBucket(bucket) => Some(bucket.span_us()),
            Quota::FixedWindow(window) => Some(window.window_us()),
            Quota::SlidingLog(log) => Some(log.window_us()),
            _ => None,
        };
        Self { quota: quota.cost_max(), window_us }
    }

    /// Whole seconds, rounded up: a longer window never promises more.
    fn window_s(self) -> Option<u64> {
        self.window_us.map(|window| window.div_ceil(1_000_000).max(1))
    }

    /// The time in which `remaining` would be the policy's own rate.
    fn pace_s(self, remaining: u32) -> u64 {
        self.window_s().map_or(0, |window| {
            (window * u64::from(remaining)).div_ceil(u64::from(self.quota).max(1))
        })
    }
}

/// Writes the fields of one policy.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    fields: Fields,
    /// The policy's name as a string of structured fields.
    name: String,
    unit: QuotaUnit,
    quota: Quota,
    advertised: Advertised,
    policy: Option<HeaderValue>,
}

/// On an answer: how much the tightest policy has left, of those that have told of themselves.
#[derive(Clone, Copy)]
struct Tightest(u32);

impl Writer {
    /// `name` is printable ASCII.
    pub(super) fn new(fields: Fields, name: &str, quota: Quota, unit: QuotaUnit) -> Self {
        Self::of(fields, quoted(name), quota, unit)
    }

    fn of(fields: Fields, name: String, quota: Quota, unit: QuotaUnit) -> Self {
        let advertised = Advertised::of(&quota);
        let policy = policy(fields.ietf, &name, advertised, unit);
        Self { fields, name, unit, quota, advertised, policy }
    }

    /// This one, or one like it if the limiter's quota has been changed since.
    pub(super) fn as_of(&self, quota: Quota) -> Cow<'_, Self> {
        if quota == self.quota {
            return Cow::Borrowed(self);
        }
        Cow::Owned(Self::of(self.fields, self.name.clone(), quota, self.unit))
    }

    /// On an answer that a decision was made for.
    pub(super) fn write(
        &self,
        headers: &mut HeaderMap,
        extensions: &mut Extensions,
        decision: &Decision,
    ) {
        let remaining = decision.remaining();
        let reset = seconds_up(decision.reset_after());
        let back = match decision.retry_after() {
            Some(after) => {
                let after = retry_after(after);
                // Somebody who answers in place of the layer may want to say more.
                headers.entry(RETRY_AFTER).or_insert_with(|| after.into());
                after
            }
            None => reset.max(self.advertised.pace_s(remaining)),
        };
        if self.fields.ietf == Some(IetfForm::Current) {
            self.write_policy(headers);
            put(headers, RATE_LIMIT, true, &format!("{};r={remaining};t={back}", self.name));
        }
        // The other fields have room for one policy: the one that is closest to its end.
        if extensions.get::<Tightest>().is_some_and(|Tightest(least)| *least <= remaining) {
            return;
        }
        extensions.insert(Tightest(remaining));
        let limit = self.advertised.quota;
        match self.fields.ietf {
            Some(IetfForm::Draft07) => {
                let all = format!("limit={limit}, remaining={remaining}, reset={back}");
                put(headers, RATE_LIMIT, false, &all);
                self.write_policy(headers);
            }
            Some(IetfForm::Draft06) => {
                headers.insert(LIMIT, limit.into());
                headers.insert(REMAINING, remaining.into());
                headers.insert(RESET, back.into());
                self.write_policy(headers);
            }
            Some(IetfForm::Current) | None => {}
        }
        if self.fields.legacy {
            headers.insert(X_LIMIT, limit.into());
            headers.insert(X_REMAINING, remaining.into());
            headers.insert(X_RESET, reset.into());
        }
        if self.fields.source {
            headers.insert(X_SOURCE, HeaderValue::from_static(decision.source().name()));
        }
    }

    /// On an answer without a decision: what the policy is, and not what is left of it.
    pub(super) fn write_policy(&self, headers: &mut HeaderMap) {
        let Some(policy) = self.policy.clone() else { return };
        match self.fields.ietf {
            Some(IetfForm::Current) => headers.append(POLICY, policy),
            _ => headers.insert(POLICY, policy).is_some(),
        };
    }
}

fn policy(
    form: Option<IetfForm>,
    name: &str,
    advertised: Advertised,
    unit: QuotaUnit,
) -> Option<HeaderValue> {
    let quota = advertised.quota;
    let window = advertised.window_s();
    let mut text = match form? {
        IetfForm::Current => format!("{name};q={quota}"),
        // These forms have no policy without a window.
        IetfForm::Draft07 | IetfForm::Draft06 => {
            window?;
            quota.to_string()
        }
    };
    // Writing to a string does not fail.
    if let (IetfForm::Current, Some(unit)) = (form?, unit.name()) {
        let _ = write!(text, ";qu=\"{unit}\"");
    }
    if let Some(window) = window {
        let _ = write!(text, ";w={window}");
    }
    HeaderValue::try_from(text).ok()
}

fn put(headers: &mut HeaderMap, name: HeaderName, is_list: bool, value: &str) {
    // Digits and a name that was checked when the layer was built, which every field takes.
    if let Ok(value) = HeaderValue::try_from(value) {
        if is_list {
            headers.append(name, value);
        } else {
            headers.insert(name, value);
        }
    }
}

/// A string of structured fields (RFC 9651, section 4.1.6), of printable ASCII.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}

/// Whole seconds, rounded up and never 0: a client that came back earlier would be refused again.
pub(super) fn retry_after(after: Duration) -> u64 {
    seconds_up(after).max(1)
}

fn seconds_up(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests;
