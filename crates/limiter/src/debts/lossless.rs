//! A new primary that has missed writes, beside a server that has lost none: when all survivors have
//! made good what they know, nothing is granted that would not be granted there, and nothing is
//! refused for longer. Random histories; all is pure, and time is an argument.

use std::time::Duration;

use fleetwide_core_traits::{Namespace, ServerTime};
use rand::rngs::StdRng as Rng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::*;
use crate::algorithm::{Algorithm, Debit, Owed};
use crate::held::View;
use crate::{
    Answer, BucketQuota, FixedQuota, GcraQuota, Held, LogQuota, Quota, Verdict, WindowQuota,
};

const HISTORIES: usize = 2_000;
/// Each merge of a log has its µs.
const MERGES_US: u64 = 20;
const EPOCHS: [Epoch; 2] = [Epoch::new(1), Epoch::new(2)];

/// What happens before the failover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Story {
    /// Cells are spent.
    Spent,
    /// Some are given back, and the new primary knows it.
    GivenBack,
    /// They are given back and the key is reset, and the new primary may have missed it.
    Anything,
}

/// One key on one server.
#[derive(Clone)]
struct Server<A: Algorithm> {
    quota: A,
    held: Option<Held<A::State>>,
}

impl<A: Algorithm> Server<A> {
    fn view(&self, now: ServerTime) -> View<'_, A> {
        View::of(&self.quota, self.held.as_ref(), now)
    }

    fn check(&mut self, cost: u32, now: ServerTime) -> Answer {
        let mut answer = Answer::default();
        let next = self.view(now).decide([cost], |one| answer = one);
        self.held = next.or(self.held.take());
        answer
    }

    fn peek(&self, now: ServerTime) -> Verdict {
        self.view(now).peek(0).verdict
    }

    fn refund(&mut self, debit: &Debit, now: ServerTime) -> u64 {
        let (given, next) = self.view(now).refund(debit);
        self.held = next.or(self.held.take());
        given
    }

    fn reset(&mut self, now: ServerTime) {
        let next = self.view(now).reset().map(|(_, _, held)| held);
        self.held = next.or(self.held.take());
    }

    fn merge(&mut self, owed: &Owed, now: ServerTime) {
        let (_, next) = self.view(now).merge(owed);
        self.held = next.or(self.held.take());
    }
}

/// A fleet, all of which survive, and both servers.
struct World<A: Algorithm> {
    quota: A,
    story: Story,
    now_us: u64,
    begun_us: u64,
    whole: Server<A>,
    new: Server<A>,
    /// Whether the new primary misses what is written.
    is_cut: bool,
    key: Key,
    survivors: Vec<Debts>,
    debits: Vec<Debit>,
}

impl<A: Algorithm> World<A> {
    fn new(quota: A, story: Story, rng: &mut Rng) -> Self {
        let now_us = 1_780_000_000_000_000 + rng.random_range(0..1_000_000);
        let server = Server { quota, held: None };
        let tag = Namespace::new("test").unwrap().tag("limiter", b"a");
        Self {
            quota,
            story,
            now_us,
            begun_us: now_us,
            whole: server.clone(),
            new: server,
            is_cut: false,
            key: tag.unwrap().key(),
            survivors: (0..rng.random_range(1..=3)).map(|_| Debts::new(SHARDS)).collect(),
            debits: Vec::new(),
        }
    }

    fn now(&self) -> ServerTime {
        ServerTime::from_micros(self.now_us)
    }

    fn mono(&self) -> MonoTime {
        MonoTime::from_micros(self.now_us)
    }

    /// How long all cells count that are spent at once.
    fn span_us(&self) -> u64 {
        let spent = self.quota.spent(self.quota.cost_max(), self.now());
        A::lives(&spent, self.now()).as_micros() as u64
    }

    fn pass_time(&mut self, rng: &mut Rng) {
        let part = self.span_us() / 12;
        self.now_us += match rng.random_range(0..8) {
            0..=2 => 0,
            3 => rng.random_range(0..=2),
            4 => rng.random_range(0..=6 * part),
            _ => rng.random_range(0..=part),
        };
    }

    fn cost(&self, rng: &mut Rng) -> u32 {
        if rng.random_ratio(2, 3) { 1 } else { rng.random_range(1..=self.quota.cost_max()) }
    }

    /// One call of one instance, as both servers see it until the replica is cut off.
    fn call(&mut self, rng: &mut Rng) {
        let (now, mono, who) = (self.now(), self.mono(), rng.random_range(0..self.survivors.len()));
        let may_refund = match self.story {
            Story::Spent => false,
            Story::GivenBack => !self.is_cut,
            Story::Anything => true,
        };
        if may_refund && !self.debits.is_empty() && rng.random_ratio(1, 5) {
            let debit = self.debits.swap_remove(rng.random_range(0..self.debits.len()));
            let before = self.survivors[who].mark(&self.key);
            let given = self.whole.refund(&debit, now);
            self.survivors[who].give_back(&self.key, given, before);
        } else if self.story == Story::Anything && rng.random_ratio(1, 20) {
            self.whole.reset(now);
            self.survivors[who].forget(&self.key);
        } else {
            let answer = self.whole.check(self.cost(rng), now);
            if answer.granted > 0 {
                let upto = now.plus(Duration::from_micros(answer.verdict.reset_after_us));
                let Answer { at, granted: cost, mark, .. } = answer;
                self.debits.push(Debit { cost, at, upto, mark });
            }
            if let Some(debt) = Debt::of(self.quota.into(), &answer, mono) {
                self.survivors[who].learn(&self.key, debt, EPOCHS[0], mono);
            }
        }
        if !self.is_cut {
            self.new.held = self.whole.held.clone();
        }
    }

    /// Each makes good what it knows, in any order and more than once.
    fn make_good(&mut self, rng: &mut Rng) {
        let (now, mono) = (self.now(), self.mono());
        let mut owed: Vec<Owed> = Vec::new();
        for debts in &self.survivors {
            debts.advance(EPOCHS[1]);
            owed.extend(debts.owed(&self.key, mono).map(|debt| debt.owed(mono)));
        }
        let mut other_way = self.new.clone();
        for owed in owed.iter().rev() {
            other_way.merge(owed, now);
        }
        for owed in &owed {
            self.new.merge(owed, now);
            let once = self.new.held.clone();
            self.new.merge(owed, now);
            assert_eq!(self.new.held, once, "a second time");
        }
        // Of refunds that were lost, the first to come may say more or less.
        if self.story != Story::Anything {
            let [one, other] = [&self.new, &other_way].map(|server| server.peek(now));
            assert_eq!(one.remaining, other.remaining, "in another order");
        }
        owed.shuffle(rng);
        for owed in &owed {
            self.new.merge(owed, now);
        }
    }

    /// What both have then. `exact_us`: for how long a history is exact to the cell.
    fn compare(&self, exact_us: u64, slack: u32) {
        let [new, whole] = [&self.new, &self.whole].map(|server| server.peek(self.now()));
        assert!(new.remaining <= whole.remaining, "{new:?} beside {whole:?}");
        if self.story == Story::Anything {
            return;
        }
        if self.now_us - self.begun_us < exact_us {
            assert!(new.remaining + slack >= whole.remaining, "{new:?} beside {whole:?}");
        }
        if self.story == Story::Spent {
            let most_us = whole.reset_after_us + MERGES_US;
            assert!(new.reset_after_us <= most_us, "{new:?} beside {whole:?}");
        }
    }

    /// What the new primary grants, the one that has lost nothing grants too.
    fn go_on(&mut self, rng: &mut Rng) {
        for _ in 0..30 {
            self.pass_time(rng);
            let (now, cost) = (self.now(), self.cost(rng));
            if self.new.check(cost, now).granted > 0 {
                assert!(self.whole.check(cost, now).granted > 0, "{cost} at {}", self.now_us);
            }
        }
    }
}

/// Plays histories. `exact_us`: as long as one takes no longer, the right number of cells is left
/// after it, but for `slack`.
fn never_more_than_without_a_loss<A: Algorithm>(
    story: Story,
    make: impl Fn(&mut Rng) -> A,
    exact_us: impl Fn(A) -> u64,
    slack: impl Fn(A) -> u32,
) {
    let mut seeds = fleetwide_testkit::seed().rng();
    let mut lost = 0;
    for _ in 0..HISTORIES {
        let seed = seeds.random();
        let mut rng = Rng::seed_from_u64(seed);
        let quota = make(&mut rng);
        let _named = Named { seed, quota: quota.into(), story };
        let mut world = World::new(quota, story, &mut rng);
        let calls = rng.random_range(1..=40);
        let cut_at = rng.random_range(0..=calls);
        for call in 0..calls {
            world.is_cut = call >= cut_at;
            world.call(&mut rng);
            world.pass_time(&mut rng);
        }
        lost += usize::from(world.new.peek(world.now()) != world.whole.peek(world.now()));
        // A failover takes its time.
        world.now_us += rng.random_range(100..=world.span_us() / 8 + 100);
        world.make_good(&mut rng);
        world.compare(exact_us(quota), slack(quota));
        world.go_on(&mut rng);
    }
    assert!(lost > HISTORIES / 5, "{lost} histories have lost anything");
}

/// Says which history panicked.
struct Named {
    seed: u64,
    quota: Quota,
    story: Story,
}

impl Drop for Named {
    #[expect(clippy::print_stderr, reason = "a test runner shows it exactly when the test fails")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{:?} by {:?}, the seed of its own is {}", self.story, self.quota, self.seed);
        }
    }
}

const STORIES: [Story; 3] = [Story::Spent, Story::GivenBack, Story::Anything];

fn period(rng: &mut Rng) -> Duration {
    Duration::from_micros(rng.random_range(1_000..=900_000_000))
}

fn most(rng: &mut Rng) -> u64 {
    rng.random_range(1..=30)
}

// Each of them red without what was given back since, and with what was given back before a reset
// taken off what was spent after it.
#[test]
fn gcra_grants_no_more_than_without_a_loss() {
    let make = |rng: &mut Rng| GcraQuota::new(1, period(rng), most(rng)).unwrap();
    for story in STORIES {
        never_more_than_without_a_loss(story, make, |_| u64::MAX, |_| 0);
    }
}

// Red when the cells that a merge adds are not told from the server's own, when cells from before a
// reset are, and when refunds that were lost are not taken off the server's.
#[test]
fn window_grants_no_more_than_without_a_loss() {
    let make = |rng: &mut Rng| WindowQuota::new(most(rng), period(rng)).unwrap();
    for story in STORIES {
        never_more_than_without_a_loss(story, make, |quota| quota.window_us(), |_| 0);
    }
}

// Any rate; where a µs earns more than a part, refunds are rounded. Red when both deficits are added.
#[test]
fn bucket_grants_no_more_than_without_a_loss() {
    let whole = |rng: &mut Rng| BucketQuota::new(1, period(rng), most(rng)).unwrap();
    for story in STORIES {
        never_more_than_without_a_loss(story, whole, |_| u64::MAX, |_| 0);
    }
    let any = |rng: &mut Rng| {
        let max = rng.random_range(1..=5_000_000);
        BucketQuota::new(max, period(rng), rng.random_range(1..=1_000)).unwrap()
    };
    let of_a_micro = |quota: BucketQuota| 1 + (quota.rate().0 / quota.rate().1) as u32;
    never_more_than_without_a_loss(Story::Spent, any, |_| u64::MAX, of_a_micro);
}

// Red when both counts are added, and when an end is rounded up.
#[test]
fn fixed_window_grants_no_more_than_without_a_loss() {
    let make = |rng: &mut Rng| FixedQuota::new(most(rng), period(rng)).unwrap();
    for story in STORIES {
        never_more_than_without_a_loss(story, make, |_| u64::MAX, |_| 0);
    }
}

// Red as the window, and when both numbers are added.
#[test]
fn log_grants_no_more_than_without_a_loss() {
    let make = |rng: &mut Rng| LogQuota::new(most(rng), period(rng)).unwrap();
    for story in STORIES {
        never_more_than_without_a_loss(story, make, |quota| quota.window_us(), |_| 0);
    }
}
