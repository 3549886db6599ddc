//! A child process that never outlives the test, however the test ends.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

/// A running program: killed on drop, and also when the test's own process is killed.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    watchdog: Option<Watchdog>,
}

impl Process {
    /// Starts `program`; what it prints goes to the end of the file `output`.
    pub(crate) fn spawn(program: &Path, args: &[&Path], output: &Path) -> io::Result<Self> {
        let output = File::options().create(true).append(true).open(output)?;
        match SETPRIV.as_deref() {
            Some(setpriv) => Self::spawn_tied(setpriv, program, args, output),
            None => Self::spawn_watched(program, args, output),
        }
    }

    /// The kernel kills the child with its parent. `setpriv` replaces itself by the program, so the
    /// child's pid is the program's.
    fn spawn_tied(
        setpriv: &Path,
        program: &Path,
        args: &[&Path],
        output: File,
    ) -> io::Result<Self> {
        let mut command = Command::new(setpriv);
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(args);
        quiet(&mut command).stdout(output.try_clone()?).stderr(output);
        Ok(Self { child: spawn_on_lasting_thread(command)?, watchdog: None })
    }

    fn spawn_watched(program: &Path, args: &[&Path], output: File) -> io::Result<Self> {
        let mut command = Command::new(program);
        quiet(command.args(args)).stdout(output.try_clone()?).stderr(output);
        let mut child = command.spawn()?;
        match Watchdog::of(&child) {
            Ok(watchdog) => Ok(Self { child, watchdog: Some(watchdog) }),
            Err(error) => {
                let _ = child.kill().and_then(|()| child.wait());
                Err(error)
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns how the program ended, or `None` while it runs.
    pub(crate) fn exit_status(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        // The child is ours and not waited for yet, so its pid cannot be somebody else's.
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Stops the program, and returns only when it no longer runs.
    pub(crate) fn stop(&self) -> io::Result<()> {
        self.signal(Signal::STOP)?;
        let child = WaitId::Pid(Pid::from_child(&self.child));
        let deadline = Instant::now() + Duration::from_secs(1);
        while waitid(child.clone(), WaitIdOptions::STOPPED | WaitIdOptions::NOHANG)?.is_none() {
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The watchdog goes first: once the program was waited for, its pid can be anybody's.
        self.watchdog = None;
        // Errors mean that it has ended already. After the wait the port is free again.
        let _ = self.child.kill();
        let _ = self.signal(Signal::CONT);
        let _ = self.child.wait();
    }
}

/// A shell that waits for our end of a pipe to close, which no death of ours can prevent.
#[derive(Debug)]
struct Watchdog {
    shell: Child,
}

impl Watchdog {
    fn of(child: &Child) -> io::Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", "read -r _; kill -9 \"$1\"", "watchdog", &child.id().to_string()]);
        Ok(Self { shell: quiet(&mut command).stdin(Stdio::piped()).spawn()? })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // Killed before the wait closes the pipe, so that it kills nobody.
        let _ = self.shell.kill().and_then(|()| self.shell.wait());
    }
}

/// Looks for `name` in `PATH` and then in the given directories.
pub(crate) fn find_program(name: &str, elsewhere: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(elsewhere.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|program| fs::metadata(program).is_ok_and(|found| found.is_file()))
}

/// The `setpriv` of util-linux; the one of busybox cannot set a death signal.
static SETPRIV: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let setpriv = find_program("setpriv", &["/usr/bin", "/bin"])?;
    let mut trial = Command::new(&setpriv);
    let works = quiet(trial.args(["--pdeathsig", "KILL", "--", "true"])).status();
    works.is_ok_and(|status| status.success()).then_some(setpriv)
});

/// Starts `command` from a thread that lives as long as the process.
///
/// The kernel sends the death signal when the *thread* that forked ends, and a test's thread, or a
/// runtime's, can end long before a server that several tests share.
fn spawn_on_lasting_thread(mut command: Command) -> io::Result<Child> {
    type Job = Box<dyn FnOnce() + Send>;
    static SPAWNER: LazyLock<Sender<Job>> = LazyLock::new(|| {
        let (sender, jobs) = channel::<Job>();
        thread::spawn(move || jobs.into_iter().for_each(|job| job()));
        sender
    });
    let (answer, child) = sync_channel(1);
    let job = Box::new(move || {
        // The receiver waits below for as long as this runs.
        let _ = answer.send(command.spawn());
    });
    let lost = || io::Error::other("the thread that starts programs has ended");
    SPAWNER.send(job).map_err(|_| lost())?;
    child.recv().map_err(|_| lost())?
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_alive(pid: u32) -> bool {
        let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
        rustix::process::test_kill_process(pid).is_ok()
    }

    fn sleeper() -> PathBuf {
        find_program("sleep", &[]).unwrap()
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn program_outlives_the_thread_that_asked_for_it() {
        let started = thread::spawn(|| {
            let args = [Path::new("60")];
            let process = Process::spawn(&sleeper(), &args, Path::new("/dev/null")).unwrap();
            // Until then it is still `setpriv`, which has yet to ask for the death signal.
            let name = format!("/proc/{}/comm", process.pid());
            while fs::read_to_string(&name).unwrap() != "sleep\n" {
                thread::yield_now();
            }
            process
        });
        let mut process = started.join().unwrap();
        // The signal would come when the kernel takes the thread down, a little after the join.
        let in_vain = Instant::now() + Duration::from_millis(100);
        while Instant::now() < in_vain {
            assert_eq!(process.exit_status().unwrap(), None);
            thread::yield_now();
        }
    }

    #[test]
    fn stopped_program_dies_with_its_handle() {
        let process =
            Process::spawn(&sleeper(), &[Path::new("60")], Path::new("/dev/null")).unwrap();
        let pid = process.pid();
        process.stop().unwrap();
        drop(process);
        assert!(!is_alive(pid));
    }

    #[test]
    fn watchdog_kills_the_program_when_its_pipe_closes() {
        let null = File::options().append(true).open("/dev/null").unwrap();
        let mut process = Process::spawn_watched(&sleeper(), &[Path::new("60")], null).unwrap();
        // What the kernel does to the pipe when our process is killed.
        process.watchdog.as_mut().unwrap().shell.stdin = None;
        assert!(!process.child.wait().unwrap().success());
    }
}
