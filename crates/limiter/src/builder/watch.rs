//! Options of what looks on, and decides nothing.

use fleetwide_core_traits::Executor;

use super::LimiterBuilder;
use crate::Shadow;

impl<E: Executor> LimiterBuilder<E> {
    /// Tries another quota on the same calls, in the same trips, and changes no answer. Default: none.
    ///
    /// [`Shadow`] says what it costs, what is judged, and on which keys: a quarter of all by default.
    /// For these, no refusal is remembered and nothing is leased. [`Limiter::shadow_report`](crate::Limiter::shadow_report) says how often
    /// both disagree. On all instances it is one candidate: those that count by different ones would
    /// share its state.
    pub fn shadow(self, shadow: Shadow) -> Self {
        Self { shadow: Some(shadow), ..self }
    }

    /// Has the decisions over this share of all keys judged by an exact count, off the callers' path.
    /// Default: 0, none; 1 is all. By the hash of its name, a key is sampled by all instances or by
    /// none.
    ///
    /// Whoever decided, the fleet's count, what is remembered or in hand here, or the rung of an
    /// outage: the decision is handed to a task, which has it judged over the backend, dated by when it
    /// was made. What was admitted above the quota is over-admission, and a refusal that the quota had
    /// room for is under-admission. The quota is taken to the letter:
    /// - window and log: at most the maximum in any interval as long as the window. The sliding window
    ///   counts by sub-windows, so some of its refusals have room by this (at most a 63rd of a window
    ///   before their time); it is judged for maxima up to 4,096.
    /// - fixed window: at most the maximum between two multiples of the window.
    /// - GCRA and token bucket: their own contract, `burst + d * rate` in any interval of length d.
    ///
    /// [`Limiter::accuracy`](crate::Limiter::accuracy) has the numbers, and the metrics
    /// `fleetwide_limiter_accuracy_*_total`.
    ///
    /// # How exact the measure is
    /// A decision is dated to the time of a trip by the clock of its instance, but never before one of
    /// the same key that was judged already: what different instances decide about one key within the
    /// 20 ms for which decisions are gathered may be judged in another order, so with limits of a few
    /// per second a few cells are taken for over- or under-admission that were not. What is given back
    /// counts as admitted: after refunds, over-admission is too high. Refusals of a key that is
    /// blocked count as under-admission. Both are of the sampled keys alone.
    ///
    /// While the backend is away decisions wait for 30 s, and 8,192 of them; others are dropped, and
    /// counted as such. Then what they admitted is missing, and refusals look wrong until time has
    /// given it back.
    ///
    /// # Costs
    /// A step on the backend for each 16 decisions of a sampled key, and two more keys for each, of 80
    /// bytes, or for windows and logs 7 bytes a cell.
    pub fn sample_accuracy(self, share: f64) -> Self {
        Self { sampled: share, ..self }
    }
}
