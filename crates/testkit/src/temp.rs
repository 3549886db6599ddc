//! A directory that is removed when its owner is.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;
use std::{env, io, process};

use rustix::fs::{FlockOperation, flock};

const PREFIX: &str = "fleetwide-test-";
const LOCK: &str = "owner.lock";
/// A younger directory may not be locked yet by its owner.
const SWEEP_AGE: Duration = Duration::from_secs(60);

/// A fresh directory, removed with all it holds on drop.
///
/// A killed process leaves its directories behind; the first one of a later process removes them.
#[derive(Debug)]
pub struct TempDir {
    path: PathBuf,
    /// Locked for as long as the process lives, which tells the directories of the dead.
    _lock: File,
}

impl TempDir {
    /// Makes a directory in the system's folder for such.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn new() -> io::Result<Self> {
        static SWEEP: Once = Once::new();
        SWEEP.call_once(|| sweep(&env::temp_dir(), SWEEP_AGE));
        let name = format!("{PREFIX}{}-{:08x}", process::id(), rand::random::<u32>());
        let path = env::temp_dir().join(name);
        fs::create_dir(&path)?;
        let lock = File::create(path.join(LOCK))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { path, _lock: lock })
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // Nobody is left to tell, and a panic here would hide the test's own.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes what killed processes left in `parent`. Errors mean that another one was faster.
fn sweep(parent: &Path, age: Duration) {
    let is_ours = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX))
    };
    let folders = fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path());
    for folder in folders.filter(is_ours) {
        if is_abandoned(&folder, age).unwrap_or(false) {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

fn is_abandoned(folder: &Path, age: Duration) -> io::Result<bool> {
    let lock = File::open(folder.join(LOCK))?;
    let is_old = lock.metadata()?.modified()?.elapsed().is_ok_and(|elapsed| elapsed >= age);
    Ok(is_old && flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_of_the_dead_is_swept_and_that_of_the_living_is_not() {
        let parent = TempDir::new().unwrap();
        let make = |name: &str| {
            let path = parent.path().join(format!("{PREFIX}{name}"));
            fs::create_dir(&path).unwrap();
            (File::create(path.join(LOCK)).unwrap(), path)
        };
        let (living, owned) = make("living");
        flock(&living, FlockOperation::NonBlockingLockExclusive).unwrap();
        let (_, abandoned) = make("dead");
        sweep(parent.path(), SWEEP_AGE);
        assert!(abandoned.exists(), "it is too young to be judged");
        sweep(parent.path(), Duration::ZERO);
        assert!(owned.exists() && !abandoned.exists());
    }
}
