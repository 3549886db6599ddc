//! Running other programs: to the end, within a time limit, or with an eye on what they print.

use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::children::{self, Guarded};
use crate::failure::{Failure, Outcome};

/// How cargo and nextest are told whether to colour what they print.
const COLOUR: &str = "CARGO_TERM_COLOR";

/// The cargo that runs this command, so that a pinned toolchain stays pinned.
pub(crate) fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")))
}

/// Looks `program` up in `PATH`, as a shell would.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|file| is_program(file))
}

/// Whether `file` can be started, as far as can be told without starting it.
pub(crate) fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Runs `command` to its end with our own terminal as its terminal.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let shown = shown(command);
    let status = command.status().map_err(Failure::cannot(format!("start `{shown}`")))?;
    judge(&shown, status)
}

/// Runs `command` and returns what it wrote to stdout; its stderr stays visible.
pub(crate) fn output(command: &mut Command) -> Outcome<String> {
    let shown = shown(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(Failure::cannot(format!("start `{shown}`")))?;
    judge(&shown, output.status)?;
    String::from_utf8(output.stdout).map_err(Failure::cannot(format!("read from `{shown}`")))
}

/// Runs `command` for `limit` at most; what it printed is shown only if it failed or was stopped.
pub(crate) fn run_within(command: &mut Command, limit: Duration) -> Outcome {
    let shown = shown(command);
    let started = Guarded::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let started = started.map_err(Failure::cannot(format!("start `{shown}`")))?;
    let stdout = started.stdout.map(Collected::from);
    let stderr = started.stderr.map(Collected::from);
    let mut process = started.process;
    let ended = process.wait_until(Instant::now() + limit);
    process.kill();
    let printed: String = [stdout, stderr].into_iter().flatten().map(Collected::text).collect();
    let how = match ended {
        Some(status) if status.success() => return Ok(()),
        Some(status) => format!("ended with {status}"),
        None => format!("was not done after {} s", limit.as_secs()),
    };
    Err(Failure::new(format!("`{shown}` {how}\n{}", printed.trim_end())))
}

/// What a program printed so far, read by a thread of its own.
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: thread::JoinHandle<()>,
}

impl Collected {
    fn from(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut chunk) {
                to.lock().unwrap_or_else(PoisonError::into_inner).extend(&chunk[..length]);
            }
        });
        Self { bytes, reader }
    }

    /// The text, once the pipe is closed. A grandchild that outlived the program may hold the pipe
    /// open for ever; then what has come within a moment is all.
    fn text(self) -> String {
        let deadline = Instant::now() + Duration::from_secs(1);
        while !self.reader.is_finished() && Instant::now() < deadline {
            thread::sleep(children::POLL_INTERVAL);
        }
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Runs `command`, shows all it prints, and also returns the lines that `keep` picks, uncoloured.
///
/// The lines come back whether or not the program succeeded: a summary of failures is wanted too.
pub(crate) fn tee(command: &mut Command, keep: fn(&str) -> bool) -> (Vec<String>, Outcome) {
    let shown = shown(command);
    // A program that writes into our pipe cannot see that a person sits at the other end of it.
    if io::stderr().is_terminal() && env::var_os(COLOUR).is_none() {
        command.env(COLOUR, "always");
    }
    let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = match spawned.map_err(Failure::cannot(format!("start `{shown}`"))) {
        Ok(child) => child,
        Err(failure) => return (Vec::new(), Err(failure)),
    };
    let stderr = child.stderr.take();
    let on_stderr = thread::spawn(move || pass_on(stderr, keep, |line| eprintln!("{line}")));
    let mut kept = pass_on(child.stdout.take(), keep, |line| println!("{line}"));
    kept.extend(on_stderr.join().unwrap_or_default());
    let status = child.wait().map_err(Failure::cannot(format!("wait for `{shown}`")));
    (kept, status.and_then(|status| judge(&shown, status)))
}

fn pass_on(from: Option<impl Read>, keep: fn(&str) -> bool, show: fn(&str)) -> Vec<String> {
    let mut kept = Vec::new();
    // A test may print bytes that are no text; they must not end the reading.
    for line in from.into_iter().flat_map(|from| BufReader::new(from).split(b'\n')) {
        let Ok(line) = line else { break };
        let line = String::from_utf8_lossy(&line);
        show(&line);
        let line = uncoloured(&line);
        if keep(&line) {
            kept.push(line);
        }
    }
    kept
}

/// The text without `ESC [ ... letter`, which is how terminals are told a colour.
fn uncoloured(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let after = part.find(|c: char| c.is_ascii_alphabetic()).map_or(part.len(), |at| at + 1);
        text + &part[after..]
    })
}

fn judge(shown: &str, status: ExitStatus) -> Outcome {
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("`{shown}` ended with {status}")))
}

/// The command as a person would type it.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut words = vec![program.file_name().unwrap_or_default().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::uncoloured;

    #[test]
    fn colours_are_taken_off_and_nothing_else() {
        let line = "\u{1b}[32;1m     Summary\u{1b}[0m [   0.1s] \u{1b}[1m2\u{1b}[0m tests\u{1b}[";
        assert_eq!(uncoloured(line), "     Summary [   0.1s] 2 tests");
        assert_eq!(uncoloured("plain [1] text"), "plain [1] text");
    }
}
