//! The contracts of token bucket, fixed window and sliding log, judged by brute force over random
//! histories: each admits exactly what its contract allows, neither more nor less.

mod support;

use fleetwide_limiter::{BucketQuota, FixedQuota, LogQuota};
use rand::Rng as _;
use support::{Player, Rules, for_each_history};

/// Steps of one history: several windows, or bursts, on average.
const STEPS: usize = 120;

/// In any interval of length d at most `burst + d * rate` tokens, as fractions: nothing is rounded.
fn bucket_fits(quota: &BucketQuota, admitted: &[(u64, u64)], now: u64, cost: u64) -> bool {
    let (gain, token) = quota.rate();
    let fits = |sum: u64, since: u64| {
        let beyond_burst = u128::from(sum.saturating_sub(quota.burst().into()));
        beyond_burst * u128::from(token) <= u128::from(now - since) * u128::from(gain)
    };
    let mut sum = cost;
    fits(sum, now)
        && admitted.iter().rev().all(|&(at, cost)| {
            sum += cost;
            fits(sum, at)
        })
}

/// From one multiple of the window to the next at most the maximum.
fn fixed_fits(quota: &FixedQuota, admitted: &[(u64, u64)], now: u64, cost: u64) -> bool {
    let window = |time: u64| time / quota.window_us();
    let counted = admitted.iter().filter(|(at, _)| window(*at) == window(now));
    counted.map(|(_, cost)| cost).sum::<u64>() + cost <= quota.max().into()
}

/// In any interval as long as the window at most the maximum; a cell that is just so old is outside.
fn log_fits(quota: &LogQuota, admitted: &[(u64, u64)], now: u64, cost: u64) -> bool {
    within(admitted, now, quota.window_us()) + cost <= quota.max().into()
}

/// Cells admitted in the interval that ends with `now`, its beginning left out.
fn within(admitted: &[(u64, u64)], now: u64, length: u64) -> u64 {
    admitted.iter().filter(|(at, _)| at + length > now).map(|(_, cost)| cost).sum()
}

fn admits_exactly<A: Rules>(
    make: impl Fn(&mut support::Rng) -> A,
    fits: impl Fn(&A, &[(u64, u64)], u64, u64) -> bool,
) {
    for_each_history(3_000, |rng| {
        let mut player = Player::new(make(rng), rng);
        for _ in 0..STEPS {
            let (now, cost) = player.next_call(rng);
            let fits = fits(&player.quota, &player.admitted, now, cost.into());
            assert_eq!(player.check(now, cost).is_allowed, fits, "cost {cost} at {now}");
        }
    });
}

// Red with a burst of one token more, when the part of a token is dropped at a call, and when a rate
// is rounded to whole µs per token.
#[test]
fn bucket_admits_exactly_what_its_contract_allows() {
    admits_exactly(support::bucket, bucket_fits);
}

// Red when a window begins with its first call, and when a call prolongs it.
#[test]
fn fixed_window_admits_exactly_the_maximum_in_each_window() {
    admits_exactly(support::fixed, fixed_fits);
}

// Red when a cell leaves the window a microsecond early or late.
#[test]
fn log_admits_exactly_the_maximum_in_any_interval() {
    admits_exactly(support::log, log_fits);
}

/// Over a clock that steps both ways, by the time that it went forward.
fn never_over_on_any_clock<A: Rules>(
    make: impl Fn(&mut support::Rng) -> A,
    is_over: impl Fn(&A, &[(u64, u64)], u64) -> bool,
) {
    for_each_history(2_000, |rng| {
        let mut player = Player::new(make(rng), rng);
        for _ in 0..STEPS {
            let (now, cost) = player.next_call_on_any_clock(rng);
            player.check(now, cost);
            let forward = player.forward;
            assert!(!is_over(&player.quota, &player.admitted_forward, forward), "over at {now}");
        }
    });
}

// Red when a state from the future is taken for an unused key; for the fixed window also when its
// count ends with the window into which the clock went back.
#[test]
fn clock_that_steps_never_makes_a_quota_go_over() {
    never_over_on_any_clock(support::bucket, |quota, admitted, now| {
        !bucket_fits(quota, admitted, now, 0)
    });
    never_over_on_any_clock(support::fixed, |quota, admitted, now| {
        within(admitted, now, quota.window_us()) > 2 * u64::from(quota.max())
    });
    never_over_on_any_clock(support::log, |quota, admitted, now| {
        within(admitted, now, quota.window_us()) > quota.max().into()
    });
}

// The story: a clock that steps back over a boundary by a microsecond, again and again.
#[test]
fn clock_that_dithers_over_a_boundary_begins_one_window_and_no_more() {
    for_each_history(200, |rng| {
        let quota = support::fixed(rng);
        let mut player = Player::new(quota, rng);
        let boundary = (player.now / quota.window_us() + 1) * quota.window_us();
        for round in 0..100 {
            player.check(boundary - 1 + round % 2, quota.max());
        }
        assert_eq!(player.admitted.len(), 2, "one for each side of the boundary");
    });
}

// Worst case of the contract, which is why the sliding window is the default.
#[test]
fn fixed_window_admits_twice_the_maximum_over_a_boundary() {
    for_each_history(200, |rng| {
        let quota = support::fixed(rng);
        let mut player = Player::new(quota, rng);
        let boundary = (player.now / quota.window_us() + 1) * quota.window_us();
        for now in [boundary - 1, boundary] {
            assert!(player.check(now, quota.max()).is_allowed);
        }
        assert_eq!(within(&player.admitted, boundary, 2), 2 * u64::from(quota.max()));
    });
}

// What a rate of whole µs per cell cannot do. Red when the part of a token is dropped at a call.
#[test]
fn bucket_earns_the_rate_and_loses_nothing_to_rounding() {
    for_each_history(500, |rng| {
        let quota = support::bucket(rng);
        let mut player = Player::new(quota, rng);
        let begin = player.now;
        player.check(begin, quota.burst());
        if quota.burst() < 3 || quota.span_us() < 10 {
            return;
        }
        // Taken as soon as they are there, and never so late that the bucket is full.
        while player.now - begin < 20 * quota.span_us() {
            player.now += rng.random_range(1..=quota.span_us() / 3);
            let now = player.now;
            let there = player.peek(now, 0).remaining;
            player.check(now, there);
        }
        let sum: u64 = player.admitted[1..].iter().map(|(_, cost)| cost).sum();
        let (gain, token) = quota.rate();
        assert_eq!(sum, (player.now - begin) * gain / token);
    });
}
