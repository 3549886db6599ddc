//! The whole cache on bad days: several nodes of real code under simulated time, with everything
//! lost, late, doubled, dead or stopped that can be, and a checker for what they answered.
//!
//! Each day leans to another side: one key or forty, quick or slow loaders, much of one trouble and
//! nothing of another. `SIMULATION_SEEDS` is how many days are played, and `FLEETWIDE_SEED` names the first;
//! `SIMULATION_HISTORY` names a file that takes the events of the last one. How soon
//! each mechanism is missed when it is taken out stands in `docs/testing.md`.

mod client;
mod day;
mod habits;
mod rollback;
mod trouble;

use std::env;

use day::Day;

/// Days that are played when nobody says otherwise: less than half a minute.
const SEEDS_DEFAULT: u64 = 12;

/// Red without each of the fences in the table of `docs/testing.md` that has a number of seeds, within
/// that many.
#[test]
fn on_no_day_does_the_fleet_break_a_promise() {
    let first = fleetwide_testkit::seed().value();
    let days = env::var("SIMULATION_SEEDS").map_or(SEEDS_DEFAULT, |text| text.parse().unwrap());
    let (mut reads, mut stale, mut loads, mut writes) = (0, 0, 0, 0);
    for day in 0..days {
        let seed = first.wrapping_add(day);
        let report = Day::new(seed).play();
        assert!(report.is_clean(), "day {day}: {report}\nreplay with FLEETWIDE_SEED={seed}");
        reads += report.judged;
        stale += report.stale;
        loads += report.loads;
        writes += report.writes;
    }
    tell(&format!(
        "{days} days: {reads} reads judged, {stale} stale, {loads} loads, {writes} writes"
    ));
    // A day on which nothing happens keeps every promise.
    assert!(reads > 1_000 * days && stale > 0 && loads > 100 * days && writes > 50 * days);
}

#[expect(clippy::print_stdout, reason = "a long run is read by somebody")]
fn tell(line: &str) {
    println!("{line}");
}
