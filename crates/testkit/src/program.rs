//! A program of the workspace's own as a child process, to be frozen and killed.

use std::io;
use std::path::Path;
use std::process::ExitStatus;

use rustix::process::Signal;

use crate::redis::process::Process;

/// A running program, such as one node of a fleet.
///
/// It gets no input, and our environment. It is killed when this value is dropped, and also when
/// our own process is killed, frozen or not.
#[derive(Debug)]
pub struct Program(Process);

impl Program {
    /// Starts `program` with `args`. What it prints goes to the end of the file `output`.
    ///
    /// # Errors
    /// The operating system's error; no process is left behind.
    pub fn start(program: &Path, args: &[&Path], output: &Path) -> io::Result<Self> {
        Process::spawn(program, args, output).map(Self)
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Returns how it ended, or `None` while it runs.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn exit_status(&mut self) -> io::Result<Option<ExitStatus>> {
        self.0.exit_status()
    }

    /// Freezes it with SIGSTOP, and returns when it does not run any more.
    ///
    /// # Errors
    /// The operating system's error, such as that it has ended.
    pub fn stop(&self) -> io::Result<()> {
        self.0.stop()
    }

    /// Lets a frozen one go on.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn cont(&self) -> io::Result<()> {
        self.0.signal(Signal::CONT)
    }

    /// Kills it with SIGKILL, and returns when it is gone.
    pub fn kill(self) {
        drop(self);
    }
}
