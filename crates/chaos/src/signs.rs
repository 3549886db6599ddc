//! How the run and its nodes speak to each other: through small files, which a frozen or killed
//! process on the other side cannot hold up.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What the nodes do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Read and write.
    Run = 0,
    /// Read.
    Settle = 1,
    /// Invalidate each of the own hot keys until that is done, then read until all is right.
    Finish = 2,
    /// Write down what is left, and end.
    End = 3,
}

/// The file that tells the phase.
#[derive(Debug)]
pub(crate) struct PhaseFile(File);

impl PhaseFile {
    /// Opens it in `folder`, and makes it if it is not there.
    ///
    /// # Errors
    /// The operating system's error.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join("phase");
        Ok(Self(File::options().create(true).truncate(false).read(true).write(true).open(path)?))
    }

    /// Tells the phase.
    ///
    /// # Errors
    /// The operating system's error.
    pub(crate) fn set(&self, phase: Phase) -> io::Result<()> {
        self.0.write_all_at(&[phase as u8], 0)
    }

    /// The phase; [`Phase::Run`] before any was told.
    ///
    /// # Errors
    /// The operating system's error.
    pub(crate) fn get(&self) -> io::Result<Phase> {
        let mut byte = [0];
        Ok(match (self.0.read_at(&mut byte, 0)?, byte[0]) {
            (1, 1) => Phase::Settle,
            (1, 2) => Phase::Finish,
            (1, 3..) => Phase::End,
            _ => Phase::Run,
        })
    }
}

/// How a node is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// When it was written.
    pub(crate) at: u64,
    /// Reads that returned a value.
    pub(crate) reads: u64,
    /// When the last read began that this process answered with a verified value; 0 = never.
    pub(crate) verified_at: u64,
    /// Whether it has invalidated all of its hot keys at the end.
    pub(crate) invalidated: bool,
    /// Whether it reads the last version of all hot keys since then.
    pub(crate) converged: bool,
    /// What it has read instead, if it does not.
    pub(crate) behind: Behind,
}

/// The first hot key of which a node does not read the last version, or only unverified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Behind {
    /// Which.
    pub(crate) key: u64,
    /// What it has read of it, and whether that is marked as unverified; the largest number if it
    /// has read nothing.
    pub(crate) version: u64,
    pub(crate) unverified: bool,
    /// What it should have read.
    pub(crate) last: u64,
}

const FIELDS: usize = 9;

impl Status {
    /// Writes it to `file`.
    ///
    /// # Errors
    /// The operating system's error.
    pub(crate) fn write(self, file: &File) -> io::Result<()> {
        let Self { at, reads, verified_at, invalidated, converged, behind } = self;
        let Behind { key, version, unverified, last } = behind;
        let (invalidated, converged) = (invalidated.into(), converged.into());
        let fields =
            [at, reads, verified_at, invalidated, converged, key, version, unverified.into(), last];
        let bytes: Vec<u8> = fields.iter().flat_map(|field: &u64| field.to_le_bytes()).collect();
        file.write_all_at(&bytes, 0)
    }

    /// Reads what lies at `path`; nothing if nothing does yet.
    pub(crate) fn read(path: &Path) -> Self {
        let mut bytes = [0; FIELDS * 8];
        let read = File::open(path).and_then(|file| file.read_exact_at(&mut bytes, 0));
        if read.is_err() {
            return Self::default();
        }
        let field =
            |index: usize| u64::from_le_bytes(std::array::from_fn(|at| bytes[index * 8 + at]));
        Self {
            at: field(0),
            reads: field(1),
            verified_at: field(2),
            invalidated: field(3) != 0,
            converged: field(4) != 0,
            behind: Behind {
                key: field(5),
                version: field(6),
                unverified: field(7) != 0,
                last: field(8),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use fleetwide_testkit::TempDir;

    use super::*;

    #[test]
    fn what_one_side_says_the_other_hears() {
        let folder = TempDir::new().unwrap();
        let (here, there) = (PhaseFile::open(folder.path()), PhaseFile::open(folder.path()));
        let (here, there) = (here.unwrap(), there.unwrap());
        assert_eq!(there.get().unwrap(), Phase::Run);
        for phase in [Phase::Settle, Phase::Finish, Phase::End, Phase::Run] {
            here.set(phase).unwrap();
            assert_eq!(there.get().unwrap(), phase);
        }
        let path = folder.path().join("status");
        assert_eq!(Status::read(&path), Status::default());
        let behind = Behind { key: 7, version: 4, unverified: true, last: 5 };
        let (invalidated, converged) = (true, false);
        let status = Status { at: 3, reads: 9, verified_at: 2, invalidated, converged, behind };
        status.write(&File::create(&path).unwrap()).unwrap();
        assert_eq!(Status::read(&path), status);
    }
}
