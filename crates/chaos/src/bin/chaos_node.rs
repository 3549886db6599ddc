//! One node, as a process. Started by the run, with the path of its settings.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use fleetwide_chaos::node;

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false).init();
    let Some(settings) = std::env::args_os().nth(1) else {
        return failed("the path of its settings is missing");
    };
    match node::run(Path::new(&settings)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(why: &str) -> ExitCode {
    // A closed stderr leaves nobody to tell.
    let _ = writeln!(io::stderr(), "chaos-node: {why}");
    ExitCode::FAILURE
}
