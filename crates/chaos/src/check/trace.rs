//! All that happened to one key about one time, for whoever has to find out why.

use std::io;

use super::Life;
use crate::faults::Window;
use crate::record::{self, ALL_KEYS, Record};

/// How far the trace goes back and ahead, µs.
const BEFORE_US: u64 = 5_000_000;
const AFTER_US: u64 = 200_000;

/// One line for each record of `key` about `at`, and for each fault, in the order of their
/// beginnings. Times are µs relative to `at`.
pub(super) fn of(key: u32, at: u64, lives: &[Life], windows: &[Window]) -> io::Result<Vec<String>> {
    let (from, to) = (at.saturating_sub(BEFORE_US), at + AFTER_US);
    let relative = |time: u64| time as i64 - at as i64;
    let mut found: Vec<(u64, String)> = Vec::new();
    for life in lives {
        record::read(&life.history, |record| {
            let (whose, begun, ended) = when(&record);
            let concerns = whose.is_none_or(|other| other == key || other == ALL_KEYS);
            if concerns && begun <= to && ended >= from {
                let (start, end) = (relative(begun), relative(ended));
                let node = format!("node {}.{}", life.node, life.life);
                found.push((begun, format!("{start:>9} to {end:>9} {node}: {record:?}")));
            }
        })?;
    }
    for window in windows.iter().filter(|window| window.is_open_between(from, to)) {
        let (start, end) = (relative(window.from), relative(window.to));
        let Window { fault, node, .. } = window;
        found.push((window.from, format!("{start:>9} to {end:>9} fault: {fault:?}, {node:?}")));
    }
    found.sort();
    Ok(found.into_iter().map(|(_, line)| line).collect())
}

/// The key of a record, if it has one, and when it began and ended.
fn when(record: &Record) -> (Option<u32>, u64, u64) {
    match *record {
        Record::Hits { key, first, last, .. } => (Some(key), first, last),
        Record::Written { key, called, returned, .. } => (Some(key), called, returned),
        Record::Loading { key, at, .. }
        | Record::Loaded { key, at, .. }
        | Record::Writing { key, at, .. }
        | Record::Nonsense { key, at } => (Some(key), at, at),
        Record::Pause { from, to } => (None, from, to),
    }
}
