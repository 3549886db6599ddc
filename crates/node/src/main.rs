//! The binary: variables in, exit code out.

use std::io::{self, Write};
use std::process::ExitCode;

use fleetwide_node::{Config, LogFormat, Node, StartError};
use tracing_subscriber::EnvFilter;

/// The node ended as it was told to.
const STOPPED: u8 = 0;
/// The node could not go on.
const FAILED: u8 = 1;
/// A setting is wrong.
const MISCONFIGURED: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    ExitCode::from(run().await)
}

async fn run() -> u8 {
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(error) => return failed(MISCONFIGURED, &error),
    };
    if let Err(error) = log_to_stderr(config.log_format) {
        return failed(MISCONFIGURED, &error);
    }
    // Before the port is open, so that no signal finds nobody listening.
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return failed(FAILED, &error),
    };
    let node = match Node::start(config).await {
        Ok(node) => node,
        Err(error @ StartError::Listen { .. }) => return failed(FAILED, &error),
        Err(error) => return failed(MISCONFIGURED, &error),
    };
    if let Err(error) = announce(&node) {
        tracing::warn!(%error, "nobody reads where this node listens");
    }
    signals.stop().await;
    node.stop().await;
    STOPPED
}

/// One line on stderr, whatever the log's format and filter are.
fn failed(code: u8, error: &dyn std::error::Error) -> u8 {
    let line = error.to_string().replace('\n', " ");
    // A closed stderr leaves nobody to tell.
    let _ = writeln!(io::stderr(), "fleetwide-node: {line}");
    code
}

fn announce(node: &Node) -> io::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "listening on http://{}", node.address())?;
    stdout.flush()
}

/// `RUST_LOG` takes what it takes everywhere; a wrong directive is a wrong setting.
fn log_to_stderr(format: LogFormat) -> Result<(), fleetwide::env::EnvError> {
    let wrong = |_| fleetwide::env::EnvError::new("RUST_LOG", "directives such as `info`");
    let directives = std::env::var("RUST_LOG").unwrap_or_default();
    let directives = if directives.is_empty() { "info" } else { &directives };
    let filter = EnvFilter::try_new(directives).map_err(wrong)?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(false).init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

/// What tells a node to stop.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {})
    }

    async fn stop(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
