//! `cargo xtask test`: every test of every crate, on a real Redis.

use std::process::Command;

use crate::failure::Outcome;
use crate::metadata::BENCHES;
use crate::process::{self, cargo, on_path};
use crate::redis::{self, REDIS_SERVER};

/// Runs all tests, then all doctests; with `runner_args` only the tests that they pick.
pub(crate) fn run(runner_args: &[&str]) -> Outcome {
    let tests = run_tests(runner_args)?;
    // A test runner's filters mean nothing to doctests, so picked tests come alone.
    let doctests = if runner_args.is_empty() { run_doctests()? } else { Vec::new() };
    println!();
    print_closing("tests", &tests);
    print_closing("doctests", &doctests);
    Ok(())
}

/// Runs the tests and returns the runner's closing lines.
pub(crate) fn run_tests(runner_args: &[&str]) -> Outcome<Vec<String>> {
    let server = redis::find_or_install()?;
    let mut command = runner();
    // `--workspace` would silently win over the package that someone asked for.
    if !runner_args.iter().any(|arg| matches!(*arg, "-p" | "--package")) {
        command.args(["--workspace", "--exclude", BENCHES]);
    }
    command.arg("--all-features").args(runner_args).env(REDIS_SERVER, server);
    closing_lines(&mut command)
}

/// Runs the examples in the documentation and returns the runner's closing lines.
pub(crate) fn run_doctests() -> Outcome<Vec<String>> {
    let server = redis::find_or_install()?;
    let mut command = cargo();
    command.args(["test", "--doc", "--workspace", "--exclude", BENCHES, "--all-features"]);
    closing_lines(command.env(REDIS_SERVER, server))
}

/// nextest runs each test in a process of its own and stops what hangs; without it, cargo does.
fn runner() -> Command {
    let mut command = cargo();
    if on_path("cargo-nextest").is_some() {
        command.args(["nextest", "run", "--no-fail-fast"]);
    } else {
        println!("cargo-nextest is not installed: running `cargo test`, which has no time limits");
        // `--tests` stands for libraries, programs and the files in `tests/`.
        command.args(["test", "--no-fail-fast", "--tests", "--examples"]);
    }
    command
}

fn closing_lines(command: &mut Command) -> Outcome<Vec<String>> {
    let (lines, outcome) = process::tee(command, is_closing);
    if outcome.is_err() {
        println!();
        print_closing("failed", &lines);
    }
    outcome.map(|()| lines)
}

/// Whether a line of nextest's or libtest's sums a run up.
fn is_closing(line: &str) -> bool {
    line.trim_start().starts_with("Summary [") || line.starts_with("test result: ")
}

/// Prints what a run came to: libtest prints a line per program, of which only the sum says much.
fn print_closing(what: &str, lines: &[String]) {
    let (summed, own): (Vec<_>, Vec<_>) =
        lines.iter().map(|line| line.trim()).partition(|line| line.starts_with("test result: "));
    for line in own {
        println!("{what}: {line}");
    }
    if !summed.is_empty() {
        let count = |word| summed.iter().map(|line| counted(line, word)).sum::<u64>();
        let [passed, failed, ignored] = ["passed", "failed", "ignored"].map(count);
        println!("{what}: {passed} passed, {failed} failed, {ignored} ignored");
    }
}

/// The number before `word` in `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
fn counted(line: &str, word: &str) -> u64 {
    let words: Vec<&str> = line.split([' ', ';', '.']).filter(|word| !word.is_empty()).collect();
    let found = words.windows(2).find(|pair| pair[1] == word);
    found.and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{counted, is_closing};

    #[test]
    fn the_summary_counts_what_libtest_printed() {
        let line =
            "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 2 filtered out";
        assert!(is_closing(line) && is_closing("     Summary [   1.2s] 3 tests run: 3 passed"));
        assert!(!is_closing("test summary_is_kept ... ok"));
        assert_eq!(["passed", "failed", "ignored"].map(|word| counted(line, word)), [12, 3, 1]);
    }
}
