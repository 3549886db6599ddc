//! The store and the tier in front of it stay under their budgets, and say what they dropped.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::{Local, Store, Ttl};
use fleetwide_mem_backend::{Departure, Memory, MokaLocal};
use fleetwide_testkit::{SimClock, eventually};
use futures_util::FutureExt;
use support::key;

const MIB: u64 = 1 << 20;
const HOUR: Duration = Duration::from_secs(3600);

fn ttl(duration: Duration) -> Ttl {
    Ttl::new(duration).unwrap()
}

fn set(memory: &Memory, number: usize, bytes: usize, lives: Duration) {
    let value = Bytes::from(vec![b'x'; bytes]);
    let done = memory.store().set(&key(number), value, ttl(lives)).now_or_never();
    done.expect("memory waits for nobody").unwrap();
}

fn holds(memory: &Memory, number: usize) -> bool {
    memory.store().get(&key(number)).now_or_never().unwrap().unwrap().is_some()
}

#[test]
fn store_stays_under_its_budget_while_it_is_written() {
    let memory = Memory::builder().store_bytes_max(MIB).build();
    for number in 0..1_000 {
        set(&memory, number, 10_000, HOUR);
        // Looking is much slower than writing, and each write could be the one too many.
        if number % 7 == 0 {
            let held = (0..=number).filter(|&number| holds(&memory, number)).count();
            assert!(held * 10_000 <= MIB as usize, "{held} values are over the budget");
        }
    }
    memory.store().settle();
    let (len, weight) = (memory.store().len(), memory.store().weight());
    assert!((80..=97).contains(&len), "{len} entries of 10,400 bytes");
    assert!(weight <= MIB, "{weight} bytes");
    assert_eq!(memory.store().departures(Departure::Evicted), 1_000 - len);
}

#[test]
fn value_heavier_than_the_budget_is_not_kept_and_pushes_nothing_out() {
    let memory = Memory::builder().store_bytes_max(MIB).build();
    set(&memory, 0, 1_000, HOUR);
    set(&memory, 1, 1_000, HOUR);
    set(&memory, 1, MIB as usize, HOUR);
    memory.store().settle();
    assert!(holds(&memory, 0));
    // What it had is not its value any more.
    assert!(!holds(&memory, 1));
}

#[test]
fn value_is_gone_on_its_millisecond_by_the_clock_of_the_memory() {
    let clock = SimClock::new();
    let memory = Memory::builder().clock(Arc::new(clock.clone())).build();
    set(&memory, 0, 1, Duration::from_millis(5));
    clock.advance(Duration::from_micros(4_999));
    assert!(holds(&memory, 0));
    clock.advance(Duration::from_micros(1));
    assert!(!holds(&memory, 0));
    assert_eq!(memory.store().remove(&key(0)).now_or_never(), Some(Ok(false)));
}

#[test]
fn time_on_the_wall_does_not_touch_values_under_a_clock_of_their_own() {
    let memory = Memory::builder().clock(Arc::new(SimClock::new())).build();
    let wall = std::time::Instant::now();
    set(&memory, 0, 1, Duration::from_millis(1));
    while wall.elapsed() < Duration::from_millis(20) {
        memory.store().settle();
    }
    assert!(holds(&memory, 0));
}

#[tokio::test]
async fn bytes_of_what_expired_are_freed_although_nobody_asks_for_it() {
    let told = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&told);
    let memory = Memory::builder()
        .on_departure(move |_, cause| {
            assert_eq!(cause, Departure::Expired);
            count.fetch_add(1, Ordering::SeqCst);
        })
        .build();
    for number in 0..100 {
        set(&memory, number, 10, Duration::from_millis(1));
    }
    let is_empty = async || {
        memory.store().settle();
        memory.store().is_empty()
    };
    eventually(Duration::from_secs(10), "the values to be freed", is_empty).await;
    assert_eq!(memory.store().departures(Departure::Expired), 100);
    assert_eq!(told.load(Ordering::SeqCst), 100);
}

#[test]
fn departures_are_told_apart() {
    let memory = Memory::new();
    set(&memory, 0, 1, HOUR);
    set(&memory, 0, 2, HOUR);
    assert_eq!(memory.store().remove(&key(0)).now_or_never(), Some(Ok(true)));
    memory.store().settle();
    let count = |cause| memory.store().departures(cause);
    assert_eq!(
        [Departure::Replaced, Departure::Removed, Departure::Evicted, Departure::Expired]
            .map(count),
        [1, 1, 0, 0]
    );
}

#[test]
fn tier_stays_under_its_bytes_while_many_write() {
    const WEIGHT: u32 = 40_000;
    let tier: MokaLocal<u64, u64> = MokaLocal::builder().bytes_max(MIB).build();
    thread::scope(|scope| {
        for thread in 0..4 {
            let tier = tier.clone();
            scope.spawn(move || {
                for at in 0..1_000 {
                    tier.insert(thread << 32 | at, at, WEIGHT);
                }
            });
        }
    });
    let held = (0..4).flat_map(|thread| (0..1_000).map(move |at| thread << 32 | at));
    let held = held.filter(|key| tier.get(key).is_some()).count();
    // Each thread may have one more in its hands.
    assert!(held as u64 * u64::from(WEIGHT) <= MIB + 4 * u64::from(WEIGHT), "{held} entries");
    tier.settle();
    assert!(tier.weight() <= MIB);
}

#[test]
fn memory_of_large_values_is_freed_before_the_next_dozens_come() {
    const WEIGHT: u32 = 40_000;
    let alive = Arc::new(());
    let tier: MokaLocal<u64, Arc<Arc<()>>> = MokaLocal::builder().bytes_max(MIB).build();
    let mut alive_max = 0;
    for key in 0..2_000 {
        tier.insert(key, Arc::new(Arc::clone(&alive)), WEIGHT);
        // Counted by what is really dropped: looking into the tier would make it settle.
        alive_max = alive_max.max(Arc::strong_count(&alive) as u64 - 1);
    }
    // What was evicted is freed a little later: readers may still be looking at it.
    let bytes = alive_max * u64::from(WEIGHT);
    assert!(bytes <= MIB * 5 / 4, "{alive_max} values were alive at once");
}

#[test]
fn tier_stays_under_its_number_of_entries() {
    let tier: MokaLocal<u64, u64> = MokaLocal::builder().bytes_max(MIB).entries_max(50).build();
    for key in 0..1_000 {
        tier.insert(key, key, 1);
        if key % 7 == 0 {
            let held = (0..=key).filter(|key| tier.get(key).is_some()).count();
            assert!(held <= 50, "{held} entries");
        }
    }
    tier.settle();
    assert!((40..=50).contains(&tier.len()), "{} entries", tier.len());
}

#[test]
fn millions_of_tiny_entries_are_inside_the_budget_too() {
    let tier: MokaLocal<u64, ()> = MokaLocal::builder().bytes_max(MIB).build();
    (0..100_000).for_each(|key| tier.insert(key, (), 0));
    tier.settle();
    assert!(tier.len() <= MIB / 256, "{} entries", tier.len());
}

#[test]
fn entry_that_is_too_heavy_takes_its_old_value_along() {
    let tier: MokaLocal<&str, u64> = MokaLocal::builder().bytes_max(MIB).build();
    tier.insert("other", 1, 8);
    tier.insert("heavy", 1, 8);
    tier.insert("heavy", 2, u32::MAX);
    assert_eq!((tier.get(&"other"), tier.get(&"heavy")), (Some(1), None));
}

#[test]
fn tier_forgets_what_it_is_told_to() {
    let tier: MokaLocal<u64, u64> = MokaLocal::builder().build();
    (0..10).for_each(|key| tier.insert(key, key, 8));
    tier.remove(&3);
    assert_eq!((tier.get(&3), tier.get(&4)), (None, Some(4)));
    tier.clear();
    assert!((0..10).all(|key| tier.get(&key).is_none()));
    tier.insert(3, 33, 8);
    assert_eq!(tier.get(&3), Some(33));
    tier.settle();
    assert_eq!(tier.len(), 1);
}

/// Red without the door: then each value of a scan is inserted, and pushes out one that was asked
/// for as seldom.
#[test]
fn full_tier_takes_a_stranger_in_the_second_time() {
    let tier: MokaLocal<u64, u64> = MokaLocal::builder().bytes_max(MIB).build();
    for key in 0..10_000 {
        tier.insert(key, key, 256);
    }
    tier.settle();
    let (len, new) = (tier.len(), 20_000..20_500);
    let taken = || {
        let taken = new.clone().filter(|&key| {
            tier.insert(key, key, 256);
            tier.get(&key).is_some()
        });
        taken.count()
    };
    let (first, second) = (taken(), taken());
    assert!(
        first < 50 && second > 4 * first,
        "{first} strangers came in, {second} who were here before"
    );
    tier.settle();
    assert_eq!(tier.len(), len);
}

/// Red if the door were asked alone: the old value would stay.
#[test]
fn full_tier_takes_a_new_value_of_a_key_that_it_has() {
    let tier: MokaLocal<u64, u64> = MokaLocal::builder().bytes_max(MIB).build();
    for key in 0..10_000 {
        tier.insert(key, 1, 256);
    }
    tier.settle();
    let held: Vec<u64> = (0..10_000).filter(|key| tier.get(key).is_some()).collect();
    assert!(held.len() > 1_000);
    for key in held {
        tier.insert(key, 2, 256);
        assert_ne!(tier.get(&key), Some(1));
    }
}
