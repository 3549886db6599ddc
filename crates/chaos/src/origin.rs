//! The database of the run: one version per key, outside Redis, the same for all processes.
//!
//! The version of a key is the length of a file, and a write appends one byte to it. The kernel
//! orders the appends and shows each length at once, so the versions are linearizable over all
//! processes without a lock: a process that is frozen or killed in the middle holds up nobody.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Seek, Write};
use std::path::{Path, PathBuf};

/// A folder of versions.
#[derive(Clone, Debug)]
pub struct Origin {
    folder: PathBuf,
}

impl Origin {
    /// The origin in `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// The version of `key`: how often it was written.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn read(&self, key: u32) -> io::Result<u64> {
        match fs::metadata(self.path(key)) {
            Ok(meta) => Ok(meta.len()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Writes `key` and returns the version that this write, and no other, has made.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn bump(&self, key: u32) -> io::Result<u64> {
        let mut file = File::options().create(true).append(true).open(self.path(key))?;
        file.write_all(&[1])?;
        // After an append the position of this file handle is the end of its own byte, whatever
        // others have appended since.
        file.stream_position()
    }

    fn path(&self, key: u32) -> PathBuf {
        self.folder.join(key.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use fleetwide_testkit::TempDir;

    use super::*;

    /// Red with the length of the file in the place of the handle's own position.
    #[test]
    fn each_write_gets_a_version_of_its_own_and_a_reader_sees_it_at_once() {
        let folder = TempDir::new().unwrap();
        let origin = Origin::open(folder.path()).unwrap();
        assert_eq!(origin.read(7).unwrap(), 0);
        let write = || {
            let seen = |()| {
                let version = origin.bump(7).unwrap();
                assert!(origin.read(7).unwrap() >= version, "a write must be seen at once");
                version
            };
            (0..2000).map(|_| seen(())).collect::<Vec<u64>>()
        };
        let mut all: Vec<u64> = thread::scope(|scope| {
            let writers: Vec<_> = (0..4).map(|_| scope.spawn(write)).collect();
            writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
        });
        all.sort_unstable();
        assert_eq!(all, (1..=8000).collect::<Vec<u64>>());
        assert_eq!((origin.read(7).unwrap(), origin.read(8).unwrap()), (8000, 0));
    }
}
