//! What do many keys at once cost?

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fleetwide_benches::counted::Counted;
use fleetwide_benches::{
    Answer, Contest, Effort, Measure, Node, NodeOptions, Row, Server, Spread, User, cold, on_tasks,
    runtime,
};
use fleetwide_core_traits::Namespace;
use fleetwide_redis_backend::RedisExecutor;
use tokio::task::yield_now;

/// Keys of a question, and how many of them are in Redis.
const KEYS: usize = 100;
const STORED: usize = 70;
const ROUNDS: usize = 5;

fn main() {
    let runtime = runtime();
    let server = runtime.block_on(Server::start());
    let mut answer = Answer::new("What do many keys at once cost?");
    for row in runtime.block_on(counts(&server)) {
        answer.row(row);
    }
    let customers = cold::Customers::new();
    let sides = runtime.block_on(async {
        cold::fill_bare(server.bare().await, &customers).await;
        let (node, single) = cold::ours(&server, &customers).await;
        let floor = cold::bare_many(server.bare().await, &customers, KEYS);
        (floor, cold::ours_many(&node, &customers, KEYS), cold::at_once(&single, KEYS))
    });
    let (floor, many, singles) = sides;
    let effort = Effort::slices_of(Duration::from_millis(100));
    for tasks in [1, 8] {
        let floor = on_tasks(&runtime, tasks, &floor);
        let mut contest = Contest::new(Measure::Rate, effort, floor);
        for (name, side) in [("`get_many`", &many), ("one by one, all at once", &singles)] {
            let name = format!("{name}, {tasks} at a time");
            answer.row(Row::new(name, contest.ratio(on_tasks(&runtime, tasks, side))));
        }
    }
    answer.note(
        "First counts, of a question for 100 keys of which Redis has 70, and the origin the other \
         30: round trips, commands and calls of the loader, with what is stored in the background. \
         One command reads, 30 take leases, 30 store.",
    );
    answer.note(
        "Then ratios of questions per second, for 100 keys that are all in Redis and not in L1: \
         more is better. Floor: one `MGET` of 100 keys over one `MultiplexedConnection`, and \
         decoding. Each value is taken into a full L1, as on the page of single hits in L2.",
    );
    answer.keep("bulk");
}

async fn counts(server: &Server) -> Vec<Row> {
    let redis = server.ours().await;
    let namespace = Namespace::new("counted").expect("a plain name");
    let counted: Counted<RedisExecutor> = Counted::new(redis.executor());
    let options = NodeOptions::default();
    let node = Node::start(counted.clone(), redis.bus(), &namespace, options).await;
    let (mut trips, mut commands, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let keys: Vec<String> = (0..KEYS).map(|at| format!("question-{round}-{at}")).collect();
        let stored = keys[..STORED].iter().map(|key| (key.clone(), User::new(1)));
        node.cache.put_many(stored).await.expect("the server runs");
        let before = node.cache.stats().fills_stored;
        counted.take();
        let asked = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&asked);
        let load = move |missing: Vec<String>| {
            count.fetch_add(1, Ordering::Relaxed);
            let loaded = missing.into_iter().map(|key| (key, User::new(2)));
            let loaded: Vec<_> = loaded.collect();
            async move { Ok::<_, Infallible>(loaded) }
        };
        let found = node.cache.get_many(&keys).skip_l1().load(load).await;
        assert_eq!(found.expect("the origin answers").len(), KEYS);
        while node.cache.stats().fills_stored < before + (KEYS - STORED) as u64 {
            yield_now().await;
        }
        let seen = counted.take();
        trips.push(seen.0 as f64);
        commands.push(seen.1 as f64);
        calls.push(asked.load(Ordering::Relaxed) as f64);
    }
    vec![
        Row::new("`get_many`: round trips", Spread::of(trips)).target("<= 3"),
        Row::new("`get_many`: commands", Spread::of(commands)).target("<= 61"),
        Row::new("`get_many`: calls of the loader", Spread::of(calls)).target("<= 1"),
    ]
}
