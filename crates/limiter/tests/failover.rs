//! A new primary that has missed writes: what the survivors know is not spent twice.
//!
//! Real servers, a replica that is cut off from its primary, a SIGKILL, and a proxy in the place of
//! the address that moves. An oracle knows each grant, which survivors were told of it, and when each
//! of them had made good what it knew. It checks what the crate promises: admitted is at most the
//! contract, what was granted before the survivors' debts arrived, and what no survivor saw.

#[path = "support/promoted.rs"]
mod promoted;
mod support;

use std::time::{Duration, Instant};

use fleetwide_core_traits::{Key, Namespace};
use fleetwide_limiter::op::cell;
use fleetwide_limiter::{
    BucketQuota, FixedQuota, GcraQuota, Limiter, LogQuota, PolicyName, Quota, Refunded, Source,
    Unavailable, WindowQuota,
};
use fleetwide_redis_backend::Redis;
use fleetwide_testkit::eventually;
use promoted::{Merged, SOON, Servers, Watched, failovers, say, seeds};
use rand::{Rng as _, SeedableRng as _};
use support::Rng;

/// Failovers of each algorithm.
const FAILOVERS: usize = 2;
const HOUR: Duration = Duration::from_secs(3600);
/// Debts are kept of so many keys.
const ON: usize = 1_000;

// Seen red: without the merge in either script (GCRA, sliding window), without the task that pays, with
// debts that are learned from grants alone, and (in 200 failovers) when refunds from before a reset that
// the new primary has missed are taken off debts from after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_survivor_saw_is_spent_twice() {
    let count = failovers(FAILOVERS);
    for algorithm in Algorithm::ALL {
        let (mut excess, mut before, mut unseen, mut grants) = (0, 0, 0, 0);
        for seed in seeds(count) {
            for outcome in play(seed, algorithm, ON).await {
                let Outcome { admitted, contract, seen_too_late, seen_by_nobody, .. } = outcome;
                let most = contract + seen_too_late + seen_by_nobody;
                assert!(admitted <= most, "{admitted} of {most}: {outcome:?}, seed {seed}");
                if outcome.is_exact {
                    assert!(admitted + 1 >= contract, "too few: {outcome:?}, seed {seed}");
                }
                excess += admitted.saturating_sub(contract);
                before += seen_too_late;
                unseen += seen_by_nobody;
                grants += admitted;
            }
        }
        say(&format!(
            "{algorithm:?}: {count} failovers, {grants} admitted: {excess} above the contract; \
             {before} were granted before the debts arrived, and {unseen} seen by no survivor"
        ));
    }
}

/// The same failovers, and nothing is made good: they do lose what was spent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn same_failovers_admit_more_when_nothing_is_made_good() {
    let count = failovers(FAILOVERS);
    let mut all = 0;
    for algorithm in Algorithm::ALL {
        let (mut excess, mut over, mut allowed) = (0, 0, 0);
        for seed in seeds(count) {
            let mut is_over = false;
            for outcome in play(seed, algorithm, 0).await {
                let Outcome { admitted, contract, seen_by_nobody, .. } = outcome;
                let most = contract + seen_by_nobody;
                excess += admitted.saturating_sub(most);
                is_over |= admitted > most;
                allowed += most;
            }
            over += usize::from(is_over);
        }
        say(&format!(
            "{algorithm:?}: {over} of {count} failovers are over: {excess} beside {allowed} that may be"
        ));
        all += excess;
    }
    assert!(all > 0, "no failover has lost anything, so they prove nothing");
}

#[derive(Clone, Copy, Debug)]
enum Algorithm {
    Gcra,
    SlidingWindow,
    TokenBucket,
    FixedWindow,
    SlidingLog,
}

impl Algorithm {
    const ALL: [Self; 5] =
        [Self::Gcra, Self::SlidingWindow, Self::TokenBucket, Self::FixedWindow, Self::SlidingLog];

    /// A quota of which little comes back while the test runs: a cell in a second at least, or none.
    fn quota(self, most: u64, rng: &mut Rng) -> Quota {
        let period = Duration::from_millis(rng.random_range(1_000..=60_000));
        match self {
            Self::Gcra => Quota::gcra(1, period, most).unwrap(),
            Self::SlidingWindow => Quota::sliding_window(most, HOUR).unwrap(),
            // No whole number of µs.
            Self::TokenBucket => Quota::token_bucket(7, 7 * period + HOUR / 9_000, most).unwrap(),
            Self::FixedWindow => support::fixed_window_just_begun(most),
            Self::SlidingLog => Quota::sliding_log(most, HOUR).unwrap(),
        }
    }
}

/// What came of one key.
#[derive(Debug)]
struct Outcome {
    #[expect(dead_code, reason = "a failure shows it")]
    quota: Quota,
    admitted: u64,
    /// What may be admitted without a failover.
    contract: u64,
    /// Granted before the debts of all survivors had arrived.
    seen_too_late: u64,
    /// Granted to those who died, after the last answer to a survivor.
    seen_by_nobody: u64,
    /// Whether nothing was given back or reset, so that exactly the contract fits.
    is_exact: bool,
}

/// Plays one failover.
async fn play(seed: u64, algorithm: Algorithm, debt_keys_max: usize) -> Vec<Outcome> {
    let mut rng = Rng::seed_from_u64(seed);
    let mut stage = Stage::new(&mut rng, algorithm, debt_keys_max).await;
    let begun = Instant::now();
    stage.spend(&mut rng, 0..=stage.appetite).await;
    if rng.random() {
        stage.servers.until_replicated().await;
    }
    stage.servers.cut_off();
    stage.spend(&mut rng, 1..=stage.appetite).await;
    stage.let_some_spend_unseen(&mut rng).await;
    let is_quiet = rng.random_ratio(2, 3);
    stage.fail_over(&mut rng).await;
    if is_quiet && debt_keys_max > 0 {
        stage.until_all_is_paid().await;
    }
    stage.spend_all(&mut rng).await;
    stage.outcomes(begun.elapsed())
}

/// A fleet before a server with a replica.
struct Stage {
    servers: Servers,
    namespace: Namespace,
    quota: Quota,
    keys: Vec<Account>,
    fleet: Vec<Instance>,
    survivors: usize,
    debt_keys_max: usize,
    /// Calls before the failover.
    appetite: usize,
}

/// What the oracle knows of one key.
#[derive(Default)]
struct Account {
    name: String,
    admitted: u64,
    /// Admitted after the last answer to a survivor.
    unseen: u64,
    /// Which survivors were told anything.
    knows: Vec<bool>,
    /// When it began and what was granted, after the failover.
    late: Vec<(Instant, u64)>,
    is_exact: bool,
}

struct Instance {
    redis: Redis,
    limiter: Limiter<Watched>,
    merged: Merged,
}

impl Stage {
    async fn new(rng: &mut Rng, algorithm: Algorithm, debt_keys_max: usize) -> Self {
        let servers = Servers::start(rng).await;
        let most = rng.random_range(5..=80);
        let quota = algorithm.quota(most, rng);
        let survivors = rng.random_range(1..=3);
        let account = |number| Account {
            name: format!("key-{number}"),
            knows: vec![false; survivors],
            is_exact: true,
            ..Account::default()
        };
        let keys: Vec<Account> = (0..rng.random_range(1..=3)).map(account).collect();
        let appetite = most as usize * keys.len();
        let namespace = Namespace::new("fleet").unwrap();
        let mut stage = Self {
            servers,
            namespace,
            quota,
            keys,
            fleet: Vec::new(),
            survivors,
            debt_keys_max,
            appetite,
        };
        for _ in 0..survivors + rng.random_range(0..=2) {
            let instance = stage.join().await;
            stage.fleet.push(instance);
        }
        stage
    }

    /// Another instance, with connections of its own.
    async fn join(&self) -> Instance {
        let redis = self.servers.connect().await;
        let merged = Merged::default();
        let executor = Watched::new(redis.executor(), &merged);
        let limiter = Limiter::builder(executor, &self.namespace, "api", self.quota)
            .on_unavailable(Unavailable::Deny)
            .deadline(SOON)
            // It would hide what the new primary lets through.
            .deny_cache(Duration::ZERO)
            .debt_keys_max(self.debt_keys_max)
            .probe_every(Duration::from_millis(1))
            .build()
            .unwrap();
        Instance { redis, limiter, merged }
    }

    /// Any instances call any keys, and now and then give back what they got, or reset.
    async fn spend(&mut self, rng: &mut Rng, calls: std::ops::RangeInclusive<usize>) {
        for _ in 0..rng.random_range(calls) {
            let (who, key) =
                (rng.random_range(0..self.fleet.len()), rng.random_range(0..self.keys.len()));
            self.call(who, key, rng).await;
        }
    }

    async fn call(&mut self, who: usize, key: usize, rng: &mut Rng) {
        let limiter = &self.fleet[who].limiter;
        let account = &mut self.keys[key];
        let is_survivor = who < self.survivors;
        if rng.random_ratio(1, 60) {
            limiter.reset(&account.name).await.unwrap();
            (account.admitted, account.unseen, account.is_exact) = (0, 0, false);
            return;
        }
        let cost = rng.random_range(1..=3);
        let grant = limiter.check_with_receipt(&account.name, cost).await.unwrap();
        assert_eq!(grant.decision.source(), Source::Shared);
        account.admitted += u64::from(grant.granted);
        if is_survivor {
            (account.unseen, account.knows[who]) = (0, true);
        } else {
            account.unseen += u64::from(grant.granted);
        }
        let Some(receipt) = grant.receipt.filter(|_| rng.random_ratio(1, 15)) else { return };
        account.is_exact = false;
        if limiter.refund(receipt).await.unwrap() != Refunded::Nothing {
            account.admitted -= u64::from(grant.granted);
            if !is_survivor {
                account.unseen -= u64::from(grant.granted);
            }
        }
    }

    /// Those who will die get something that no survivor hears of.
    async fn let_some_spend_unseen(&mut self, rng: &mut Rng) {
        if self.fleet.len() == self.survivors {
            return;
        }
        for _ in 0..rng.random_range(0..10) {
            let who = rng.random_range(self.survivors..self.fleet.len());
            let key = rng.random_range(0..self.keys.len());
            self.call(who, key, rng).await;
        }
    }

    async fn fail_over(&mut self, rng: &mut Rng) {
        self.fleet.truncate(self.survivors);
        self.servers.fail_over().await;
        for instance in &self.fleet {
            instance.redis.ready(SOON).await.unwrap();
        }
        // Somebody who knows nothing.
        if rng.random() {
            let newcomer = self.join().await;
            self.fleet.push(newcomer);
        }
    }

    fn cell(&self, account: &Account) -> Key {
        let policy = PolicyName::new("api").unwrap();
        let name = account.name.as_bytes();
        match self.quota {
            Quota::Gcra(_) => cell::<GcraQuota>(&self.namespace, &policy, name),
            Quota::SlidingWindow(_) => cell::<WindowQuota>(&self.namespace, &policy, name),
            Quota::TokenBucket(_) => cell::<BucketQuota>(&self.namespace, &policy, name),
            Quota::FixedWindow(_) => cell::<FixedQuota>(&self.namespace, &policy, name),
            Quota::SlidingLog(_) => cell::<LogQuota>(&self.namespace, &policy, name),
            _ => unreachable!("there are five"),
        }
        .unwrap()
    }

    /// When all survivors who knew of a key had made it good; `None` if that is still to come.
    fn paid_at(&self, account: &Account) -> Option<Instant> {
        let cell = self.cell(account);
        let knowing = self.fleet.iter().zip(&account.knows).filter(|(_, knows)| **knows);
        let mut last = None;
        for (instance, _) in knowing {
            last = last.max(Some(*instance.merged.lock().get(&cell)?));
        }
        Some(last.unwrap_or_else(Instant::now))
    }

    /// Nobody calls meanwhile: what is made good is so because a survivor was told of the failover.
    async fn until_all_is_paid(&self) {
        // Of a key that was reset, its survivors know nothing any more.
        let whole = || self.keys.iter().filter(|account| account.is_exact);
        let is_paid = async || whole().all(|account| self.paid_at(account).is_some());
        eventually(SOON, "the survivors' debts to arrive", is_paid).await;
    }

    /// All call until nothing is left.
    async fn spend_all(&mut self, rng: &mut Rng) {
        for key in 0..self.keys.len() {
            let name = self.keys[key].name.clone();
            loop {
                let who = rng.random_range(0..self.fleet.len());
                let begun = Instant::now();
                let grant = self.fleet[who].limiter.check_with_receipt(&name, 1).await.unwrap();
                let decision = grant.decision;
                if decision.source() != Source::Shared {
                    // The way to the new primary is not there yet.
                    tokio::task::yield_now().await;
                } else if decision.is_allowed() {
                    self.keys[key].admitted += 1;
                    self.keys[key].late.push((begun, 1));
                } else {
                    break;
                }
            }
        }
    }

    fn outcomes(&self, elapsed: Duration) -> Vec<Outcome> {
        let earned = match self.quota {
            Quota::Gcra(quota) => elapsed.as_micros() as u64 / quota.interval_us() + 1,
            Quota::TokenBucket(quota) => {
                let (gain, token) = quota.rate();
                elapsed.as_micros() as u64 * gain / token + 1
            }
            _ => 0,
        };
        let outcome = |account: &Account| {
            let paid_at = self.paid_at(account);
            let is_late = |begun: Instant| paid_at.is_none_or(|paid_at| begun <= paid_at);
            let late = account.late.iter().filter(|(begun, _)| is_late(*begun));
            Outcome {
                quota: self.quota,
                admitted: account.admitted,
                contract: u64::from(self.quota.cost_max()) + earned,
                seen_too_late: late.map(|(_, cost)| cost).sum(),
                seen_by_nobody: account.unseen,
                is_exact: account.is_exact,
            }
        };
        self.keys.iter().map(outcome).collect()
    }
}
