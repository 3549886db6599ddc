//! A short run of the real thing: processes, Redis, faults, and the check of every read.

use std::path::PathBuf;

use fleetwide_chaos::{Plan, run};
use fleetwide_testkit::seed;

/// Red with the floor of a key's stripe not compared (`floors.rs`, `admit`): one of the
/// fences that `docs/testing.md` lists, each with what finds it when it is taken out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_read_of_a_broken_fleet_keeps_the_promises() {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_chaos-node"));
    let plan = Plan { say: show, ..Plan::long(program, seed().value()).quick() };
    let report = run(plan).await.unwrap();
    show(&report.text());
    let verdict = report.verdict();
    assert!(verdict.reads.all > 10_000, "{} reads show little", verdict.reads.all);
    assert!(verdict.writes[0] > 100 && report.faults() >= 10);
    assert_eq!(verdict.violations(), 0, "{}", verdict.shown.join("\n"));
}

#[expect(clippy::print_stdout, reason = "a test runner shows it exactly when the test fails")]
fn show(line: &str) {
    println!("{line}");
}
