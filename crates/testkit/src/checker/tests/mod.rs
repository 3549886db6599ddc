//! Each rule has a history that it must reject, and beside it the near miss that it must accept.
//!
//! Histories are written one event to a line, with moments in ns; the bounds are 100 for
//! staleness, and 10 for joining.

mod oracle;
mod script;

use std::time::Duration;

use super::{Checker, Report, Rule};
use crate::history::History;

fn checker() -> Checker {
    Checker::new().staleness_bound(Duration::from_nanos(100)).join_bound(Duration::from_nanos(10))
}

fn judge(script: &str) -> Report {
    checker().check(&History::from_events(&script::parse(script))).unwrap()
}

#[track_caller]
fn rejects(rule: Rule, script: &str) {
    let report = judge(script);
    let first = report.first.unwrap_or_else(|| panic!("nothing was found in\n{script}"));
    assert_eq!((first.rule, report.violations), (rule, 1), "{}", first.what);
}

#[track_caller]
fn accepts(script: &str) {
    judge(script).assert_clean();
}

#[test]
fn the_writer_must_not_see_what_was_loaded_before_its_write() {
    let history = |read: &str| format!("p1 load k1 v1 @10-12\np1 invalidate k1 ok @20-30\n{read}");
    rejects(Rule::Fenced, &history("p1 read k1 v1 l1 unverified @31-32"));
    accepts(&history("p1 read k1 v1 l1 verified @30-32")); // it began when the write returned
    accepts(&history("p2 read k1 v1 l1 verified @31-32")); // another process
    accepts(&history("p1 read k2 v1 l1 verified @31-32\np1 load k2 v1 @1-2")); // another key
}

#[test]
fn a_load_that_overlaps_the_write_may_come_after_it() {
    rejects(
        Rule::Fenced,
        "p1 load k1 v1 @19-40\np1 invalidate k1 ok @20-30\np1 read k1 v1 load verified @50-51",
    );
    accepts("p1 load k1 v1 @20-40\np1 invalidate k1 ok @20-30\np1 read k1 v1 l1 verified @50-51");
}

#[test]
fn a_second_load_of_the_same_version_explains_it() {
    let first = "p1 load k1 v1 @10-12\np1 invalidate k1 ok @20-30\n";
    rejects(Rule::Fenced, &format!("{first}p1 read k1 v1 l1 verified @40-50"));
    // It may have been handed over while the read ran, but not after it.
    accepts(&format!("{first}p1 load k1 v1 @41-49\np1 read k1 v1 load verified @40-50"));
    rejects(
        Rule::Fenced,
        &format!("{first}p1 load k1 v1 @41-51\np1 read k1 v1 load verified @40-50"),
    );
}

#[test]
fn a_writer_answers_for_its_queued_writes_and_not_for_dropped_ones() {
    for outcome in ["queued", "unknown"] {
        let write = format!("p1 load k1 v1 @10-12\np1 invalidate k1 {outcome} @20-30\n");
        rejects(Rule::Fenced, &format!("{write}p1 read k1 v1 l2 verified @31-32"));
        accepts(&format!("{write}p2 read k1 v1 l2 verified @900-901"));
    }
    accepts(
        "p1 load k1 v1 @10-12\np1 invalidate k1 dropped @20-30\np1 read k1 v1 l1 verified @31-32",
    );
    accepts("p1 load k1 v1 @10-12\np1 invalidate k1 open @20-30\np1 read k1 v1 l1 verified @31-32");
}

#[test]
fn l2_must_not_hold_what_was_voided_whoever_reads_it() {
    let history = |read: &str| format!("p1 load k1 v1 @10-12\np1 invalidate k1 ok @20-30\n{read}");
    rejects(Rule::Fenced, &history("p2 read k1 v1 l2 verified @41-42"));
    accepts(&history("p2 read k1 v1 l2 verified @40-42")); // it may have joined an older read
}

#[test]
fn a_verified_value_is_at_most_as_stale_as_the_bound() {
    let history = |read: &str| format!("p1 load k1 v1 @10-12\np1 invalidate k1 ok @20-30\n{read}");
    for tier in ["l1", "load"] {
        rejects(Rule::Bounded, &history(&format!("p2 read k1 v1 {tier} verified @131-132")));
        accepts(&history(&format!("p2 read k1 v1 {tier} verified @130-132")));
        accepts(&history(&format!("p2 read k1 v1 {tier} unverified @131-132")));
        accepts(&history(&format!("p2 read k1 v1 {tier} stale @131-132")));
    }
}

#[test]
fn a_read_with_a_token_reflects_its_write_on_every_process() {
    let history =
        |write: &str, read: &str| format!("p1 load k1 v1 @10-12\np1 {write} @20-30 id 7\n{read}");
    for mark in ["verified", "unverified"] {
        let read = format!("p2 read k1 v1 l1 {mark} @31-32 token 7");
        rejects(Rule::ReadYourWrites, &history("invalidate k1 ok", &read));
        rejects(Rule::ReadYourWrites, &history("clear ok", &read));
        rejects(Rule::ReadYourWrites, &history("put k1 v9 ok", &read));
        accepts(&history("invalidate k2 ok", &read));
        accepts(&history("invalidate k1 unknown", &read)); // it gave no token
        accepts(&history("bump t1 ok", &read)); // the value does not carry it
    }
    accepts(&history("invalidate k1 ok", "p2 read k1 v1 l1 verified @30-32 token 7"));
    let lost = "p2 read k1 v1 l1 verified @31-32 token 7\nloss @5-60";
    accepts(&history("invalidate k1 ok", lost));
}

#[test]
fn a_tag_voids_what_carries_it_and_everything_voids_all() {
    let read = "p1 read k1 v1 l1 verified @40-41";
    rejects(Rule::Fenced, &format!("p1 load k1 v1 @10-12 tags 3\np1 bump t3 ok @20-30\n{read}"));
    accepts(&format!("p1 load k1 v1 @10-12 tags 4\np1 bump t3 ok @20-30\n{read}"));
    rejects(Rule::Fenced, &format!("p1 load k1 v1 @10-12 tags 4\np1 clear ok @20-30\n{read}"));
    accepts(&format!("p1 load k1 v1 @20-22 tags 3\np1 bump t3 ok @20-30\n{read}"));
}

#[test]
fn of_two_puts_that_overlap_either_may_stay() {
    let puts = "p1 put k1 v1 ok @10-20\np2 put k1 v2 ok @15-25\n";
    accepts(&format!("{puts}p3 read k1 v1 l2 verified @200-201"));
    accepts(&format!("{puts}p3 read k1 v2 l2 verified @200-201"));
    let puts = "p1 put k1 v1 ok @10-14\np2 put k1 v2 ok @15-25\n";
    rejects(Rule::Fenced, &format!("{puts}p3 read k1 v1 l2 verified @200-201"));
}

#[test]
fn a_put_of_unknown_outcome_may_be_carried_out_at_any_later_moment() {
    let later = "p2 invalidate k1 ok @30-40\np2 read k1 v1 l2 verified @60-61";
    rejects(Rule::Fenced, &format!("p1 put k1 v1 ok @10-20\n{later}"));
    accepts(&format!("p1 put k1 v1 unknown @10-20\n{later}"));
    accepts(&format!("p1 put k1 v1 open @10-20\n{later}"));
    rejects(Rule::Fenced, &format!("p1 put k1 v1 unknown @10-20\nsettled @25\n{later}"));
}

#[test]
fn what_was_queued_counts_for_all_once_the_history_has_settled() {
    let queued = "p1 load k1 v1 @10-12\np1 invalidate k1 queued @20-30\n";
    let read = "p2 read k1 v1 l2 verified @80-81";
    accepts(&format!("{queued}{read}"));
    rejects(Rule::Fenced, &format!("{queued}settled @50\n{read}"));
    accepts(&format!("{queued}settled @70\n{read}")); // not yet by the time of an older read
    accepts(&format!("{queued}crash p1 @40\nsettled @50\n{read}"));
    accepts(&format!("{queued}settled @25\n{read}")); // before it was queued
}

#[test]
fn during_a_loss_the_server_may_show_an_older_state_and_not_after_it() {
    let history = |tail: &str| format!("p1 load k1 v1 @10-12\np1 invalidate k1 ok @20-30\n{tail}");
    accepts(&history("loss @40-90\np2 read k1 v1 l2 verified @60-61"));
    rejects(Rule::Fenced, &history("loss @40-90\np2 read k1 v1 l2 verified @91-92"));
    accepts(&history("loss @40-90\ncrash p1 @80\np2 read k1 v1 l2 verified @91-92"));
    rejects(Rule::Fenced, &history("loss @40-90\ncrash p1 @95\np2 read k1 v1 l2 verified @91-92"));
    // A write that began after the loss is not among the lost.
    rejects(Rule::Fenced, &history("loss @19-90\np2 read k1 v1 l2 verified @60-61"));
}

#[test]
fn two_loads_overlap_only_with_a_reason() {
    let two = "p1 load k1 v1 @100-200\np2 load k1 v2 @150-250\n";
    rejects(Rule::OneLoad, two);
    accepts("p1 load k1 v1 @100-150\np2 load k1 v2 @150-250");
    accepts("p1 load k1 v1 @100-200\np2 load k2 v2 @150-250");
    accepts("p1 load k1 v1 @100-200\np2 load k1 v2 @150-250 alone");
    accepts(&format!("{two}p3 invalidate k1 ok @95-120"));
    accepts(&format!("{two}p3 invalidate k1 ok @80-90")); // its effect may be late by the bound
    rejects(Rule::OneLoad, &format!("{two}p3 invalidate k1 ok @80-89"));
    accepts(&format!("{two}p3 invalidate k1 unknown @80-89")); // it may be carried out later
    rejects(Rule::OneLoad, &format!("{two}p3 invalidate k1 unknown @80-85\nsettled @89"));
    rejects(Rule::OneLoad, &format!("{two}p3 invalidate k1 ok @151-160"));
    rejects(Rule::OneLoad, &format!("{two}p3 invalidate k2 ok @110-120"));
    accepts(&format!("{two}p3 clear ok @110-120"));
    accepts(&format!("{two}outage p1 @110-120"));
    accepts(&format!("{two}outage p2 @140-145"));
    accepts(&format!("{two}outage all @140-145"));
    rejects(Rule::OneLoad, &format!("{two}outage p3 @110-120"));
    accepts(&format!("{two}loss @110-120"));
}

#[test]
fn a_value_that_nobody_had_is_invented() {
    rejects(Rule::Invented, "p1 load k1 v1 @10-12\np1 read k1 v2 l1 verified @20-21");
    rejects(Rule::Invented, "p1 load k1 v1 @10-30\np1 read k1 v1 l1 verified @20-21");
    rejects(Rule::Invented, "p1 load k1 v1 @10-12\np1 read k2 v1 l1 verified @20-21");
    accepts("p1 load k1 v1 @10-30\np1 read k1 v1 load verified @20-30");
}

#[test]
fn without_recorded_loads_the_origin_bounds_the_birth() {
    let origin = "origin k1 v1 @1-2\norigin k1 v2 @10-15\n";
    let read = "p1 read k1 v1 l1 verified @40-41";
    rejects(Rule::Fenced, &format!("{origin}p1 invalidate k1 ok @16-30\n{read}"));
    // The load may have found v1 just before the write of v2 took effect, after the other began.
    accepts(&format!("{origin}p1 invalidate k1 ok @15-30\n{read}"));
    accepts(&format!("{origin}p1 invalidate k1 ok @16-30\np1 read k1 v2 l1 verified @40-41"));
    accepts(&format!("{origin}p1 invalidate k1 ok @16-30\np1 read k1 v7 l1 verified @40-41"));
}

#[test]
fn a_report_counts_and_explains_in_one_line() {
    let report = judge(
        "p1 load k1 v1 @10-12\np1 invalidate k1 ok @20-30 id 7\np2 read k1 v1 l1 verified @31-32\n\
         p2 read k1 v1 l1 verified @80-81\np1 read k1 v1 l1 verified @50-51\np1 read k2 none @50-51",
    );
    let numbers = (report.reads, report.judged, report.stale, report.loads, report.writes);
    assert_eq!(numbers, (4, 3, 3, 1, 1));
    assert_eq!(report.staleness.max(), Duration::from_nanos(50));
    assert_eq!(
        report.to_string(),
        "Fenced is broken (1 in all): session 0 of process 1 read version 1 of key 1 from L1 \
         (Verified) at 50..51 ns: it was loaded by process 1, born by 10 ns, and voided by write \
         0x7 (Key(1), Ok) of process 1 at 20..30 ns, 20ns before the read. 4 reads (3 judged, 3 \
         stale), 1 loads, 1 writes; staleness p50 20ns, p99 50ns, max 50ns"
    );
}
