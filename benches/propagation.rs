//! How long until another instance sees a write?

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fleetwide_benches::{Answer, Effort, Node, NodeOptions, Row, Server, Spread, User, runtime};
use fleetwide_core_traits::Namespace;
use fleetwide_redis_backend::RedisExecutor;
use futures_util::{FutureExt as _, StreamExt as _};
use redis::aio::MultiplexedConnection;
use tokio::runtime::Runtime;

/// Writes of a round, half of them before and half of them after what they are compared with.
const WRITES: usize = 200;
/// Between two looks. A look that never paused would take a core from those it waits for.
const PAUSE: Duration = Duration::from_micros(10);
const CHANNEL: &str = "{bench:bare}:news";

fn main() {
    let runtime = runtime();
    let server = runtime.block_on(Server::start());
    let bare = runtime.block_on(Bare::new(&server));
    let fleet = runtime.block_on(Fleet::new(&server));
    let rounds = Effort::slices_of(Duration::ZERO).rounds();
    let mut answer = Answer::new("How long until another instance sees a write?");
    for (name, write) in
        [("`invalidate`", Fleet::invalidate as fn(&Fleet, &Runtime, u64)), ("`put`", Fleet::put)]
    {
        let (mut middle, mut tail) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let mut floor = times(WRITES / 2, || bare.once(&runtime));
            let ours = times(WRITES, || fleet.once(&runtime, write));
            floor.extend(times(WRITES / 2, || bare.once(&runtime)));
            middle.push(share(ours.clone(), 50) / share(floor.clone(), 50));
            tail.push(share(ours, 99) / share(floor, 99));
        }
        answer.row(Row::new(format!("{name}, p50"), Spread::of(middle)));
        answer.row(Row::new(format!("{name}, p99"), Spread::of(tail)));
    }
    answer.note(
        "Floor: a bare `PUBLISH` over one connection until it is received by a subscription on \
         another, in the same process. Ours: from the call of the writer until the old value is \
         no longer served out of L1 of another instance. Both are looked at every 10 µs by a \
         thread of their own. Ratios of the median and of the 99th percentile of 200 writes in a \
         round, one after the other: less is better.",
    );
    answer.note(
        "The write itself is in it: a script that removes or stores the value in Redis, appends to \
         the log, and publishes.",
    );
    answer.keep("propagation");
}

fn times(count: usize, mut one: impl FnMut() -> Duration) -> Vec<Duration> {
    (0..count).map(|_| one()).collect()
}

fn share(mut times: Vec<Duration>, percent: usize) -> f64 {
    times.sort();
    times[(times.len() - 1) * percent / 100].as_secs_f64()
}

fn until(mut is_seen: impl FnMut() -> bool) {
    while !is_seen() {
        thread::sleep(PAUSE);
    }
}

/// A publisher, and a subscription that notes what came last.
struct Bare {
    publisher: MultiplexedConnection,
    sent: AtomicU64,
    received: Arc<AtomicU64>,
}

impl Bare {
    async fn new(server: &Server) -> Self {
        let received = Arc::new(AtomicU64::new(0));
        let mut subscription = server.bare_subscription(CHANNEL).await;
        let heard = Arc::clone(&received);
        tokio::spawn(async move {
            while let Some(message) = subscription.next().await {
                let number = message.get_payload().expect("only this bench publishes here");
                heard.store(number, Ordering::Release);
            }
        });
        Self { publisher: server.bare().await, sent: AtomicU64::new(0), received }
    }

    fn once(&self, runtime: &Runtime) -> Duration {
        let number = self.sent.fetch_add(1, Ordering::Relaxed) + 1;
        let mut connection = self.publisher.clone();
        let begun = Instant::now();
        let published = runtime.spawn(async move {
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(CHANNEL).arg(number);
            publish.query_async::<()>(&mut connection).await.expect("the server runs");
        });
        until(|| self.received.load(Ordering::Acquire) == number);
        let took = begun.elapsed();
        runtime.block_on(published).expect("publishing does not panic");
        took
    }
}

/// Two instances.
struct Fleet {
    writer: Node<RedisExecutor>,
    reader: Node<RedisExecutor>,
    key: String,
}

impl Fleet {
    async fn new(server: &Server) -> Self {
        let namespace = Namespace::new("bench").expect("a plain name");
        let mut nodes = Vec::new();
        for _ in 0..2 {
            let redis = server.ours().await;
            let options = NodeOptions::default();
            nodes.push(Node::start(redis.executor(), redis.bus(), &namespace, options).await);
        }
        let [writer, reader] = nodes.try_into().ok().expect("two were started");
        Self { writer, reader, key: "customer".to_owned() }
    }

    fn once(&self, runtime: &Runtime, write: fn(&Self, &Runtime, u64)) -> Duration {
        runtime.block_on(async {
            self.writer.cache.put(&self.key, User::new(1)).await.expect("the server runs");
            // What was put may still be on its way to the log of the other one.
            while !self.is_held() {
                let load = |_| async { Ok::<_, std::convert::Infallible>(User::new(1)) };
                self.reader.cache.get_or_load(&self.key, load).await.expect("it is there");
            }
        });
        let begun = Instant::now();
        write(self, runtime, 2);
        until(|| !self.is_held());
        begun.elapsed()
    }

    /// Whether the reader has the old value in its L1.
    fn is_held(&self) -> bool {
        let look = self.reader.cache.at(&self.key).skip_l2().get();
        look.now_or_never().flatten().is_some()
    }

    fn invalidate(&self, runtime: &Runtime, _: u64) {
        let (cache, key) = (self.writer.cache.clone(), self.key.clone());
        drop(runtime.spawn(async move { cache.invalidate(&key).await }));
    }

    fn put(&self, runtime: &Runtime, id: u64) {
        let (cache, key) = (self.writer.cache.clone(), self.key.clone());
        drop(runtime.spawn(async move { cache.put(&key, User::new(id)).await }));
    }
}
