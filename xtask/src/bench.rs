//! `cargo xtask bench`: measures each question's ratios and writes `docs/benchmarks.md`.

mod machine;
mod page;

use std::fs;
use std::path::Path;

use crate::failure::{Failure, Outcome};
use crate::metadata::{BENCHES, Target, Workspace};
use crate::process::{self, cargo};
use crate::redis::{self, REDIS_SERVER};

/// The folder in which each bench leaves `NAME.json`.
const OUT: &str = "FLEETWIDE_BENCH_OUT";
/// Set to 1 when shorter runs with a wider spread will do.
const QUICK: &str = "FLEETWIDE_BENCH_QUICK";
const PAGE: &str = "docs/benchmarks.md";

/// How long to measure: the spread narrows with time, the ratios do not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    Quick,
    Full,
}

/// Runs these benches, or all if none is named, one after the other so that none disturbs another,
/// and writes the page. The others stay on it as they were measured last.
pub(crate) fn run(effort: Effort, chosen: &[&str]) -> Outcome {
    let workspace = Workspace::read()?;
    let names: Vec<&str> = bench_targets(&workspace)?;
    if names.is_empty() {
        return Err(Failure::new(format!("{BENCHES} has no [[bench]] to run")));
    }
    if let Some(unknown) = chosen.iter().find(|name| !names.contains(name)) {
        let known = names.join(", ");
        return Err(Failure::new(format!("no bench is called `{unknown}`; there are {known}")));
    }
    let server = redis::find_or_install()?;
    let out = workspace.target.join("fleetwide-bench");
    fs::create_dir_all(&out).map_err(Failure::cannot(format!("create {}", out.display())))?;
    let mut answers = Vec::new();
    for (at, name) in names.iter().enumerate() {
        println!("[{}/{}] {name}", at + 1, names.len());
        let file = out.join(name).with_extension("json");
        if !chosen.is_empty() && !chosen.contains(name) {
            println!("as it was measured last");
            answers.push(read(&file)?);
            continue;
        }
        // An answer of an earlier run must not stand in for one that was not written.
        let _ = fs::remove_file(&file);
        let mut bench = cargo();
        bench.args(["bench", "--package", BENCHES, "--bench", name]);
        bench.env(OUT, &out).env(REDIS_SERVER, &server);
        if effort == Effort::Quick {
            bench.env(QUICK, "1");
        }
        process::run(&mut bench)?;
        answers.push(read(&file)?);
    }
    let machine = machine::describe(&server)?;
    let command = match effort {
        Effort::Quick => "cargo xtask bench --quick",
        Effort::Full => "cargo xtask bench",
    };
    let path = workspace.root.join(PAGE);
    fs::write(&path, page::render(&answers, &machine, command))
        .map_err(Failure::cannot(format!("write {PAGE}")))?;
    println!("{} questions answered in {PAGE}", answers.len());
    Ok(())
}

fn bench_targets(workspace: &Workspace) -> Outcome<Vec<&str>> {
    let targets = &workspace.package(BENCHES)?.targets;
    let is_bench = |target: &&Target| target.is("bench");
    Ok(targets.iter().filter(is_bench).map(|target| target.name.as_str()).collect())
}

fn read(file: &Path) -> Outcome<page::Answer> {
    let shown = file.display();
    let json = fs::read(file).map_err(Failure::cannot(format!("read {shown}")))?;
    serde_json::from_slice(&json).map_err(Failure::cannot(format!("understand {shown}")))
}
