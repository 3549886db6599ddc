//! What do limits cost elsewhere, and how much do they let through?

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fleetwide_benches::peers::{tower_rate_limit, trypema};
use fleetwide_benches::{
    Answer, BareScript, Contest, Effort, Measure, Row, Server, Spread, Work, keys, on_tasks,
    runtime, work,
};
use fleetwide_core_traits::Namespace;
use fleetwide_limiter::op::{Check, cell};
use fleetwide_limiter::{GcraQuota, Leasing, Limiter, PolicyName, Quota, Unavailable};
use futures_util::future::BoxFuture;
use tokio::task::JoinSet;

/// Callers that are limited one by one where it is about speed.
const CALLERS: u64 = 4_096;
/// More than is asked for: a refusal would be another question.
const PLENTY: u32 = 60_000;
const MINUTE: Duration = Duration::from_mins(1);

/// Where it is about how much is let through: one caller, two instances, a crowd.
const FEW: u32 = 100;
const INSTANCES: usize = 2;
const TASKS: usize = 64;
const CALLS_EACH: usize = 50;
const ROUNDS: usize = 9;

/// Whether one more call of this key is allowed.
type Ask = Arc<dyn Fn(String) -> BoxFuture<'static, bool> + Send + Sync>;

fn main() {
    let runtime = runtime();
    let server = runtime.block_on(Server::start());
    let mut answer =
        Answer::new("What do limits cost elsewhere, and how much do they let through?");
    let effort = Effort::slices_of(Duration::from_millis(100));
    let floor = runtime.block_on(bare(&server));
    for side in Side::ALL {
        let Some(ask) = runtime.block_on(side.connect(&server, PLENTY)) else { continue };
        let mut contest = Contest::new(Measure::Rate, effort, on_tasks(&runtime, 64, &floor));
        let spread = contest.ratio(on_tasks(&runtime, 64, &calls(ask)));
        answer.row(Row::new(format!("{}: decisions, 64 tasks", side.name()), spread));
    }
    for side in Side::ALL {
        let mut over = Vec::new();
        for round in 0..ROUNDS {
            let mut sides = Vec::new();
            for _ in 0..INSTANCES {
                sides.extend(runtime.block_on(side.connect(&server, FEW)));
            }
            if sides.len() == INSTANCES {
                let key = format!("{}-{round}", side.name().len());
                over.push(runtime.block_on(crowd(side, &sides, key)));
            }
        }
        if over.is_empty() {
            continue;
        }
        let row = Row::new(format!("{}: over", side.name()), Spread::of(over));
        answer.row(if side.is_ours() { row.target("<= 0") } else { row });
    }
    answer.note(
        "*Decisions*: ratios of decisions per second, more is better; the floor is our GCRA script \
         by a bare `EVALSHA`, 4,096 callers are limited one by one and none is refused. *Over*: in \
         percent, by how much two instances with 32 tasks each, which ask 3,200 times as fast as they \
         can, are granted more than the limit of 100 a minute, counting for GCRA what has come back \
         meanwhile.",
    );
    answer.note(
        "`tower-rate-limit-redis` connects with Nagle's algorithm, as the client library does by \
         default: it gathers small writes, which pays on a loopback device and costs on a network. \
         `trypema` is 1.1.0, because 2.x does not build beside another peer; it asks for Redis 7.2, \
         and ran on the one of this machine. `limitador` needs OpenSSL to build, which this workspace \
         does not depend on, and `tower-redis-cell` needs a module in the server; they are not among \
         the rows.",
    );
    answer.keep("limiter_peers");
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Gcra,
    Window,
    Leased,
    Trypema,
    TrypemaHybrid,
    Tower,
}

impl Side {
    const ALL: [Self; 6] =
        [Self::Gcra, Self::Window, Self::Leased, Self::Trypema, Self::TrypemaHybrid, Self::Tower];

    const fn name(self) -> &'static str {
        match self {
            Self::Gcra => "**ours**, GCRA",
            Self::Window => "**ours**, sliding window",
            Self::Leased => "**ours**, sliding window, leased",
            Self::Trypema => "`trypema`, Redis",
            Self::TrypemaHybrid => "`trypema`, hybrid",
            Self::Tower => "`tower-rate-limit-redis`",
        }
    }

    /// Whether it promises to be never over here. Leases promise a bound, which is another.
    const fn is_ours(self) -> bool {
        matches!(self, Self::Gcra | Self::Window)
    }

    /// How many are earned back in so much time.
    fn comes_back(self, after: Duration) -> u64 {
        match self {
            Self::Gcra | Self::Tower => {
                (after.as_secs_f64() * f64::from(FEW) / MINUTE.as_secs_f64()).ceil() as u64
            }
            _ => 0,
        }
    }

    /// An instance; `None` if this server does not run its scripts.
    async fn connect(self, server: &Server, max: u32) -> Option<Ask> {
        let many = u64::from(max);
        let url = server.url_for_peers();
        Some(match self {
            Self::Gcra => ours(server, Quota::gcra(many, MINUTE, many), None).await,
            Self::Window => ours(server, Quota::sliding_window(many, MINUTE), None).await,
            Self::Leased => {
                ours(server, Quota::sliding_window(many, MINUTE), Some(Leasing::new())).await
            }
            Self::Trypema | Self::TrypemaHybrid => {
                let is_hybrid = self == Self::TrypemaHybrid;
                let limiter = trypema::Limited::connect(&url, max.into(), is_hybrid).await;
                limiter.allows("probe").await?;
                Arc::new(move |key| {
                    let limiter = limiter.clone();
                    Box::pin(
                        async move { limiter.allows(&key).await.expect("it has answered before") },
                    )
                })
            }
            Self::Tower => {
                let burst = u16::try_from(max).unwrap_or(u16::MAX);
                // It takes whole milliseconds.
                let interval = (MINUTE / max).max(Duration::from_millis(1));
                let limiter = tower_rate_limit::Limited::connect(&url, burst, interval).await;
                Arc::new(move |key| {
                    let limiter = limiter.clone();
                    Box::pin(async move { limiter.allows(&key).await })
                })
            }
        })
    }
}

async fn ours<T: std::fmt::Debug>(
    server: &Server,
    quota: Result<Quota, T>,
    leasing: Option<Leasing>,
) -> Ask {
    let executor = server.ours().await.executor();
    let namespace = Namespace::new("bench").expect("a plain name");
    let quota = quota.expect("within bounds");
    // Another count for each limit.
    let name = format!("peers-{}", quota.cost_max());
    let options = Limiter::builder(executor, &namespace, &name, quota)
        .on_unavailable(Unavailable::Deny)
        // A round of measuring must not end because this machine was busy elsewhere.
        .deadline(Duration::from_secs(1));
    let options = match leasing {
        Some(leasing) => options.leased(leasing),
        None => options,
    };
    let limiter = options.build().expect("the options fit together");
    Arc::new(move |key| {
        let limiter = limiter.clone();
        Box::pin(async move { limiter.check(&key).await.expect("a good key").is_allowed() })
    })
}

/// By how many percent a crowd on one key is granted too much.
async fn crowd(side: Side, sides: &[Ask], key: String) -> f64 {
    let granted = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (ask, key) = (Arc::clone(&sides[task % sides.len()]), key.clone());
        let granted = Arc::clone(&granted);
        tasks.spawn(async move {
            for _ in 0..CALLS_EACH {
                granted.fetch_add(u64::from(ask(key.clone()).await), Ordering::Relaxed);
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no call of a bench may panic");
    }
    let may = u64::from(FEW) + side.comes_back(begun.elapsed());
    100.0 * (granted.load(Ordering::Relaxed) as f64 / may as f64 - 1.0).max(0.0)
}

/// Calls of many keys, in turn.
fn calls(ask: Ask) -> Work {
    let keys: Arc<[String]> = keys(CALLERS).into();
    work(move |mut turns| {
        let (ask, keys) = (Arc::clone(&ask), Arc::clone(&keys));
        async move {
            while let Some(turn) = turns.next() {
                let allowed = ask(keys[(turn % CALLERS) as usize].clone()).await;
                black_box(allowed);
            }
        }
    })
}

/// The floor.
async fn bare(server: &Server) -> Work {
    let connection = server.bare().await;
    let namespace = Namespace::new("bench").expect("a plain name");
    let policy = PolicyName::new("bare").expect("a plain name");
    let quota = GcraQuota::new(u64::from(PLENTY), MINUTE, u64::from(PLENTY));
    let quota = quota.expect("within bounds");
    let key = |name: String| {
        cell::<GcraQuota>(&namespace, &policy, name.as_bytes()).expect("short names")
    };
    let keys: Arc<[_]> = keys(CALLERS).into_iter().map(key).collect();
    let op = Check::new(quota, keys[0].clone(), 1);
    let script = Arc::new(BareScript::of(&op, connection.clone()).await);
    work(move |mut turns| {
        let (mut connection, script) = (connection.clone(), Arc::clone(&script));
        let keys = Arc::clone(&keys);
        async move {
            while let Some(turn) = turns.next() {
                let key = keys[(turn % CALLERS) as usize].as_bytes();
                let reply: [i64; 4] = script.call(&mut connection, key).await;
                black_box(reply);
            }
        }
    })
}
