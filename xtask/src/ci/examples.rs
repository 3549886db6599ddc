//! Example programs are read as documentation, so they have to run, and to end.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::failure::Outcome;
use crate::metadata::{self, BENCHES};
use crate::process;

/// An example shows one idea; one that takes longer is no example.
const LIMIT: Duration = Duration::from_secs(60);

/// Builds all examples and runs those that need no server, which those with `redis` in their name do.
pub(crate) fn run() -> Outcome {
    let what = ["--workspace", "--exclude", BENCHES, "--examples", "--all-features"];
    let examples = metadata::build(&what, "example")?;
    for example in &examples {
        if example.name.contains("redis") {
            println!("{}: built; needs a server, so it is not run", example.name);
            continue;
        }
        let began = Instant::now();
        process::run_within(&mut Command::new(&example.path), LIMIT)?;
        println!("{}: ran in {:.1} s", example.name, began.elapsed().as_secs_f64());
    }
    println!("{} examples", examples.len());
    Ok(())
}
