//! Events from lines of text.

use crate::history::{Event, FoundIn, Mark, Outcome, Read, Seen, Span, Target, WriteId};

/// Words of one line, taken from the front.
struct Words<'a>(std::collections::VecDeque<&'a str>);

pub(super) fn parse(script: &str) -> Vec<Event> {
    let lines = script.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.flat_map(|(number, line)| events(number, line)).collect()
}

fn events(number: usize, line: &str) -> Vec<Event> {
    let mut words = Words(line.split_whitespace().collect());
    let first = words.next();
    match first {
        "origin" => {
            let (key, version) = (words.number(), words.number());
            vec![Event::Origin { at: words.span(), key, version }]
        }
        "loss" => vec![Event::Loss { at: words.span() }],
        "settled" => vec![Event::Settled { at: words.span().start }],
        "crash" => {
            let process = words.number() as u32;
            vec![Event::Crash { process, at: words.span().start }]
        }
        "outage" => {
            let name = words.next();
            let process = (name != "all").then(|| digits(name) as u32);
            vec![Event::Outage { at: words.span(), process }]
        }
        process => of_process(number, digits(process) as u32, &mut words),
    }
}

fn of_process(number: usize, process: u32, words: &mut Words<'_>) -> Vec<Event> {
    let (target, version) = match words.next() {
        "load" => {
            let (key, version) = (words.number(), words.number());
            let at = words.span();
            let alone = words.flag("alone");
            return vec![Event::Load {
                at,
                process,
                key,
                version,
                tags: words.list("tags"),
                alone,
            }];
        }
        "read" => return vec![read(process, words)],
        "invalidate" => (Target::Key(words.number()), None),
        "put" => (Target::Key(words.number()), Some(words.number())),
        "bump" => (Target::Tag(words.number()), None),
        "clear" => (Target::Everything, None),
        other => panic!("{other}?"),
    };
    let outcome = words.next();
    let Span { start, end } = words.span();
    let id = words.list("id").first().copied().unwrap_or(1_000 + number as u64);
    let write = WriteId(id);
    let tags = Vec::new();
    let begun = Event::Begun { start, write, process, session: 0, target, version, tags };
    let outcome = match outcome {
        "ok" => Outcome::Ok,
        "queued" => Outcome::Queued,
        "unknown" => Outcome::Unknown,
        "dropped" => Outcome::Dropped,
        "open" => return vec![begun],
        other => panic!("{other}?"),
    };
    vec![begun, Event::Ended { end, write, outcome }]
}

fn read(process: u32, words: &mut Words<'_>) -> Event {
    let key = words.number();
    let seen = match words.next() {
        "none" => None,
        version => Some(Seen {
            version: digits(version),
            tier: match words.next() {
                "l1" => FoundIn::L1,
                "l2" => FoundIn::L2,
                "load" => FoundIn::Load,
                other => panic!("{other}?"),
            },
            mark: match words.next() {
                "verified" => Mark::Verified,
                "unverified" => Mark::Unverified,
                "stale" => Mark::Stale,
                other => panic!("{other}?"),
            },
        }),
    };
    let at = words.span();
    let at_least = words.list("token").first().copied().map(WriteId);
    Event::Read(Read { at, process, session: 0, key, seen, at_least })
}

/// `7` of `k7`.
fn digits(word: &str) -> u64 {
    word[1..].parse().unwrap_or_else(|_| panic!("{word}?"))
}

impl<'a> Words<'a> {
    fn next(&mut self) -> &'a str {
        self.0.pop_front().expect("the line has another word")
    }

    fn number(&mut self) -> u64 {
        digits(self.next())
    }

    /// `@3-5`, or `@3`.
    fn span(&mut self) -> Span {
        let word = self.next();
        let (start, end) = word[1..].split_once('-').unwrap_or((&word[1..], &word[1..]));
        Span { start: start.parse().unwrap(), end: end.parse().unwrap() }
    }

    /// Takes `name`, if it is the next word.
    fn flag(&mut self, name: &str) -> bool {
        self.0.front() == Some(&name) && !self.next().is_empty()
    }

    /// The numbers after `name`, if the rest of the line begins with it.
    fn list(&mut self, name: &str) -> Vec<u64> {
        if self.0.front() != Some(&name) {
            return Vec::new();
        }
        self.next();
        self.0.drain(..).map(|word| word.parse().unwrap()).collect()
    }
}
