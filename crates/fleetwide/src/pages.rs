//! The examples of the pages in `docs/features`, so that they compile.

#[doc = include_str!("../../../docs/features/bulk.md")]
struct Bulk;

#[doc = include_str!("../../../docs/features/checker.md")]
struct Checker;

#[cfg(all(feature = "encryption", feature = "msgpack"))]
#[doc = include_str!("../../../docs/features/codecs.md")]
struct Codecs;

#[doc = include_str!("../../../docs/features/early-renewal.md")]
struct EarlyRenewal;

#[doc = include_str!("../../../docs/features/freshness.md")]
struct Freshness;

#[cfg(feature = "axum")]
#[doc = include_str!("../../../docs/features/http.md")]
struct Http;

#[doc = include_str!("../../../docs/features/limits.md")]
struct Limits;

#[doc = include_str!("../../../docs/features/negative-entries.md")]
struct NegativeEntries;

#[doc = include_str!("../../../docs/features/outages.md")]
struct Outages;

#[cfg(feature = "limiter")]
#[doc = include_str!("../../../docs/features/rate-limiting.md")]
struct RateLimiting;

#[doc = include_str!("../../../docs/features/reading.md")]
struct Reading;

#[cfg(feature = "sessions")]
#[doc = include_str!("../../../docs/features/sessions.md")]
struct Sessions;

#[doc = include_str!("../../../docs/features/shadow-mode.md")]
struct ShadowMode;

#[doc = include_str!("../../../docs/features/stale-values.md")]
struct StaleValues;

#[doc = include_str!("../../../docs/features/tags.md")]
struct Tags;

#[doc = include_str!("../../../docs/features/writes.md")]
struct Writes;
