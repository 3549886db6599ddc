//! The steps of the demo. Each says what it does, shows what came of it, and fails if that is not
//! what was promised.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::fleet::{Node, RATE_LIMIT_MAX, Redis};
use super::http::{self, Events, Reply};
use crate::failure::{Failure, Outcome};

/// How long after a write anything older may be read elsewhere: the node's default bound.
const STALENESS_BOUND: Duration = Duration::from_secs(1);
/// No answer takes longer, whatever Redis does.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// How long an outage, or its end, may go unnoticed.
const NOTICE_LIMIT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(1);

const REQUESTS: u32 = 300;
const CALLERS_PER_NODE: u32 = 4;
const CROWD: usize = 30;

pub(crate) fn written_on_one_read_on_another(nodes: &[Node; 3]) -> Outcome {
    title("A value written on A is read on B");
    let [a, b, _] = nodes;
    let written = a.put("/cache/greeting", "hello")?;
    println!("  A stored `hello` in {}", shown(written.took));
    for _ in 0..2 {
        let read = b.get("/cache/greeting")?;
        expect(read.status == 200 && read.body == "hello", "B reads what A wrote", &read)?;
        let tier = read.header("x-cache-tier");
        println!("  B read `{}` from {tier} in {}", read.body, shown(read.took));
    }
    Ok(())
}

pub(crate) fn update_reaches_the_others(nodes: &[Node; 3]) -> Outcome {
    title("An update on A is seen on B and C, which held the old value");
    let [a, b, c] = nodes;
    for node in [b, c] {
        node.get("/cache/greeting")?;
    }
    let (written_at, seen) = thread::scope(|scope| {
        let watchers =
            [b, c].map(|node| scope.spawn(|| seen_at(node, "/cache/greeting", "hello again")));
        let written = a.put("/cache/greeting", "hello again").map(|_| Instant::now());
        (written, watchers.map(|watcher| watcher.join().expect("a watcher returns its failures")))
    });
    let written_at = written_at?;
    for (node, seen) in [b, c].into_iter().zip(seen) {
        let delay = seen?.saturating_duration_since(written_at);
        println!(
            "  {} read `hello again` {} after A's write had returned",
            node.name,
            shown(delay)
        );
        if delay > STALENESS_BOUND {
            let text = format!("node {} was stale for longer than {STALENESS_BOUND:?}", node.name);
            return Err(Failure::new(text));
        }
    }
    Ok(())
}

pub(crate) fn one_node_serves_what_it_stored(node: &Node) -> Outcome {
    title("A value is stored, read and deleted in memory");
    let ready = node.get("/ready")?;
    expect(ready.status == 200 && ready.body.contains("memory"), "it is ready", &ready)?;
    node.put("/cache/greeting", "hello")?;
    let read = node.get("/cache/greeting")?;
    expect(read.status == 200 && read.body == "hello", "it reads what it wrote", &read)?;
    println!("  read `{}` from {} in {}", read.body, read.header("x-cache-tier"), shown(read.took));
    let deleted = node.ask("DELETE /cache/greeting", &[], "")?;
    expect(deleted.status == 204, "it deletes", &deleted)?;
    let gone = node.get("/cache/greeting")?;
    expect(gone.status == 404, "what was deleted is gone", &gone)?;
    println!("  deleted, and the next read is {}", gone.status);
    Ok(())
}

pub(crate) fn event_reaches_another_node(nodes: &[Node]) -> Outcome {
    let (sender, listener) = (&nodes[0], nodes.get(1).unwrap_or(&nodes[0]));
    title(&format!("An event published on {} is heard on {}", sender.name, listener.name));
    let mut events = Events::open(listener.address, "/events?topic=demo")?;
    let began = Instant::now();
    let published = sender.ask("POST /events/demo", &[], "it works")?;
    expect((200..300).contains(&published.status), "the event is taken", &published)?;
    loop {
        let event = events.next()?;
        if event.data.contains("it works") {
            let took = shown(began.elapsed());
            println!("  {} heard `it works` {took} after it was sent", listener.name);
            return Ok(());
        }
        if !event.name.is_empty() {
            println!("  {} was told `{}`: {}", listener.name, event.name, event.data);
        }
    }
}

pub(crate) fn limit_holds_for_all_nodes_together(nodes: &[Node]) -> Outcome {
    let count = nodes.len();
    let over = if count == 1 { "one node".to_owned() } else { format!("{count} nodes") };
    title(&format!("{REQUESTS} requests at once over {over}, against a limit of {RATE_LIMIT_MAX}"));
    let left = AtomicU32::new(REQUESTS);
    let [admitted, refused] = [(); 2].map(|()| AtomicU32::new(0));
    let began = Instant::now();
    let call = |node: &Node| -> Outcome {
        while take_one(&left) {
            let reply = node.ask("GET /limited", &[("X-Tenant-Id", "demo")], "")?;
            expect(matches!(reply.status, 200 | 429), "a request is admitted or refused", &reply)?;
            let counter = if reply.status == 200 { &admitted } else { &refused };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let callers: Vec<_> = nodes
            .iter()
            .flat_map(|node| (0..CALLERS_PER_NODE).map(move |_| node))
            .map(|node| scope.spawn(|| call(node)))
            .collect();
        callers
            .into_iter()
            .try_for_each(|caller| caller.join().expect("a caller returns its failures"))
    })?;
    let (admitted, refused) = (admitted.into_inner(), refused.into_inner());
    println!("  admitted {admitted}, refused {refused}, in {}", shown(began.elapsed()));
    if admitted != RATE_LIMIT_MAX {
        return Err(Failure::new(format!("exactly {RATE_LIMIT_MAX} should have been admitted")));
    }
    Ok(())
}

pub(crate) fn crowd_causes_one_load(nodes: &[Node]) -> Outcome {
    title(&format!(
        "{CROWD} readers ask at once for a value that nobody has, and that takes 300 ms"
    ));
    let began = Instant::now();
    let replies = thread::scope(|scope| {
        let readers: Vec<_> = (0..CROWD)
            .map(|at| &nodes[at % nodes.len()])
            .map(|node| scope.spawn(|| node.get("/load/report?delay_ms=300")))
            .collect();
        let join =
            |reader: thread::ScopedJoinHandle<'_, _>| reader.join().expect("it returns failures");
        readers.into_iter().map(join).collect::<Outcome<Vec<Reply>>>()
    })?;
    for reply in &replies {
        expect(reply.status == 200, "every reader gets the value", reply)?;
    }
    let took = shown(began.elapsed());
    let loads = nodes.iter().map(loads).sum::<Outcome<u64>>()?;
    println!("  all were answered within {took}, by {loads} load of the value");
    if loads != 1 {
        return Err(Failure::new("one load should have served them all"));
    }
    Ok(())
}

pub(crate) fn all_answer_without_redis(nodes: &[Node; 3], redis: &mut Redis) -> Outcome {
    title("Redis is killed: every node still answers");
    redis.kill();
    let killed_at = Instant::now();
    for node in nodes {
        let live = node.get("/live")?;
        expect(live.status == 200, "it lives", &live)?;
        let cached = node.get("/cache/greeting")?;
        let held = cached.status == 200;
        expect(held || cached.status == 404, "the cache answers", &cached)?;
        let loaded = node.get("/load/answer")?;
        expect(loaded.status == 200, "what is not cached is loaded", &loaded)?;
        let limited = node.ask("GET /limited", &[("X-Tenant-Id", "outage")], "")?;
        expect(matches!(limited.status, 200 | 429), "the limiter decides", &limited)?;
        for reply in [&live, &cached, &loaded, &limited] {
            expect(reply.took <= ANSWER_LIMIT, "no answer is late", reply)?;
        }
        let tier = if held { cached.header("x-cache-freshness") } else { "no longer held" };
        println!(
            "  {}: live in {}, cached value ({tier}) in {}, load in {}, limiter in {}",
            node.name,
            shown(live.took),
            shown(cached.took),
            shown(loaded.took),
            shown(limited.took),
        );
    }
    for node in nodes {
        node.until_ready_is(503)?;
    }
    println!("  all three say they are not ready, {} after the kill", shown(killed_at.elapsed()));
    Ok(())
}

pub(crate) fn shared_again_when_redis_is_back(nodes: &[Node; 3], redis: &mut Redis) -> Outcome {
    title("Redis comes back, empty: the nodes share again");
    redis.start_again()?;
    let back_at = Instant::now();
    for node in nodes {
        node.until_ready_is(200)?;
    }
    println!("  all three are ready again, {} after it answered", shown(back_at.elapsed()));
    let [a, b, _] = nodes;
    let written = a.put("/cache/greeting", "hello once more")?;
    let written_at = Instant::now();
    let delay =
        seen_at(b, "/cache/greeting", "hello once more")?.saturating_duration_since(written_at);
    println!(
        "  A stored `hello once more` in {}, B read it {} later",
        shown(written.took),
        shown(delay)
    );
    Ok(())
}

impl Node {
    fn ask(&self, request: &str, headers: &[(&str, &str)], body: &str) -> Outcome<Reply> {
        let reply = http::send(self.address, request, headers, body);
        reply.map_err(|failure| Failure::new(format!("node {}: {failure}", self.name)))
    }

    fn get(&self, path: &str) -> Outcome<Reply> {
        self.ask(&format!("GET {path}"), &[], "")
    }

    fn put(&self, path: &str, body: &str) -> Outcome<Reply> {
        let reply = self.ask(&format!("PUT {path}"), &[], body)?;
        expect(reply.status == 204, "the value is stored", &reply)?;
        Ok(reply)
    }

    fn until_ready_is(&self, status: u16) -> Outcome {
        let deadline = Instant::now() + NOTICE_LIMIT;
        loop {
            let reply = self.get("/ready")?;
            if reply.status == status {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return expect(false, &format!("node {} gets to {status}", self.name), &reply);
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
}

/// Reads `path` over and over; returns when `body` was first seen.
fn seen_at(node: &Node, path: &str, body: &str) -> Outcome<Instant> {
    let deadline = Instant::now() + STALENESS_BOUND * 3;
    loop {
        let reply = node.get(path)?;
        if reply.body == body {
            return Ok(Instant::now());
        }
        if Instant::now() >= deadline {
            expect(false, &format!("node {} reads `{body}`", node.name), &reply)?;
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// How often this node has run the loader for the crowd's value.
fn loads(node: &Node) -> Outcome<u64> {
    let reply = node.get("/load/report")?;
    let answer: serde_json::Value = serde_json::from_str(&reply.body)
        .map_err(Failure::cannot(format!("understand `{}`", reply.body)))?;
    let loads = answer.get("loads").and_then(serde_json::Value::as_u64);
    loads.ok_or_else(|| Failure::new(format!("`{}` says nothing of loads", reply.body)))
}

fn take_one(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

fn title(text: &str) {
    println!("\n{text}");
}

fn expect(held: bool, expectation: &str, reply: &Reply) -> Outcome {
    if held {
        return Ok(());
    }
    let Reply { status, body, .. } = reply;
    let took = shown(reply.took);
    Err(Failure::new(format!("expected that {expectation}, but got {status} `{body}` in {took}")))
}

/// A duration as a person says it: `0.8 ms`, `1.2 s`.
fn shown(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{:.1} ms", duration.as_secs_f64() * 1e3)
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}
