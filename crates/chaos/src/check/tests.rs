//! Small histories, each with one thing that must or must not be found.

use fleetwide_testkit::TempDir;

use super::*;
use crate::record::{ALL_KEYS, FreshnessCode, Outcome, TierCode};

const S: u64 = 1_000_000;

/// What is found in the histories of node 0, 1, ..., each of one life; the database has written
/// key 1 nine times.
fn found(histories: &[&[Record]], windows: &[Window]) -> Vec<(Promise, u64)> {
    let verdict = judged(histories, windows);
    let mut broken: Vec<_> = verdict.broken.into_iter().collect();
    broken.sort_unstable();
    broken
}

fn judged(histories: &[&[Record]], windows: &[Window]) -> Verdict {
    let folder = TempDir::new().unwrap();
    let origin = Origin::open(&folder.path().join("origin")).unwrap();
    (0..9).for_each(|_| assert!(origin.bump(1).unwrap() > 0));
    let life = |(node, records): (usize, &&[Record])| {
        let history = folder.path().join(node.to_string());
        let bytes: Vec<u8> = records.iter().flat_map(|record| record.to_bytes()).collect();
        std::fs::write(&history, bytes).unwrap();
        Life { node: node as u32, life: 0, history, died: u64::MAX }
    };
    let lives: Vec<Life> = histories.iter().enumerate().map(life).collect();
    check(&lives, windows, &origin).unwrap()
}

fn written(version: u64, outcome: Outcome, returned: u64) -> Record {
    Record::Written { key: 1, version, outcome, called: returned - 100, returned }
}

fn hits(version: u64, tier: TierCode, freshness: FreshnessCode, last: u64) -> Record {
    Record::Hits { key: 1, version, tier, freshness, first: last - 10, last, count: 4 }
}

fn load(load: u32, from: u64, to: u64) -> [Record; 2] {
    let (key, trouble) = (1, false);
    [
        Record::Loading { key, load, at: from, trouble },
        Record::Loaded { key, load, at: to, trouble },
    ]
}

use FreshnessCode::{Unverified, Verified};
use TierCode::{L1, L2, Load as Loaded};

#[test]
fn another_node_may_be_behind_by_the_bound_and_no_more() {
    let write = written(5, Outcome::Done, 10 * S);
    for (tier, freshness, behind, expected) in [
        (L1, Verified, S, None),
        (L1, Verified, S + 1, Some(Promise::C2)),
        (L1, Unverified, 9 * S, None),
        (Loaded, Verified, S, None),
        (Loaded, Verified, S + 1, Some(Promise::C2)),
        (L2, Verified, S / 5, None),
        (L2, Verified, S / 5 + 1, Some(Promise::C1Shared)),
    ] {
        let read = hits(4, tier, freshness, 10 * S + behind);
        let expected: Vec<_> = expected.map(|promise| (promise, 4)).into_iter().collect();
        assert_eq!(found(&[&[write], &[read]], &[]), expected, "{tier:?} {freshness:?} {behind}");
    }
    let current = hits(5, L1, Verified, 99 * S);
    assert_eq!(found(&[&[write], &[current]], &[]), []);
}

#[test]
fn the_writers_own_process_may_not_be_behind_at_all_whatever_came_of_the_write() {
    for (outcome, expected) in [
        (Outcome::Done, vec![(Promise::C1Own, 4)]),
        (Outcome::Queued, vec![(Promise::C1Own, 4)]),
        (Outcome::Dropped, vec![(Promise::C1Own, 4)]),
    ] {
        let own = [written(5, outcome, 10 * S), hits(4, L1, Unverified, 10 * S + 1)];
        assert_eq!(found(&[&own], &[]), expected, "{outcome:?}");
    }
    let before = [written(5, Outcome::Done, 10 * S), hits(4, L1, Verified, 10 * S)];
    assert_eq!(found(&[&before], &[]), []);
}

/// Red if only the write of the very next version were asked for.
#[test]
fn a_later_write_that_returned_first_counts_for_all_versions_before_it() {
    let writes = [written(6, Outcome::Done, 10 * S), written(5, Outcome::Done, 14 * S)];
    let read = [hits(4, L1, Verified, 12 * S)];
    assert_eq!(found(&[&writes, &read], &[]), [(Promise::C2, 4)]);
}

#[test]
fn a_write_that_was_not_confirmed_binds_nobody_else() {
    let writes = [written(5, Outcome::Queued, 10 * S), written(6, Outcome::Dropped, 10 * S)];
    let read = [hits(4, L1, Verified, 19 * S)];
    assert_eq!(found(&[&writes, &read], &[]), []);
}

#[test]
fn a_value_out_of_redis_may_be_older_by_the_time_in_which_its_process_stood_still() {
    let write = [written(5, Outcome::Done, 10 * S)];
    let read = hits(4, L2, Unverified, 10 * S + 600_000);
    let pause = Record::Pause { from: 10 * S + 50_000, to: 10 * S + 550_000 };
    assert_eq!(found(&[&write, &[read]], &[]), [(Promise::C1Shared, 4)]);
    assert_eq!(found(&[&write, &[pause, read]], &[]), []);
}

#[test]
fn a_version_that_was_never_written_is_nonsense() {
    assert_eq!(found(&[&[hits(10, L1, Verified, S)]], &[]), [(Promise::Nonsense, 4)]);
    assert_eq!(found(&[&[Record::Nonsense { key: 1, at: S }]], &[]), [(Promise::Nonsense, 1)]);
}

#[test]
fn loaders_side_by_side_need_a_reason() {
    let (one, other) = (load(0, 10 * S, 12 * S), load(0, 11 * S, 13 * S));
    assert_eq!(found(&[&one, &other], &[]), [(Promise::C3, 1)]);
    let later = load(0, 12 * S, 13 * S);
    assert_eq!(found(&[&one, &later], &[]), []);
    for key in [1, ALL_KEYS] {
        let (called, returned) = (11 * S - 5, 20 * S);
        let write = [Record::Written { key, version: 5, outcome: Outcome::Done, called, returned }];
        let verdict = judged(&[&one, &other, &write], &[]);
        assert_eq!((verdict.violations(), verdict.loads.invalidated), (0, 1));
    }
    let long = [&one[..], &[Record::Pause { from: 9 * S, to: 11 * S + 600_000 }]].concat();
    let other = load(0, 11 * S + 700_000, 13 * S);
    let verdict = judged(&[&long, &other], &[]);
    assert_eq!((verdict.violations(), verdict.loads.paused), (0, 1));
    let window = |node| Window { fault: Fault::Stall, node, from: 11 * S, to: 11 * S + 1 };
    for (node, expected) in [(None, 0), (Some(1), 0), (Some(2), 1)] {
        assert_eq!(judged(&[&one, &other], &[window(node)]).violations(), expected, "{node:?}");
    }
}

#[test]
fn what_a_restored_redis_has_lost_is_missed_only_until_that_is_found_out() {
    let window = Window { fault: Fault::Rewind, node: None, from: 10 * S, to: 12 * S };
    let known = 12 * S + FOUND_OUT_US;
    for (returned, read_at, expected) in [
        (10 * S + 200, known, 0),
        (10 * S + 200, known + 1, 4),
        (10 * S - 1, known, 4),
        (12 * S + 200, known, 4),
    ] {
        let write = written(5, Outcome::Done, returned);
        let read = hits(4, L2, Unverified, read_at);
        let verdict = judged(&[&[write], &[read]], &[window]);
        assert_eq!(verdict.violations(), expected, "{returned} {read_at}");
        assert_eq!(verdict.reads.in_loss, 4 - expected);
    }
}
