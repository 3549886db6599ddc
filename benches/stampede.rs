//! What does a crowd on one key cost the origin?

use std::iter;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_benches::fleet::{Instance, Side};
use fleetwide_benches::{Answer, Origin, Row, Server, Spread, runtime};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

const CALLERS: usize = 1000;
const INSTANCES: usize = 3;
const ROUNDS: usize = 5;
/// Who has no answer by then will never get one: the origin answered long ago.
const PATIENCE: Duration = Duration::from_secs(3);
/// Long enough for every caller to join a load or to begin one. Nobody says when they have; too
/// short a time would only flatter those that begin many.
const SETTLED: Duration = Duration::from_millis(200);

fn main() {
    runtime().block_on(async { ask().await.keep("stampede") });
}

async fn ask() -> Answer {
    let server = Server::start().await;
    let mut fleets = Vec::new();
    for side in Side::ALL {
        let mut instances = Vec::new();
        for _ in 0..INSTANCES {
            instances.push(side.start(&server).await);
        }
        fleets.push((side, instances));
    }
    let mut answer = Answer::new("What does a crowd on one key cost the origin?");
    for count in [1, INSTANCES] {
        let of = if count == 1 { String::new() } else { format!(" of {count} instances") };
        for (side, instances) in &fleets {
            let rounds = crowds(&instances[..count], "stay", Leaves::Nobody).await;
            let what = format!("loads for 1,000 callers{of}");
            answer.row(row(*side, &what, rounds.loads, "<= 1"));
        }
        for (side, instances) in &fleets {
            let rounds = crowds(&instances[..count], "leaves", Leaves::First).await;
            let what = format!("loads for 1,000 callers{of}, the first leaves");
            answer.row(row(*side, &what, rounds.loads, "<= 1"));
            let what = format!("callers{of} without an answer when the first leaves");
            answer.row(row(*side, &what, rounds.unanswered, "<= 0"));
        }
    }
    answer.note(
        "Counts, not ratios. 1,000 callers ask for one key that no tier has, over Redis, while the \
         origin is slow: how often is it asked? They ask one instance, and then three in turn, which \
         have nothing in common but Redis. Each time it is done again with the first caller \
         cancelled while it waits, as a web server does with a client that leaves; who has no \
         answer 3 s after the origin answered will get none.",
    );
    answer
}

fn row(side: Side, what: &str, rounds: Vec<f64>, target: &'static str) -> Row {
    let row = Row::new(format!("{}: {what}", side.name()), Spread::of(rounds));
    // A target is a promise, and peers have promised nothing.
    if side == Side::Ours { row.target(target) } else { row }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaves {
    Nobody,
    First,
}

#[derive(Default)]
struct Rounds {
    loads: Vec<f64>,
    unanswered: Vec<f64>,
}

async fn crowds(instances: &[Instance], name: &str, leaves: Leaves) -> Rounds {
    let (mut rounds, count) = (Rounds::default(), instances.len());
    for round in 0..ROUNDS {
        let key = format!("{name}-{count}-{round}");
        let (loads, unanswered) = crowd(instances, &key, leaves).await;
        rounds.loads.push(loads as f64);
        rounds.unanswered.push(unanswered as f64);
    }
    rounds
}

/// How many loads a crowd costs, and how many of it get no answer.
async fn crowd(instances: &[Instance], key: &str, leaves: Leaves) -> (u64, usize) {
    let origin = Origin::held();
    let call = |instance: &Instance| {
        let (instance, origin) = (instance.clone(), Arc::clone(&origin));
        let key = key.to_owned();
        async move { instance.load(key, origin).await }
    };
    let mut callers = JoinSet::new();
    let mut turns = iter::repeat(instances).flatten();
    let first = callers.spawn(call(turns.next().expect("there is an instance")));
    origin.begun().await;
    for instance in turns.take(CALLERS - 1) {
        callers.spawn(call(instance));
    }
    sleep(SETTLED).await;
    let mut expected = CALLERS;
    if leaves == Leaves::First {
        first.abort();
        expected -= 1;
        sleep(SETTLED).await;
    }
    origin.open();
    let by = Instant::now() + PATIENCE;
    let mut answered = 0;
    while let Ok(Some(caller)) = timeout_at(by, callers.join_next()).await {
        answered += usize::from(caller.is_ok());
    }
    (origin.loads(), expected - answered)
}
