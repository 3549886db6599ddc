//! How exact is each way to count?

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_benches::traffic::{Arrival, arrivals, exact, fullest};
use fleetwide_benches::{Answer, Row, Spread, runtime};
use fleetwide_core_traits::{BackendError, Either, ErasedOp, Executor, Namespace, Outage, Script};
use fleetwide_limiter::{Leasing, Limiter, Quota, Unavailable};
use fleetwide_mem_backend::{MemExecutor, Memory};
use fleetwide_testkit::SimClock;
use governor::clock::FakeRelativeClock;
use governor::{Quota as GovernorQuota, RateLimiter};
use tokio::task::yield_now;

/// What each key may spend in any second.
const MAX: usize = 100;
const WINDOW: Duration = Duration::from_secs(1);
/// Calls a second: twice what fits.
const OFFERED: f64 = 200.0;
const LENGTH: Duration = Duration::from_mins(1);
const INSTANCES: u32 = 4;
const SEEDS: u64 = 5;

fn main() {
    let mut answer = Answer::new("How exact is each way to count?");
    let runtime = runtime();
    for mode in modes() {
        let (mut over, mut under) = (Vec::new(), Vec::new());
        for seed in 0..SEEDS {
            let calls = arrivals(OFFERED, LENGTH, INSTANCES as usize, seed);
            let admitted = runtime.block_on(mode.admits(&calls));
            let exact = exact(&calls, MAX, WINDOW) as f64;
            over.push(100.0 * (fullest(&admitted, WINDOW) as f64 / MAX as f64 - 1.0).max(0.0));
            under.push(100.0 * (1.0 - admitted.len() as f64 / exact));
        }
        let row = Row::new(format!("{}: over", mode.name), Spread::of(over));
        answer.row(match mode.over_max {
            Some(target) => row.target(target),
            None => row,
        });
        let row = Row::new(format!("{}: under", mode.name), Spread::of(under));
        answer.row(row.note(mode.note));
    }
    answer.note(
        "In percent, not ratios. One key may spend 100 cells in any second, and is asked for about 200 \
         a second for a minute: at random moments, a quarter of them in crowds that come at once, \
         on four instances over one count. Time is simulated, so nothing here depends on the \
         machine; five seeds. *Over*: by how much the fullest second of all exceeds 100. *Under*: \
         how much less was admitted in all than by an exact log of the same calls; below zero, \
         more.",
    );
    answer.note(
        "What a target says is the promise of that way to count. GCRA and the token bucket \
         promise `burst + rate * time`, which for the burst of 100 is 200 in the first second; \
         the fixed window promises 100 between its boundaries.",
    );
    answer.keep("limiter_accuracy");
}

/// A way to count.
struct Mode {
    name: &'static str,
    side: Side,
    /// The most that it promises to be over, as a target.
    over_max: Option<&'static str>,
    note: &'static str,
}

enum Side {
    /// All instances of ours on one count.
    Ours(Quota, Option<Leasing>),
    /// All instances of ours, none of which has a server, so that each has its share.
    Shares(Quota),
    /// Instances that know nothing of each other.
    Governor,
}

fn modes() -> Vec<Mode> {
    let max = MAX as u64;
    let window = Quota::sliding_window(max, WINDOW).expect("within bounds");
    let ours = |quota: Result<Quota, _>| Side::Ours(quota.expect("within bounds"), None);
    let mode = |name, side, over_max, note| Mode { name, side, over_max, note };
    let lease = Leasing::new().cells_max(5).lifetime(Duration::from_millis(125));
    vec![
        mode("sliding log", ours(Quota::sliding_log(max, WINDOW)), Some("<= 0"), "exact"),
        mode(
            "sliding window",
            Side::Ours(window, None),
            Some("<= 0"),
            "a refusal means that 64/63 of a window is full",
        ),
        mode("GCRA, burst 100", ours(Quota::gcra(max, WINDOW, max)), Some("<= 100"), ""),
        mode("GCRA, burst 10", ours(Quota::gcra(max, WINDOW, 10)), Some("<= 10"), "no crowds"),
        mode(
            "token bucket, burst 100",
            ours(Quota::token_bucket(max, WINDOW, max)),
            Some("<= 100"),
            "",
        ),
        mode("fixed window", ours(Quota::fixed_window(max, WINDOW)), Some("<= 100"), ""),
        mode(
            "sliding window, leased",
            Side::Ours(window, Some(lease)),
            Some("<= 20"),
            "leases of 5 cells for 125 ms, on four instances",
        ),
        mode(
            "sliding window, local share",
            Side::Shares(window),
            Some("<= 0"),
            "no server; each of four instances has a quarter",
        ),
        mode("`governor` on each instance", Side::Governor, None, "nothing is shared"),
    ]
}

impl Mode {
    /// When calls were let through.
    async fn admits(&self, calls: &[Arrival]) -> Vec<Duration> {
        match &self.side {
            Side::Ours(quota, leasing) => {
                let clock = SimClock::new();
                let memory = Memory::builder().clock(Arc::new(clock.clone())).build();
                let executor = memory.executor().clone();
                let fleet = fleet(&Either::Left(executor), &clock, *quota, *leasing);
                asked(&fleet, &clock, calls).await
            }
            Side::Shares(quota) => {
                let clock = SimClock::new();
                let fleet = fleet(&Either::Right(Away), &clock, *quota, None);
                asked(&fleet, &clock, calls).await
            }
            Side::Governor => alone(calls),
        }
    }
}

type Ours = Limiter<Either<MemExecutor, Away>>;

fn fleet(
    executor: &Either<MemExecutor, Away>,
    clock: &SimClock,
    quota: Quota,
    leasing: Option<Leasing>,
) -> Vec<Ours> {
    let namespace = Namespace::new("bench").expect("a plain name");
    let instance = |_| {
        let options = Limiter::builder(executor.clone(), &namespace, "accuracy", quota)
            .on_unavailable(Unavailable::LocalShare { instances: INSTANCES })
            .clock(Arc::new(clock.clone()));
        let options = match leasing {
            Some(leasing) => options.leased(leasing),
            None => options,
        };
        options.build().expect("the options fit together")
    };
    (0..INSTANCES).map(instance).collect()
}

async fn asked(fleet: &[Ours], clock: &SimClock, calls: &[Arrival]) -> Vec<Duration> {
    let (mut now, mut admitted) = (Duration::ZERO, Vec::new());
    for call in calls {
        clock.advance(call.at.saturating_sub(now));
        now = call.at;
        let decision = fleet[call.instance].check("key").await.expect("a good key");
        if decision.is_allowed() {
            admitted.push(now);
        }
        // Lets what is bought in the background arrive.
        yield_now().await;
    }
    admitted
}

/// `governor`, a limiter per instance.
fn alone(calls: &[Arrival]) -> Vec<Duration> {
    let clock = FakeRelativeClock::default();
    let quota = GovernorQuota::per_second(NonZeroU32::new(MAX as u32).expect("not zero"));
    let limiter = |_| RateLimiter::direct_with_clock(quota, clock.clone());
    let fleet: Vec<_> = (0..INSTANCES).map(limiter).collect();
    let (mut now, mut admitted) = (Duration::ZERO, Vec::new());
    for call in calls {
        clock.advance(call.at.saturating_sub(now));
        now = call.at;
        if fleet[call.instance].check().is_ok() {
            admitted.push(now);
        }
    }
    admitted
}

/// A server that is gone.
#[derive(Clone)]
struct Away;

impl Executor for Away {
    async fn execute(&self, _op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        Err(BackendError::NotSent(Outage::Down("there is none".to_owned())))
    }

    fn prepare(&self, _scripts: &[&'static Script]) {}
}
