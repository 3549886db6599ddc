//! `cargo xtask demo`: what the fleet promises, shown on real processes in plain words and numbers.
//!
//! 1. Find Redis, or install it; without it there is one node, in memory, and that is said.
//! 2. Build the node and start Redis and three nodes as children that die with this command.
//! 3. Play the steps; the first expectation that fails ends the demo with a line that names it.
//! 4. Stop the nodes with SIGTERM, which they answer with exit code 0.

mod fleet;
mod http;
mod steps;

use std::path::{Path, PathBuf};
use std::{env, fs, process};

use crate::children;
use crate::failure::{Failure, Outcome};
use crate::metadata;
use crate::redis;
use fleet::{Node, Redis};

/// What a shell reports for a program that Ctrl-C ended.
const EXIT_INTERRUPTED: i32 = 130;

/// The flags of the command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Builds without debug assertions: slower to build, faster to run.
    release: bool,
    /// Leaves Redis out even where there is one.
    memory: bool,
}

impl Options {
    pub(crate) fn parse(flags: &[&str]) -> Option<Self> {
        let mut options = Self::default();
        for flag in flags {
            match *flag {
                "--release" => options.release = true,
                "--memory" => options.memory = true,
                _ => return None,
            }
        }
        Some(options)
    }
}

pub(crate) fn run(options: Options) -> Outcome {
    let server = if options.memory { None } else { server_or_say_why_not()? };
    let program = build(options)?;
    let folder = Folder::create()?;
    clean_up_on_ctrl_c(folder.0.clone())?;
    let outcome = match server {
        Some(server) => shared(&server, &program, &folder.0),
        None => alone(&program, &folder.0),
    };
    if outcome.is_err() {
        fleet::show_logs(&folder.0);
    }
    outcome
}

/// A demo without Redis is worth more than none, so a failed installation is told and passed over.
/// Not so a server that was named and is not there.
fn server_or_say_why_not() -> Outcome<Option<PathBuf>> {
    if let Some(found) = redis::find()? {
        return Ok(Some(found));
    }
    let say = |failure: &Failure| println!("{failure}\nGoing on without it: one node, in memory.");
    Ok(redis::find_or_install().inspect_err(say).ok())
}

fn build(options: Options) -> Outcome<PathBuf> {
    println!("Building the node (the first time takes a few minutes)");
    let mut what = vec!["--package", "fleetwide-node", "--bins"];
    if options.release {
        what.push("--release");
    }
    let built = metadata::build(&what, "bin")?.into_iter().next();
    let program = built.map(|program| program.path);
    program.ok_or_else(|| Failure::new("fleetwide-node was built, but no program came out"))
}

fn shared(server: &Path, program: &Path, folder: &Path) -> Outcome {
    let mut redis = Redis::start(server, folder)?;
    println!("Redis {} listens on {}", redis::version(server)?, redis.url());
    let start = |name| Node::start(program, name, Some(&redis.url()), folder);
    let nodes = [start('A')?, start('B')?, start('C')?];
    say_where(&nodes);

    steps::written_on_one_read_on_another(&nodes)?;
    steps::update_reaches_the_others(&nodes)?;
    steps::event_reaches_another_node(&nodes)?;
    steps::limit_holds_for_all_nodes_together(&nodes)?;
    steps::crowd_causes_one_load(&nodes)?;
    steps::all_answer_without_redis(&nodes, &mut redis)?;
    steps::shared_again_when_redis_is_back(&nodes, &mut redis)?;
    fleet::stop(nodes)?;
    println!("\nAll of it held. Nothing is left running.");
    Ok(())
}

fn alone(program: &Path, folder: &Path) -> Outcome {
    let nodes = [Node::start(program, 'A', None, folder)?];
    say_where(&nodes);

    steps::one_node_serves_what_it_stored(&nodes[0])?;
    steps::event_reaches_another_node(&nodes)?;
    steps::limit_holds_for_all_nodes_together(&nodes)?;
    steps::crowd_causes_one_load(&nodes)?;
    fleet::stop(nodes)?;
    println!("\nAll of it held, in one process. With Redis the same program runs as a fleet.");
    Ok(())
}

fn say_where(nodes: &[Node]) {
    for node in nodes {
        println!("Node {} listens on http://{}", node.name, node.address);
    }
}

/// A folder for logs and for the server's files, removed with this value.
struct Folder(PathBuf);

impl Folder {
    fn create() -> Outcome<Self> {
        let path = env::temp_dir().join(format!("fleetwide-demo-{}", process::id()));
        fs::create_dir_all(&path).map_err(Failure::cannot(format!("create {}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The same for SIGTERM and for a closed terminal. The children do not hear the terminal's Ctrl-C,
/// so none of them says goodbye into the middle of ours.
fn clean_up_on_ctrl_c(folder: PathBuf) -> Outcome {
    let handler = move || {
        children::end_all(|| {
            let _ = fs::remove_dir_all(&folder);
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
    fn flags_are_read_and_an_unknown_one_is_refused() {
        assert_eq!(Options::parse(&[]), Some(Options::default()));
        let both = Options { release: true, memory: true };
        assert_eq!(Options::parse(&["--memory", "--release"]), Some(both));
        assert_eq!(Options::parse(&["--memroy"]), None);
    }
}
