//! All steps on a node of a Redis Cluster that serves the slots of their keys and no other one: a script
//! that touched a key elsewhere, named or not, would be refused.

mod support;

use std::time::Duration;

use fleetwide_core_traits::{AtomicOp, ExecutorExt, Key, Namespace, ServerTime};
use fleetwide_limiter::concurrency::op::{Acquire, Look, Release, Renew};
use fleetwide_limiter::concurrency::{ConcurrencyLimiter, ConcurrencyQuota};
use fleetwide_limiter::multi::Limits;
use fleetwide_limiter::op::{
    AtMost, Batch, Block, Check, Delete, Merge, Once, Peek, Refund, Reset, cell, id_cell,
};
use fleetwide_limiter::{
    Algorithm, BucketQuota, Debit, FixedQuota, GcraQuota, LogQuota, Mark, Owed, PolicyName, Quota,
    Source, Unavailable, WindowQuota,
};
use fleetwide_redis_backend::RedisExecutor;
use fleetwide_testkit::{RedisServer, ReservedPort, eventually};

const HOUR: Duration = Duration::from_secs(3600);
/// A node waits for two seconds before it serves.
const SOON: Duration = Duration::from_secs(30);

/// A node that serves the slots of these hash tags.
struct Node {
    server: RedisServer,
    executor: RedisExecutor,
    namespace: Namespace,
    _bus: ReservedPort,
}

impl Node {
    async fn serving(tags: &[&str]) -> Self {
        let bus = ReservedPort::any().unwrap();
        let server = RedisServer::builder()
            .config("cluster-enabled", "yes")
            .config("cluster-port", &bus.get().to_string())
            .config("cluster-require-full-coverage", "no")
            .start()
            .await
            .unwrap();
        for tag in tags {
            let slot = server.admin(&["CLUSTER", "KEYSLOT", &format!("{{{tag}}}")]).await.unwrap();
            let slot = slot.as_integer().unwrap().to_string();
            server.admin(&["CLUSTER", "ADDSLOTS", &slot]).await.unwrap();
        }
        let is_serving = async || {
            let info = server.admin(&["CLUSTER", "INFO"]).await.unwrap();
            info.as_str().unwrap().contains("cluster_state:ok")
        };
        eventually(SOON, "the node to serve", is_serving).await;
        let executor = support::redis(&server, |options| options).await.executor();
        Self { server, executor, namespace: Namespace::new("shop").unwrap(), _bus: bus }
    }

    async fn run<O: AtomicOp>(&self, op: O) -> O::Reply {
        let script = op.script().name();
        self.executor.run(&op).await.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    async fn eval(&self, script: &str) -> Result<(), String> {
        let done = self.server.admin(&["EVAL", script, "0"]).await;
        done.map(drop).map_err(|error| error.to_string())
    }
}

fn policy() -> PolicyName {
    PolicyName::new("api").unwrap()
}

/// The verbs of one algorithm, on a key with nothing and on one with everything; how many ran.
async fn run_all<A: Algorithm>(node: &Node, quota: A) {
    let key = || cell::<A>(&node.namespace, &policy(), b"a").unwrap();
    let id = |id: &[u8]| -> Key { id_cell::<A>(&node.namespace, &policy(), b"a", id).unwrap() };
    for _ in 0..3 {
        node.run(Peek::new(quota, key(), 1)).await;
        let answer = node.run(Check::new(quota, key(), 2)).await;
        assert!(answer.verdict.is_allowed);
        let upto = answer.at.plus(Duration::from_micros(answer.verdict.reset_after_us));
        let debit = Debit { cost: 2, at: answer.at, upto, mark: Mark::default() };
        node.run(Batch::new(quota, key(), vec![1, 0, 1, 10]).unwrap()).await;
        node.run(AtMost::new(quota, key(), 3)).await;
        node.run(Refund::new(quota, key(), debit)).await;
        for _ in 0..2 {
            node.run(Once::new(quota, key(), id(b"one"), 1)).await;
        }
        let owed = Owed { left_us: 1_000_000, cells: 9, generation: 0, refunds: 0 };
        if let Some(merge) = Merge::new(quota, key(), owed) {
            node.run(merge).await;
        }
        node.run(Block::new(quota, key(), HOUR)).await;
        assert!(!node.run(Check::new(quota, key(), 1)).await.verdict.is_allowed);
        node.run(Reset::new(quota, key())).await;
        assert_ne!(node.run(Check::new(quota, key(), 1)).await.at, ServerTime::default());
    }
    node.run(Delete::<A>::new(key())).await;
}

// Seen red: with a `GET` of one more key in `lua/open.lua`, and in `lua/concurrency.lua`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_script_touches_a_key_outside_the_slot_of_its_own() {
    let node = Node::serving(&["shop:limiter:api/a"]).await;
    let elsewhere = node.eval("return redis.call('GET', 'elsewhere')").await.unwrap_err();
    assert!(elsewhere.contains("non local key"), "{elsewhere}");
    assert_eq!(node.eval("return redis.call('GET', '{shop:limiter:api/a}:x')").await, Ok(()));
    run_all(&node, GcraQuota::new(10, HOUR, 10).unwrap()).await;
    run_all(&node, WindowQuota::new(10, HOUR).unwrap()).await;
    run_all(&node, BucketQuota::new(10, HOUR, 10).unwrap()).await;
    run_all(&node, FixedQuota::new(10, HOUR).unwrap()).await;
    run_all(&node, LogQuota::new(10, HOUR).unwrap()).await;
    let quota = ConcurrencyQuota::new(2, HOUR).unwrap();
    let tag = node.namespace.tag("limiter", b"api/a").unwrap();
    let key = || tag.part("at-once");
    for id in 0..3 {
        node.run(Acquire::new(quota, key(), id, 1)).await;
        node.run(Look::new(key())).await;
        node.run(Renew::new(quota, key(), vec![(id, 1), (7, 1)])).await;
    }
    node.run(Release::new(key(), vec![0, 1, 2])).await;
}

// The same by the front door: the answers are the fleet's, so no step was refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_several_levels_and_permits_are_in_one_slot() {
    let node = Node::serving(&["shop:limits:api/a", "shop:limiter:api/a"]).await;
    let (executor, namespace) = (|| node.executor.clone(), &node.namespace);
    let two = ConcurrencyQuota::new(2, HOUR).unwrap();
    let permits = ConcurrencyLimiter::builder(executor(), namespace, "api", two)
        .on_unavailable(Unavailable::Deny)
        .deadline(SOON);
    let permit = permits.build().unwrap().try_acquire("a").await.unwrap().permit();
    permit.expect("two are free").release().await.unwrap();
    let rates = [
        ("one", Quota::gcra(9, HOUR, 9)),
        ("two", Quota::sliding_window(9, HOUR)),
        ("three", Quota::token_bucket(9, HOUR, 9)),
        ("four", Quota::fixed_window(9, HOUR)),
        ("five", Quota::sliding_log(9, HOUR)),
    ];
    let limits = || {
        Limits::builder(executor(), namespace, "api", &["tenant", "user"])
            .on_unavailable(Unavailable::Deny)
            .deadline(SOON)
    };
    let all = rates.into_iter().fold(limits(), |limits, (name, quota)| {
        let by: &[&str] = if name == "two" { &["tenant"] } else { &["tenant", "user"] };
        limits.rate(name, by, quota.unwrap())
    });
    let all = all.at_once("six", &["tenant", "user"], two).build().unwrap();
    for user in ["b", "c", "b"] {
        let admission = all.try_acquire(&["a", user], 2).await.unwrap();
        assert_eq!(admission.ruling.decision.source(), Source::Shared, "{:?}", admission.ruling);
        assert!(admission.permit.is_some());
    }
    let ruling = all.peek(&["a", "b"], 1).await.unwrap();
    assert_eq!(ruling.decision.source(), Source::Shared);
}
