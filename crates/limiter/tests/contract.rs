//! The contracts of the algorithms, judged by brute force over random histories.
//!
//! The oracle keeps every admitted call and adds up. Time is an argument, so nothing sleeps; it
//! moves by random steps, which favour the microseconds where something changes.

mod support;

use fleetwide_limiter::{GcraQuota, WindowQuota};
use rand::Rng;
use support::{Player, Rules, for_each_history};

/// Steps of one history: several windows, or bursts, on average.
const STEPS: usize = 120;

/// What the contract of GCRA says, by all that was admitted: in any interval of length d at most
/// `burst + d / interval` cells.
fn gcra_fits(quota: &GcraQuota, admitted: &[(u64, u64)], now: u64, cost: u64) -> bool {
    let mut sum = cost;
    let fits = |sum: u64, since: u64| {
        let beyond_burst = sum.saturating_sub(quota.burst().into());
        beyond_burst * quota.interval_us() <= now - since
    };
    fits(sum, now)
        && admitted.iter().rev().all(|&(at, cost)| {
            sum += cost;
            fits(sum, at)
        })
}

/// What the window counts: all that was admitted in the 64 sub-windows that end with the present.
fn window_fits(quota: &WindowQuota, admitted: &[(u64, u64)], now: u64, cost: u64) -> bool {
    let width = quota.width_us();
    let counted = admitted.iter().filter(|(at, _)| at / width + 64 > now / width);
    counted.map(|(_, cost)| cost).sum::<u64>() + cost <= quota.max().into()
}

/// Cells admitted in the closed interval that ends at `now` and is `length` long.
fn admitted_within(admitted: &[(u64, u64)], now: u64, length: u64) -> u64 {
    admitted.iter().filter(|(at, _)| at + length >= now).map(|(_, cost)| cost).sum()
}

// Red with a burst of one cell more, without the price of a call, and when a state that has lapsed
// is taken for a debt.
#[test]
fn gcra_admits_exactly_what_its_contract_allows() {
    for_each_history(3_000, |rng| {
        let mut player = Player::new(support::gcra(rng), rng);
        for _ in 0..STEPS {
            let (now, cost) = player.next_call(rng);
            let fits = gcra_fits(&player.quota, &player.admitted, now, cost.into());
            assert_eq!(player.check(now, cost).is_allowed, fits, "cost {cost} at {now}");
        }
    });
}

// Red with 63 slots instead of 64, and with a width that is rounded down.
#[test]
fn window_never_admits_more_than_the_maximum_in_any_window() {
    for_each_history(3_000, |rng| {
        let mut player = Player::new(support::window(rng), rng);
        for _ in 0..STEPS {
            let (now, cost) = player.next_call(rng);
            player.check(now, cost);
            let within = admitted_within(&player.admitted, now, player.quota.window_us());
            assert!(within <= player.quota.max().into(), "{within} within a window at {now}");
        }
    });
}

// Red when `forget_before` stops one sub-window early, or leaves the count of a slot behind.
#[test]
fn window_refuses_only_when_sixty_four_sub_windows_are_full() {
    for_each_history(3_000, |rng| {
        let mut player = Player::new(support::window(rng), rng);
        for _ in 0..STEPS {
            let (now, cost) = player.next_call(rng);
            let fits = window_fits(&player.quota, &player.admitted, now, cost.into());
            assert_eq!(player.check(now, cost).is_allowed, fits, "cost {cost} at {now}");
        }
    });
}

fn retry_after_is_exact<A: Rules>(make: impl Fn(&mut support::Rng) -> A) {
    for_each_history(1_500, |rng| {
        let mut player = Player::new(make(rng), rng);
        for _ in 0..STEPS {
            player.maybe_change(rng);
            let (now, cost) = player.next_call_on_any_clock(rng);
            let verdict = player.check(now, cost);
            if !verdict.is_allowed {
                let retry = verdict.retry_after_us;
                assert!(!player.peek(now + retry - 1, cost).is_allowed, "{retry} is too long");
                assert!(player.peek(now + retry, cost).is_allowed, "{retry} is too short");
            }
        }
    });
}

// Red with a microsecond more, with a slot less, without the lapse of a state of other parameters
// (`lapses_us`), and without the write of a refusal that re-anchors.
#[test]
fn retry_after_is_enough_and_one_microsecond_less_is_not() {
    retry_after_is_exact(support::gcra);
    retry_after_is_exact(support::window);
    retry_after_is_exact(support::bucket);
    retry_after_is_exact(support::fixed);
    retry_after_is_exact(support::log);
}

fn reset_after_is_exact<A: Rules>(make: impl Fn(&mut support::Rng) -> A) {
    for_each_history(1_000, |rng| {
        let mut player = Player::new(make(rng), rng);
        for _ in 0..STEPS {
            player.maybe_change(rng);
            let (now, cost) = player.next_call(rng);
            let reset = player.check(now, cost).reset_after_us;
            let full = player.quota.cost_max();
            assert_eq!(player.peek(now + reset, 0).remaining, full, "{reset} is too short");
            if reset > 0 {
                assert!(
                    player.peek(now + reset - 1, full).retry_after_us > 0,
                    "{reset} is too long"
                );
            }
        }
    });
}

#[test]
fn reset_after_is_when_all_is_back_and_not_before() {
    reset_after_is_exact(support::gcra);
    reset_after_is_exact(support::window);
    reset_after_is_exact(support::bucket);
    reset_after_is_exact(support::fixed);
    reset_after_is_exact(support::log);
}

fn refusal_changes_nothing<A: Rules>(make: impl Fn(&mut support::Rng) -> A) {
    for_each_history(1_000, |rng| {
        let mut player = Player::new(make(rng), rng);
        for _ in 0..STEPS {
            let (now, cost) = player.next_call(rng);
            let before = player.peek(now, cost);
            let (verdict, next) = player.quota.decide(player.state.as_ref(), now_of(now), cost);
            if verdict.is_allowed {
                player.check(now, cost);
            } else {
                assert_eq!((verdict, next.is_none()), (before, true));
            }
        }
    });
}

// Red when a refusal writes the state that it rotated.
#[test]
fn refusal_debits_and_writes_nothing_while_the_clock_goes_on() {
    refusal_changes_nothing(support::gcra);
    refusal_changes_nothing(support::window);
    refusal_changes_nothing(support::bucket);
    refusal_changes_nothing(support::fixed);
    refusal_changes_nothing(support::log);
}

fn zero_is_free<A: Rules>(make: impl Fn(&mut support::Rng) -> A) {
    for_each_history(300, |rng| {
        let mut player = Player::new(make(rng), rng);
        for _ in 0..STEPS {
            player.maybe_change(rng);
            let (now, cost) = player.next_call_on_any_clock(rng);
            player.check(now, cost);
            let (verdict, next) = player.quota.decide(player.state.as_ref(), now_of(now), 0);
            assert!(verdict.is_allowed && next.is_none(), "{verdict:?}");
        }
    });
}

// Red without the case for 0: after a change of limit more can be spent than there is.
#[test]
fn cost_of_zero_is_allowed_and_writes_nothing() {
    zero_is_free(support::gcra);
    zero_is_free(support::window);
    zero_is_free(support::bucket);
    zero_is_free(support::fixed);
    zero_is_free(support::log);
}

/// After a clock went back, by however much: nothing that was spent is forgotten, and within
/// `heals` all of it is back.
fn clock_back_heals<A: Rules>(make: impl Fn(&mut support::Rng) -> A) {
    for_each_history(1_500, |rng| {
        let mut player = Player::new(make(rng), rng);
        for _ in 0..STEPS / 2 {
            let (now, cost) = player.next_call(rng);
            player.check(now, cost);
        }
        let left = player.peek(player.now, 0).remaining;
        let now = player.now - rng.random_range(1..=player.now / 2);
        assert!(player.peek(now, 0).remaining <= left, "a step back gave cells back");
        // Refused or not: the call is what re-anchors the state.
        player.check(now, player.quota.cost_max());
        let heals = player.quota.heals_us();
        assert_eq!(player.peek(now + heals, 0).remaining, player.quota.cost_max());
    });
}

// Red without the re-anchoring in `Standing::of`, and when `decide` does not return it.
#[test]
fn clock_that_went_back_is_healed_within_the_stated_time() {
    clock_back_heals(support::gcra);
    clock_back_heals(support::window);
    clock_back_heals(support::bucket);
    clock_back_heals(support::fixed);
    clock_back_heals(support::log);
}

/// With a clock that steps both ways, the contract holds by the time that the clock went forward.
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

// Red when a state from the future is taken for an unused key.
#[test]
fn clock_that_steps_never_makes_a_quota_go_over() {
    never_over_on_any_clock(support::gcra, |quota, admitted, now| {
        !gcra_fits(quota, admitted, now, 0)
    });
    never_over_on_any_clock(support::window, |quota, admitted, now| {
        admitted_within(admitted, now, quota.window_us()) > quota.max().into()
    });
}

/// Two versions of a service with different quotas take turns at one moment, as in a rollout.
fn two_quotas_together<A: Rules>(make: impl Fn(&mut support::Rng) -> A) {
    for_each_history(3_000, |rng| {
        let quotas = [make(rng), make(rng)];
        let mut player = Player::new(quotas[0], rng);
        let mut spent = 0;
        for _ in 0..STEPS {
            player.quota = quotas[rng.random_range(0..2)];
            let cost = rng.random_range(1..=player.quota.cost_max());
            if player.check(player.now, cost).is_allowed {
                spent += cost;
            }
            let left = player.peek(player.now, 0).remaining;
            assert!(left <= player.quota.cost_max().saturating_sub(spent), "{left} after {spent}");
        }
    });
}

// The story: a refusal that cut a state down to the smaller quota gave the larger one new cells,
// each time they took turns. Red with that, with a debt that is not converted, and when a state of
// other parameters is taken for an unused key.
#[test]
fn change_of_limit_forgets_nothing_that_was_spent() {
    two_quotas_together(support::gcra);
    two_quotas_together(support::window);
    two_quotas_together(support::bucket);
    two_quotas_together(support::fixed);
    two_quotas_together(support::log);
}

/// A change right after a call: what is spent of the old quota is spent of the new one.
fn cells_stay_spent<A: Rules>(make: impl Fn(&mut support::Rng) -> A) {
    for_each_history(1_500, |rng| {
        let (old, new) = (make(rng), make(rng));
        let mut player = Player::new(old, rng);
        for _ in 0..STEPS / 2 {
            let (now, cost) = player.next_call(rng);
            let verdict = player.check(now, cost);
            if verdict.is_allowed {
                let spent = old.cost_max() - verdict.remaining;
                let left = new.peek(player.state.as_ref(), now_of(now), 0).remaining;
                assert!(left <= new.cost_max().saturating_sub(spent), "{left} after {spent}");
            }
        }
    });
}

// Red when a part of a cell is rounded down on the change.
#[test]
fn change_of_limit_keeps_each_cell_that_is_spent() {
    cells_stay_spent(support::gcra);
    cells_stay_spent(support::window);
    cells_stay_spent(support::bucket);
    cells_stay_spent(support::fixed);
    cells_stay_spent(support::log);
}

fn change_takes_effect<A: Rules>(make: impl Fn(&mut support::Rng) -> A) {
    for_each_history(1_500, |rng| {
        let (old, new) = (make(rng), make(rng));
        let mut player = Player::new(old, rng);
        for _ in 0..STEPS / 2 {
            let (now, cost) = player.next_call(rng);
            player.check(now, cost);
        }
        // Spent by the old quota, earned back by the new one: cell for cell, from the last write.
        player.quota = new;
        let cells = u64::from(old.cost_max());
        let heals = new.heals_from_us(cells);
        assert_eq!(player.peek(player.now + heals, 0).remaining, new.cost_max());
    });
}

// Red when a state of other parameters lives on by them: a key used up by one call a year would be
// refused for a year after the change to one a second.
#[test]
fn change_of_limit_takes_effect_at_once() {
    change_takes_effect(support::gcra);
    change_takes_effect(support::window);
    change_takes_effect(support::bucket);
    change_takes_effect(support::fixed);
    change_takes_effect(support::log);
}

const fn now_of(now: u64) -> fleetwide_core_traits::ServerTime {
    fleetwide_core_traits::ServerTime::from_micros(now)
}
