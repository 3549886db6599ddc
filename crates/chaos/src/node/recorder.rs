//! Writes the history of a node down.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::record::{FreshnessCode, RUN_US_MAX, Record, TierCode};

/// The history of one process, in a file.
///
/// What a check may rely on (writes, loads, pauses) is with the kernel when the call returns, so
/// that a kill loses none of it. Of hits a kill loses the last [`RUN_US_MAX`], which only makes
/// the check see less.
#[derive(Debug)]
pub(crate) struct Recorder {
    file: Mutex<File>,
    runs: Mutex<HashMap<u32, Run>>,
    reads: AtomicU64,
    /// When the last verified hit of L1 began.
    verified_at: AtomicU64,
}

/// Equal hits so far.
#[derive(Clone, Copy, Debug)]
struct Run {
    seen: Seen,
    first: u64,
    last: u64,
    count: u32,
}

/// What a read returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) version: u64,
    pub(crate) tier: TierCode,
    pub(crate) freshness: FreshnessCode,
}

impl Recorder {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: Mutex::new(File::options().create(true).append(true).open(path)?),
            runs: Mutex::default(),
            reads: AtomicU64::new(0),
            verified_at: AtomicU64::new(0),
        })
    }

    /// A read that began at `at` has returned `seen`.
    pub(crate) fn hit(&self, key: u32, at: u64, seen: Seen) -> io::Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if (seen.tier, seen.freshness) == (TierCode::L1, FreshnessCode::Verified) {
            self.verified_at.fetch_max(at, Ordering::Relaxed);
        }
        let new = Run { seen, first: at, last: at, count: 1 };
        let mut runs = self.runs.lock();
        let run = runs.entry(key).or_insert(Run { count: 0, ..new });
        let ended = if run.seen == seen && at.saturating_sub(run.first) <= RUN_US_MAX {
            run.count += 1;
            run.first = run.first.min(at);
            run.last = run.last.max(at);
            None
        } else {
            Some(std::mem::replace(run, new))
        };
        drop(runs);
        ended.map_or(Ok(()), |run| self.write(&[run.record(key)]))
    }

    /// Writes down what happened.
    pub(crate) fn record(&self, record: Record) -> io::Result<()> {
        self.write(&[record])
    }

    /// Writes the hits down that have not been yet.
    pub(crate) fn flush(&self) -> io::Result<()> {
        let runs = std::mem::take(&mut *self.runs.lock());
        let records: Vec<Record> = runs.into_iter().map(|(key, run)| run.record(key)).collect();
        if records.is_empty() { Ok(()) } else { self.write(&records) }
    }

    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    pub(crate) fn verified_at(&self) -> u64 {
        self.verified_at.load(Ordering::Relaxed)
    }

    fn write(&self, records: &[Record]) -> io::Result<()> {
        let bytes: Vec<u8> = records.iter().flat_map(|record| record.to_bytes()).collect();
        self.file.lock().write_all(&bytes)
    }
}

impl Run {
    fn record(self, key: u32) -> Record {
        let Self { seen: Seen { version, tier, freshness }, first, last, count } = self;
        Record::Hits { key, version, tier, freshness, first, last, count }
    }
}

#[cfg(test)]
mod tests {
    use fleetwide_testkit::TempDir;

    use super::*;
    use crate::record::read;

    #[test]
    fn equal_hits_are_one_record_until_something_differs_or_time_is_up() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("history");
        let recorder = Recorder::create(&path).unwrap();
        let (tier, freshness) = (TierCode::L1, FreshnessCode::Verified);
        let hit = |version, at| {
            recorder.hit(5, at, Seen { version, tier, freshness }).unwrap();
        };
        // A task that read the clock first may come second.
        for at in [100, 90, 130] {
            hit(1, at);
        }
        hit(2, 140);
        hit(2, 140 + RUN_US_MAX);
        hit(2, 141 + RUN_US_MAX);
        recorder.flush().unwrap();
        recorder.flush().unwrap();
        let mut found = Vec::new();
        read(&path, |record| match record {
            Record::Hits { version, first, last, count, .. } => {
                found.push((version, first, last, count));
            }
            other => panic!("{other:?}"),
        })
        .unwrap();
        let late = 141 + RUN_US_MAX;
        assert_eq!(found, [(1, 90, 130, 3), (2, 140, late - 1, 2), (2, late, late, 1)]);
        assert_eq!((recorder.reads(), recorder.verified_at()), (6, late));
    }
}
