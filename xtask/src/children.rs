//! Programs we started and must not leave behind: killed when their guard goes, also on a panic,
//! and on Ctrl-C through [`end_all`].

use std::io;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::on_path;

/// Short enough not to be felt, long enough not to be seen in a profile.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Every live child. A signal handler runs on a thread of its own and finds them here.
static LIVE: Mutex<Vec<Child>> = Mutex::new(Vec::new());

/// A started program that is killed and reaped when this value goes.
#[derive(Debug)]
pub(crate) struct Guarded {
    id: u32,
}

/// A program just started, with the ends of its pipes, where pipes were asked for.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) process: Guarded,
    pub(crate) stdout: Option<ChildStdout>,
    pub(crate) stderr: Option<ChildStderr>,
}

impl Guarded {
    /// Starts `command` without input.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Started> {
        // Held over the start: Ctrl-C comes either before, and nothing is started any more, or
        // after, and finds the child in the list.
        let mut live = live();
        let mut child = command.stdin(Stdio::null()).spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let process = Self { id: child.id() };
        live.push(child);
        Ok(Started { process, stdout, stderr })
    }

    /// Waits for the end of the program, `None` if it still runs at `deadline`.
    pub(crate) fn wait_until(&mut self, deadline: Instant) -> Option<ExitStatus> {
        loop {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// The exit status, if the program has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        let mut live = live();
        let child = live.iter_mut().find(|child| child.id() == self.id)?;
        child.try_wait().ok().flatten()
    }

    /// Asks the program to end by itself (SIGTERM).
    pub(crate) fn terminate(&mut self) {
        let pid = i32::try_from(self.id).ok().and_then(rustix::process::Pid::from_raw);
        // An ended child's number may belong to someone else by now.
        if let (Some(pid), None) = (pid, self.ended()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }

    /// Ends the program at once (SIGKILL), without a chance to say goodbye.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let mut live = live();
        if let Some(at) = live.iter().position(|child| child.id() == self.id) {
            end(live.swap_remove(at));
        }
    }
}

/// Kills and reaps every child, then does `last`, while no new child can be registered.
pub(crate) fn end_all(last: impl FnOnce()) {
    let mut live = live();
    for child in live.drain(..) {
        end(child);
    }
    last();
}

/// A command whose process dies with ours, and does not hear our terminal's Ctrl-C: on that, it is
/// stopped by us, in our order.
///
/// Where `setpriv` knows `--pdeathsig` (Linux), the kernel sees to it even when we are killed
/// outright; it watches the *thread* that starts the program, so start it from the main thread.
pub(crate) fn command(program: &Path) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = if knows_parent_death() {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.process_group(0);
    command
}

fn knows_parent_death() -> bool {
    let Some(setpriv) = on_path("setpriv") else { return false };
    let mut probe = Command::new(setpriv);
    probe.args(["--pdeathsig", "KILL", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

fn end(mut child: Child) {
    // Both only fail when the child has ended and was reaped, which is what is wanted.
    let _ = child.kill();
    let _ = child.wait();
}

/// A panic while the list was held leaves it usable: every entry is a child either way.
fn live() -> MutexGuard<'static, Vec<Child>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}
