//! No server outlives the process that started it, however that process ends.
//!
//! A killed process cannot clean up after itself, so each test runs this very binary once more, as
//! a victim that starts a server, says its pid and waits for its end.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, process};

use fleetwide_testkit::{RedisServer, eventually};

const VICTIM: &str = "FLEETWIDE_TEST_VICTIM";

/// Starts a victim, and returns it with the pid of its server.
fn victim(fate: &str) -> (Child, u32) {
    let mut victim = Command::new(env::current_exe().unwrap())
        .args(["victim_starts_a_server", "--exact", "--nocapture", "--ignored"])
        .env(VICTIM, fate)
        // What a victim leaves behind until a later process sweeps it stays out of the way here.
        .env("TMPDIR", env!("CARGO_TARGET_TMPDIR"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stderr.take().unwrap()).lines();
    let said = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("pid ")?.parse().ok());
    (victim, said.expect("the victim says the pid of its server"))
}

#[tokio::test]
#[ignore = "the victim of the other tests, which run it themselves"]
async fn victim_starts_a_server() {
    let Ok(fate) = env::var(VICTIM) else { return };
    let server = RedisServer::start().await.unwrap();
    if fate == "frozen" {
        server.stop();
    }
    writeln!(std::io::stderr(), "pid {}", server.pid().unwrap()).unwrap();
    if fate == "exit" {
        process::exit(0);
    }
    std::future::pending::<()>().await;
}

async fn until_gone(pid: u32) {
    // A process that nobody has waited for yet has no command line any more.
    let command_line = format!("/proc/{pid}/cmdline");
    let is_gone = async || std::fs::read(Path::new(&command_line)).map_or(true, |l| l.is_empty());
    eventually(Duration::from_secs(5), "the orphaned server to end", is_gone).await;
}

#[tokio::test]
async fn server_of_a_killed_process_is_gone() {
    for fate in ["killed", "frozen"] {
        let (mut victim, server) = victim(fate);
        assert!(Path::new(&format!("/proc/{server}/cmdline")).exists());
        victim.kill().unwrap();
        victim.wait().unwrap();
        until_gone(server).await;
    }
}

#[tokio::test]
async fn server_of_a_process_that_exits_without_drops_is_gone() {
    let (mut victim, server) = victim("exit");
    victim.wait().unwrap();
    until_gone(server).await;
}
