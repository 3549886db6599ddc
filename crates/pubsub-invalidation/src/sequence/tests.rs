//! What an entry, a meta or a page means for a follower: no time, no I/O, no chance.

use bytes::Bytes;
use fleetwide_core_traits::log::Epoch;
use proptest::prelude::*;

use super::*;

const EPOCH: Epoch = Epoch([1; 8]);

/// Entry `seq` of a history in which every entry's id is `name` and its number.
fn entry(name: u8, seq: u64) -> Entry {
    let id = |seq: u64| if seq == 0 { EntryId::default() } else { id(name, seq) };
    Entry {
        stamp: at(seq),
        id: id(seq),
        previous: id(seq - 1),
        source: [0; 8],
        number: seq,
        body: Bytes::new(),
    }
}

fn id(name: u8, seq: u64) -> EntryId {
    let mut id = seq.to_be_bytes();
    id[0] = name;
    id
}

fn at(seq: u64) -> Stamp {
    Stamp { epoch: EPOCH, seq }
}

fn meta(name: u8, seq: u64) -> Meta {
    Meta { at: at(seq), last: id(name, seq), clear_seq: 0 }
}

fn page(name: u8, seqs: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
    seqs.map(|seq| entry(name, seq)).collect()
}

/// A follower of history `a` that has applied everything up to `seq` by message.
fn follower(seq: u64) -> Sequence {
    let mut sequence = Sequence::new(at(0), EntryId::default());
    for entry in page(b'a', 1..=seq) {
        assert_eq!(sequence.offer(entry, &mut |_| {}), Verdict::Apply);
    }
    sequence
}

/// What a merge tells, and its result.
fn merge(sequence: &mut Sequence, meta: Meta, since: u64, page: &[Entry]) -> (String, Merged) {
    let mut told = Vec::new();
    let merged = sequence.merge(&meta, at(since), page, &mut |step| {
        told.push(match step {
            Step::Apply(entry) => entry.stamp.seq.to_string(),
            Step::Gap { after, at } => format!("gap({after})@{}", at.seq),
        });
    });
    (told.join(" "), merged)
}

#[test]
fn what_came_too_early_is_not_fetched_again() {
    let mut sequence = follower(1);
    for early in [4, 3, 4] {
        let verdict = sequence.offer(entry(b'a', early), &mut |_| panic!("too early"));
        assert_eq!(verdict, Verdict::Gap { from: 1 });
    }
    let merged = merge(&mut sequence, meta(b'a', 4), 1, &page(b'a', 1..=2));
    assert_eq!(merged, ("2 3 4".to_owned(), Merged::Complete));
}

#[test]
fn a_reordered_entry_needs_no_replay() {
    let (mut sequence, mut applied) = (follower(1), Vec::new());
    for seq in [3, 2] {
        sequence.offer(entry(b'a', seq), &mut |entry| applied.push(entry.stamp.seq));
    }
    assert_eq!(applied, [2, 3]);
}

#[test]
fn an_entry_that_contradicts_the_history_is_found_wherever_it_is() {
    let offer = |entry: Entry| follower(5).offer(entry, &mut |_| panic!("must not apply"));
    let other_entry = Verdict::Diverged(Divergence::OtherEntry);
    assert_eq!(offer(entry(b'a', 3)), Verdict::Duplicate);
    assert_eq!(offer(entry(b'b', 3)), other_entry);
    assert_eq!(offer(entry(b'b', 5)), other_entry);
    assert_eq!(offer(entry(b'b', 6)), other_entry);
    let elsewhere = Stamp { epoch: Epoch([2; 8]), seq: 6 };
    let other_epoch = Entry { stamp: elsewhere, ..entry(b'a', 6) };
    assert_eq!(offer(other_epoch), Verdict::Diverged(Divergence::OtherEpoch));
}

#[test]
fn the_meta_is_compared_by_name_and_not_only_by_number() {
    let judge = |meta, since| follower(5).judge(&meta, at(since));
    assert_eq!(judge(meta(b'a', 5), 5), Judgement::Current);
    assert_eq!(judge(meta(b'b', 5), 5), Judgement::Diverged(Divergence::OtherEntry));
    assert_eq!(judge(meta(b'a', 9), 5), Judgement::Behind { to: 9 });
    assert_eq!(judge(meta(b'a', 4), 5), Judgement::Diverged(Divergence::WentBack));
    // It was sent when only 3 had been applied, so the answer is old and nothing is lost.
    assert_eq!(judge(meta(b'a', 4), 3), Judgement::Current);
    assert_eq!(judge(meta(b'b', 4), 3), Judgement::Diverged(Divergence::OtherEntry));
}

/// This process wrote entry 7, and had applied 5. Red without `expect`.
#[test]
fn an_entry_that_is_known_to_be_there_is_missed_wherever_it_is_not() {
    let expecting = || {
        let mut sequence = follower(5);
        assert!(sequence.expect(&meta(b'a', 7)));
        sequence
    };
    let judge = |meta| expecting().judge(&meta, expecting().reaches());
    assert_eq!(judge(meta(b'a', 7)), Judgement::Behind { to: 7 });
    assert_eq!(judge(meta(b'a', 9)), Judgement::Behind { to: 9 });
    assert_eq!(judge(meta(b'a', 6)), Judgement::Diverged(Divergence::WentBack));
    assert_eq!(judge(meta(b'b', 7)), Judgement::Diverged(Divergence::OtherEntry));
    // It was sent before the entry was known.
    assert_eq!(expecting().judge(&meta(b'a', 6), at(5)), Judgement::Behind { to: 6 });
    // Others have taken its place, and more: by a page, and by message.
    let other = [entry(b'a', 5), entry(b'a', 6), entry(b'b', 7), entry(b'b', 8)];
    let diverged = (String::new(), Merged::Diverged(Divergence::OtherEntry));
    assert_eq!(merge(&mut expecting(), meta(b'b', 8), 5, &other), diverged);
    let mut sequence = expecting();
    assert_eq!(sequence.offer(entry(b'a', 6), &mut |_| {}), Verdict::Apply);
    let lie = Entry { previous: id(b'a', 6), ..entry(b'b', 7) };
    let verdict = sequence.offer(lie.clone(), &mut |_| panic!("must not apply"));
    assert_eq!(verdict, Verdict::Diverged(Divergence::OtherEntry));
    // They had come before it was known.
    let mut sequence = follower(6);
    assert_eq!(sequence.offer(lie, &mut |_| {}), Verdict::Apply);
    assert!(!sequence.expect(&meta(b'a', 7)));
    assert!(follower(9).expect(&meta(b'a', 7)), "applied as it was written");
}

#[test]
fn a_page_of_another_history_applies_nothing() {
    let diverged = (String::new(), Merged::Diverged(Divergence::OtherEntry));
    assert_eq!(merge(&mut follower(3), meta(b'b', 6), 3, &page(b'b', 3..=6)), diverged);
    assert_eq!(merge(&mut follower(3), meta(b'b', 6), 3, &page(b'b', 4..=6)), diverged);
}

/// What was trimmed may lie between the two, so that no entry names one that was applied here. Red
/// without the comparison of the whole page before any of it is applied.
#[test]
fn a_page_with_a_hole_is_compared_by_the_entries_that_were_applied() {
    let diverged = (String::new(), Merged::Diverged(Divergence::OtherEntry));
    let holed = [entry(b'b', 3), entry(b'b', 6), entry(b'b', 7)];
    assert_eq!(merge(&mut follower(3), meta(b'b', 7), 3, &holed), diverged);
}

#[test]
fn what_was_trimmed_is_a_gap_and_the_rest_is_applied() {
    let merged = merge(&mut follower(3), meta(b'a', 8), 3, &page(b'a', 6..=8));
    assert_eq!(merged, ("gap(3)@5 6 7 8".to_owned(), Merged::Complete));
    // The entry before the page names the last that was applied: nothing is missing.
    let merged = merge(&mut follower(3), meta(b'a', 5), 3, &page(b'a', 4..=5));
    assert_eq!(merged, ("4 5".to_owned(), Merged::Complete));
    let merged = merge(&mut follower(3), meta(b'a', 8), 3, &[]);
    assert_eq!(merged, ("gap(3)@8".to_owned(), Merged::Complete));
    let holed = [entry(b'a', 3), entry(b'a', 4), entry(b'a', 7)];
    let merged = merge(&mut follower(3), meta(b'a', 9), 3, &holed);
    assert_eq!(merged, ("4 gap(4)@6 7".to_owned(), Merged::More));
}

/// It was asked for at 1 and has three entries; meanwhile messages have brought them.
#[test]
fn a_page_that_messages_have_overtaken_is_no_gap() {
    let mut sequence = follower(3);
    let merged = merge(&mut sequence, meta(b'a', 7), 1, &page(b'a', 1..=3));
    assert_eq!(merged, (String::new(), Merged::More));
}

/// Anything that a server can say, with numbers that meet each other and the ends of the range.
fn any_entry() -> impl Strategy<Value = Entry> {
    let seq = prop_oneof![0..6u64, Just(u64::MAX - 1), Just(u64::MAX)];
    (1..3u8, seq, 0..3u8, 0..3u8).prop_map(|(epoch, seq, id, previous)| Entry {
        stamp: Stamp { epoch: Epoch([epoch; 8]), seq },
        id: [id; 8],
        previous: [previous; 8],
        source: [0; 8],
        number: 0,
        body: Bytes::new(),
    })
}

proptest! {
    #[test]
    fn a_lying_server_causes_no_panic_and_nothing_out_of_order(
        start in any_entry(),
        said in prop::collection::vec(prop::collection::vec(any_entry(), 1..6), 1..20),
    ) {
        let mut sequence = Sequence::new(start.stamp, start.id);
        let mut last = start.stamp.seq;
        for mut page in said {
            let first = page.pop().expect("it has one entry at least");
            let meta = Meta { at: first.stamp, last: first.id, clear_seq: 0 };
            let since = sequence.at();
            let mut next = |entry: &Entry| {
                assert_eq!(Some(entry.stamp.seq), last.checked_add(1));
                last = entry.stamp.seq;
            };
            sequence.offer(first, &mut next);
            sequence.merge(&meta, since, &page, &mut |step| match step {
                Step::Apply(entry) => {
                    assert_eq!(Some(entry.stamp.seq), last.checked_add(1));
                    last = entry.stamp.seq;
                }
                Step::Gap { after, at } => {
                    assert_eq!(after, last);
                    last = at.seq;
                }
            });
            prop_assert_eq!(sequence.at().seq, last);
        }
    }
}
