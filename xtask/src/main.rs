//! The workspace's own commands. `.ci/run` and a developer type the same ones; this file only reads
//! the flags, each command has a file of its own.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "telling a person at a terminal what happens is the job of these commands"
)]

mod bench;
mod chaos;
mod children;
mod ci;
mod demo;
mod failure;
mod metadata;
mod process;
mod redis;
mod test;
mod tidy;

use std::process::ExitCode;

use failure::Outcome;

const USAGE: &str = "\
Usage: cargo xtask COMMAND

  demo [--release] [--memory]   three nodes on one Redis, in plain words and numbers
  test [-- ARGS]                every test; ARGS go to the test runner and leave out the doctests
  ci [STEP...]                  what the build server runs; named steps only, if any are named
  tidy                          the workspace's own rules: layers, dependencies, files
  bench [--quick] [NAME...]     measures ratios against the floor, writes docs/benchmarks.md; of
                                benches that are not named, what was measured here last
  chaos [--quick] [--seed N] [--reads N] [--only FAULT]... [--faults N]
                                breaks a fleet at random and checks 10 million reads; without other
                                flags than the seed it writes docs/chaos.md

Redis is found through REDIS_SERVER, PATH and the usual folders, or else installed.";

/// A command line nobody can act on; told apart from a command that ran and failed.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((command, rest)) = args.split_first() else {
        eprintln!("{USAGE}");
        return ExitCode::from(EXIT_USAGE);
    };
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    match dispatch(command, &rest) {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(failure)) => {
            eprintln!("xtask {command}: {failure}");
            ExitCode::FAILURE
        }
        None => {
            eprintln!("xtask: `{}` is not understood\n\n{USAGE}", args.join(" "));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Runs what the words ask for; `None` if they ask for nothing known.
fn dispatch(command: &str, rest: &[&str]) -> Option<Outcome> {
    match (command, rest) {
        ("help" | "--help" | "-h", []) => {
            println!("{USAGE}");
            Some(Ok(()))
        }
        ("demo", flags) => demo::Options::parse(flags).map(demo::run),
        ("test", []) => Some(test::run(&[])),
        ("test", ["--", runner_args @ ..]) => Some(test::run(runner_args)),
        ("ci", steps) => ci::select(steps).map(|chosen| ci::run(&chosen)),
        ("tidy", []) => Some(tidy::run()),
        ("chaos", flags) => chaos::Options::parse(flags).map(|options| chaos::run(&options)),
        ("bench", ["--quick", names @ ..]) => Some(bench::run(bench::Effort::Quick, names)),
        ("bench", names) => Some(bench::run(bench::Effort::Full, names)),
        _ => None,
    }
}
