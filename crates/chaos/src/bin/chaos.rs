//! The run, as a program: `cargo xtask chaos` builds it and starts it.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "telling a person at a terminal what happens is its job"
)]

use std::path::PathBuf;
use std::process::ExitCode;

use fleetwide_chaos::faults::Fault;
use fleetwide_chaos::{Plan, Report, run};
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "\
chaos [--seed N] [--reads N] [--quick] [--only FAULT]... [--faults N] [--page FILE --command TEXT]";

/// What the command line asks for.
#[derive(Default)]
struct Options {
    seed: Option<u64>,
    reads: Option<u64>,
    quick: bool,
    only: Vec<Fault>,
    faults: Option<usize>,
    page: Option<PathBuf>,
    command: String,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Option<Self> {
        let mut options = Self::default();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--seed" => options.seed = Some(words.next()?.parse().ok()?),
                "--reads" => options.reads = Some(words.next()?.parse().ok()?),
                "--quick" => options.quick = true,
                "--only" => options.only.push(Fault::of_word(&words.next()?)?),
                "--faults" => options.faults = Some(words.next()?.parse().ok()?),
                "--page" => options.page = Some(words.next()?.into()),
                "--command" => options.command = words.next()?,
                _ => return None,
            }
        }
        Some(options)
    }

    fn plan(&self, program: PathBuf) -> Plan {
        let plan = Plan::long(program, self.seed.unwrap_or_else(rand::random));
        let plan = if self.quick { plan.quick() } else { plan };
        Plan {
            reads: self.reads.unwrap_or(plan.reads),
            faults: self.faults.unwrap_or(plan.faults),
            kinds: if self.only.is_empty() { plan.kinds } else { self.only.clone() },
            outage: plan.outage && self.only.is_empty(),
            say: |line| println!("{line}"),
            ..plan
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(options) = Options::parse(std::env::args().skip(1)) else {
        eprintln!("usage: {USAGE}");
        return ExitCode::from(2);
    };
    // The nodes' program lies beside this one: cargo has built both.
    let program = match std::env::current_exe() {
        Ok(own) => own.with_file_name("chaos-node"),
        Err(error) => return failed(&error),
    };
    let plan = options.plan(program);
    println!("seed {}", plan.seed);
    let told = async {
        let mut terminated = signal(SignalKind::terminate())?;
        tokio::select! {
            told = tokio::signal::ctrl_c() => told,
            _ = terminated.recv() => Ok(()),
        }
    };
    tokio::select! {
        report = run(plan) => match report {
            Ok(report) => end(&report, &options),
            Err(error) => failed(&error),
        },
        // Dropping the run kills all its processes.
        _ = told => failed(&"stopped"),
    }
}

fn end(report: &Report, options: &Options) -> ExitCode {
    println!("\n{}", report.text());
    if let Some(path) = &options.page
        && let Err(error) = std::fs::write(path, report.page(&options.command))
    {
        return failed(&error);
    }
    match report.verdict().violations() {
        0 => ExitCode::SUCCESS,
        broken => failed(&format!("{broken} violations")),
    }
}

fn failed(why: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("chaos: {why}");
    ExitCode::FAILURE
}
