//! A new primary that has missed writes, before limits of several levels: what the survivors know of
//! any level is not spent twice. As `failover.rs` for one limit, by the same promise of each level.

#[path = "support/promoted.rs"]
mod promoted;
mod support;

use std::time::{Duration, Instant};

use fleetwide_core_traits::{Key, Namespace};
use fleetwide_limiter::multi::Limits;
use fleetwide_limiter::{Quota, Source, Unavailable};
use fleetwide_redis_backend::Redis;
use fleetwide_testkit::eventually;
use promoted::{Merged, SOON, Servers, Watched, failovers, say, seeds};
use rand::{Rng as _, SeedableRng as _};
use support::Rng;

const FAILOVERS: usize = 4;
const HOUR: Duration = Duration::from_secs(3600);
/// Debts are kept of so many keys.
const ON: usize = 1_000;

// Seen red: without the task that pays, and when a call that is refused tells nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_survivor_saw_of_a_level_is_spent_twice() {
    let (mut excess, mut before, mut unseen, mut grants) = (0, 0, 0, 0);
    let count = failovers(FAILOVERS);
    for seed in seeds(count) {
        for outcome in play(seed, ON).await {
            let Outcome { admitted, contract, seen_too_late, seen_by_nobody, .. } = outcome;
            let most = contract + seen_too_late + seen_by_nobody;
            assert!(admitted <= most, "{admitted} of {most}: {outcome:?}, seed {seed}");
            excess += admitted.saturating_sub(contract);
            before += seen_too_late;
            unseen += seen_by_nobody;
            grants += admitted;
        }
    }
    say(&format!(
        "{count} failovers, {grants} admitted by levels: {excess} above the contract; {before} were \
         granted before the debts arrived, and {unseen} seen by no survivor"
    ));
}

/// The same failovers, and nothing is made good: they do lose what was spent. Half of them do, so
/// there are as many as it takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn same_failovers_admit_more_of_a_level_when_nothing_is_made_good() {
    let (mut excess, mut played) = (0, 0);
    let count = failovers(FAILOVERS);
    for seed in seeds(count.max(64)) {
        for outcome in play(seed, 0).await {
            let Outcome { admitted, contract, seen_by_nobody, .. } = outcome;
            excess += admitted.saturating_sub(contract + seen_by_nobody);
        }
        played += 1;
        if played >= count && excess > 0 {
            break;
        }
    }
    say(&format!("{excess} too many in {played} failovers"));
    assert!(excess > 0, "no failover has lost anything, so they prove nothing");
}

/// What came of one key of one level.
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
}

/// Plays one failover.
async fn play(seed: u64, debt_keys_max: usize) -> Vec<Outcome> {
    let mut rng = Rng::seed_from_u64(seed);
    let mut stage = Stage::new(&mut rng, debt_keys_max).await;
    let begun = Instant::now();
    let everybody = 0..stage.fleet.len();
    let appetite = rng.random_range(0..=60);
    stage.spend(&mut rng, everybody.clone(), appetite).await;
    if rng.random() {
        stage.servers.until_replicated().await;
    }
    stage.servers.cut_off();
    let appetite = rng.random_range(1..=60);
    stage.spend(&mut rng, everybody.clone(), appetite).await;
    // Those who will die get something that no survivor hears of.
    let appetite = rng.random_range(0..10);
    stage.spend(&mut rng, stage.survivors..everybody.end, appetite).await;
    let is_quiet = rng.random_ratio(2, 3);
    stage.fail_over(&mut rng).await;
    if is_quiet && debt_keys_max > 0 {
        stage.until_all_is_paid().await;
    }
    stage.spend_all(&mut rng).await;
    stage.outcomes(begun.elapsed())
}

/// A fleet before a server with a replica. One tenant, some users, and a level or two for each.
struct Stage {
    servers: Servers,
    namespace: Namespace,
    levels: Vec<Level>,
    users: Vec<String>,
    accounts: Vec<Account>,
    fleet: Vec<Instance>,
    survivors: usize,
    debt_keys_max: usize,
}

struct Level {
    name: String,
    /// Of a user, or of the tenant with all of them.
    is_of_user: bool,
    quota: Quota,
}

/// What the oracle knows of one key of one level.
struct Account {
    level: usize,
    user: Option<usize>,
    admitted: u64,
    /// Admitted after the last answer to a survivor.
    unseen: u64,
    /// Which survivors were told that anything is spent.
    knows: Vec<bool>,
    /// When it began and what was granted, after the failover.
    late: Vec<(Instant, u64)>,
}

struct Instance {
    redis: Redis,
    limits: Limits<Watched>,
    merged: Merged,
}

impl Stage {
    async fn new(rng: &mut Rng, debt_keys_max: usize) -> Self {
        let servers = Servers::start(rng).await;
        let level = |number: usize| Level {
            name: format!("level-{number}"),
            is_of_user: number > 0,
            quota: quota(rng),
        };
        let levels: Vec<Level> = (0..3).map(level).collect();
        let users: Vec<String> =
            (0..rng.random_range(1..=3)).map(|user| format!("u{user}")).collect();
        let survivors = rng.random_range(1..=3);
        let accounts = levels.iter().enumerate().flat_map(|(level, one)| {
            let users = (0..users.len()).map(Some).filter(|_| one.is_of_user);
            let all = (!one.is_of_user).then_some(None);
            users.chain(all).map(move |user| (level, user))
        });
        let account = |(level, user)| Account {
            level,
            user,
            admitted: 0,
            unseen: 0,
            knows: vec![false; survivors],
            late: Vec::new(),
        };
        let accounts = accounts.map(account).collect();
        let namespace = Namespace::new("fleet").unwrap();
        let fleet = Vec::new();
        let mut stage =
            Self { servers, namespace, levels, users, accounts, fleet, survivors, debt_keys_max };
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
        let mut limits = Limits::builder(executor, &self.namespace, "api", &["tenant", "user"])
            .on_unavailable(Unavailable::Deny)
            .deadline(SOON)
            .debt_keys_max(self.debt_keys_max)
            .probe_every(Duration::from_millis(1));
        for Level { name, is_of_user, quota } in &self.levels {
            let by: &[&str] = if *is_of_user { &["tenant", "user"] } else { &["tenant"] };
            limits = limits.rate(name, by, *quota);
        }
        Instance { redis, limits: limits.build().unwrap(), merged }
    }

    /// Some of the instances call for any users, and now and then only look.
    async fn spend(&mut self, rng: &mut Rng, who: std::ops::Range<usize>, calls: usize) {
        if who.is_empty() {
            return;
        }
        for _ in 0..calls {
            let (who, user) =
                (rng.random_range(who.clone()), rng.random_range(0..self.users.len()));
            let keys = ["t", &self.users[user]];
            let (limits, cost) = (&self.fleet[who].limits, rng.random_range(1..=3));
            let is_look = rng.random_ratio(1, 10);
            let ruling = if is_look {
                limits.peek(&keys, cost).await
            } else {
                limits.check(&keys, cost).await
            };
            let ruling = ruling.unwrap();
            assert_eq!(ruling.decision.source(), Source::Shared);
            let granted = if ruling.is_allowed() && !is_look { cost } else { 0 };
            for account in self.accounts.iter_mut().filter(|account| account.is_of(user)) {
                account.admitted += granted;
                account.unseen += granted;
                if who < self.survivors {
                    account.unseen = 0;
                    account.knows[who] |= account.admitted > 0;
                }
            }
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

    /// Where an account is kept.
    fn cell(&self, account: &Account) -> Key {
        let Level { name, quota, .. } = &self.levels[account.level];
        let part = match quota {
            Quota::Gcra(_) => "gcra",
            Quota::SlidingWindow(_) => "window",
            Quota::TokenBucket(_) => "bucket",
            Quota::FixedWindow(_) => "fixed",
            _ => "log",
        };
        let name = account.user.map_or_else(
            || name.clone(),
            |user| format!("{name}/1.{}={}", self.users[user].len(), self.users[user]),
        );
        let tag = self.namespace.tag("limits", b"api/t").unwrap();
        tag.named(part, name.as_bytes()).unwrap()
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
        let is_paid = async || self.accounts.iter().all(|account| self.paid_at(account).is_some());
        eventually(SOON, "the survivors' debts to arrive", is_paid).await;
    }

    /// All call for each user until a level refuses, which is one that is used up.
    async fn spend_all(&mut self, rng: &mut Rng) {
        for user in 0..self.users.len() {
            loop {
                let who = rng.random_range(0..self.fleet.len());
                let begun = Instant::now();
                let keys = ["t", &self.users[user]];
                let ruling = self.fleet[who].limits.check(&keys, 1).await.unwrap();
                if ruling.decision.source() != Source::Shared {
                    // The way to the new primary is not there yet.
                    tokio::task::yield_now().await;
                    continue;
                }
                let mut own = self.accounts.iter_mut().filter(|account| account.is_of(user));
                if !ruling.is_allowed() {
                    let max = |account: &Account| self.levels[account.level].quota.cost_max();
                    let is_full = own.any(|account| account.admitted >= u64::from(max(account)));
                    assert!(is_full, "too few: {ruling:?}");
                    break;
                }
                own.for_each(|account| {
                    account.admitted += 1;
                    account.late.push((begun, 1));
                });
            }
        }
    }

    fn outcomes(&self, elapsed: Duration) -> Vec<Outcome> {
        let outcome = |account: &Account| {
            let quota = self.levels[account.level].quota;
            let earned = match quota {
                Quota::Gcra(quota) => elapsed.as_micros() as u64 / quota.interval_us() + 1,
                _ => 0,
            };
            let paid_at = self.paid_at(account);
            let is_late = |begun: Instant| paid_at.is_none_or(|paid_at| begun <= paid_at);
            let late = account.late.iter().filter(|(begun, _)| is_late(*begun));
            Outcome {
                quota,
                admitted: account.admitted,
                contract: u64::from(quota.cost_max()) + earned,
                seen_too_late: late.map(|(_, cost)| cost).sum(),
                seen_by_nobody: account.unseen,
            }
        };
        self.accounts.iter().map(outcome).collect()
    }
}

impl Account {
    fn is_of(&self, user: usize) -> bool {
        self.user.is_none_or(|own| own == user)
    }
}

/// No cell comes back while a test runs.
fn quota(rng: &mut Rng) -> Quota {
    let most = rng.random_range(10..=60);
    match rng.random_range(0..5) {
        0 => Quota::gcra(1, HOUR, most).unwrap(),
        1 => Quota::sliding_window(most, HOUR).unwrap(),
        2 => Quota::token_bucket(1, HOUR, most).unwrap(),
        3 => support::fixed_window_just_begun(most),
        _ => Quota::sliding_log(most, HOUR).unwrap(),
    }
}
