use std::time::Duration;

use fleetwide_core_traits::{Namespace, ServerTime};

use super::*;
use crate::{Answer, Mark, Quota, Verdict};

const EPOCHS: [Epoch; 4] = [Epoch::new(0), Epoch::new(1), Epoch::new(2), Epoch::new(3)];

fn at(millis: u64) -> MonoTime {
    MonoTime::from_micros(86_400_000_000 + 1_000 * millis)
}

fn key(name: &str) -> Key {
    Namespace::new("test").unwrap().tag("limiter", name.as_bytes()).unwrap().key()
}

fn window() -> Quota {
    Quota::sliding_window(100, Duration::from_secs(60)).unwrap()
}

/// A grant after which `cells` are spent, for so long.
fn grant(cells: u32, millis: u64) -> Answer {
    let (remaining, reset_after_us) = (100 - cells, 1_000 * millis);
    let verdict = Verdict { is_allowed: true, remaining, retry_after_us: 0, reset_after_us };
    Answer { verdict, at: ServerTime::from_micros(1), granted: 1, ..Answer::default() }
}

fn marked(answer: Answer, generation: u64, refunds: u64, at: u64) -> Answer {
    let mark = Mark { generation, life: 0, refunds };
    Answer { mark, at: ServerTime::from_micros(at), ..answer }
}

fn learn(debts: &Debts, name: &str, answer: &Answer, epoch: Epoch, now: u64) {
    if let Some(debt) = Debt::of(window(), answer, at(now)) {
        debts.learn(&key(name), debt, epoch, at(now));
    }
}

/// Cells that are owed of a key, and for how many ms yet.
fn owed(debts: &Debts, name: &str, now: u64) -> Option<(u32, u64)> {
    let owed = debts.owed(&key(name), at(now))?.owed(at(now));
    Some((owed.cells, owed.left_us / 1_000))
}

// Seen red: when each answer by another quota takes the place of what is known.
#[test]
fn refusal_by_a_smaller_quota_does_not_make_a_debt_smaller() {
    let debts = Debts::new(100);
    learn(&debts, "a", &grant(80, 500), EPOCHS[1], 0);
    let ten = Quota::sliding_window(10, Duration::from_secs(60)).unwrap();
    let used_up = grant(100, 700);
    let refusal = Debt::of(ten, &used_up, at(0)).unwrap();
    debts.learn(&key("a"), refusal, EPOCHS[1], at(0));
    debts.advance(EPOCHS[2]);
    assert_eq!(owed(&debts, "a", 0), Some((80, 700)), "10 of 10 are gone, and 80 of 100");
    // One that is not used up says how much it is.
    let debts = Debts::new(100);
    learn(&debts, "b", &grant(80, 500), EPOCHS[1], 0);
    let later = Answer { at: ServerTime::from_micros(2), ..grant(97, 700) };
    let some = Debt::of(ten, &later, at(0)).unwrap();
    debts.learn(&key("b"), some, EPOCHS[1], at(0));
    debts.advance(EPOCHS[2]);
    assert_eq!(owed(&debts, "b", 0), Some((7, 700)));
}

#[test]
fn what_was_learned_is_owed_after_a_change_of_history_and_until_it_is_over() {
    let debts = Debts::new(100);
    learn(&debts, "a", &grant(7, 500), EPOCHS[1], 0);
    assert_eq!(owed(&debts, "a", 0), None, "the server that said so knows it");
    debts.advance(EPOCHS[1]);
    assert_eq!(owed(&debts, "a", 0), None);
    debts.advance(EPOCHS[2]);
    assert_eq!(owed(&debts, "a", 100), Some((7, 400)));
    assert_eq!(owed(&debts, "a", 500), None, "over");
    assert!(debts.owed_in_all(at(500)).is_empty() && !debts.is_any_owed());
}

// Seen red: with the latest history in the place of the answer's own.
#[test]
fn answer_of_a_deposed_primary_is_owed_as_it_comes() {
    let debts = Debts::new(100);
    debts.advance(EPOCHS[2]);
    learn(&debts, "a", &grant(7, 500), EPOCHS[1], 0);
    assert_eq!(owed(&debts, "a", 0), Some((7, 500)));
    learn(&debts, "a", &grant(3, 500), EPOCHS[2], 0);
    assert_eq!(owed(&debts, "a", 0), Some((7, 500)), "another history says nothing of it");
}

#[test]
fn answer_of_a_new_history_is_news_of_it() {
    let debts = Debts::new(100);
    learn(&debts, "a", &grant(7, 500), EPOCHS[1], 0);
    learn(&debts, "b", &grant(3, 500), EPOCHS[2], 0);
    assert_eq!((owed(&debts, "a", 0), owed(&debts, "b", 0)), (Some((7, 500)), None));
}

// Seen red: when a payment counts in any history.
#[test]
fn debt_is_paid_in_the_latest_history_only_and_only_if_it_is_still_the_same() {
    let debts = Debts::new(100);
    learn(&debts, "a", &grant(7, 500), EPOCHS[1], 0);
    debts.advance(EPOCHS[2]);
    let debt = debts.owed(&key("a"), at(0)).unwrap();
    debts.advance(EPOCHS[3]);
    debts.paid(&key("a"), &debt, EPOCHS[2]);
    assert_eq!(owed(&debts, "a", 0), Some((7, 500)), "paid to one that is gone");
    learn(&debts, "a", &grant(9, 600), EPOCHS[1], 0);
    debts.paid(&key("a"), &debt, EPOCHS[3]);
    assert_eq!(owed(&debts, "a", 0), Some((9, 600)), "it has grown meanwhile");
    let grown = debts.owed(&key("a"), at(0)).unwrap();
    debts.paid(&key("a"), &grown, EPOCHS[3]);
    assert!(owed(&debts, "a", 0).is_none() && !debts.is_any_owed());
}

#[test]
fn later_answer_replaces_an_earlier_one_and_no_other_way_round() {
    let debts = Debts::new(100);
    let say = |answer| learn(&debts, "a", &answer, EPOCHS[1], 0);
    say(marked(grant(50, 500), 0, 0, 10));
    say(marked(grant(40, 600), 0, 0, 20)); // ten have left the window
    say(marked(grant(45, 550), 0, 0, 15)); // came late
    say(marked(grant(90, 900), 0, 0, 0)); // a refusal: it may be later
    say(marked(grant(5, 700), 7, 0, 30)); // a reset
    say(marked(grant(91, 950), 0, 0, 25)); // from before it
    debts.advance(EPOCHS[2]);
    assert_eq!(owed(&debts, "a", 0), Some((5, 700)));
}

// Seen red: when the last to come in is taken for the later one.
#[test]
fn larger_of_two_answers_of_one_moment_is_the_later_one() {
    let debts = Debts::new(100);
    for cells in [50, 40] {
        learn(&debts, "a", &marked(grant(cells, 500), 0, 0, 10), EPOCHS[1], 0);
    }
    debts.advance(EPOCHS[2]);
    assert_eq!(owed(&debts, "a", 0), Some((50, 500)));
}

/// A fixed window of 20 s, the end of which is told, and for how long its debts are longer.
fn fixed(debts: &Debts, cells: u32, left: u64, at_server: u64, now: u64, epoch: Epoch) {
    let quota = Quota::fixed_window(100, Duration::from_secs(20)).unwrap();
    let answer = marked(grant(cells, left), 0, 0, at_server);
    debts.learn(&key("a"), Debt::of(quota, &answer, at(now)).unwrap(), epoch, at(now));
}

// Seen red: when all answers are taken to be of one window.
#[test]
fn what_is_known_of_one_fixed_window_says_nothing_of_the_next() {
    let slack = 10_000;
    let owed_after = |debts: &Debts, now| {
        debts.advance(EPOCHS[3]);
        owed(debts, "a", now)
    };
    let debts = Debts::new(100);
    fixed(&debts, 90, 1_000, 10, 0, EPOCHS[1]);
    fixed(&debts, 5, 20_000, 0, 1_003, EPOCHS[1]); // a refusal in the next window, a trip later
    fixed(&debts, 92, 10, 0, 1_004, EPOCHS[1]); // one from the last window, late
    assert_eq!(owed_after(&debts, 1_003), Some((5, 20_000 + slack)));
    let debts = Debts::new(100);
    fixed(&debts, 90, 1_000, 10, 0, EPOCHS[1]);
    fixed(&debts, 5, 20_000, 20, 1_003, EPOCHS[2]);
    assert_eq!(owed_after(&debts, 1_003), Some((5, 20_000 + slack)), "of two histories");
}

#[test]
fn what_is_given_back_is_owed_no_more_and_a_reset_forgets_all() {
    let debts = Debts::new(100);
    learn(&debts, "a", &grant(7, 500), EPOCHS[1], 0);
    learn(&debts, "b", &grant(7, 500), EPOCHS[1], 0);
    debts.give_back(&key("a"), 3, debts.mark(&key("a")));
    debts.forget(&key("b"));
    debts.advance(EPOCHS[2]);
    assert_eq!((owed(&debts, "a", 0), owed(&debts, "b", 0)), (Some((4, 500)), None));
    let refunds = debts.owed(&key("a"), at(0)).unwrap().owed(at(0)).refunds;
    assert_eq!(refunds, 3, "or a server that knows of it would take it off once more");
    debts.forget(&key("a"));
    assert!(!debts.is_any_owed());
}

// The story: a call that was decided after a refund, or a reset, was answered before it, and the debt was
// made smaller than it was. Seen red so.
#[test]
fn what_an_answer_said_of_a_refund_or_a_reset_is_not_taken_off_once_more() {
    let debts = Debts::new(100);
    for name in ["a", "b"] {
        learn(&debts, name, &marked(grant(7, 500), 0, 0, 10), EPOCHS[1], 0);
    }
    let before = debts.mark(&key("a"));
    learn(&debts, "a", &marked(grant(5, 500), 0, 3, 20), EPOCHS[1], 0);
    debts.give_back(&key("a"), 3, before);
    learn(&debts, "b", &marked(grant(2, 500), 15, 0, 20), EPOCHS[1], 0);
    debts.forget_before(&key("b"), 15);
    debts.advance(EPOCHS[2]);
    assert_eq!((owed(&debts, "a", 0), owed(&debts, "b", 0)), (Some((5, 500)), Some((2, 500))));
    debts.forget_before(&key("b"), 16);
    assert_eq!(owed(&debts, "b", 0), None);
}

#[test]
fn block_says_nothing_of_what_was_spent() {
    let debts = Debts::new(100);
    let blocked = Answer { blocked_us: 9, ..grant(100, 60_000) };
    learn(&debts, "a", &blocked, EPOCHS[1], 0);
    debts.advance(EPOCHS[2]);
    assert_eq!(owed(&debts, "a", 0), None);
}

// Seen red: without `make_room`.
#[test]
fn table_is_bounded_and_what_counts_longest_is_kept() {
    let debts = Debts::new(1_600);
    for name in 0..10_000 {
        learn(&debts, &name.to_string(), &grant(1, 1_000 + name), EPOCHS[1], 0);
    }
    debts.advance(EPOCHS[2]);
    for name in 10_000..20_000 {
        learn(&debts, &name.to_string(), &grant(1, 1_000 + name), EPOCHS[1], 0);
    }
    let count = debts.owed_in_all(at(0)).len();
    assert!((1_000..=1_600).contains(&count), "{count}");
    assert!(owed(&debts, "19999", 0).is_some() && owed(&debts, "1", 0).is_none());
    assert!(debts.owed_in_all(at(1_000_000)).is_empty() && !debts.is_any_owed());
}

impl Debts {
    fn owed_in_all(&self, now: MonoTime) -> Vec<(Key, Debt)> {
        (0..SHARDS).flat_map(|shard| self.owed_in(shard, now)).collect()
    }
}
