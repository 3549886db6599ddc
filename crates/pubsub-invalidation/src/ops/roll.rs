//! Who follows a log: what two steps do to the roll in memory; the twin of `roll.lua`.

use std::time::Duration;

use fleetwide_core_traits::ServerTime;
use fleetwide_core_traits::log::{Roll, Sign};

/// For how long a sign of life is good at most: scripts count in µs.
pub(super) const LIFE_MAX: Duration = Duration::from_secs(24 * 3600);

/// The roll without those who are dead. A sign from the future is from a clock that has gone back
/// since: it is good for one life from now.
pub(super) fn call(roll: &Roll, now: ServerTime) -> Roll {
    let living = roll.signs.iter().filter(|(_, sign)| !sign.is_over(now));
    let counted =
        |(name, sign): (&_, &Sign)| (*name, Sign { seen_at: sign.seen_at.min(now), ..*sign });
    Roll { since: roll.since, signs: living.map(counted).collect() }
}

/// µs, as scripts take them.
pub(super) fn micros(life: Duration) -> u64 {
    life.clamp(Duration::from_micros(1), LIFE_MAX).as_micros() as u64
}
