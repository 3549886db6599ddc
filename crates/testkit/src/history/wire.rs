//! The compact form of a history.

use std::io::{self, BufRead, ErrorKind};

use super::{Event, FoundIn, Mark, Outcome, Read, Seen, Span, Target, WriteId};

/// What a file of events begins with.
pub(super) const MAGIC: &[u8] = b"FWHIST1\n";

/// A list longer than this is no list of tags.
const TAGS_MAX: u64 = 1024;

/// Remembers the last moment, because moments are written as differences.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    last: u64,
}

impl Encoder {
    pub(super) fn write(&mut self, event: &Event, to: &mut Vec<u8>) {
        match event {
            Event::Read(read) => {
                to.push(1);
                self.span(read.at, to);
                numbers(to, &[read.process.into(), read.session.into(), read.key]);
                optional(to, read.seen.map(|seen| seen.version));
                if let Some(seen) = read.seen {
                    to.push(tier_code(seen.tier) | mark_code(seen.mark) << 4);
                }
                optional(to, read.at_least.map(|write| write.0));
            }
            Event::Origin { at, key, version } => {
                to.push(2);
                self.span(*at, to);
                numbers(to, &[*key, *version]);
            }
            Event::Load { at, process, key, version, tags, alone } => {
                to.push(if *alone { 10 } else { 3 });
                self.span(*at, to);
                numbers(to, &[u64::from(*process), *key, *version]);
                list(to, tags);
            }
            Event::Begun { start, write, process, session, target, version, tags } => {
                to.push(4);
                self.moment(*start, to);
                numbers(to, &[write.0, u64::from(*process), u64::from(*session)]);
                let (code, name) = match target {
                    Target::Key(key) => (0, *key),
                    Target::Tag(tag) => (1, *tag),
                    Target::Everything => (2, 0),
                };
                to.push(code);
                number(to, name);
                optional(to, *version);
                list(to, tags);
            }
            Event::Ended { end, write, outcome } => {
                to.push(5);
                self.moment(*end, to);
                number(to, write.0);
                to.push(outcome_code(*outcome));
            }
            Event::Outage { at, process } => {
                to.push(6);
                self.span(*at, to);
                optional(to, process.map(u64::from));
            }
            Event::Loss { at } => {
                to.push(7);
                self.span(*at, to);
            }
            Event::Crash { at, process } => {
                to.push(8);
                self.moment(*at, to);
                number(to, u64::from(*process));
            }
            Event::Settled { at } => {
                to.push(9);
                self.moment(*at, to);
            }
        }
    }

    fn moment(&mut self, at: u64, to: &mut Vec<u8>) {
        let moved = at.wrapping_sub(self.last) as i64;
        self.last = at;
        // Zigzag: small differences are short, whatever their sign.
        number(to, (moved.wrapping_shl(1) ^ (moved >> 63)) as u64);
    }

    fn span(&mut self, at: Span, to: &mut Vec<u8>) {
        self.moment(at.start, to);
        number(to, at.end.saturating_sub(at.start));
    }
}

fn number(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn numbers(to: &mut Vec<u8>, values: &[u64]) {
    for value in values {
        number(to, *value);
    }
}

/// `u64::MAX` cannot be written this way; it is no version, and no write.
fn optional(to: &mut Vec<u8>, value: Option<u64>) {
    number(to, value.map_or(0, |value| value.saturating_add(1)));
}

fn list(to: &mut Vec<u8>, values: &[u64]) {
    let values = &values[..values.len().min(TAGS_MAX as usize)];
    number(to, values.len() as u64);
    numbers(to, values);
}

/// Reads a whole part. A last event that is not complete is left out: its writer was killed.
pub(super) fn decode(from: &mut impl BufRead, each: &mut impl FnMut(Event)) -> io::Result<()> {
    let mut magic = [0; MAGIC.len()];
    match from.read_exact(&mut magic) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
        Err(error) => return Err(error),
        Ok(()) if magic != MAGIC => return Err(nonsense("it does not begin like a history")),
        Ok(()) => {}
    }
    let mut decoder = Decoder { from, last: 0 };
    loop {
        match decoder.event() {
            Ok(event) => each(event),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

struct Decoder<'a, R> {
    from: &'a mut R,
    last: u64,
}

impl<R: BufRead> Decoder<'_, R> {
    fn event(&mut self) -> io::Result<Event> {
        match self.byte()? {
            1 => self.read().map(Event::Read),
            2 => {
                Ok(Event::Origin { at: self.span()?, key: self.number()?, version: self.number()? })
            }
            code @ (3 | 10) => Ok(Event::Load {
                alone: code == 10,
                at: self.span()?,
                process: self.small()?,
                key: self.number()?,
                version: self.number()?,
                tags: self.list()?,
            }),
            4 => Ok(Event::Begun {
                start: self.moment()?,
                write: WriteId(self.number()?),
                process: self.small()?,
                session: self.small()?,
                target: self.target()?,
                version: self.optional()?,
                tags: self.list()?,
            }),
            5 => Ok(Event::Ended {
                end: self.moment()?,
                write: WriteId(self.number()?),
                outcome: outcome(self.byte()?)?,
            }),
            6 => Ok(Event::Outage { at: self.span()?, process: self.optional_small()? }),
            7 => Ok(Event::Loss { at: self.span()? }),
            8 => Ok(Event::Crash { at: self.moment()?, process: self.small()? }),
            9 => Ok(Event::Settled { at: self.moment()? }),
            _ => Err(nonsense("an event of no known kind")),
        }
    }

    fn read(&mut self) -> io::Result<Read> {
        let (at, process, session) = (self.span()?, self.small()?, self.small()?);
        let key = self.number()?;
        let seen = match self.optional()? {
            None => None,
            Some(version) => {
                let code = self.byte()?;
                Some(Seen { version, tier: tier(code & 0xf)?, mark: mark(code >> 4)? })
            }
        };
        let at_least = self.optional()?.map(WriteId);
        Ok(Read { at, process, session, key, seen, at_least })
    }

    fn target(&mut self) -> io::Result<Target> {
        let (code, name) = (self.byte()?, self.number()?);
        match code {
            0 => Ok(Target::Key(name)),
            1 => Ok(Target::Tag(name)),
            2 => Ok(Target::Everything),
            _ => Err(nonsense("a write of no known kind")),
        }
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.from.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(nonsense("a number of more than 64 bits"))
    }

    fn small(&mut self) -> io::Result<u32> {
        u32::try_from(self.number()?).map_err(|_| nonsense("a number of more than 32 bits"))
    }

    fn optional(&mut self) -> io::Result<Option<u64>> {
        Ok(self.number()?.checked_sub(1))
    }

    fn optional_small(&mut self) -> io::Result<Option<u32>> {
        let small = |value| u32::try_from(value).map_err(|_| nonsense("more than 32 bits"));
        self.optional()?.map(small).transpose()
    }

    fn list(&mut self) -> io::Result<Vec<u64>> {
        let len = self.number()?;
        if len > TAGS_MAX {
            return Err(nonsense("a list of more tags than there can be"));
        }
        (0..len).map(|_| self.number()).collect()
    }

    fn moment(&mut self) -> io::Result<u64> {
        let zigzag = self.number()?;
        let moved = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
        self.last = self.last.wrapping_add(moved as u64);
        Ok(self.last)
    }

    fn span(&mut self) -> io::Result<Span> {
        let (start, length) = (self.moment()?, self.number()?);
        Ok(Span { start, end: start.saturating_add(length) })
    }
}

const fn tier_code(tier: FoundIn) -> u8 {
    match tier {
        FoundIn::L1 => 0,
        FoundIn::L2 => 1,
        FoundIn::Load => 2,
    }
}

fn tier(code: u8) -> io::Result<FoundIn> {
    let tiers = [FoundIn::L1, FoundIn::L2, FoundIn::Load];
    tiers.get(usize::from(code)).copied().ok_or_else(|| nonsense("no known tier"))
}

const fn mark_code(mark: Mark) -> u8 {
    match mark {
        Mark::Verified => 0,
        Mark::Unverified => 1,
        Mark::Stale => 2,
    }
}

fn mark(code: u8) -> io::Result<Mark> {
    let marks = [Mark::Verified, Mark::Unverified, Mark::Stale];
    marks.get(usize::from(code)).copied().ok_or_else(|| nonsense("no known mark"))
}

const fn outcome_code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Ok => 0,
        Outcome::Queued => 1,
        Outcome::Unknown => 2,
        Outcome::Dropped => 3,
    }
}

fn outcome(code: u8) -> io::Result<Outcome> {
    let outcomes = [Outcome::Ok, Outcome::Queued, Outcome::Unknown, Outcome::Dropped];
    outcomes.get(usize::from(code)).copied().ok_or_else(|| nonsense("no known outcome"))
}

fn nonsense(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("not a history: {what}"))
}
