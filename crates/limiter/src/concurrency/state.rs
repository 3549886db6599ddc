//! Who holds a key, and until when: a pure table of leases.

use std::time::Duration;

use fleetwide_core_traits::ServerTime;

use super::ConcurrencyQuota;

/// What is kept of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConcurrencyState {
    /// The longest lease that any of those here was given. One that ends later than so far from now
    /// is from before the clock went back.
    longest_us: u64,
    /// By their ends, the first to end first; at least one.
    leases: Vec<Lease>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lease {
    ends_us: u64,
    cost: u16,
    id: u64,
}

/// What [`Acquire`](super::op::Acquire) answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Whether the permit is held from now on, for a lease.
    pub is_granted: bool,
    /// How much of the maximum is left after it.
    pub remaining: u32,
    /// 0 if it is granted; else when enough leases will have ended, unless they are renewed.
    pub retry_after_us: u64,
}

impl ConcurrencyState {
    /// The state as the scripts store it.
    pub fn to_wire(&self) -> Vec<u8> {
        let sum: u32 = self.leases.iter().map(|lease| u32::from(lease.cost)).sum();
        let mut wire = self.longest_us.to_be_bytes().to_vec();
        // No more than the largest maximum.
        wire.extend((sum as u16).to_be_bytes());
        for lease in &self.leases {
            // Seven bytes last until the year 4253.
            wire.extend(&lease.ends_us.to_be_bytes()[1..]);
            wire.extend(lease.cost.to_be_bytes());
            wire.extend(lease.id.to_be_bytes());
        }
        wire
    }

    pub(crate) fn lives(&self, now: ServerTime) -> Duration {
        let ends_us = self.leases.last().map_or(0, |lease| lease.ends_us);
        Duration::from_micros(ends_us.saturating_sub(now.as_micros()))
    }
}

/// Where a key stands now.
pub(crate) struct Standing {
    now_us: u64,
    longest_us: u64,
    /// Those that have not ended.
    leases: Vec<Lease>,
    sum: u32,
    /// Whether leases from before the clock went back were cut down, which must be written.
    is_moved: bool,
}

impl Standing {
    pub(crate) fn of(state: Option<&ConcurrencyState>, now: ServerTime) -> Self {
        let now_us = now.as_micros();
        let unused = Self { now_us, longest_us: 0, leases: Vec::new(), sum: 0, is_moved: false };
        let Some(state) = state else { return unused };
        let mut standing = Self { leases: state.leases.clone(), ..unused };
        let latest_us = now_us + state.longest_us;
        for lease in &mut standing.leases {
            if lease.ends_us > latest_us {
                // The clock went back. Nobody was given more than that from now. Without this a
                // dead holder would keep its permit for as long as the clock went back.
                lease.ends_us = latest_us;
                standing.is_moved = true;
            }
        }
        standing.leases.retain(|lease| lease.ends_us > now_us);
        if !standing.leases.is_empty() {
            standing.longest_us = state.longest_us;
        }
        standing.sum = standing.leases.iter().map(|lease| u32::from(lease.cost)).sum();
        standing
    }

    pub(crate) const fn is_moved(&self) -> bool {
        self.is_moved
    }

    pub(crate) const fn sum(&self) -> u32 {
        self.sum
    }

    /// `None` if nobody holds the key.
    pub(crate) fn into_state(self) -> Option<ConcurrencyState> {
        let Self { longest_us, leases, .. } = self;
        (!leases.is_empty()).then_some(ConcurrencyState { longest_us, leases })
    }

    /// Gives `id` a lease from now on, if it has one or there is room. Whoever asks again, after an
    /// answer was lost, is not counted twice.
    pub(crate) fn hold(&mut self, quota: ConcurrencyQuota, id: u64, cost: u16) -> bool {
        let held = self.release(id);
        if held.is_none() && self.sum + u32::from(cost) > quota.max() {
            return false;
        }
        let cost = held.unwrap_or(cost);
        let ends_us = self.now_us + quota.lease_us();
        let place = self.leases.partition_point(|lease| lease.ends_us <= ends_us);
        self.leases.insert(place, Lease { ends_us, cost, id });
        self.sum += u32::from(cost);
        self.longest_us = self.longest_us.max(quota.lease_us());
        true
    }

    /// Takes the lease of `id` away, and says what it cost.
    pub(crate) fn release(&mut self, id: u64) -> Option<u16> {
        let place = self.leases.iter().position(|lease| lease.id == id)?;
        let cost = self.leases.remove(place).cost;
        self.sum -= u32::from(cost);
        Some(cost)
    }

    /// How long until `cost` fits, if no lease is renewed and none released.
    pub(crate) fn retry_after_us(&self, max: u32, cost: u16) -> u64 {
        let mut sum = self.sum;
        for lease in &self.leases {
            sum -= u32::from(lease.cost);
            if sum + u32::from(cost) <= max {
                return lease.ends_us - self.now_us;
            }
        }
        0
    }
}
