//! What this backend costs beside the bare client library, as ratios of rates in one process.
//!
//! `cargo run --release -p fleetwide-redis-backend --example overhead_redis [rounds]`
//!
//! Each round runs the bare connection and ours one after the other, so that a busy machine hits
//! both alike; the ratio of a round is ours / bare, and the table shows their median and spread.
#![allow(clippy::print_stdout, reason = "a table is what this program is for")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Effects, ExecutorExt, Key, Malformed, Namespace, Script, ScriptClock,
    ServerTime, Store, Tag, Ttl, Wire,
};
use fleetwide_redis_backend::{Redis, RedisUrl};
use fleetwide_testkit::RedisServer;
use redis::aio::MultiplexedConnection;

const ROUND: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(5);
const TASKS: [usize; 3] = [1, 64, 256];

static TAG: LazyLock<Tag> =
    LazyLock::new(|| Namespace::new("bench").unwrap().tag("overhead", b"a").unwrap());
static MGET: Script = Script::command("MGET");
static SPEND: Script = Script::timed(
    "spend",
    &[
        "local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now) + tonumber(ARGV[1])\n\
       redis.call('SET', KEYS[1], string.format('%.0f', tat), 'PX', 60000)\n\
       return { 1, tat - now }",
    ],
);

/// `MGET value meta`, as a cache reads its second tier.
struct Read([Key; 2]);

impl AtomicOp for Read {
    type State = ();
    type Reply = usize;

    fn script(&self) -> &'static Script {
        &MGET
    }

    fn keys(&self) -> &[Key] {
        &self.0
    }

    fn args(&self, _: &mut dyn ArgSink) {}

    fn apply(&self, _: &[Option<&()>], _: ServerTime, _: &mut Effects<()>) -> usize {
        0
    }

    fn decode(&self, reply: Wire) -> Result<usize, Malformed> {
        let [value, _meta] = reply.into_array()?;
        Ok(value.into_optional_bytes()?.map_or(0, |bytes| bytes.len()))
    }
}

/// A small timed script, as a rate limiter runs it.
struct Spend([Key; 1]);

impl AtomicOp for Spend {
    type State = ();
    type Reply = i64;

    fn script(&self) -> &'static Script {
        &SPEND
    }

    fn keys(&self) -> &[Key] {
        &self.0
    }

    fn args(&self, to: &mut dyn ArgSink) {
        to.int(1);
    }

    fn apply(&self, _: &[Option<&()>], _: ServerTime, _: &mut Effects<()>) -> i64 {
        0
    }

    fn decode(&self, reply: Wire) -> Result<i64, Malformed> {
        let [allowed, _] = reply.into_array()?;
        allowed.into_int()
    }
}

#[tokio::main]
async fn main() {
    let rounds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(9);
    let server = RedisServer::start().await.expect("a redis-server");
    let client = redis::Client::open(server.url()).expect("a valid URL");
    // The same deadline on both sides, and one that no pause of the machine reaches.
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
    let bare = client.get_multiplexed_async_connection_with_config(&config).await;
    let bare = bare.expect("a connection");
    let ours = handle(&server, |builder| builder).await;
    let value = Bytes::from(vec![b'x'; 100]);
    let key = TAG.key();
    ours.store().set(&key, value, Ttl::MAX).await.expect("a stored value");

    println!(
        "{:<34} {:>5}  {:>8} {:>8}  {:<19} client CPU per call",
        "", "tasks", "bare/s", "ours/s", "ours/bare (spread)"
    );
    for tasks in TASKS {
        compare("GET", tasks, rounds, get(&bare), get_ours(&ours)).await;
        compare("MGET through run", tasks, rounds, mget(&bare), mget_ours(&ours)).await;
        compare("EVALSHA through run", tasks, rounds, evalsha(&bare), spend(&ours)).await;
    }
    let nagle = handle(&server, |builder| builder.nodelay(false)).await;
    let two = handle(&server, |builder| builder.connections(2)).await;
    compare("GET, ours without TCP_NODELAY", 64, rounds, get(&bare), get_ours(&nagle)).await;
    compare("GET, ours with 2 connections", 64, rounds, get(&bare), get_ours(&two)).await;
}

async fn handle(
    server: &RedisServer,
    options: impl FnOnce(fleetwide_redis_backend::RedisBuilder) -> fleetwide_redis_backend::RedisBuilder,
) -> Redis {
    let url = RedisUrl::parse(&server.url()).expect("a valid URL");
    let builder = Redis::builder(url).command_timeout(PATIENCE).total_timeout(PATIENCE * 2);
    let redis = options(builder).build().expect("valid options");
    redis.ready(PATIENCE).await.expect("a connection");
    redis
}

async fn compare<A, FA, B, FB>(what: &str, tasks: usize, rounds: usize, bare: A, ours: B)
where
    A: Fn() -> FA + Clone + Send + Sync + 'static,
    FA: Future<Output = ()> + Send,
    B: Fn() -> FB + Clone + Send + Sync + 'static,
    FB: Future<Output = ()> + Send,
{
    let mut rates = Vec::new();
    for round in 0..=rounds {
        // Taking turns at going first; the round zero warms up.
        let (one, other) = if round % 2 == 0 {
            let one = rate(tasks, bare.clone()).await;
            (one, rate(tasks, ours.clone()).await)
        } else {
            let other = rate(tasks, ours.clone()).await;
            (rate(tasks, bare.clone()).await, other)
        };
        if round > 0 {
            rates.push((one, other));
        }
    }
    let median = |mut numbers: Vec<f64>| {
        numbers.sort_by(f64::total_cmp);
        (numbers[numbers.len() / 2], numbers[0], numbers[numbers.len() - 1])
    };
    let (one, ..) = median(rates.iter().map(|pair| pair.0.per_second).collect());
    let (other, ..) = median(rates.iter().map(|pair| pair.1.per_second).collect());
    let per_second = |pair: &(Rate, Rate)| pair.1.per_second / pair.0.per_second;
    let (ratio, low, high) = median(rates.iter().map(per_second).collect());
    let (cpu_one, ..) = median(rates.iter().map(|pair| pair.0.cpu_us).collect());
    let (cpu_other, ..) = median(rates.iter().map(|pair| pair.1.cpu_us).collect());
    println!(
        "{what:<34} {tasks:>5}  {one:>8.0} {other:>8.0}  {ratio:.2} ({low:.2} .. {high:.2})  \
         {cpu_one:.2} -> {cpu_other:.2} us"
    );
}

/// What one round showed. The CPU time is steadier than the rate on a machine that has other work.
#[derive(Clone, Copy)]
struct Rate {
    per_second: f64,
    cpu_us: f64,
}

fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Calls per second of `tasks` tasks that call one after the other.
async fn rate<F, Fut>(tasks: usize, call: F) -> Rate
where
    F: Fn() -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send,
{
    let done = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let workers: Vec<_> = (0..tasks)
        .map(|_| {
            let (call, done, stop) = (call.clone(), Arc::clone(&done), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    call().await;
                    count += 1;
                }
                done.fetch_add(count, Ordering::Relaxed);
            })
        })
        .collect();
    tokio::time::sleep(ROUND).await;
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.expect("a worker that does not panic");
    }
    let calls = done.load(Ordering::Relaxed) as f64;
    Rate {
        per_second: calls / start.elapsed().as_secs_f64(),
        cpu_us: (cpu_seconds() - cpu) * 1e6 / calls,
    }
}

fn get(bare: &MultiplexedConnection) -> impl Fn() -> GetFuture + Clone + use<> {
    let bare = bare.clone();
    move || {
        let mut connection = bare.clone();
        Box::pin(async move {
            let mut get = redis::cmd("GET");
            get.arg(TAG.as_bytes());
            let value: Vec<u8> = get.query_async(&mut connection).await.expect("a value");
            assert_eq!(value.len(), 100);
        })
    }
}

type GetFuture = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

fn mget(bare: &MultiplexedConnection) -> impl Fn() -> GetFuture + Clone + use<> {
    let bare = bare.clone();
    let meta = TAG.part("meta");
    move || {
        let mut connection = bare.clone();
        let meta = meta.clone();
        Box::pin(async move {
            let mut mget = redis::cmd("MGET");
            mget.arg(TAG.as_bytes()).arg(meta.as_bytes());
            let (value, _): (Vec<u8>, Option<Vec<u8>>) =
                mget.query_async(&mut connection).await.expect("two values");
            assert_eq!(value.len(), 100);
        })
    }
}

fn evalsha(bare: &MultiplexedConnection) -> impl Fn() -> GetFuture + Clone + use<> {
    let bare = bare.clone();
    let key = TAG.part("spent");
    move || {
        let mut connection = bare.clone();
        let key = key.clone();
        Box::pin(async move {
            let mut evalsha = redis::cmd("EVALSHA");
            evalsha.arg(SPEND.sha(ScriptClock::Server)).arg(1).arg(key.as_bytes()).arg(1);
            let reply: redis::RedisResult<(i64, i64)> = evalsha.query_async(&mut connection).await;
            if reply.is_err() {
                let mut load = redis::cmd("SCRIPT");
                load.arg("LOAD").arg(SPEND.source(ScriptClock::Server));
                let _: String = load.query_async(&mut connection).await.expect("a hash");
            }
        })
    }
}

fn get_ours(ours: &Redis) -> impl Fn() -> GetFuture + Clone + use<> {
    let (store, key) = (ours.store(), TAG.key());
    move || {
        let (store, key) = (store.clone(), key.clone());
        Box::pin(async move {
            let value = store.get(&key).await.expect("a value");
            assert_eq!(value.map_or(0, |value| value.len()), 100);
        })
    }
}

fn mget_ours(ours: &Redis) -> impl Fn() -> GetFuture + Clone + use<> {
    let executor = ours.executor();
    let read = Arc::new(Read([TAG.key(), TAG.part("meta")]));
    move || {
        let (executor, read) = (executor.clone(), Arc::clone(&read));
        Box::pin(async move {
            assert_eq!(executor.run(&*read).await.expect("two values"), 100);
        })
    }
}

fn spend(ours: &Redis) -> impl Fn() -> GetFuture + Clone + use<> {
    let executor = ours.executor();
    let spend = Arc::new(Spend([TAG.part("spent")]));
    move || {
        let (executor, spend) = (executor.clone(), Arc::clone(&spend));
        Box::pin(async move {
            executor.run(&*spend).await.expect("a decision");
        })
    }
}
