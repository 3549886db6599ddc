//! What is served that should not be?

use std::sync::Arc;
use std::time::Duration;

use fleetwide_benches::fleet::{Instance, Side};
use fleetwide_benches::{Answer, Origin, Row, Server, Spread, runtime};
use futures_util::FutureExt as _;
use tokio::time::{sleep, timeout};

const ROUNDS: usize = 5;
/// For what is stored or told off the callers' way. Nobody says when that is done.
const SETTLED: Duration = Duration::from_millis(200);
/// The bound on staleness that our cache states, and some time for this machine.
const BOUND: Duration = Duration::from_millis(1_500);
/// Who has no answer by then will never get one.
const PATIENCE: Duration = Duration::from_secs(3);

fn main() {
    runtime().block_on(async { ask().await.keep("races") });
}

async fn ask() -> Answer {
    let server = Server::start().await;
    let mut pairs = Vec::new();
    for side in Side::ALL {
        pairs.push((side, Pair { a: side.start(&server).await, b: side.start(&server).await }));
    }
    let mut answer = Answer::new("What is served that should not be?");
    for race in Race::ALL {
        for (side, pair) in &pairs {
            let mut rounds = Vec::new();
            for round in 0..ROUNDS {
                let key = format!("{race:?}-{round}");
                rounds.push(f64::from(u8::from(race.run(pair, key, &server).await)));
            }
            let seen = rounds.iter().sum::<f64>() > 0.0;
            let row = Row::new(format!("{}: {}", side.name(), race.what()), Spread::of(rounds));
            // A target is a promise, and peers have promised nothing.
            let row = if *side == Side::Ours { row.target("<= 0") } else { row };
            answer.row(row.note(if seen { "yes" } else { "no" }));
        }
    }
    answer.note(
        "Yes (1) or no (0), not ratios; five rounds each. Two instances of each side share a \
         Redis, and an origin whose value changes. Whoever writes tells its instance to invalidate \
         the key, waits until it says that this is done, and 200 ms longer; then somebody reads. \
         In the row with lost messages the subscriptions are cut just before the write, and 1.5 s \
         pass.",
    );
    answer.note(
        "`cachet` and `hitbox` tell other instances nothing, and do not say that they do: their \
         first tier is meant to be wrong until its ttl is over. `hitbox` has no operation that \
         invalidates what a function returned; its two tiers are told to remove the key.",
    );
    answer
}

/// Two instances of a side.
struct Pair {
    a: Instance,
    b: Instance,
}

#[derive(Clone, Copy, Debug)]
enum Race {
    DuringLoad,
    DuringLoadElsewhere,
    HeldElsewhere,
    LostMessage,
    Panic,
}

impl Race {
    const ALL: [Self; 5] = [
        Self::DuringLoad,
        Self::DuringLoadElsewhere,
        Self::HeldElsewhere,
        Self::LostMessage,
        Self::Panic,
    ];

    const fn what(self) -> &'static str {
        match self {
            Self::DuringLoad => "old value after an invalidation in the middle of its load",
            Self::DuringLoadElsewhere => "the same, invalidated by the other instance",
            Self::HeldElsewhere => "old value after the other instance has invalidated it",
            Self::LostMessage => "the same, while messages are lost",
            Self::Panic => "no answer after a loader has panicked",
        }
    }

    async fn run(self, pair: &Pair, key: String, server: &Server) -> bool {
        match self {
            Self::DuringLoad => during_load(&pair.a, &pair.a, key).await,
            Self::DuringLoadElsewhere => during_load(&pair.a, &pair.b, key).await,
            Self::HeldElsewhere => held_elsewhere(pair, key, async {}, SETTLED).await,
            Self::LostMessage => held_elsewhere(pair, key, server.cut_subscriptions(), BOUND).await,
            Self::Panic => panicked(&pair.a, key).await,
        }
    }
}

/// Whether a value that was read before a write is served after the write was made known.
async fn during_load(reader: &Instance, writer: &Instance, key: String) -> bool {
    let origin = Origin::held();
    let under_way = tokio::spawn({
        let (reader, key, origin) = (reader.clone(), key.clone(), Arc::clone(&origin));
        async move { reader.load(key, origin).await }
    });
    origin.begun().await;
    origin.change();
    writer.invalidate(key.clone()).await;
    origin.open();
    under_way.await.expect("the caller of the old load gets some answer");
    sleep(SETTLED).await;
    reader.load(key, origin).await == 1
}

/// Whether a value that an instance holds is served after the other one has invalidated it.
async fn held_elsewhere(
    pair: &Pair,
    key: String,
    before: impl Future<Output = ()>,
    wait: Duration,
) -> bool {
    let origin = Origin::held();
    origin.open();
    for _ in 0..3 {
        pair.a.load(key.clone(), Arc::clone(&origin)).await;
        sleep(SETTLED / 4).await;
    }
    before.await;
    origin.change();
    pair.b.invalidate(key.clone()).await;
    sleep(wait).await;
    pair.a.load(key, origin).await == 1
}

/// Whether a caller waits in vain after the loader of another one has panicked.
async fn panicked(instance: &Instance, key: String) -> bool {
    let (bad, good) = (Origin::panicking(), Origin::held());
    good.open();
    let first = tokio::spawn({
        let (instance, key) = (instance.clone(), key.clone());
        async move { std::panic::AssertUnwindSafe(instance.load(key, bad)).catch_unwind().await }
    });
    // An error, a panic of its own, or for ever: all is well that leaves the key to others.
    let _ = timeout(SETTLED, first).await;
    timeout(PATIENCE, instance.load(key, good)).await.is_err()
}
