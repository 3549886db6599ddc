//! The server forgets its scripts: a restart, a failover, or somebody runs `SCRIPT FLUSH`.
//!
//! Proved once to find what they are for: with the healing taken out of `executor.rs` (the two
//! branches on `is_missing`), every test here fails with `the server refused: error: No
//! matching script. Please use EVAL.`

mod common;

use std::collections::BTreeMap;

use common::{SOON, connected, count, key};
use fleetwide_core_traits::{
    ApplyError, ArgSink, AtomicOp, Cells, ErasedOp, Executor, ExecutorExt, Key, Malformed, Message,
    Script, ServerTime, Wire,
};
use fleetwide_testkit::suite::ops::{Count, Read};
use fleetwide_testkit::{RedisServer, eventually};
use futures_util::future::join_all;

fn times(stats: &BTreeMap<String, u64>, command: &str) -> u64 {
    stats.get(command).copied().unwrap_or(0)
}

#[tokio::test]
async fn lost_script_is_healed_with_one_eval_and_runs_once() {
    let server = RedisServer::start().await.unwrap();
    let redis = connected(&server).await;
    assert_eq!(count(&redis, "a").await, Ok(1));
    for round in 2..5 {
        server.script_flush().await.unwrap();
        server.reset_stats().await.unwrap();
        assert_eq!(count(&redis, "a").await, Ok(round), "once, not twice");
        let stats = server.command_stats().await.unwrap();
        assert_eq!(times(&stats, "eval"), 1, "{stats:?}");
    }
}

#[tokio::test]
async fn pipeline_is_healed_where_it_failed_and_each_step_runs_once() {
    let server = RedisServer::start().await.unwrap();
    let redis = connected(&server).await;
    let names: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    let steps: Vec<_> = names.iter().map(|name| Count::one(&key(name))).collect();
    for round in 1..4 {
        server.script_flush().await.unwrap();
        server.reset_stats().await.unwrap();
        for counted in redis.executor().run_many(&steps).await {
            assert_eq!(counted.unwrap().count, round, "once, not twice");
        }
        let stats = server.command_stats().await.unwrap();
        assert_eq!(times(&stats, "evalsha"), 50, "{stats:?}");
        assert_eq!(times(&stats, "eval"), 50, "only what failed was sent again: {stats:?}");
    }
}

#[tokio::test]
async fn calls_that_meet_the_loss_together_each_run_once() {
    let server = RedisServer::start().await.unwrap();
    let redis = connected(&server).await;
    for round in 1..=20_u64 {
        server.script_flush().await.unwrap();
        let calls = (0..32).map(|_| count(&redis, "a"));
        let mut counts: Vec<_> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
        counts.sort_unstable();
        let first = (round - 1) * 32 + 1;
        assert_eq!(counts, (first..first + 32).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn healthy_part_of_a_pipeline_is_not_sent_again() {
    let server = RedisServer::start().await.unwrap();
    let redis = connected(&server).await;
    let (mut add, mut read, mut record) = (
        Erased::new(Count::one(&key("a"))),
        Erased::new(Read::one(&key("a"))),
        Erased::new(Count::one(&key("b"))),
    );
    server.script_flush().await.unwrap();
    server.reset_stats().await.unwrap();
    let mut steps: [&mut dyn ErasedOp; 3] = [&mut add, &mut read, &mut record];
    let results = redis.executor().execute_many(&mut steps).await;
    assert_eq!(results, [Ok(()), Ok(()), Ok(())]);
    assert_eq!(read.reply, Some(vec![None]), "it was read before the lost steps were sent again");
    assert_eq!((add.reply.unwrap().count, record.reply.unwrap().count), (1, 1));
    let stats = server.command_stats().await.unwrap();
    let sent = ["evalsha", "eval", "mget"].map(|command| times(&stats, command));
    assert_eq!(sent, [2, 2, 1], "{stats:?}");
}

/// An op on its way to an executor, to send ops of several kinds in one trip.
struct Erased<O: AtomicOp> {
    op: O,
    reply: Option<O::Reply>,
}

impl<O: AtomicOp> Erased<O> {
    fn new(op: O) -> Self {
        Self { op, reply: None }
    }
}

impl<O: AtomicOp> ErasedOp for Erased<O> {
    fn script(&self) -> &'static Script {
        self.op.script()
    }

    fn keys(&self) -> &[Key] {
        self.op.keys()
    }

    fn cells(&self) -> usize {
        self.op.cells()
    }

    fn args(&self, to: &mut dyn ArgSink) {
        self.op.args(to);
    }

    fn apply(
        &mut self,
        _: &mut dyn Cells,
        _: ServerTime,
        _: &mut Vec<Message>,
    ) -> Result<(), ApplyError> {
        unreachable!("a server runs the script")
    }

    fn decode(&mut self, reply: Wire) -> Result<(), Malformed> {
        self.reply = Some(self.op.decode(reply)?);
        Ok(())
    }
}

#[tokio::test]
async fn prepared_scripts_are_loaded_now_and_on_each_later_connection() {
    let server = RedisServer::start().await.unwrap();
    let redis = connected(&server).await;
    let script = Count::one(&key("a")).script();
    let sha = script.sha(fleetwide_core_traits::ScriptClock::Server).to_owned();
    let known = async || {
        let reply = server.admin(&["SCRIPT", "EXISTS", &sha]).await;
        reply.is_ok_and(|reply| reply.as_array().unwrap()[0].as_integer() == Some(1))
    };
    redis.executor().prepare(&[script]);
    eventually(SOON, "the script", known).await;
    server.restart().await.unwrap();
    eventually(SOON, "the script after a restart", known).await;
    // A flush is noticed by the first call; the rest is loaded again behind its back.
    server.script_flush().await.unwrap();
    let other = fleetwide_testkit::suite::ops::Now { key: [key("now")] };
    common::up(&redis).await;
    redis.executor().run(&other).await.unwrap();
    eventually(SOON, "the script after a flush", known).await;
}
