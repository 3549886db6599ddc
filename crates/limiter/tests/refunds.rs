//! Refunds, judged by brute force over random histories: what is spent and not given back keeps the
//! contract in every interval.
//!
//! The steps run on a state that this test keeps, by a clock that it moves; nothing sleeps.

mod support;

use std::time::Duration;

use fleetwide_core_traits::{AtomicOp, Effects, Key, Namespace, ServerTime, Write};
use fleetwide_limiter::op::{AtMost, Block, Check, Refund, Reset};
use fleetwide_limiter::{Algorithm, Answer, Debit, GcraQuota, Held, WindowQuota};
use rand::Rng as _;
use support::{Rng, Rules, for_each_history};

/// Steps of one history: several windows, or bursts, on average.
const STEPS: usize = 120;

/// One call that was granted.
struct Spent {
    /// By the time that the clock went forward.
    at: u64,
    cost: u64,
    given_back: u64,
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
    spent: Vec<Spent>,
}

impl<A: Rules> Player<A> {
    fn new(quota: A, rng: &mut Rng) -> Self {
        let key = Namespace::new("test").unwrap().tag("limiter", b"a").unwrap().key();
        let now = 1_780_000_000_000_000 + rng.random_range(0..1_000_000);
        let expires = ServerTime::MAX;
        Self { quota, key, held: None, expires, now, forward: 0, spent: Vec::new() }
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
            let (at, cost) = (self.forward, self.quota.price(cost));
            let worthless_at = at + answer.verdict.reset_after_us;
            self.spent.push(Spent { at, cost, given_back: 0, receipt: Some(debit), worthless_at });
        }
    }

    fn spend(&mut self, rng: &mut Rng) {
        let max = self.quota.cost_max();
        let cost = if rng.random_ratio(1, 2) { 1 } else { rng.random_range(1..=max) };
        let answer = if rng.random_ratio(1, 4) {
            self.run(&AtMost::new(self.quota, self.key.clone(), cost).unwrap())
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
            let given = self.run(&Refund::new(self.quota, self.key.clone(), debit).unwrap());
            let spent = &mut self.spent[index];
            spent.given_back += given;
            assert!(spent.given_back <= spent.cost, "{given} back of {}", spent.cost);
        }
    }

    /// All calls so far: when, and what of each was not given back.
    fn kept(&self) -> Vec<(u64, u64)> {
        self.spent.iter().map(|spent| (spent.at, spent.cost - spent.given_back)).collect()
    }
}

/// Whether more than the contract allows was spent in any interval that begins and ends with a call.
fn is_over<A>(quota: &A, kept: &[(u64, u64)], allows: impl Fn(&A, u64) -> u64) -> bool {
    (0..kept.len()).any(|first| {
        let mut sum = 0;
        kept[first..].iter().any(|&(at, cost)| {
            sum += cost;
            sum > allows(quota, at - kept[first].0)
        })
    })
}

/// µs of debt in an interval as long as this.
fn gcra_allows(quota: &GcraQuota, length: u64) -> u64 {
    quota.span_us() + length
}

/// Cells in an interval as long as this; a longer one says nothing.
fn window_allows(quota: &WindowQuota, length: u64) -> u64 {
    if length <= quota.window_us() { quota.max().into() } else { u64::MAX }
}

/// Whether a random history of checks and refunds is over at its end.
fn plays_over<A: Rules>(
    quota: A,
    rng: &mut Rng,
    allows: impl Fn(&A, u64) -> u64,
    is_naive: bool,
) -> bool {
    let mut player = Player::new(quota, rng);
    for _ in 0..STEPS {
        player.move_clock(rng);
        match rng.random_range(0..5) {
            0 | 1 => player.refund(rng, is_naive),
            _ => player.spend(rng),
        }
    }
    is_over(&player.quota, &player.kept(), allows)
}

// Red without the refunds since (`since` 0), without `own_us`, and when `kept_us` forgets refunds with
// the state, so that a receipt is worth more than its call has left.
#[test]
fn any_history_of_checks_and_refunds_keeps_the_contract() {
    for_each_history(600, |rng| {
        assert!(!plays_over(support::gcra(rng), rng, gcra_allows, false), "GCRA is over");
    });
    for_each_history(600, |rng| {
        assert!(!plays_over(support::window(rng), rng, window_allows, false), "window is over");
    });
}

/// What other limiters do: the whole cost is given back, whatever time has given back meanwhile.
#[test]
fn naive_refund_breaks_the_contract_so_the_oracle_sees_it() {
    let mut rng = fleetwide_testkit::seed().rng();
    let (mut over, histories) = (0, 300);
    for _ in 0..histories {
        over += u32::from(plays_over(support::gcra(&mut rng), &mut rng, gcra_allows, true));
    }
    assert!(over > histories / 10, "{over} of {histories}");
}

/// Resets, blocks, other quotas and a clock that steps, between checks and refunds: by the time that
/// the clock went forward, nothing is over. After a reset the oracle forgets, as the key does; the
/// receipts stay in the world.
fn survives_everything<A: Rules>(
    make: impl Fn(&mut Rng) -> A,
    allows: impl Fn(&A, u64) -> u64 + Copy,
) {
    for_each_history(600, |rng| {
        let mut player = Player::new(make(rng), rng);
        let mut old: Vec<Spent> = Vec::new();
        for _ in 0..STEPS {
            player.move_clock(rng);
            match rng.random_range(0..30) {
                0 => {
                    old.append(&mut player.spent);
                    player.run(&Reset::new(player.quota, player.key.clone()).unwrap());
                }
                1 => {
                    let long = Duration::from_micros(player.quota.step_us() * 3);
                    player.run(&Block::new(player.quota, player.key.clone(), long).unwrap());
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
                        let refund = Refund::new(player.quota, player.key.clone(), debit).unwrap();
                        assert_eq!(player.run(&refund), 0, "worth something after a reset");
                    }
                }
                7..=14 => player.refund(rng, false),
                _ => player.spend(rng),
            }
            assert!(!is_over(&player.quota, &player.kept(), allows), "over at {}", player.now);
        }
    });
}

// Red when a reset does not raise the generation, when a clock that went back does not raise the
// life, and when a preface is forgotten before the receipts from before it are worth nothing.
#[test]
fn resets_blocks_and_clock_steps_between_refunds_make_nothing_go_over() {
    survives_everything(support::gcra, gcra_allows);
    survives_everything(support::window, window_allows);
}

/// While a block lasts nothing is granted, its end is exact, and it ends by itself however the clock
/// steps.
fn block_lasts<A: Rules>(make: impl Fn(&mut Rng) -> A) {
    for_each_history(500, |rng| {
        let mut player = Player::new(make(rng), rng);
        for _ in 0..rng.random_range(0..10) {
            player.spend(rng);
            player.move_clock(rng);
        }
        let long = rng.random_range(1..=player.quota.step_us() * 100);
        let block = |long: u64| {
            let duration = Duration::from_micros(long);
            Block::new(player.quota, player.key.clone(), duration).unwrap()
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
}

/// A refund at once leaves the key as it was.
fn refund_at_once<A: Rules>(make: impl Fn(&mut Rng) -> A) {
    for_each_history(500, |rng| {
        let mut player = Player::new(make(rng), rng);
        for _ in 0..rng.random_range(0..20) {
            player.spend(rng);
            player.move_clock(rng);
        }
        let peek = |player: &mut Player<A>| {
            player.run(&fleetwide_limiter::op::Peek::new(player.quota, player.key.clone(), 1))
        };
        let before = peek(&mut player).verdict;
        let calls = player.spent.len();
        player.spend(rng);
        if player.spent.len() > calls {
            let debit = player.spent[calls].receipt.take().unwrap();
            let refund = Refund::new(player.quota, player.key.clone(), debit).unwrap();
            assert_eq!(player.run(&refund), player.spent[calls].cost, "all of it is given back");
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
}
