//! What does a hit in L2 cost?

use std::time::Duration;

use fleetwide_benches::{
    Answer, Contest, Effort, Measure, Row, Server, Work, cold, on_tasks, runtime,
};

/// How ours keeps up with the floor, which does less.
const TOGETHER: &str = "reads that are under way at the same time go out together, as one `MGET`";

fn main() {
    let runtime = runtime();
    let server = runtime.block_on(Server::start());
    let sides = runtime.block_on(Sides::new(&server));
    let effort = Effort::slices_of(Duration::from_millis(100));
    let mut answer = Answer::new("What does a hit in L2 cost?");
    let before = sides.node.cache.stats();
    for tasks in [1, 64, 256] {
        let floor = on_tasks(&runtime, tasks, &sides.bare);
        let mut contest = Contest::new(Measure::Rate, effort, floor);
        let mut row = |name: &str, work: &Work| {
            Row::new(
                format!("{name}, {}", counted(tasks)),
                contest.ratio(on_tasks(&runtime, tasks, work)),
            )
        };
        let ours = row("**ours**", &sides.ours);
        answer.row(if tasks == 64 { ours.target(">= 0.85").note(TOGETHER) } else { ours });
        for (name, peer) in &sides.peers {
            answer.row(row(name, peer));
        }
        let by_default = row("bare with Nagle's algorithm", &sides.bare_by_default);
        answer.row(by_default.note("as the client library connects by default"));
    }
    let after = sides.node.cache.stats();
    assert_eq!(after.misses, before.misses, "all customers are in L2");
    let (l1, l2) = (after.hits_l1 - before.hits_l1, after.hits_l2 - before.hits_l2);
    answer.note(format!(
        "Floor: `GET` over one `MultiplexedConnection`, with `TCP_NODELAY` as ours has it, and \
         decoding from bincode. Ratios are of reads per second: more is better. All sides read \
         65,536 records in turn, with room for about 500 in L1: {:.1} % of our reads were hits in \
         L2, and each was taken into L1.",
        100.0 * l2 as f64 / (l1 + l2) as f64
    ));
    answer.note(
        "Server and callers share the cores, so what a side saves the server counts as well as \
         what it saves its own process.",
    );
    answer.keep("l2_hit");
}

struct Sides {
    bare: Work,
    bare_by_default: Work,
    node: cold::OurNode,
    ours: Work,
    peers: [(&'static str, Work); 3],
}

impl Sides {
    async fn new(server: &Server) -> Self {
        let customers = cold::Customers::new();
        let connection = server.bare().await;
        cold::fill_bare(connection.clone(), &customers).await;
        let (node, ours) = cold::ours(server, &customers).await;
        Self {
            bare: cold::bare(connection, &customers),
            bare_by_default: cold::bare(server.bare_by_default().await, &customers),
            node,
            ours,
            peers: [
                ("`cachet`, tier on Redis of this bench", cold::cachet(server, &customers).await),
                ("`multi-tier-cache`", cold::multi_tier(server, &customers).await),
                ("`hitbox`", cold::hitbox(server, &customers).await),
            ],
        }
    }
}

fn counted(tasks: u64) -> String {
    if tasks == 1 { "1 task".to_owned() } else { format!("{tasks} tasks") }
}
