//! What a run came to: in words for a terminal, and as a page.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::check::{Histogram, Promise, Verdict};
use crate::faults::{Fault, Window};
use crate::settings::STALENESS_BOUND_MS;

/// How long after a fault all nodes were verified again.
#[derive(Clone, Copy, Debug)]
pub struct Recovery {
    fault: Fault,
    us: u64,
}

impl Recovery {
    pub(crate) fn new(fault: Fault, us: u64) -> Self {
        Self { fault, us }
    }
}

/// A run and its verdict.
#[derive(Debug)]
pub struct Report {
    pub(crate) seed: u64,
    pub(crate) nodes: u32,
    pub(crate) lasted: Duration,
    pub(crate) windows: Vec<Window>,
    pub(crate) recoveries: Vec<Recovery>,
    pub(crate) verdict: Verdict,
}

const PROMISES: [(Promise, &str); 6] = [
    (Promise::C1Own, "C1, the writer's own process, which reads its own writes"),
    (Promise::C1Shared, "C1, Redis"),
    (Promise::C2, "C2, verified values older than the bound"),
    (Promise::C3, "C3, loaders side by side for no stated reason"),
    (Promise::Nonsense, "values that never were, or that the read had ruled out"),
    (Promise::Recovery, "nodes that did not come back, or did not converge"),
];

/// Upper ends of the rows of the staleness table, µs.
const ROWS: [u64; 9] =
    [1_000, 5_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, u64::MAX];

impl Report {
    /// What it proves.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// How many faults there were.
    pub fn faults(&self) -> usize {
        self.windows.len()
    }

    /// The summary for a person at a terminal.
    pub fn text(&self) -> String {
        let mut text = format!("seed {}\n", self.seed);
        for (name, value) in self.facts() {
            line(&mut text, &format!("{name}: {value}"));
        }
        for (promise, name) in PROMISES {
            let broken = self.verdict.broken.get(&promise).copied().unwrap_or(0);
            line(&mut text, &format!("violations of {name}: {broken}"));
        }
        for violation in &self.verdict.shown {
            line(&mut text, &format!("  {violation}"));
        }
        if !self.verdict.trace.is_empty() {
            line(&mut text, "about the first of them, in µs before and after it:");
        }
        for event in &self.verdict.trace {
            line(&mut text, &format!("  {event}"));
        }
        text
    }

    /// The page, without a date: a second run changes what has changed and no more.
    pub fn page(&self, command: &str) -> String {
        let mut page = format!("{INTRODUCTION}\nWritten by `{command}`.\n\n");
        line(&mut page, "| | |\n| --- | --- |");
        for (name, value) in self.facts() {
            line(&mut page, &format!("| {name} | {value} |"));
        }
        line(&mut page, "\n## Violations\n\n| promise | found |\n| --- | ---: |");
        for (promise, name) in PROMISES {
            let broken = self.verdict.broken.get(&promise).copied().unwrap_or(0);
            line(&mut page, &format!("| {name} | {broken} |"));
        }
        page.push_str(STALENESS);
        self.staleness(&mut page);
        page.push_str(FAULTS);
        self.faults_table(&mut page);
        page.push_str(OUTRO);
        page
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let Verdict { reads, writes, loads, verified, unverified, .. } = &self.verdict;
        let share = |part: u64| format!("{:.3} %", 100.0 * part as f64 / reads.all.max(1) as f64);
        let [l1, l2, load] = reads.tiers.map(share);
        let ms = |us: u64| format!("{:.1} ms", us as f64 / 1e3);
        let spread = |times: &Histogram| {
            let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| ms(times.quantile(share)));
            format!("p50 {p50}, p99 {p99}, p99.9 {p999}, max {}", ms(times.max()))
        };
        vec![
            ("nodes, each a process", self.nodes.to_string()),
            ("length", format!("{:.0} s", self.lasted.as_secs_f64())),
            ("reads checked", grouped(reads.all)),
            ("from L1, from Redis, loaded", format!("{l1}, {l2}, {load}")),
            ("unverified or stale", share(reads.unverified)),
            ("writes done", grouped(writes[0])),
            ("writes queued or unknown", grouped(writes[1])),
            ("writes whose caller went away or was killed", grouped(writes[2])),
            ("loads", grouped(loads.all)),
            (
                "of those beside another one of the same key",
                format!(
                    "{} after an invalidation, {} with the owner paused past its lease, {} \
                     while Redis did not answer or had lost the lease",
                    loads.invalidated, loads.paused, loads.unanswered
                ),
            ),
            ("faults", self.windows.len().to_string()),
            ("staleness of verified hits of L1", spread(verified)),
            ("longest staleness of a value out of Redis", ms(reads.l2_us_max)),
            ("longest staleness of a loaded, verified value", ms(reads.load_us_max)),
            ("staleness of unverified and stale hits", spread(unverified)),
            (
                "reads of an older state of Redis that was not found out yet",
                format!(
                    "{}, behind by {} at most",
                    grouped(reads.in_loss),
                    ms(reads.in_loss_us_max)
                ),
            ),
        ]
    }

    fn staleness(&self, page: &mut String) {
        let times = &self.verdict.verified;
        let all = times.total().max(1) as f64;
        line(page, "| out of date for | verified hits of L1 | share |\n| --- | ---: | ---: |");
        let mut row = |name: &str, count: u64| {
            let share = 100.0 * count as f64 / all;
            line(page, &format!("| {name} | {} | {share:.5} % |", grouped(count)));
        };
        row("not at all", times.zero());
        let mut from = 0;
        for to in ROWS {
            let name = match to {
                u64::MAX => format!("more than {STALENESS_BOUND_MS} ms"),
                to => format!("up to {} ms", to / 1000),
            };
            row(&name, times.between(from, to));
            from = to;
        }
    }

    fn faults_table(&self, page: &mut String) {
        let mut kinds: BTreeMap<Fault, (u64, u64)> = BTreeMap::new();
        for window in &self.windows {
            let (count, longest) = kinds.entry(window.fault).or_default();
            *count += 1;
            *longest = (*longest).max(window.to - window.from);
        }
        line(page, "| fault | times | longest | slowest way back |\n| --- | ---: | ---: | ---: |");
        for (fault, (count, longest)) in kinds {
            let of_it = self.recoveries.iter().filter(|recovery| recovery.fault == fault);
            let slowest = of_it.map(|recovery| recovery.us).max();
            let slowest =
                slowest.map_or_else(String::new, |us| format!("{:.2} s", us as f64 / 1e6));
            let longest = longest as f64 / 1e6;
            line(page, &format!("| {} | {count} | {longest:.1} s | {slowest} |", fault.name()));
        }
    }
}

const INTRODUCTION: &str = "\
# Chaos

A fleet of processes reads and writes one cache over a real Redis, as an application does, while
everything around it is broken at random. Every read is checked against a database outside Redis,
whose versions say exactly which writes a value reflects.
";

const STALENESS: &str = "
## Staleness

How long before the read a write had returned Ok that the value did not reflect. Equal hits of a
key within 25 ms are one record, over whose time they count as spread evenly; whether a promise is
broken is decided by the last of them, so nothing hides in that.

";

const FAULTS: &str = "
## Faults

The way back is over when every node has answered a read from its L1 with a verified value again.

";

const OUTRO: &str = include_str!("outro.md");

fn line(text: &mut String, what: &str) {
    text.push_str(what);
    text.push('\n');
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        let _ = text.write_char(digit);
    }
    text
}
