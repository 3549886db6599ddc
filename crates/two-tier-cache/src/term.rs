//! How long an entry of L1 counts, and when it is worth renewing: pure.

use std::time::Duration;

use fleetwide_core_traits::MonoTime;

use crate::error::JitterError;

/// `-ln(x)` of a random x in (0, 1) exceeds this once in half a billion, so that earlier than this
/// many load costs before the end nobody needs to throw the dice.
const SURPRISE_MAX: f64 = 20.0;

/// The times of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Term {
    /// When the value was stored or loaded, µs; negative if that was before the machine started.
    born_us: i64,
    /// Until here a hit need not think: the least of the three that follow.
    pub(crate) quiet_until: MonoTime,
    /// When L1 took it.
    taken_at: MonoTime,
    /// From here on L2 is asked again.
    l1_until: MonoTime,
    /// From here on the value is stale.
    pub(crate) fresh_until: MonoTime,
    /// What loading it cost, µs.
    cost_us: u32,
}

/// What an entry's term is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    /// How old the value is already.
    pub(crate) age: Duration,
    /// How long it stays fresh.
    pub(crate) fresh: Duration,
    /// How long L1 keeps it before L2 is asked again.
    pub(crate) l1: Duration,
    /// What loading it cost.
    pub(crate) cost: Duration,
    /// How eagerly it is renewed before its end by reads that ask for nothing special; `None` = not
    /// at all.
    pub(crate) early: Option<f64>,
}

impl Term {
    pub(crate) fn new(now: MonoTime, life: Life) -> Self {
        let Life { age, fresh, l1, cost, early } = life;
        let (l1_until, fresh_until) = (now.plus(l1), now.plus(fresh));
        let early_from = early.map_or(MonoTime::from_micros(u64::MAX), |beta| {
            fresh_until.minus(cost.saturating_mul_f64(beta * SURPRISE_MAX))
        });
        let born_us = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
        Self {
            born_us: born_us.saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX)),
            quiet_until: early_from.min(l1_until).min(fresh_until),
            taken_at: now,
            l1_until,
            fresh_until,
            cost_us: u32::try_from(cost.as_micros()).unwrap_or(u32::MAX),
        }
    }

    /// How old the value is at `now`.
    pub(crate) fn age(&self, now: MonoTime) -> Duration {
        let now = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
        Duration::from_micros(now.saturating_sub(self.born_us).max(0) as u64)
    }

    /// Whether L2 is to be asked again at `now`, by a read that lets L1 answer for `l1_ttl` at most.
    pub(crate) fn has_lapsed(&self, now: MonoTime, l1_ttl: Duration) -> bool {
        now >= self.l1_until.min(self.taken_at.plus(l1_ttl))
    }

    /// Whether the caller who asks at `now` should renew the value before its end: `XFetch`
    /// (Vattani, Chierichetti, Lowenstein: Optimal probabilistic cache stampede prevention, VLDB
    /// 2015). `dice` is uniform in (0, 1]; `beta` above 1 renews earlier.
    ///
    /// The longer a load takes and the nearer the end is, the likelier: so that about one caller of
    /// the whole fleet renews a busy key before anybody has to wait for it, without a word between
    /// the callers.
    pub(crate) fn is_early(&self, now: MonoTime, beta: f64, dice: f64) -> bool {
        let left_us = self.fresh_until.since(now).as_micros() as f64;
        let reach_us = f64::from(self.cost_us) * beta;
        reach_us * SURPRISE_MAX >= left_us && reach_us * -dice.ln() >= left_us
    }

    /// Whether the value may still be served at `now` when `extra` time is allowed after its end.
    pub(crate) fn lasts(&self, now: MonoTime, extra: Duration) -> bool {
        now < self.fresh_until.plus(extra)
    }
}

/// A duration times a factor that may be anything.
trait SaturatingMul {
    fn saturating_mul_f64(self, by: f64) -> Duration;
}

impl SaturatingMul for Duration {
    fn saturating_mul_f64(self, by: f64) -> Duration {
        Duration::try_from_secs_f64(self.as_secs_f64() * by).unwrap_or(Duration::MAX)
    }
}

/// A share of a ttl, 0 to 1, by which it is shortened at random.
pub(crate) fn checked_jitter(share: f64) -> Result<f64, JitterError> {
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err(JitterError) }
}

/// A ttl shortened by a random part of up to `jitter`, so that what was stored together does not
/// expire together. `dice` is uniform in [0, 1).
pub(crate) fn jittered(ttl: Duration, jitter: f64, dice: f64) -> Duration {
    ttl.mul_f64((1.0 - jitter * dice).clamp(0.0, 1.0)).max(Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: MonoTime = MonoTime::from_micros(1_000_000_000);

    fn life(fresh_ms: u64, cost_ms: u64, early: Option<f64>) -> Life {
        Life {
            age: Duration::ZERO,
            fresh: Duration::from_millis(fresh_ms),
            l1: Duration::from_secs(5),
            cost: Duration::from_millis(cost_ms),
            early,
        }
    }

    #[test]
    fn a_value_from_before_the_machine_started_is_as_old_as_it_is() {
        let age = Duration::from_secs(5_000);
        let term = Term::new(NOW, Life { age, ..life(1_000, 0, None) });
        assert_eq!(term.age(NOW.plus(Duration::from_secs(1))), Duration::from_secs(5_001));
    }

    #[test]
    fn a_hit_thinks_from_the_first_of_its_ends_on() {
        let term = |fresh, cost, early| Term::new(NOW, life(fresh, cost, early)).quiet_until;
        assert_eq!(term(1_000, 10, None), NOW.plus(Duration::from_secs(1)));
        assert_eq!(term(9_000, 10, None), NOW.plus(Duration::from_secs(5)));
        assert_eq!(term(1_000, 10, Some(1.0)), NOW.plus(Duration::from_millis(800)));
    }

    /// The published rule on its own scale: with a load of 100 ms, 100 ms before the end, one in e
    /// renews; 200 ms before, one in e squared.
    #[test]
    fn the_chance_to_renew_falls_with_the_time_left_as_xfetch_says() {
        let term = Term::new(NOW, life(1_000, 100, Some(1.0)));
        let chance = |left_ms: u64| {
            let now = NOW.plus(Duration::from_millis(1_000 - left_ms));
            let early = (1..=10_000).filter(|i| term.is_early(now, 1.0, f64::from(*i) / 10_000.0));
            early.count()
        };
        assert!((3_670..=3_690).contains(&chance(100)), "{}", chance(100));
        assert!((1_345..=1_360).contains(&chance(200)), "{}", chance(200));
        assert_eq!(chance(0), 10_000);
    }

    proptest! {
        #[test]
        fn nothing_overflows(age: u64, fresh: u64, l1: u64, cost: u64, beta in 0.0_f64..1e9, later: u64) {
            let micros = Duration::from_micros;
            let early = Some(beta);
            let life = Life { age: micros(age), fresh: micros(fresh), l1: micros(l1), cost: micros(cost), early };
            let term = Term::new(NOW, life);
            let now = NOW.plus(micros(later));
            let _ = (term.age(now), term.is_early(now, beta, 0.5), term.lasts(now, micros(later)));
        }

        #[test]
        fn jitter_only_shortens(ttl in 1_u64..1_000_000, jitter in 0.0_f64..1.0, dice in 0.0_f64..1.0) {
            let ttl = Duration::from_millis(ttl);
            let short = jittered(ttl, jitter, dice);
            prop_assert!(short <= ttl);
            prop_assert!(short + Duration::from_nanos(10) >= ttl.mul_f64(1.0 - jitter));
        }
    }
}
