//! The rules again, as loops over the events without any index: slow and obvious.

use rand::Rng;

use super::checker;
use crate::history::{Event, FoundIn, History, Mark, Outcome, Read, Seen, Span, Target, WriteId};
use crate::seed;

const STALENESS: u64 = 100;
const JOIN: u64 = 10;

#[derive(Clone, Copy)]
struct Written<'a> {
    id: WriteId,
    process: u32,
    target: Target,
    start: u64,
    end: u64,
    outcome: Outcome,
    version: Option<u64>,
    tags: &'a [u64],
}

/// What one source of a value can tell.
struct Born<'a> {
    there_from: u64,
    by: u64,
    tags: &'a [u64],
}

fn written(events: &[Event]) -> Vec<Written<'_>> {
    let begun = events.iter().filter_map(|event| match event {
        Event::Begun { start, write, process, target, version, tags, .. } => {
            let ended = events.iter().find_map(|event| match event {
                Event::Ended { end, write: id, outcome } if id == write => Some((*end, *outcome)),
                _ => None,
            });
            let (end, outcome) = ended.unwrap_or((u64::MAX, Outcome::Dropped));
            let (start, process, target, version) = (*start, *process, *target, *version);
            Some(Written { id: *write, process, target, start, end, outcome, version, tags })
        }
        _ => None,
    });
    begun.collect()
}

fn settled_after(events: &[Event], write: &Written<'_>) -> Option<u64> {
    let answered = if write.end == u64::MAX { write.start } else { write.end };
    let moments = events.iter().filter_map(|event| match event {
        Event::Settled { at } if *at >= answered => Some(*at),
        _ => None,
    });
    moments.min()
}

fn died_by(events: &[Event], write: &Written<'_>, by: u64) -> bool {
    events.iter().any(|event| {
        matches!(event, Event::Crash { at, process }
            if *process == write.process && write.start <= *at && *at <= by)
    })
}

fn effect_until(events: &[Event], write: &Written<'_>) -> u64 {
    match write.outcome {
        Outcome::Ok => write.end,
        _ => settled_after(events, write).unwrap_or(u64::MAX),
    }
}

fn sources<'a>(
    events: &'a [Event],
    writes: &[Written<'a>],
    read: &Read,
    seen: Seen,
) -> Vec<Born<'a>> {
    let mut sources = Vec::new();
    for event in events {
        if let Event::Load { at, key, version, tags, .. } = event
            && (*key, *version) == (read.key, seen.version)
        {
            sources.push(Born { there_from: at.end, by: at.start, tags });
        }
    }
    for write in writes {
        if write.target == Target::Key(read.key) && write.version == Some(seen.version) {
            let by = match write.outcome {
                Outcome::Ok | Outcome::Queued => write.end,
                _ => effect_until(events, write),
            };
            sources.push(Born { there_from: write.start, by, tags: write.tags });
        }
    }
    sources.retain(|source| source.there_from <= read.at.end);
    sources
}

/// Whether a loss excuses a read from reflecting a write.
fn is_lost(events: &[Event], write: &Written<'_>, read: &Read) -> bool {
    events.iter().any(|event| {
        let Event::Loss { at } = event else { return false };
        let overlaps = at.start <= read.at.end && read.at.start <= at.end;
        write.start < at.start && (overlaps || died_by(events, write, at.end))
    })
}

/// Whether a read had to reflect a write because its own process made it.
fn by_own(write: &Written<'_>, read: &Read) -> bool {
    write.outcome != Outcome::Dropped && write.process == read.process && write.end < read.at.start
}

/// Whether a read had to reflect a write whoever made it.
fn by_all(events: &[Event], write: &Written<'_>, read: &Read, seen: Seen) -> bool {
    let from = match write.outcome {
        Outcome::Ok => Some(write.end),
        Outcome::Dropped => None,
        _ => settled_after(events, write).filter(|settled| !died_by(events, write, *settled)),
    };
    let bound = if seen.tier == FoundIn::L2 { JOIN } else { STALENESS };
    seen.mark == Mark::Verified && from.is_some_and(|from| from + bound < read.at.start)
}

/// Whether a read had to reflect a write because it was shown its token.
fn by_token(write: &Written<'_>, read: &Read) -> bool {
    read.at_least == Some(write.id) && write.outcome == Outcome::Ok && write.end < read.at.start
}

fn voids(write: &Written<'_>, key: u64, source: &Born<'_>) -> bool {
    let covers = match write.target {
        Target::Key(target) => target == key,
        Target::Tag(tag) => source.tags.contains(&tag),
        Target::Everything => true,
    };
    covers && source.by < write.start
}

fn is_wrong(events: &[Event], writes: &[Written<'_>], read: &Read) -> bool {
    let Some(seen) = read.seen else { return false };
    let sources = sources(events, writes, read, seen);
    let wrong_by = |due: &dyn Fn(&Written<'_>) -> bool| {
        sources.iter().all(|source| {
            writes.iter().any(|write| {
                due(write) && !is_lost(events, write, read) && voids(write, read.key, source)
            })
        })
    };
    let in_loss = events.iter().any(|event| {
        matches!(event, Event::Loss { at }
            if at.start <= read.at.end && read.at.start <= at.end && at.start > 0)
    });
    sources.is_empty()
        || wrong_by(&|write| by_own(write, read))
        || wrong_by(&|write| by_all(events, write, read, seen))
        || !in_loss && wrong_by(&|write| by_token(write, read))
}

fn overlaps(events: &[Event], writes: &[Written<'_>], one: &Event, two: &Event) -> bool {
    let (
        Event::Load { at: first, process: a, key, alone: false, .. },
        Event::Load { at: second, process: b, key: other, alone: false, .. },
    ) = (one, two)
    else {
        return false;
    };
    let (from, to) = (first.start.saturating_sub(JOIN), second.start);
    let in_between = |start: u64, end: u64| start <= to && from <= end;
    let excused = events.iter().any(|event| match event {
        Event::Loss { at } => in_between(at.start, at.end),
        Event::Outage { at, process } => {
            in_between(at.start, at.end)
                && process.is_none_or(|process| process == *a || process == *b)
        }
        _ => false,
    }) || writes.iter().any(|write| {
        let concerns = !matches!(write.target, Target::Key(target) if target != *key);
        concerns && in_between(write.start, effect_until(events, write))
    });
    key == other && second.start < first.end && !excused
}

fn violations(events: &[Event]) -> u64 {
    let writes = written(events);
    let reads = events
        .iter()
        .filter(|event| matches!(event, Event::Read(read) if is_wrong(events, &writes, read)));
    // Moments of the test are all different, so each pair has a first one.
    let begins = |event: &Event| match event {
        Event::Load { at, .. } => at.start,
        _ => 0,
    };
    let pairs = events.iter().flat_map(|one| events.iter().map(move |two| (one, two)));
    let loads =
        pairs.filter(|(one, two)| begins(one) < begins(two) && overlaps(events, &writes, one, two));
    (reads.count() + loads.count()) as u64
}

/// A history that any program could have recorded, right or wrong: few keys, many overlaps.
fn random_history(rng: &mut impl Rng) -> Vec<Event> {
    let mut events = Vec::new();
    let mut writes = Vec::new();
    for number in 0..rng.random_range(2..14) {
        // No two events have a moment in common: how ties are counted has tests of its own.
        let mut moment = || rng.random_range(0..40) * 20 + number;
        let (one, two) = (moment(), moment());
        let at = Span { start: one.min(two), end: one.max(two) };
        let (process, session) = (rng.random_range(1..4), 0);
        let (key, tag) = (rng.random_range(1..3), rng.random_range(1..3));
        let version = rng.random_range(1..4);
        let tags: Vec<u64> = if rng.random() { vec![tag] } else { Vec::new() };
        match rng.random_range(0..12) {
            0..3 => {
                let alone = number % 5 == 0;
                events.push(Event::Load { at, process, key, version, tags, alone });
            }
            3..6 => {
                let write = WriteId(number);
                let target = match rng.random_range(0..5) {
                    0 => Target::Tag(tag),
                    1 => Target::Everything,
                    _ => Target::Key(key),
                };
                let version = matches!(target, Target::Key(_)).then_some(version);
                let version = version.filter(|_| rng.random());
                let start = at.start;
                events.push(Event::Begun { start, write, process, session, target, version, tags });
                writes.push(write);
                let outcome = match rng.random_range(0..8) {
                    0 => Outcome::Queued,
                    1 => Outcome::Unknown,
                    2 => Outcome::Dropped,
                    3 => continue,
                    _ => Outcome::Ok,
                };
                events.push(Event::Ended { end: at.end, write, outcome });
            }
            6 => match rng.random_range(0..5) {
                0 => events.push(Event::Settled { at: at.end }),
                1 => events.push(Event::Loss { at }),
                2 => events.push(Event::Crash { at: at.end, process }),
                3 => events.push(Event::Outage { at, process: Some(process) }),
                _ => events.push(Event::Outage { at, process: None }),
            },
            _ => {
                let tier = [FoundIn::L1, FoundIn::L2, FoundIn::Load][rng.random_range(0..3)];
                let mark = if rng.random() { Mark::Verified } else { Mark::Unverified };
                let seen = Some(Seen { version, tier, mark });
                let token = writes.get(rng.random_range(0..8_usize)).copied();
                let at_least = token.filter(|_| rng.random());
                events.push(Event::Read(Read { at, process, session, key, seen, at_least }));
            }
        }
    }
    // Without a load, a checker goes by the origin, of which this oracle knows nothing.
    let at = Span { start: 2_000_000, end: 2_000_001 };
    events.push(Event::Load {
        at,
        process: 9,
        key: 99,
        version: 0,
        tags: Vec::new(),
        alone: false,
    });
    events
}

#[test]
fn the_checker_finds_what_a_slow_and_obvious_oracle_finds() {
    let mut rng = seed().rng();
    let (mut clean, mut broken) = (0, 0);
    for _ in 0..10_000 {
        let events = random_history(&mut rng);
        let report = checker().check(&History::from_events(&events)).unwrap();
        let expected = violations(&events);
        assert_eq!(report.violations, expected, "{report}\n{events:#?}");
        clean += u64::from(expected == 0);
        broken += u64::from(expected > 0);
    }
    assert!(clean > 500 && broken > 500, "{clean} clean, {broken} broken");
}
