//! What every [`Executor`] must do.

use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::log::{Entry, Incoming, Meta};
use fleetwide_core_traits::{
    AtomicOp, BackendError, Bus, Executor, ExecutorExt, Key, RejectionKind, ServerTime,
};
use futures_util::future::join_all;
use tokio::task::JoinSet;

use super::ops::{Claim, Claimed, Count, Counted, Jot, Now, Read, Record, Say, Transfer};
use super::{DEADLINE, Listener, fresh_tag, run};
use crate::eventually;

/// Soon enough to wait for, and late enough to be there for the next command.
const SOON: Duration = Duration::from_millis(150);
/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);
/// Tasks that race, and how often each does.
const TASKS: u64 = 16;
const ROUNDS: u64 = 50;

/// Runs all cases. `executor` is cloned into tasks that race, and publishes on `bus`.
///
/// # Panics
/// If the executor does not keep the contract of [`Executor`], or if it is called outside a Tokio
/// runtime.
pub async fn all<E: Executor + Clone, B: Bus>(executor: &E, bus: &B) {
    run!((executor):
        a_step_keeps_what_it_put,
        a_refusal_writes_nothing,
        two_cells_change_together,
        what_is_deleted_is_absent,
        racing_steps_are_counted_once_each,
        racing_transfers_lose_nothing,
        an_expired_state_is_absent,
        a_claim_ends_at_its_own_deadline,
        time_is_that_of_one_clock,
        a_state_of_another_type_is_an_error_and_stays,
        arguments_are_any_bytes,
        a_command_reads_what_steps_wrote,
        many_steps_answer_in_their_order,
        a_failed_step_does_not_stop_the_others,
        no_steps_give_no_answers,
    );
    run!((executor, bus):
        messages_come_in_the_order_of_the_decisions,
        a_refusal_says_nothing,
        a_log_numbers_and_chains_its_entries,
    );
}

/// A state is there for the next step.
pub async fn a_step_keeps_what_it_put(executor: &impl Executor) {
    let key = fresh_tag().key();
    assert_eq!(count(executor, &key).await, 1);
    assert_eq!(count(executor, &key).await, 2);
    assert_eq!(read(executor, &key).await, Some(2));
}

/// A step that puts nothing changes nothing.
pub async fn a_refusal_writes_nothing(executor: &impl Executor) {
    let key = fresh_tag().key();
    let five = Count { by: 5, limit: 7, ..Count::one(&key) };
    let counted = |allowed, count| Counted { allowed, count };
    assert_eq!(done(executor, &Count { limit: 4, ..five.clone() }).await, counted(false, 0));
    assert_eq!(read(executor, &key).await, None);
    assert_eq!(done(executor, &five).await, counted(true, 5));
    assert_eq!(done(executor, &five).await, counted(false, 5));
    assert_eq!(read(executor, &key).await, Some(5));
}

/// A step on two cells changes both or none.
pub async fn two_cells_change_together(executor: &impl Executor) {
    let tag = fresh_tag();
    let keys = [tag.part("from"), tag.part("to")];
    let transfer = Transfer { keys: keys.clone(), amount: 3, ttl: LONG };
    assert!(!done(executor, &transfer).await);
    assert_eq!(read_all(executor, &keys).await, [None, None]);
    done(executor, &Count { by: 5, ..Count::one(&keys[0]) }).await;
    assert!(done(executor, &transfer).await);
    assert_eq!(read_all(executor, &keys).await, [Some(2), Some(3)]);
    assert!(!done(executor, &transfer).await);
    assert_eq!(read_all(executor, &keys).await, [Some(2), Some(3)]);
}

/// A deleted cell is as if it had never been.
pub async fn what_is_deleted_is_absent(executor: &impl Executor) {
    let tag = fresh_tag();
    let keys = [tag.part("from"), tag.part("to")];
    count(executor, &keys[0]).await;
    assert!(done(executor, &Transfer { keys: keys.clone(), amount: 1, ttl: LONG }).await);
    assert_eq!(read_all(executor, &keys).await, [None, Some(1)]);
    assert_eq!(count(executor, &keys[0]).await, 1);
}

/// However many race for one cell, each step sees all before it.
pub async fn racing_steps_are_counted_once_each<E: Executor + Clone>(executor: &E) {
    let key = fresh_tag().key();
    let limit = TASKS * ROUNDS / 2;
    let step = Count { limit, ..Count::one(&key) };
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let (executor, step) = (executor.clone(), step.clone());
        tasks.spawn(async move {
            let mut seen = Vec::new();
            for _ in 0..ROUNDS {
                let counted = done(&executor, &step).await;
                seen.extend(counted.allowed.then_some(counted.count));
            }
            seen
        });
    }
    let mut seen = tasks.join_all().await.concat();
    seen.sort_unstable();
    assert!(seen.into_iter().eq(1..=limit), "each count up to the limit is answered once");
    assert_eq!(read(executor, &key).await, Some(limit));
}

/// Steps on overlapping pairs of cells are atomic: no reader sees half of one.
pub async fn racing_transfers_lose_nothing<E: Executor + Clone>(executor: &E) {
    const SUM: u64 = 100;
    let tag = fresh_tag();
    let keys = ["a", "b", "c"].map(|part| tag.part(part));
    done(executor, &Count { by: SUM, ..Count::one(&keys[0]) }).await;
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (executor, keys) = (executor.clone(), keys.clone());
        tasks.spawn(async move {
            for round in 0..ROUNDS {
                let from = ((task + round) % 3) as usize;
                let pair = [keys[from].clone(), keys[(from + 1) % 3].clone()];
                done(&executor, &Transfer { keys: pair, amount: 1 + round % 7, ttl: LONG }).await;
                let sum: u64 = read_all(&executor, &keys).await.into_iter().flatten().sum();
                assert_eq!(sum, SUM, "a reader saw half a step");
            }
        });
    }
    tasks.join_all().await;
}

/// A step on an expired state is a step on none.
pub async fn an_expired_state_is_absent(executor: &impl Executor) {
    let key = fresh_tag().key();
    done(executor, &Count { by: 7, ttl: SOON, ..Count::one(&key) }).await;
    let is_gone = async || read(executor, &key).await.is_none();
    eventually(DEADLINE, "the state to expire", is_gone).await;
    assert_eq!(count(executor, &key).await, 1);
}

/// A deadline in the state counts, however long the backend keeps the state.
pub async fn a_claim_ends_at_its_own_deadline(executor: &impl Executor) {
    let tag = fresh_tag();
    let [brief, lasting] = ["brief", "lasting"].map(|part| tag.part(part));
    let claim = |key: &Key, holder: &'static str, lasts| {
        let holder = Bytes::from_static(holder.as_bytes());
        Claim { key: [key.clone()], holder, lasts, ttl: LONG }
    };
    let first = done(executor, &claim(&lasting, "first", LONG)).await;
    assert_eq!(first.holder, "first");
    assert_eq!(done(executor, &claim(&brief, "first", SOON)).await.holder, "first");
    let second = claim(&brief, "second", LONG);
    let is_over = async || done(executor, &second).await.holder == "second";
    eventually(DEADLINE, "the first claim to end", is_over).await;
    assert_eq!(done(executor, &claim(&lasting, "second", LONG)).await, first);
}

/// `now` is in µs since 1970 and goes on, and claims are measured by it.
pub async fn time_is_that_of_one_clock(executor: &impl Executor) {
    let key = fresh_tag().key();
    let now = async || done(executor, &Now { key: [key.clone()] }).await;
    let before = now().await;
    let claim = Claim { key: [key.clone()], holder: Bytes::new(), lasts: LONG, ttl: LONG };
    let Claimed { until, .. } = done(executor, &claim).await;
    let after = now().await;
    let year_2020 = ServerTime::from_micros(1_577_836_800_000_000);
    assert!(before > year_2020, "{before:?} is not in µs since 1970");
    let range = before.plus(LONG)..=after.plus(LONG);
    assert!(range.contains(&until), "{until:?} is not in {range:?}");
}

/// A step on somebody else's cell is refused as a whole.
pub async fn a_state_of_another_type_is_an_error_and_stays(executor: &impl Executor) {
    let tag = fresh_tag();
    let [jotted, counted] = ["jotted", "counted"].map(|part| tag.part(part));
    let jot = |key: &Key| Jot { key: [key.clone()], line: Bytes::from_static(b"x"), ttl: LONG };
    done(executor, &jot(&jotted)).await;
    count(executor, &counted).await;

    assert_wrong_type(executor.run(&Count::one(&jotted)).await);
    assert_wrong_type(executor.run(&jot(&counted)).await);
    let keys = [counted.clone(), jotted.clone()];
    assert_wrong_type(executor.run(&Transfer { keys, amount: 1, ttl: LONG }).await);

    assert_eq!(read(executor, &counted).await, Some(1));
    assert_eq!(done(executor, &jot(&jotted)).await, ["x", "x"]);
}

/// Arguments and replies are bytes of any value and number.
pub async fn arguments_are_any_bytes(executor: &impl Executor) {
    let all: Vec<u8> = (0..=255).chain(*b"\r\n$3\r\n:\0").collect();
    let large: Vec<u8> = (0..1 << 18).map(|at: u32| (at / 251 + at) as u8).collect();
    for holder in [vec![], all, large].map(Bytes::from) {
        let key = [fresh_tag().key()];
        let claim = Claim { key, holder: holder.clone(), lasts: LONG, ttl: LONG };
        for _ in 0..2 {
            let claimed = done(executor, &claim).await;
            assert!(claimed.holder == holder, "{} bytes come as they were", holder.len());
        }
    }
}

/// A native command is a step like any other.
pub async fn a_command_reads_what_steps_wrote(executor: &impl Executor) {
    let tag = fresh_tag();
    let keys = ["a", "b", "c"].map(|part| tag.part(part));
    count(executor, &keys[0]).await;
    done(executor, &Count { by: 1 << 51, ..Count::one(&keys[2]) }).await;
    assert_eq!(read_all(executor, &keys).await, [Some(1), None, Some(1 << 51)]);
}

/// Answers are matched to steps by their place.
pub async fn many_steps_answer_in_their_order(executor: &impl Executor) {
    let keys: Vec<Key> = (0..40).map(|_| fresh_tag().key()).collect();
    let step = |by| Count { by, ..Count::one(&keys[by as usize]) };
    let steps: Vec<Count> = (0..40).map(step).collect();
    for round in 1..=2 {
        let answers = executor.run_many(&steps).await;
        let counts: Vec<u64> = answers.into_iter().map(|answer| answer.unwrap().count).collect();
        let expected: Vec<u64> = (0..40).map(|by| by * round).collect();
        assert_eq!(counts, expected);
    }
}

/// The error of one step is that step's alone.
pub async fn a_failed_step_does_not_stop_the_others(executor: &impl Executor) {
    let keys: Vec<Key> = (0..3).map(|_| fresh_tag().key()).collect();
    let line = Bytes::from_static(b"x");
    done(executor, &Jot { key: [keys[1].clone()], line, ttl: LONG }).await;
    let steps: Vec<Count> = keys.iter().map(Count::one).collect();
    let mut answers = executor.run_many(&steps).await;
    assert_eq!(answers.len(), 3);
    assert_wrong_type(answers.remove(1));
    for answer in answers {
        assert_eq!(answer, Ok(Counted { allowed: true, count: 1 }));
    }
}

/// Nothing asked, nothing answered.
pub async fn no_steps_give_no_answers(executor: &impl Executor) {
    assert!(executor.run_many::<Count>(&[]).await.is_empty());
}

/// What racing steps on one cell publish is heard in the order in which they were decided.
pub async fn messages_come_in_the_order_of_the_decisions<E: Executor + Clone, B: Bus>(
    executor: &E,
    bus: &B,
) {
    let tag = fresh_tag();
    let channel = tag.channel("said");
    let mut listener = Listener::ready(bus, &channel).await;
    let say = Say { key: [tag.key()], channel, limit: u64::MAX >> 12, ttl: LONG };
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let (executor, say) = (executor.clone(), say.clone());
        tasks.spawn(async move {
            // Less than what a subscriber may be behind, so that none is lost.
            for _ in 0..ROUNDS / 2 {
                done(&executor, &say).await;
            }
        });
    }
    tasks.join_all().await;
    for number in 1..=TASKS * (ROUNDS / 2) {
        assert_eq!(listener.message().await, number.to_string());
    }
}

/// A step that decides against publishing does not.
pub async fn a_refusal_says_nothing<E: Executor, B: Bus>(executor: &E, bus: &B) {
    let tag = fresh_tag();
    let channel = tag.channel("said");
    let mut listener = Listener::ready(bus, &channel).await;
    let say = |limit| Say { key: [tag.key()], channel: channel.clone(), limit, ttl: LONG };
    for (limit, allowed) in [(0, false), (1, true), (1, false), (2, true)] {
        assert_eq!(done(executor, &say(limit)).await.allowed, allowed);
    }
    assert_eq!(listener.message().await, "1");
    assert_eq!(listener.message().await, "2");
}

/// Entries are numbered without a hole, name the one before them, and are published as they stand.
pub async fn a_log_numbers_and_chains_its_entries<E: Executor, B: Bus>(executor: &E, bus: &B) {
    const ENTRIES: u64 = 20;
    let tag = fresh_tag();
    let record = |id: u64| Record::new(&tag, 100 + id, id, id * 2, Bytes::from(id.to_string()));
    let mut listener = Listener::ready(bus, record(1).channel()).await;
    let records: Vec<Record> = (1..=ENTRIES).map(record).collect();
    let metas = join_all(records.iter().map(|record| done(executor, record))).await;

    let mut numbers: Vec<u64> = metas.iter().map(|meta| meta.at.seq).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(1..=ENTRIES), "each number is given once");
    let mut last: Option<Entry> = None;
    for seq in 1..=ENTRIES {
        let Ok(Incoming::Entry(entry)) = Incoming::read(&listener.message().await) else {
            panic!("what a log publishes is an entry")
        };
        let id = u64::from_be_bytes(entry.id);
        let Meta { at, last: named, clear_seq } = metas[(id - 1) as usize];
        assert_eq!((entry.stamp, entry.id, entry.stamp.seq, clear_seq), (at, named, seq, 0));
        assert_eq!(entry.previous, last.map_or([0; 8], |last| last.id));
        assert_eq!((entry.number, &entry.body[..]), (id * 2, id.to_string().as_bytes()));
        last = Some(entry);
    }
}

async fn done<O: AtomicOp>(executor: &impl Executor, op: &O) -> O::Reply {
    executor.run(op).await.expect("the executor answers")
}

async fn count(executor: &impl Executor, key: &Key) -> u64 {
    done(executor, &Count::one(key)).await.count
}

async fn read(executor: &impl Executor, key: &Key) -> Option<u64> {
    done(executor, &Read::one(key)).await[0]
}

async fn read_all(executor: &impl Executor, keys: &[Key]) -> Vec<Option<u64>> {
    done(executor, &Read { keys: keys.to_vec() }).await
}

#[track_caller]
fn assert_wrong_type<T: std::fmt::Debug>(answer: Result<T, BackendError>) {
    match answer {
        Err(BackendError::Rejected(rejection)) if rejection.kind == RejectionKind::WrongType => {}
        other => panic!("expected a rejection for the wrong type, got {other:?}"),
    }
}
