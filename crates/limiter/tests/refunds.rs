//! Refunds, judged by brute force over random histories: what is spent and not given back keeps the
//! contract in every interval.
//!
//! The steps run on a state that this test keeps, by a clock that it moves; nothing sleeps.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use fleetwide_core_traits::{AtomicOp, Effects, Key, Namespace, ServerTime, Write};
use fleetwide_limiter::op::{AtMost, Block, Check, Peek, Refund, Reset};
use fleetwide_limiter::{
    Algorithm, Answer, BucketQuota, BucketState, Debit, FixedQuota, GcraQuota, Held, LogQuota,
    WindowQuota,
};
use rand::Rng as _;
use support::{Rng, Rules, for_each_history};

/// Steps of one history: several windows, or bursts, on average.
const STEPS: usize = 120;

/// What an algorithm promises, in units in which nothing is rounded.
trait Contract: Rules {
    fn units(&self, cost: u32) -> u128 {
        cost.into()
    }

    /// What may be spent in an interval as long as this.
    fn allows(&self, length: u64) -> u128;

    /// What a refund that answered `reply` has given back.
    fn given(
        &self,
        reply: u64,
        _: Option<&Held<Self::State>>,
        _: Option<&Held<Self::State>>,
        _: u64,
    ) -> u128 {
        reply.into()
    }
}

/// µs of debt.
impl Contract for GcraQuota {
    fn units(&self, cost: u32) -> u128 {
        self.price(cost).into()
    }

    fn allows(&self, length: u64) -> u128 {
        (self.span_us() + length).into()
    }
}

impl Contract for WindowQuota {
    fn allows(&self, length: u64) -> u128 {
        if length <= self.window_us() { self.max().into() } else { u128::MAX }
    }
}

/// Parts of a token. A refund answers in µs, rounded up, so what it gave is read from the states.
impl Contract for BucketQuota {
    fn units(&self, cost: u32) -> u128 {
        u128::from(cost) * u128::from(self.rate().1)
    }

    fn allows(&self, length: u64) -> u128 {
        self.units(self.burst()) + u128::from(length) * u128::from(self.rate().0)
    }

    fn given(
        &self,
        reply: u64,
        before: Option<&Held<BucketState>>,
        after: Option<&Held<BucketState>>,
        now: u64,
    ) -> u128 {
        if reply == 0 { 0 } else { parts_missing(before, now) - parts_missing(after, now) }
    }
}

fn parts_missing(held: Option<&Held<BucketState>>, now: u64) -> u128 {
    let wire = held.map(|held| held.to_wire(BucketState::to_wire)).unwrap_or_default();
    let state = if wire.first() == Some(&1) { &wire[49..] } else { &wire[..] };
    let number = |at: usize, length: usize| {
        state[at..at + length].iter().fold(0, |sum: u128, &byte| sum << 8 | u128::from(byte))
    };
    if state.is_empty() {
        return 0;
    }
    let (at, missing, gain, token, earned) =
        (number(0, 8), number(8, 4), number(12, 4), number(16, 8), number(24, 8));
    (missing * token).saturating_sub(earned + (u128::from(now) - at) * gain)
}

/// Over a boundary, or a clock that went back over it.
impl Contract for FixedQuota {
    fn allows(&self, length: u64) -> u128 {
        if length < self.window_us() { 2 * u128::from(self.max()) } else { u128::MAX }
    }
}

impl Contract for LogQuota {
    fn allows(&self, length: u64) -> u128 {
        if length < self.window_us() { self.max().into() } else { u128::MAX }
    }
}

/// One call that was granted.
struct Spent {
    /// By the time that the clock went forward.
    at: u64,
    now: u64,
    cost: u128,
    given_back: u128,
    receipt: Option<Debit>,
    /// When the holder throws the receipt away, by its own clock, which goes forward only.
    worthless_at: u64,
}

/// One key, and what the oracle remembers.
struct Player<A: Algorithm> {
    quota: A,
    key: Key,
    held: Option<Held<A::State>>,
    /// When a server drops the key.
    expires: ServerTime,
    now: u64,
    /// How far the clock has gone forward in all, its steps back left out.
    forward: u64,
    /// By how much later than it was decided the answer to a call is there.
    late_us: u64,
    spent: Vec<Spent>,
}

impl<A: Contract> Player<A> {
    fn new(quota: A, rng: &mut Rng) -> Self {
        let key = Namespace::new("test").unwrap().tag("limiter", b"a").unwrap().key();
        let now = 1_780_000_000_000_000 + rng.random_range(0..1_000_000);
        let expires = ServerTime::MAX;
        Self { quota, key, held: None, expires, now, forward: 0, late_us: 0, spent: Vec::new() }
    }

    fn run<O: AtomicOp<State = Held<A::State>>>(&mut self, op: &O) -> O::Reply {
        let now = ServerTime::from_micros(self.now);
        // A server drops what is over; until then it must mean the same as if it had.
        if now >= self.expires && self.now.is_multiple_of(2) {
            self.held = None;
        }
        let mut effects = Effects::new();
        let reply = op.apply(&[self.held.as_ref()], now, &mut effects);
        if let [(_, Write::Put(next, ttl))] = effects.writes() {
            self.held = Some(next.clone());
            self.expires = now.plus(*ttl);
        }
        reply
    }

    fn move_clock(&mut self, rng: &mut Rng) {
        let step = self.quota.step_us();
        let by = match rng.random_range(0..8) {
            0..=2 => 0,
            3 => rng.random_range(0..=3),
            4 => step * rng.random_range(1..=3) - rng.random_range(0..=1),
            5 => step * 64 - rng.random_range(0..=2),
            6 => rng.random_range(0..=step * 40),
            _ => rng.random_range(0..=step),
        };
        self.now += by;
        self.forward += by;
    }

    fn note(&mut self, answer: &Answer) {
        if answer.granted > 0 {
            let upto = answer.at.plus(Duration::from_micros(answer.verdict.reset_after_us));
            let (cost, mark) = (answer.granted, answer.mark);
            let debit = Debit { cost, at: answer.at, upto, mark };
            let (at, now, cost) = (self.forward, self.now, self.quota.units(cost));
            let worthless_at = at + answer.verdict.reset_after_us + self.late_us;
            let receipt = Some(debit);
            self.spent.push(Spent { at, now, cost, given_back: 0, receipt, worthless_at });
        }
    }

    fn spend(&mut self, rng: &mut Rng) {
        let max = self.quota.cost_max();
        let cost = if rng.random_ratio(1, 2) { 1 } else { rng.random_range(1..=max) };
        let answer = if rng.random_ratio(1, 4) {
            self.run(&AtMost::new(self.quota, self.key.clone(), cost))
        } else {
            self.run(&Check::new(self.quota, self.key.clone(), cost))
        };
        self.note(&answer);
    }

    /// Gives one call back; naively, as other limiters do: all of it, whatever time has given back.
    fn refund(&mut self, rng: &mut Rng, is_naive: bool) {
        // Mostly a late one: those have something to give.
        let count = self.spent.len();
        if count == 0 {
            return;
        }
        let late = count.saturating_sub(6);
        let of = if rng.random_ratio(1, 4) { 0 } else { late };
        let index = rng.random_range(of..count);
        if !is_naive && self.spent[index].worthless_at <= self.forward {
            return;
        }
        if let Some(debit) = self.spent[index].receipt.take() {
            let upto = ServerTime::from_micros(self.now).plus(Duration::from_secs(86_400));
            let debit = if is_naive { Debit { upto, ..debit } } else { debit };
            let before = self.held.clone();
            let reply = self.run(&Refund::new(self.quota, self.key.clone(), debit));
            let given = self.quota.given(reply, before.as_ref(), self.held.as_ref(), self.now);
            assert!(u128::from(reply) <= self.quota.price(debit.cost).into(), "{reply} back");
            let spent = &mut self.spent[index];
            spent.given_back += given;
            assert!(spent.given_back <= spent.cost, "{given} back of {}", spent.cost);
        }
    }

    /// All calls so far: when, and what of each was not given back.
    fn kept(&self) -> Vec<(u64, u128)> {
        self.spent.iter().map(|spent| (spent.at, spent.cost - spent.given_back)).collect()
    }

    /// Whether more than the contract allows was spent in any interval that begins and ends with a
    /// call.
    fn is_over(&self) -> bool {
        let kept = self.kept();
        (0..kept.len()).any(|first| {
            let mut sum = 0;
            kept[first..].iter().any(|&(at, cost)| {
                sum += cost;
                sum > self.quota.allows(at - kept[first].0)
            })
        })
    }
}

/// A random history of checks and refunds, to its end.
fn play<A: Contract>(quota: A, rng: &mut Rng, is_naive: bool) -> Player<A> {
    let mut player = Player::new(quota, rng);
    player.late_us = player.quota.step_us() * 3;
    for _ in 0..STEPS {
        player.move_clock(rng);
        match rng.random_range(0..5) {
            0 | 1 => player.refund(rng, is_naive),
            _ => player.spend(rng),
        }
    }
    player
}

fn keeps_the_contract<A: Contract>(make: impl Fn(&mut Rng) -> A) {
    for_each_history(600, |rng| {
        let player = play(make(rng), rng, false);
        assert!(!player.is_over(), "{:?} is over", player.quota);
    });
}

// Red without the refunds since (`since` 0), without `own_us`, and when `kept_us` forgets refunds with
// the state, so that a receipt is worth more than its call has left; for the log when cells of
// another moment are given back.
#[test]
fn any_history_of_checks_and_refunds_keeps_the_contract() {
    keeps_the_contract(support::gcra);
    keeps_the_contract(support::window);
    keeps_the_contract(support::bucket);
    keeps_the_contract(support::log);
}

// Red when a refund does not ask which window counts the call.
#[test]
fn any_history_of_checks_and_refunds_keeps_each_fixed_window() {
    for_each_history(600, |rng| {
        let player = play(support::fixed(rng), rng, false);
        let (window_us, max) = (player.quota.window_us(), player.quota.max().into());
        let mut windows = BTreeMap::new();
        for spent in &player.spent {
            *windows.entry(spent.now / window_us).or_insert(0) += spent.cost - spent.given_back;
        }
        assert!(windows.values().all(|&sum: &u128| sum <= max), "over {max}: {windows:?}");
    });
}

/// What other limiters do: the whole cost is given back, whatever time has given back meanwhile.
#[test]
fn naive_refund_breaks_the_contract_so_the_oracle_sees_it() {
    let mut rng = fleetwide_testkit::seed().rng();
    let (mut over, histories) = ([0; 2], 300);
    for _ in 0..histories {
        over[0] += u32::from(play(support::gcra(&mut rng), &mut rng, true).is_over());
        over[1] += u32::from(play(support::bucket(&mut rng), &mut rng, true).is_over());
    }
    assert!(over.iter().all(|&over| over > histories / 10), "{over:?} of {histories}");
}

/// Resets, blocks, other quotas and a clock that steps, between checks and refunds: by the time that
/// the clock went forward, nothing is over. After a reset the oracle forgets, as the key does; the
/// receipts stay in the world.
fn survives_everything<A: Contract>(make: impl Fn(&mut Rng) -> A) {
    for_each_history(600, |rng| {
        let mut player = Player::new(make(rng), rng);
        let mut old: Vec<Spent> = Vec::new();
        for _ in 0..STEPS {
            player.move_clock(rng);
            match rng.random_range(0..30) {
                0 => {
                    old.append(&mut player.spent);
                    player.run(&Reset::new(player.quota, player.key.clone()));
                }
                1 => {
                    let long = Duration::from_micros(player.quota.step_us() * 3);
                    player.run(&Block::new(player.quota, player.key.clone(), long));
                }
                2 => {
                    let far = player.quota.step_us() * 80;
                    player.now -= rng.random_range(1..=far);
                }
                // Of a time before the reset.
                3..=6 if !old.is_empty() => {
                    let spent = old.swap_remove(rng.random_range(0..old.len()));
                    if let Some(debit) =
                        spent.receipt.filter(|_| spent.worthless_at > player.forward)
                    {
                        let refund = Refund::new(player.quota, player.key.clone(), debit);
                        assert_eq!(player.run(&refund), 0, "worth something after a reset");
                    }
                }
                7..=14 => player.refund(rng, false),
                _ => player.spend(rng),
            }
            assert!(!player.is_over(), "over at {}", player.now);
        }
    });
}

// Red when a reset does not raise the generation, when a clock that went back does not raise the
// life, and when a preface is forgotten before the receipts from before it are worth nothing.
#[test]
fn resets_blocks_and_clock_steps_between_refunds_make_nothing_go_over() {
    survives_everything(support::gcra);
    survives_everything(support::window);
    survives_everything(support::bucket);
    survives_everything(support::fixed);
    survives_everything(support::log);
}

/// While a block lasts nothing is granted, its end is exact, and it ends by itself however the clock
/// steps.
fn block_lasts<A: Contract>(make: impl Fn(&mut Rng) -> A) {
    for_each_history(500, |rng| {
        let mut player = Player::new(make(rng), rng);
        for _ in 0..rng.random_range(0..10) {
            player.spend(rng);
            player.move_clock(rng);
        }
        let long = rng.random_range(1..=player.quota.step_us() * 100);
        let block = |long: u64| {
            let duration = Duration::from_micros(long);
            Block::new(player.quota, player.key.clone(), duration)
        };
        let (block, shorter) = (block(long), block(long.div_ceil(2)));
        let check = Check::new(player.quota, player.key.clone(), 1);
        let free = Check::new(player.quota, player.key.clone(), 0);
        assert_eq!(player.run(&block).as_micros(), u128::from(long));
        assert_eq!(player.run(&shorter).as_micros(), u128::from(long), "the longer one stays");
        player.now += long - 1;
        if rng.random() {
            // As if it had been blocked just now; the refusal writes that down.
            player.now -= rng.random_range(long..=player.now / 2);
            let refused = player.run(&check);
            assert_eq!((refused.blocked_us, refused.granted), (long, 0));
            player.now += long - 1;
        }
        let refused = player.run(&check);
        assert_eq!((refused.verdict.is_allowed, refused.blocked_us), (false, 1));
        assert!(refused.verdict.retry_after_us >= 1 && refused.verdict.remaining == 0);
        assert!(!player.run(&free).verdict.is_allowed, "nothing is free for who is blocked");
        player.now += 1;
        let after = player.run(&check);
        assert_eq!(after.blocked_us, 0);
        assert!(player.run(&free).verdict.is_allowed);
    });
}

// Red when a shorter block replaces a longer one, when a refusal makes it longer, and without the
// re-anchoring in `Preface::as_of` or its write by a refusal.
#[test]
fn block_ends_on_the_microsecond_also_after_the_clock_went_back() {
    block_lasts(support::gcra);
    block_lasts(support::window);
    block_lasts(support::bucket);
    block_lasts(support::fixed);
    block_lasts(support::log);
}

/// The wait that a refusal tells is enough, and a microsecond less is not, whatever refuses.
fn retry_after_is_exact<A: Contract>(make: impl Fn(&mut Rng) -> A) {
    for_each_history(500, |rng| {
        let mut player = Player::new(make(rng), rng);
        for _ in 0..STEPS / 2 {
            player.move_clock(rng);
            match rng.random_range(0..20) {
                0 => {
                    let long = Duration::from_micros(rng.random_range(1..=player.quota.step_us()));
                    player.run(&Block::new(player.quota, player.key.clone(), long));
                }
                1..=5 => player.refund(rng, false),
                6 => player.now -= rng.random_range(1..=player.quota.step_us() * 3),
                _ => player.spend(rng),
            }
            let cost = rng.random_range(0..=player.quota.cost_max());
            let peek = Peek::new(player.quota, player.key.clone(), cost);
            let wait = player.run(&peek).verdict.retry_after_us;
            if wait > 0 {
                // Who is refused writes what a clock that went back has moved.
                player.run(&Check::new(player.quota, player.key.clone(), cost));
                let (now, held) = (player.now, player.held.clone());
                for (later, is_enough) in [(wait - 1, false), (wait, true)] {
                    player.now = now + later;
                    assert_eq!(player.run(&peek).verdict.is_allowed, is_enough, "{wait} µs");
                }
                (player.now, player.held) = (now, held);
            }
        }
    });
}

// Red when the end of a block is told although the cells take longer, and the other way round.
#[test]
fn retry_after_is_enough_and_one_microsecond_less_is_not_also_under_a_block() {
    retry_after_is_exact(support::gcra);
    retry_after_is_exact(support::window);
    retry_after_is_exact(support::bucket);
    retry_after_is_exact(support::fixed);
    retry_after_is_exact(support::log);
}

/// A refund at once leaves the key as it was.
fn refund_at_once<A: Contract>(make: impl Fn(&mut Rng) -> A) {
    for_each_history(500, |rng| {
        let mut player = Player::new(make(rng), rng);
        for _ in 0..rng.random_range(0..20) {
            player.spend(rng);
            player.move_clock(rng);
        }
        let peek =
            |player: &mut Player<A>| player.run(&Peek::new(player.quota, player.key.clone(), 1));
        let before = peek(&mut player).verdict;
        let calls = player.spent.len();
        player.spend(rng);
        if player.spent.len() > calls {
            let debit = player.spent[calls].receipt.take().unwrap();
            let refund = Refund::new(player.quota, player.key.clone(), debit);
            let price = player.quota.price(debit.cost);
            assert_eq!(player.run(&refund), price, "all of it is given back");
        }
        let after = peek(&mut player).verdict;
        let remaining = (before.is_allowed, before.remaining, before.retry_after_us);
        assert_eq!((after.is_allowed, after.remaining, after.retry_after_us), remaining);
    });
}

#[test]
fn refund_at_once_gives_everything_back() {
    refund_at_once(support::gcra);
    refund_at_once(support::window);
    refund_at_once(bucket_of_whole_micros);
    refund_at_once(support::fixed);
    refund_at_once(support::log);
}

/// One part per µs, so that no time is rounded.
fn bucket_of_whole_micros(rng: &mut Rng) -> BucketQuota {
    let period = Duration::from_micros(rng.random_range(1_000..=9_000));
    BucketQuota::new(1, period, rng.random_range(1..=20)).expect("these numbers make a quota")
}

// Red when the part of the last µs is left out.
#[test]
fn refund_of_a_bucket_with_a_fractional_rate_is_less_than_a_microsecond_short() {
    for_each_history(500, |rng| {
        let mut player = Player::new(support::bucket(rng), rng);
        for _ in 0..rng.random_range(0..20) {
            player.spend(rng);
            player.move_clock(rng);
        }
        let before = parts_missing(player.held.as_ref(), player.now);
        let calls = player.spent.len();
        player.spend(rng);
        if player.spent.len() > calls {
            let debit = player.spent[calls].receipt.take().unwrap();
            player.run(&Refund::new(player.quota, player.key.clone(), debit));
        }
        let after = parts_missing(player.held.as_ref(), player.now);
        assert!(before <= after && after - before < player.quota.rate().0.into());
    });
}

// Red when cells are counted up to the time of the call instead of at it.
#[test]
fn refund_that_is_sent_to_a_log_twice_takes_no_cells_of_another_moment() {
    let mut rng = fleetwide_testkit::seed().rng();
    let quota = LogQuota::new(10, Duration::from_secs(1)).expect("these numbers make a quota");
    let mut player = Player::new(quota, &mut rng);
    let spend = |player: &mut Player<LogQuota>, cost| {
        player.now += 1;
        let answer = player.run(&Check::new(quota, player.key.clone(), cost));
        player.note(&answer);
    };
    spend(&mut player, 4);
    spend(&mut player, 3);
    let debit = player.spent[1].receipt.take().expect("it was granted");
    let refund = Refund::new(quota, player.key.clone(), debit);
    assert_eq!([player.run(&refund), player.run(&refund)], [3, 0]);
    let left = player.run(&Peek::new(quota, player.key.clone(), 0)).verdict.remaining;
    assert_eq!(left, 6, "the first call stays spent");
}
