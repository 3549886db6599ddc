//! The processes of the demo: a Redis that can be killed and come back, and nodes.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use std::{env, io};

use crate::children::{self, Guarded, POLL_INTERVAL};
use crate::failure::{Failure, Outcome};

/// A loaded machine needs a while; a program that has not started by then will not.
const START_LIMIT: Duration = Duration::from_secs(15);
const STOP_LIMIT: Duration = Duration::from_secs(15);
const LOG_LINES_SHOWN: usize = 15;

/// What the demo's limiter admits in a minute.
pub(crate) const RATE_LIMIT_MAX: u32 = 100;

/// Settings that a developer may have set for other work; the demo starts from none.
const SETTINGS: [&str; 10] = [
    "BIND",
    "CACHE_",
    "EVENTS_",
    "FLEETWIDE_",
    "LOG_",
    "PORT",
    "RATE_LIMIT_",
    "REDIS_",
    "RUST_LOG",
    "UPSTREAM_",
];

/// A Redis of our own, on a free port, without persistence.
pub(crate) struct Redis {
    server: PathBuf,
    folder: PathBuf,
    port: u16,
    process: Option<Guarded>,
}

impl Redis {
    pub(crate) fn start(server: &Path, folder: &Path) -> Outcome<Self> {
        let (server, folder) = (server.to_owned(), folder.to_owned());
        let mut redis = Self { server, folder, port: free_port()?, process: None };
        redis.start_again()?;
        Ok(redis)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Ends the server as a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// Starts the server on the port it had; it comes back empty.
    pub(crate) fn start_again(&mut self) -> Outcome {
        let log = self.folder.join("redis.log");
        let mut command = children::command(&self.server);
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"]);
        command.args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--dir"]);
        command.arg(&self.folder).stdout(append_to(&log)?).stderr(append_to(&log)?);
        let started =
            Guarded::spawn(&mut command).map_err(Failure::cannot("start redis-server"))?;
        let mut process = started.process;
        let deadline = Instant::now() + START_LIMIT;
        while !answers_ping(self.address()) {
            if let Some(status) = process.ended() {
                return Err(Failure::new(format!("redis-server ended at once with {status}")));
            }
            if Instant::now() >= deadline {
                return Err(Failure::new("redis-server did not answer PING"));
            }
            thread::sleep(POLL_INTERVAL);
        }
        self.process = Some(process);
        Ok(())
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}

/// One instance of the reference service.
pub(crate) struct Node {
    pub(crate) name: char,
    pub(crate) address: SocketAddr,
    process: Guarded,
}

impl Node {
    /// Starts a node on a free port and waits until it accepts requests.
    pub(crate) fn start(
        program: &Path,
        name: char,
        redis_url: Option<&str>,
        folder: &Path,
    ) -> Outcome<Self> {
        let log = folder.join(format!("node-{name}.log"));
        let mut command = children::command(program);
        for (setting, _) in env::vars_os() {
            let text = setting.to_string_lossy();
            if SETTINGS.iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(&setting);
            }
        }
        command.env("PORT", "0").env("RATE_LIMIT_MAX", RATE_LIMIT_MAX.to_string());
        command.envs(redis_url.map(|url| ("REDIS_URL", url)));
        command.stdout(Stdio::piped()).stderr(append_to(&log)?);
        let started = Guarded::spawn(&mut command);
        let started = started.map_err(Failure::cannot(format!("start node {name}")))?;
        let address = announced_address(started.stdout, append_to(&log)?);
        let address = address.ok_or_else(|| {
            Failure::new(format!("node {name} did not say `listening on` within {START_LIMIT:?}"))
        })?;
        Ok(Self { name, address, process: started.process })
    }

    /// Asks the node to drain and waits for it.
    fn stop(mut self) -> Outcome {
        self.process.terminate();
        let name = self.name;
        match self.process.wait_until(Instant::now() + STOP_LIMIT) {
            Some(status) if status.success() => Ok(()),
            Some(status) => {
                Err(Failure::new(format!("node {name} answered SIGTERM with {status}")))
            }
            None => Err(Failure::new(format!("node {name} did not stop within {STOP_LIMIT:?}"))),
        }
    }
}

/// Stops all nodes with SIGTERM and says how long that took.
pub(crate) fn stop(nodes: impl IntoIterator<Item = Node>) -> Outcome {
    let began = Instant::now();
    nodes.into_iter().try_for_each(Node::stop)?;
    println!("\nEvery node drained and ended with exit code 0, in {:.0?}", began.elapsed());
    Ok(())
}

/// Shows the end of each log, for a demo that failed.
pub(crate) fn show_logs(folder: &Path) {
    let logs = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    for log in logs.filter(|path| path.extension().is_some_and(|extension| extension == "log")) {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        eprintln!("\n{}, its last lines:", log.file_name().unwrap_or_default().to_string_lossy());
        for line in &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..] {
            eprintln!("  {line}");
        }
    }
}

/// Reads `listening on http://ADDRESS` from a node's output. The rest goes to its log: a pipe that
/// nobody reads fills up, and then the node would wait in the middle of a line.
fn announced_address(
    stdout: Option<impl Read + Send + 'static>,
    mut log: File,
) -> Option<SocketAddr> {
    let stdout = BufReader::new(stdout?);
    let (found, address) = mpsc::channel();
    thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            if let Some(announced) = line.strip_prefix("listening on http://") {
                // Nobody waits any more for a second announcement.
                let _ = announced.trim().parse().map(|address| found.send(address));
            }
            let _ = writeln!(log, "{line}");
        }
    });
    // A node that ends closes the pipe, the thread ends, and so does the waiting.
    address.recv_timeout(START_LIMIT).ok()
}

fn answers_ping(address: SocketAddr) -> bool {
    let ping = || -> io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut reply = [0; 5];
        stream.read_exact(&mut reply)?;
        Ok(&reply == b"+PONG")
    };
    ping().unwrap_or(false)
}

/// A port that was free a moment ago: the server cannot be told to pick one and say which.
fn free_port() -> Outcome<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = listener.and_then(|listener| listener.local_addr());
    Ok(address.map_err(Failure::cannot("find a free port"))?.port())
}

fn append_to(log: &Path) -> Outcome<File> {
    let opened = File::options().create(true).append(true).open(log);
    opened.map_err(Failure::cannot(format!("write {}", log.display())))
}
