//! What does a decision without a trip cost?

use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_benches::{
    Answer, Contest, Effort, Measure, Row, Work, keys, on_tasks, runtime, work,
};
use fleetwide_core_traits::Namespace;
use fleetwide_limiter::{Leasing, Limiter, Quota, Source, Unavailable};
use fleetwide_mem_backend::{MemExecutor, Memory};
use governor::{DefaultKeyedRateLimiter, Quota as GovernorQuota, RateLimiter};
use tokio::runtime::Runtime;

/// Callers that are limited one by one.
const CALLERS: u64 = 1_024;
/// A decision that takes less is fast enough, however fast the floor is.
const ENOUGH: Duration = Duration::from_nanos(150);
const HOUR: Duration = Duration::from_hours(1);

fn main() {
    let runtime = runtime();
    let mut answer = Answer::new("What does a decision without a trip cost?");
    // A cell per nanosecond: its clock counts no finer.
    let open = GovernorQuota::per_second(NonZeroU32::new(1_000_000_000).expect("not zero"));
    let shut = GovernorQuota::with_period(HOUR).expect("an hour is a period");
    let allows = (governor(open, true), leased(&runtime));
    let refuses = (governor(shut, false), refused(&runtime));
    for (name, (floor, ours)) in [("leased", allows), ("refused again", refuses)] {
        for tasks in [1, 4] {
            let effort = Effort::slices_of(Duration::from_millis(40));
            let mut contest =
                Contest::new(Measure::Cost, effort, on_tasks(&runtime, tasks, &floor));
            let time = contest.floors_in(ENOUGH);
            let spread = contest.ratio(on_tasks(&runtime, tasks, &ours));
            let row = Row::new(format!("{name}, {tasks} task(s)"), spread);
            let target = format!("<= {:.1}", time.max(1.5));
            answer.row(if tasks == 1 { row.target(target) } else { row });
        }
    }
    answer.note(
        "Floor: `governor` 0.10.4, keyed by `String`, with its default clock; it limits this process \
         alone. Ratios are of time per decision: less is better. 1,024 callers are limited one by one. \
         *Leased*: all are allowed, ours from cells that were bought ahead. *Refused again*: all have \
         used up their quota, and ours remembers what the fleet has said. The target is 1.5, or what \
         150 ns are in decisions of the floor, if that is more.",
    );
    answer.keep("limiter_local");
}

fn governor(quota: GovernorQuota, is_allowed: bool) -> Work {
    let limiter: Arc<DefaultKeyedRateLimiter<String>> = Arc::new(RateLimiter::keyed(quota));
    let keys: Arc<[String]> = keys(CALLERS).into();
    for key in keys.iter() {
        let _ = black_box(limiter.check_key(key));
    }
    work(move |mut turns| {
        let (limiter, keys) = (Arc::clone(&limiter), Arc::clone(&keys));
        async move {
            while let Some(turn) = turns.next() {
                let decision = limiter.check_key(&keys[(turn % CALLERS) as usize]);
                assert!(decision.is_ok() == is_allowed);
                let _ = black_box(decision);
            }
        }
    })
}

/// All callers have cells in hand, bought of the largest quota there is.
fn leased(runtime: &Runtime) -> Work {
    let quota = Quota::sliding_window(u32::MAX.into(), Duration::from_secs(80));
    let leasing = Leasing::new().lifetime(Duration::from_secs(40));
    let limiter = limiter(quota.expect("within bounds"), Some(leasing));
    runtime.block_on(async {
        for key in keys(CALLERS) {
            while limiter.check(&key).await.expect("good keys").source() != Source::Leased {
                tokio::task::yield_now().await;
            }
        }
    });
    calls(limiter, Source::Leased)
}

/// All callers are refused, and remembered for an hour.
fn refused(runtime: &Runtime) -> Work {
    let limiter = limiter(Quota::sliding_window(1, HOUR).expect("within bounds"), None);
    runtime.block_on(async {
        for key in keys(CALLERS) {
            while limiter.check(&key).await.expect("good keys").is_allowed() {}
        }
    });
    calls(limiter, Source::Remembered)
}

fn limiter(quota: Quota, leasing: Option<Leasing>) -> Limiter<MemExecutor> {
    let namespace = Namespace::new("bench").expect("a plain name");
    let options = Limiter::builder(Memory::new().executor().clone(), &namespace, "local", quota)
        .on_unavailable(Unavailable::Deny)
        .deny_cache(HOUR);
    let options = match leasing {
        Some(leasing) => options.leased(leasing),
        None => options,
    };
    options.build().expect("the options fit together")
}

fn calls(limiter: Limiter<MemExecutor>, source: Source) -> Work {
    let keys: Arc<[String]> = keys(CALLERS).into();
    work(move |mut turns| {
        let (limiter, keys) = (limiter.clone(), Arc::clone(&keys));
        async move {
            let mut trips = 0;
            let mut count = 0;
            while let Some(turn) = turns.next() {
                let decision = limiter.check(&keys[(turn % CALLERS) as usize]).await;
                let decision = decision.expect("the keys are good");
                count += 1;
                trips += u64::from(decision.source() != source);
                let _ = black_box(decision);
            }
            assert!(trips <= count / 50 + CALLERS, "{trips} of {count} calls made a trip");
        }
    })
}
