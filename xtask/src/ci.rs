//! `cargo xtask ci`: what the build server runs, in the order in which mistakes are cheapest to find.

mod examples;
mod features;
mod policy;

use std::time::{Duration, Instant};

use crate::failure::{Failure, Outcome};
use crate::metadata::BENCHES;
use crate::process::{self, cargo};
use crate::{test, tidy};

/// One thing that can be right or wrong by itself.
pub(crate) struct Step {
    name: &'static str,
    about: &'static str,
    run: fn() -> Outcome,
}

const STEPS: [Step; 11] = [
    Step { name: "fmt", about: "every file is formatted", run: fmt },
    Step { name: "tidy", about: "the workspace's own rules", run: tidy::run },
    Step { name: "clippy", about: "no warning, with all features", run: clippy },
    Step { name: "clippy-benches", about: "the benches compile, no warning", run: clippy_benches },
    Step { name: "features", about: "each feature alone, and none", run: features::run },
    Step { name: "docs", about: "the documentation builds, no warning", run: docs },
    Step { name: "test", about: "every test, on a real Redis", run: tests },
    Step { name: "doctest", about: "every example in the documentation", run: doctests },
    Step { name: "examples", about: "every example program runs", run: examples::run },
    Step { name: "deny", about: "licences, duplicates, sources", run: policy::run },
    Step { name: "advisories", about: "known vulnerabilities", run: policy::advisories },
];

/// The steps with these names, in their own order; all if none is named, `None` if one is unknown.
pub(crate) fn select(names: &[&str]) -> Option<Vec<&'static Step>> {
    let known = |name: &&str| STEPS.iter().any(|step| step.name == *name);
    let wanted = |step: &&Step| names.is_empty() || names.contains(&step.name);
    names.iter().all(known).then(|| STEPS.iter().filter(wanted).collect())
}

/// Runs `steps` up to the first that fails, and sums up what each took.
pub(crate) fn run(steps: &[&Step]) -> Outcome {
    let began = Instant::now();
    let mut done: Vec<(&str, Duration)> = Vec::new();
    let mut failed = None;
    for (at, step) in steps.iter().enumerate() {
        println!("\n[{}/{}] {}: {}", at + 1, steps.len(), step.name, step.about);
        let step_began = Instant::now();
        let outcome = (step.run)();
        let took = step_began.elapsed();
        println!("[{}/{}] {} took {:.1} s", at + 1, steps.len(), step.name, took.as_secs_f64());
        if let Err(failure) = outcome {
            failed = Some((step.name, failure));
            break;
        }
        done.push((step.name, took));
    }
    println!("\nSummary");
    for (name, took) in &done {
        println!("  ok      {name:<15} {:>7.1} s", took.as_secs_f64());
    }
    if let Some((name, failure)) = failed {
        println!("  FAILED  {name}");
        let left_out = steps.len() - done.len() - 1;
        return Err(Failure::new(format!("{name} failed, {left_out} steps not run: {failure}")));
    }
    println!("  all {} steps in {:.1} s", done.len(), began.elapsed().as_secs_f64());
    Ok(())
}

fn fmt() -> Outcome {
    process::run(cargo().args(["fmt", "--all", "--check"]))
}

fn clippy() -> Outcome {
    let what = ["--workspace", "--exclude", BENCHES, "--all-targets", "--all-features"];
    process::run(cargo().arg("clippy").args(what).args(["--", "-D", "warnings"]))
}

/// Apart from the rest: the peers would switch on features that our crates then seem not to need.
fn clippy_benches() -> Outcome {
    let what = ["-p", BENCHES, "--all-targets"];
    process::run(cargo().arg("clippy").args(what).args(["--", "-D", "warnings"]))
}

fn docs() -> Outcome {
    let what = ["--workspace", "--exclude", BENCHES, "--no-deps", "--all-features"];
    process::run(cargo().arg("doc").args(what).env("RUSTDOCFLAGS", "-Dwarnings"))
}

fn tests() -> Outcome {
    test::run_tests(&[]).map(drop)
}

fn doctests() -> Outcome {
    test::run_doctests().map(drop)
}

#[cfg(test)]
mod tests {
    use super::{STEPS, select};

    #[test]
    fn named_steps_run_in_their_own_order_and_an_unknown_one_is_refused() {
        let names = |chosen: &[&str]| {
            select(chosen).map(|steps| steps.iter().map(|step| step.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["docs", "fmt"]), Some(vec!["fmt", "docs"]));
        assert_eq!(names(&[]).map(|all| all.len()), Some(STEPS.len()));
        assert_eq!(names(&["fmt", "fnt"]), None);
    }
}
