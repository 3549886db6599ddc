//! `cargo xtask chaos`: breaks a fleet of processes at random and checks every read.
//!
//! The run is a program of its own, in `crates/chaos`. This command builds it, finds Redis for it,
//! and sees to it that nothing outlives the run.

use std::path::PathBuf;
use std::process;
use std::time::{Duration, Instant};

use crate::children::{self, Guarded};
use crate::failure::{Failure, Outcome};
use crate::metadata::{self, Workspace};
use crate::redis::{self, REDIS_SERVER};

const PACKAGE: &str = "fleetwide-chaos";
const PAGE: &str = "docs/chaos.md";
/// What a shell reports for a program that Ctrl-C ended.
const EXIT_INTERRUPTED: i32 = 130;
/// A run that is not done by then hangs.
const LIMIT: Duration = Duration::from_secs(60 * 60);

/// The flags of the command, which the run's program takes as they are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    flags: Vec<String>,
    /// Whether it is a run of the usual length with all kinds of faults, which the page tells of.
    whole: bool,
}

impl Options {
    pub(crate) fn parse(words: &[&str]) -> Option<Self> {
        let mut whole = true;
        let mut words_left = words.iter();
        while let Some(word) = words_left.next() {
            match *word {
                "--quick" => whole = false,
                "--only" => {
                    words_left.next()?;
                    whole = false;
                }
                "--faults" | "--reads" => {
                    words_left.next()?.parse::<u64>().ok()?;
                    whole = false;
                }
                "--seed" => drop(words_left.next()?.parse::<u64>().ok()?),
                _ => return None,
            }
        }
        Some(Self { flags: words.iter().map(|word| (*word).to_owned()).collect(), whole })
    }
}

pub(crate) fn run(options: &Options) -> Outcome {
    let server = redis::find_or_install()?;
    let page = Workspace::read()?.root.join(PAGE);
    let mut command = children::command(&build()?);
    command.args(&options.flags).env(REDIS_SERVER, server);
    if options.whole {
        command.arg("--page").arg(page).args(["--command", "cargo xtask chaos"]);
    }
    kill_on_ctrl_c()?;
    let started = Guarded::spawn(&mut command).map_err(Failure::cannot("start the run"))?;
    let mut run = started.process;
    match run.wait_until(Instant::now() + LIMIT) {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(Failure::new(format!("the run ended with {status}"))),
        None => Err(Failure::new(format!("the run was not done after {LIMIT:?}"))),
    }
}

fn build() -> Outcome<PathBuf> {
    println!("Building the nodes (the first time takes a few minutes)");
    let built = metadata::build(&["--release", "--package", PACKAGE, "--bins"], "bin")?;
    let program = built.into_iter().find(|program| program.name == "chaos");
    let program = program.map(|program| program.path);
    program.ok_or_else(|| Failure::new(format!("{PACKAGE} was built, but no program came out")))
}

/// The run's own children die with it.
fn kill_on_ctrl_c() -> Outcome {
    let handler = || {
        children::end_all(|| {
            eprintln!("\nStopped. Nothing is left running.");
            process::exit(EXIT_INTERRUPTED);
        });
    };
    ctrlc::set_handler(handler).map_err(Failure::cannot("listen for Ctrl-C"))
}

#[cfg(test)]
mod tests {
    use super::Options;

    #[test]
    fn only_a_whole_run_writes_the_page() {
        let whole = |words: &[&str]| Options::parse(words).map(|options| options.whole);
        assert_eq!(whole(&[]), Some(true));
        assert_eq!(whole(&["--seed", "7"]), Some(true));
        for shorter in [&["--quick"][..], &["--only", "rewind"], &["--seed", "7", "--reads", "9"]] {
            assert_eq!(whole(shorter), Some(false), "{shorter:?}");
        }
        for wrong in [&["--sed", "7"][..], &["--seed"], &["--reads", "many"]] {
            assert_eq!(Options::parse(wrong), None, "{wrong:?}");
        }
    }
}
