//! What we may depend on: the rules are in `deny.toml`, cargo-deny applies them.

use std::env;
use std::net::{TcpStream, ToSocketAddrs};
use std::process::Command;
use std::time::Duration;

use crate::failure::Outcome;
use crate::process::{self, cargo, on_path};

/// Where the advisory database is fetched from.
const ADVISORIES_HOST: (&str, u16) = ("github.com", 443);

/// Enough for a slow line; what has not come by then would hold up everybody.
const FETCH_LIMIT: Duration = Duration::from_secs(90);

const PROBE_LIMIT: Duration = Duration::from_secs(3);

/// Checks licences, banned and duplicate crates, and where crates come from. Needs no network once
/// the crates are there.
pub(crate) fn run() -> Outcome {
    install_if_missing()?;
    process::run(deny().args(["check", "--hide-inclusion-graph", "licenses", "bans", "sources"]))
}

/// Checks for known vulnerabilities, where their list can be had. A finding fails; a machine that
/// cannot reach the list says so and goes on, because that is no fault of the code.
pub(crate) fn advisories() -> Outcome {
    install_if_missing()?;
    if let Err(why) = fetch() {
        println!("advisories were left out: {why}");
        return Ok(());
    }
    process::run(deny().args(["check", "advisories"]))
}

fn fetch() -> Result<(), String> {
    let (host, port) = ADVISORIES_HOST;
    if !behind_proxy() && !reachable() {
        return Err(format!("{host}:{port} cannot be reached from here"));
    }
    let fetched = process::run_within(deny().args(["fetch", "db"]), FETCH_LIMIT);
    fetched.map_err(|failure| format!("the database could not be fetched: {failure}"))
}

/// A proxy resolves and connects for us, so a direct connection proves nothing.
fn behind_proxy() -> bool {
    ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
        .iter()
        .any(|name| env::var_os(name).is_some_and(|value| !value.is_empty()))
}

fn reachable() -> bool {
    let Ok(mut addresses) = ADVISORIES_HOST.to_socket_addrs() else { return false };
    addresses.any(|address| TcpStream::connect_timeout(&address, PROBE_LIMIT).is_ok())
}

fn install_if_missing() -> Outcome {
    if on_path("cargo-deny").is_some() {
        return Ok(());
    }
    println!("cargo-deny is not installed: building it, about 4 minutes on 2 cores");
    process::run(cargo().args(["install", "--locked", "cargo-deny"]))
}

fn deny() -> Command {
    let mut command = cargo();
    command.arg("deny");
    command
}
