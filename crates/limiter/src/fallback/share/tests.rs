use std::sync::atomic::{AtomicU32, Ordering};

use fleetwide_core_traits::Namespace;

use super::*;
use crate::{BucketQuota, FixedQuota, GcraQuota, LogQuota, WindowQuota};

const SECOND: Duration = Duration::from_secs(1);

fn key(name: usize) -> Key {
    let namespace = Namespace::new("test").unwrap();
    namespace.tag("limiter", name.to_string().as_bytes()).unwrap().key()
}

fn at(seconds: u64) -> MonoTime {
    MonoTime::from_micros(1_000_000 * (86_400 + seconds))
}

/// So many instances, and nothing that knows better.
fn configured(least: u32) -> Instances {
    Instances { least: NonZeroU32::new(least).unwrap(), membership: None }
}

/// One of two instances that share 10 cells in any minute.
fn window(keys_max: usize) -> Share<WindowQuota> {
    let ten = WindowQuota::new(10, 60 * SECOND).unwrap();
    Share::new(ten, configured(2), keys_max)
}

/// How many instances live, as the test sets it; 0 is not known.
#[derive(Default)]
struct Live(AtomicU32);

impl Live {
    fn are(&self, instances: u32) {
        self.0.store(instances, Ordering::Relaxed);
    }
}

impl Membership for Live {
    fn instances(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.0.load(Ordering::Relaxed))
    }
}

/// A share of one of two instances, or of as many as are known to live.
fn among<A: Algorithm>(whole: A) -> (Share<A>, Arc<Live>) {
    let live = Arc::new(Live::default());
    let instances = Instances { membership: Some(live.clone()), ..configured(2) };
    (Share::new(whole, instances, 100), live)
}

fn spend<A: Algorithm>(share: &Share<A>, name: usize, now: MonoTime) -> bool {
    share.decide(&key(name), 1, now).unwrap().unwrap().is_allowed
}

fn spend_all<A: Algorithm>(share: &Share<A>, name: usize, now: MonoTime) -> usize {
    (0..1_000).take_while(|_| spend(share, name, now)).count()
}

#[test]
fn instance_spends_its_share_and_no_more() {
    assert_eq!(spend_all(&window(100), 1, at(0)), 5);
    let gcra = GcraQuota::new(10, SECOND, 9).unwrap();
    let share = Share::new(gcra, configured(3), 100);
    assert_eq!(spend_all(&share, 1, at(0)), 3);
    assert_eq!(spend_all(&share, 1, at(0).plus(Duration::from_millis(299))), 0);
    assert_eq!(spend_all(&share, 1, at(0).plus(Duration::from_millis(300))), 1);
}

#[test]
fn share_of_each_algorithm_is_its_part_of_the_cells() {
    fn spent_of<A: Algorithm>(whole: A) -> usize {
        spend_all(&Share::new(whole, configured(3), 100), 1, at(0))
    }
    assert_eq!(spent_of(BucketQuota::new(10, SECOND, 9).unwrap()), 3);
    assert_eq!(spent_of(FixedQuota::new(10, 60 * SECOND).unwrap()), 3);
    assert_eq!(spent_of(LogQuota::new(10, 60 * SECOND).unwrap()), 3);
}

#[test]
fn share_starts_from_what_the_fleet_said_is_left() {
    let share = window(100);
    share.learn(&key(1), 4, at(0));
    share.learn(&key(2), 0, at(0));
    share.learn(&key(3), 10, at(0));
    assert_eq!([1, 2, 3].map(|name| spend_all(&share, name, at(1))), [2, 0, 5]);
    // What had been spent by then leaves the window when it is a minute old.
    assert_eq!([1, 2, 3].map(|name| spend_all(&share, name, at(61))), [3, 5, 0]);
}

// Red when another quota has a table of its own, and when what the fleet said counts as a part of
// the new quota instead of as cells.
#[test]
fn share_of_another_quota_has_as_much_spent() {
    let share = window(100);
    assert_eq!(spend_all(&share, 1, at(0)), 5);
    share.learn(&key(2), 0, at(0));
    let twenty = share.with(WindowQuota::new(20, 60 * SECOND).unwrap());
    assert_eq!([1, 2].map(|name| spend_all(&twenty, name, at(1))), [5, 5]);
    assert_eq!(spend_all(&share, 1, at(2)), 0);
}

#[test]
fn share_survives_a_backend_that_comes_and_goes() {
    let share = window(100);
    assert_eq!(spend_all(&share, 1, at(0)), 5);
    // The backend came back empty, as after a restart, and says that all is left.
    share.learn(&key(1), 10, at(1));
    assert_eq!(spend_all(&share, 1, at(2)), 0);
}

#[test]
fn cost_above_the_share_is_not_decided_here() {
    assert_eq!(window(100).decide(&key(1), 6, at(0)), Ok(None));
    assert!(!window(100).peek(&key(1), 6, at(0)).is_allowed);
}

#[test]
fn peek_spends_nothing() {
    let share = window(100);
    share.learn(&key(1), 4, at(0));
    for _ in 0..3 {
        assert_eq!(share.peek(&key(1), 1, at(0)).remaining, 2);
    }
    assert_eq!((share.len(), spend_all(&share, 1, at(0))), (0, 2));
}

#[test]
fn full_table_refuses_new_keys_rather_than_forget_what_was_spent() {
    let share = window(160);
    let names: Vec<_> =
        (0..400).filter(|&name| share.decide(&key(name), 5, at(0)).is_ok()).collect();
    assert_eq!(share.len(), names.len());
    assert!(names.len() <= 160, "{} keys", names.len());
    for name in names {
        assert!(!spend(&share, name, at(1)), "{name} got a second share");
    }
    // When all have their cells back, there is room again.
    assert!((1_000..1_050).all(|name| spend(&share, name, at(70))));
}

#[test]
fn what_the_fleet_said_is_bounded_too() {
    let share = window(160);
    for name in 0..10_000 {
        share.learn(&key(name), 0, at(0));
    }
    let known: usize = share
        .table
        .shards
        .iter()
        .map(|shard| shard.lock().known.iter().map(HashMap::len).sum::<usize>())
        .sum();
    assert!(known <= 160, "{known} keys");
    assert!(!spend(&share, 9_999, at(1)), "what was said last is remembered");
}

#[test]
fn reset_gives_a_key_its_share_back() {
    let share = window(100);
    assert_eq!(spend_all(&share, 1, at(0)), 5);
    share.forget(&key(1));
    assert_eq!(spend_all(&share, 1, at(0)), 5);
}

// Seen red: when the share goes by the configured number alone.
#[test]
fn share_is_divided_by_the_instances_that_were_last_known_to_live() {
    let (share, live) = among(WindowQuota::new(60, 60 * SECOND).unwrap());
    let mut spent_of = Vec::new();
    for (name, instances) in [3, 4, 60].into_iter().enumerate() {
        live.are(instances);
        spent_of.push(spend_all(&share, name, at(0)));
    }
    assert_eq!(spent_of, [20, 15, 1]);
    // A part of what the fleet says is left, too.
    live.are(4);
    share.learn(&key(9), 20, at(0));
    assert_eq!(spend_all(&share, 9, at(0)), 5);
}

// Seen red: when the count that is known replaces the configured one, and when another quota is divided by
// the configured one alone.
#[test]
fn no_fewer_instances_are_assumed_than_were_configured() {
    let (share, live) = among(WindowQuota::new(60, 60 * SECOND).unwrap());
    assert_eq!(spend_all(&share, 1, at(0)), 30, "not known");
    live.are(1);
    assert_eq!(spend_all(&share, 2, at(0)), 30, "fewer than configured");
    let other = share.with(WindowQuota::new(80, 60 * SECOND).unwrap());
    assert_eq!(spend_all(&other, 3, at(0)), 40);
    live.are(8);
    assert_eq!(spend_all(&other, 4, at(0)), 10, "another quota is divided by the same count");
}

// Seen red: when a share of another size begins with nothing spent.
#[test]
fn what_was_spent_stays_spent_when_the_count_changes() {
    fn check<A: Algorithm>(whole: A) {
        let (share, live) = among(whole);
        assert_eq!(spend_all(&share, 1, at(0)), 30);
        live.are(6);
        assert_eq!(spend_all(&share, 1, at(0)), 0, "{whole:?}: 30 of 10");
        assert_eq!(spend_all(&share, 2, at(0)), 10, "{whole:?}");
        for instances in [3, 6, 0, 3, 60, 3] {
            live.are(instances);
            spend_all(&share, 2, at(0));
        }
        assert_eq!(spend_all(&share, 2, at(0)), 0, "{whole:?}: 30 of 20");
        live.are(2);
        assert_eq!(spend_all(&share, 2, at(0)), 0, "{whole:?}: it had two instances' share");
    }
    check(GcraQuota::new(60, 60 * SECOND, 60).unwrap());
    check(BucketQuota::new(60, 60 * SECOND, 60).unwrap());
    check(WindowQuota::new(60, 60 * SECOND).unwrap());
    check(FixedQuota::new(60, 60 * SECOND).unwrap());
    check(LogQuota::new(60, 60 * SECOND).unwrap());
}

// Seen red: when a change of the count gives a key its cells back.
#[test]
fn count_that_never_rests_admits_no_more_than_the_fewest_instances_would() {
    fn check<A: Algorithm>(whole: A) {
        let (share, live) = among(whole);
        let mut admitted = 0;
        // Ten minutes, by a share of at most half of 60 a minute.
        for second in 0..600 {
            live.are([2, 5, 3, 60, 0, 7, 1_000_000][second as usize % 7]);
            admitted += spend_all(&share, 1, at(second));
        }
        let bound = 30 + 30 * 10;
        assert!(admitted <= bound, "{whole:?}: {admitted} of {bound}");
        assert!(admitted > 30, "{whole:?}: {admitted}");
    }
    check(GcraQuota::new(60, 60 * SECOND, 60).unwrap());
    check(BucketQuota::new(60, 60 * SECOND, 60).unwrap());
    check(WindowQuota::new(60, 60 * SECOND).unwrap());
    check(FixedQuota::new(60, 60 * SECOND).unwrap());
    check(LogQuota::new(60, 60 * SECOND).unwrap());
}
