use super::*;
use crate::seed;
use rand::Rng;

fn random_event(rng: &mut impl Rng) -> Event {
    let start = rng.random_range(0..u64::MAX / 2) >> rng.random_range(0..60);
    let at = Span { start, end: start + rng.random_range(0..1 << 40) };
    let (process, session) = (rng.random(), rng.random());
    let (key, version, write) = (rng.random(), rng.random_range(0..u64::MAX), rng.random());
    let tags = (0..rng.random_range(0..4)).map(|_| rng.random()).collect();
    let write = WriteId(write);
    let outcomes = [Outcome::Ok, Outcome::Queued, Outcome::Unknown, Outcome::Dropped];
    let tiers = [FoundIn::L1, FoundIn::L2, FoundIn::Load];
    let marks = [Mark::Verified, Mark::Unverified, Mark::Stale];
    let targets = [Target::Key(key), Target::Tag(key), Target::Everything];
    let (tier, mark) = (tiers[rng.random_range(0..3)], marks[rng.random_range(0..3)]);
    let seen = rng.random::<bool>().then_some(Seen { version, tier, mark });
    let at_least = rng.random::<bool>().then_some(WriteId(version));
    match rng.random_range(0..9) {
        0 => Event::Read(Read { at, process, session, key, seen, at_least }),
        1 => Event::Origin { at, key, version },
        2 => Event::Load { at, process, key, version, tags, alone: rng.random() },
        3 => {
            let (target, version) =
                (targets[rng.random_range(0..3)], seen.map(|seen| seen.version));
            Event::Begun { start, write, process, session, target, version, tags }
        }
        4 => Event::Ended { end: start, write, outcome: outcomes[rng.random_range(0..4)] },
        5 => Event::Outage { at, process: rng.random::<bool>().then_some(process) },
        6 => Event::Loss { at },
        7 => Event::Crash { at: start, process },
        _ => Event::Settled { at: start },
    }
}

#[test]
fn every_event_is_read_back_as_it_was_written() {
    let mut rng = seed().rng();
    let written: Vec<Event> = (0..10_000).map(|_| random_event(&mut rng)).collect();
    assert_eq!(History::from_events(&written).events().unwrap(), written);
}

#[test]
fn a_file_that_was_cut_anywhere_gives_the_events_before_the_cut() {
    let mut rng = seed().rng();
    let written: Vec<Event> = (0..40).map(|_| random_event(&mut rng)).collect();
    let History { parts } = History::from_events(&written);
    let [Part::Bytes(bytes)] = &parts[..] else { panic!("one part") };
    let mut most = 0;
    for cut in 0..bytes.len() {
        let read = History::from_bytes(&bytes[..cut]).events().unwrap();
        assert_eq!(read, written[..read.len()]);
        most = most.max(read.len());
    }
    assert_eq!(most, written.len() - 1);
}

#[test]
fn bytes_that_are_no_history_are_an_error_and_never_a_panic() {
    let mut rng = seed().rng();
    assert!(History::from_bytes(*b"something else").events().is_err());
    for _ in 0..10_000 {
        let mut bytes = wire::MAGIC.to_vec();
        bytes.extend((0..rng.random_range(0..60)).map(|_| rng.random::<u8>()));
        let _read = History::from_bytes(bytes).events();
    }
}

#[test]
fn a_recorder_without_room_counts_reads_and_still_takes_writes() {
    let recorder = Recorder::in_memory_of(100, || 5);
    let client = recorder.client(1, 2);
    for _ in 0..100 {
        client.read(1).missed();
    }
    let token = client.invalidate(1).ok();
    let events = recorder.finish().unwrap().events().unwrap();
    let reads = events.iter().filter(|event| matches!(event, Event::Read(_))).count() as u64;
    assert!(reads > 5 && recorder.lost() == 100 - reads);
    let end = Event::Ended { end: 5, write: token, outcome: Outcome::Ok };
    assert_eq!(events.last(), Some(&end));
}

#[test]
fn files_of_several_recorders_are_one_history() {
    let directory = crate::temp::TempDir::new().unwrap();
    let paths = ["a", "b"].map(|name| directory.path().join(name));
    let recorders = paths.each_ref().map(|path| Recorder::to_file(path).unwrap());
    let kept = recorders[0].client(1, 1).invalidate(9);
    // It was never finished: what a killed process has begun is in its file all the same.
    let begun = History::from_files(&paths).events().unwrap();
    assert!(matches!(begun[..], [Event::Begun { process: 1, .. }]));
    recorders[1].client(2, 1).read(9).found(3, FoundIn::L2, Mark::Verified);
    kept.ok();
    let history = recorders[0].finish().unwrap().and(recorders[1].finish().unwrap());
    let events = history.events().unwrap();
    let [Event::Begun { start, .. }, Event::Ended { end, .. }, Event::Read(read)] = events[..]
    else {
        panic!("{events:?}")
    };
    assert!(start <= read.at.start && read.at.end <= end, "they share a clock");
}

/// Ten million reads have to fit; red if moments were written in full.
#[test]
fn a_read_takes_at_most_twenty_bytes() {
    let recorder = Recorder::in_memory();
    let client = recorder.client(3, 17);
    for key in 0..1_000 {
        client.read(key).found(1_000_000, FoundIn::L1, Mark::Verified);
    }
    let History { parts } = recorder.finish().unwrap();
    let [Part::Bytes(bytes)] = &parts[..] else { panic!("one part") };
    assert!(bytes.len() < 20 * 1_000, "{} bytes", bytes.len());
}
