//! What reads are judged by: where values came from, and which writes void them.

use std::collections::HashMap;

use crate::history::{Event, Outcome, Process, Span, Target, WriteId};

/// Everything in a history that is no read, as it comes.
#[derive(Default)]
pub(super) struct Collected {
    origins: HashMap<u64, Vec<(u64, u64)>>,
    loads: Vec<Load>,
    begun: HashMap<WriteId, Write>,
    ended: HashMap<WriteId, (u64, Outcome)>,
    outages: Vec<(Span, Option<Process>)>,
    losses: Vec<Span>,
    crashes: Vec<(u64, Process)>,
    settled: Vec<u64>,
}

#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) at: Span,
    pub(super) process: Process,
    pub(super) key: u64,
    pub(super) version: u64,
    pub(super) tags: Vec<u64>,
    pub(super) alone: bool,
}

/// A write with all that is known of it.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) id: WriteId,
    pub(super) process: Process,
    pub(super) target: Target,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) outcome: Outcome,
    /// The last moment at which it can take effect.
    pub(super) effect_until: u64,
    pub(super) may_be_gone: bool,
    version: Option<u64>,
    tags: Vec<u64>,
}

/// Where a value of some version came from.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// The earliest moment at which somebody can have it.
    pub(super) there_from: u64,
    /// The latest moment at which it was born.
    pub(super) born_by: u64,
    pub(super) tags: Vec<u64>,
    pub(super) what: &'static str,
    pub(super) process: Process,
}

/// Writes that had to be reflected by some moment, for one target.
#[derive(Default)]
pub(super) struct Barriers {
    /// By the moment from which they count.
    by_end: Vec<Barrier>,
    /// Of those up to here in `by_end`, the one that began last.
    latest: Vec<Barrier>,
    /// By start, each with the earliest moment from which it or a later one counts.
    by_start: Vec<(u64, u64)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Barrier {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) write: WriteId,
}

/// Ready to judge by.
pub(super) struct Index {
    /// Of each key and version, in the order in which they were there.
    sources: HashMap<(u64, u64), Vec<Source>>,
    pub(super) loads_are_recorded: bool,
    pub(super) loads: Vec<Load>,
    pub(super) writes: HashMap<WriteId, Write>,
    /// When writes of a key could have taken effect; under `None` those of tags and of everything.
    effects: HashMap<Option<u64>, Vec<Span>>,
    /// What all processes have to reflect.
    pub(super) of_all: HashMap<Target, Barriers>,
    /// What each process has to reflect at once, because it wrote it.
    pub(super) of_own: HashMap<(Process, Target), Barriers>,
    pub(super) outages: Vec<(Span, Option<Process>)>,
    pub(super) losses: Vec<Span>,
}

impl Collected {
    pub(super) fn add(&mut self, event: Event) {
        match event {
            Event::Read(_) => {}
            Event::Origin { at, key, version } => {
                self.origins.entry(key).or_default().push((version, at.end));
            }
            Event::Load { at, process, key, version, tags, alone } => {
                self.loads.push(Load { at, process, key, version, tags, alone });
            }
            Event::Begun { start, write: id, process, session: _, target, version, tags } => {
                let (end, outcome, effect_until) = (u64::MAX, Outcome::Dropped, u64::MAX);
                let may_be_gone = false;
                self.begun.insert(
                    id,
                    Write {
                        id,
                        process,
                        target,
                        start,
                        end,
                        outcome,
                        effect_until,
                        may_be_gone,
                        version,
                        tags,
                    },
                );
            }
            Event::Ended { end, write, outcome } => {
                self.ended.insert(write, (end, outcome));
            }
            Event::Outage { at, process } => self.outages.push((at, process)),
            Event::Loss { at } => self.losses.push(at),
            Event::Crash { at, process } => self.crashes.push((at, process)),
            Event::Settled { at } => self.settled.push(at),
        }
    }

    pub(super) fn loads(&self) -> u64 {
        self.loads.len() as u64
    }

    pub(super) fn writes(&self) -> u64 {
        self.begun.len() as u64
    }

    /// When the process of a write died after it had begun.
    fn death_of(&self, write: &Write) -> Option<u64> {
        let of_it = self
            .crashes
            .iter()
            .filter(|(at, process)| *process == write.process && *at >= write.start);
        of_it.map(|(at, _)| *at).min()
    }

    /// Adds to a write what came of it.
    fn complete(&self, write: &mut Write) {
        if let Some((end, outcome)) = self.ended.get(&write.id) {
            (write.end, write.outcome) = (*end, *outcome);
        }
        write.effect_until = match write.outcome {
            Outcome::Ok => write.end,
            _ => self.settled_after(write).unwrap_or(u64::MAX),
        };
        // The server has lost it, and its process died before it could say so.
        let death = self.death_of(write);
        let lost =
            |loss: &Span| write.start < loss.start && death.is_some_and(|death| death <= loss.end);
        write.may_be_gone = self.losses.iter().any(lost);
    }

    /// When nothing of a write was under way any more.
    fn settled_after(&self, write: &Write) -> Option<u64> {
        let answered = self.ended.get(&write.id).map_or(write.start, |(end, _)| *end);
        self.settled.iter().filter(|at| **at >= answered).min().copied()
    }

    /// From when on all have to reflect a write.
    fn counts_from(&self, write: &Write) -> Option<u64> {
        match write.outcome {
            Outcome::Ok => Some(write.end),
            Outcome::Dropped => None,
            Outcome::Queued | Outcome::Unknown => {
                let settled = self.settled_after(write)?;
                let survived = self.death_of(write).is_none_or(|death| death > settled);
                survived.then_some(settled)
            }
        }
    }
}

impl Index {
    pub(super) fn new(mut collected: Collected) -> Self {
        let mut writes = std::mem::take(&mut collected.begun);
        let mut effects: HashMap<Option<u64>, Vec<Span>> = HashMap::new();
        for write in writes.values_mut() {
            collected.complete(write);
            let key = match write.target {
                Target::Key(key) => Some(key),
                // A bump can also become a clear.
                Target::Tag(_) | Target::Everything => None,
            };
            let effect = Span { start: write.start, end: write.effect_until };
            effects.entry(key).or_default().push(effect);
        }
        let (mut of_all, mut of_own) = (HashMap::new(), HashMap::new());
        for write in writes.values().filter(|write| !write.may_be_gone) {
            let barrier = Barrier { start: write.start, end: write.end, write: write.id };
            if let Some(end) = collected.counts_from(write) {
                let list: &mut Barriers = of_all.entry(write.target).or_default();
                list.by_end.push(Barrier { end, ..barrier });
            }
            if write.outcome != Outcome::Dropped {
                let list: &mut Barriers = of_own.entry((write.process, write.target)).or_default();
                list.by_end.push(barrier);
            }
        }
        of_all.values_mut().chain(of_own.values_mut()).for_each(Barriers::sort);
        let sources = sources(&collected, &writes);
        let Collected { loads, outages, losses, .. } = collected;
        let loads_are_recorded = !loads.is_empty();
        Self {
            sources,
            loads_are_recorded,
            loads,
            writes,
            effects,
            of_all,
            of_own,
            outages,
            losses,
        }
    }

    /// Where a value that was read by `read_end` can have come from, the last one last.
    pub(super) fn sources(&self, key: u64, version: u64, read_end: u64) -> &[Source] {
        let all = self.sources.get(&(key, version)).map_or(&[][..], Vec::as_slice);
        &all[..all.partition_point(|source| source.there_from <= read_end)]
    }

    /// Whether a write of `key`, of a tag or of everything could have taken effect in this time.
    pub(super) fn could_be_written(&self, key: u64, from: u64, to: u64) -> bool {
        let lists = [Some(key), None].into_iter().filter_map(|key| self.effects.get(&key));
        lists.flatten().any(|effect| effect.start <= to && from <= effect.end)
    }

    /// The moment from before which writes say nothing about a read, because of a loss.
    pub(super) fn forgotten_before(&self, read: Span) -> u64 {
        let overlaps = |loss: &&Span| loss.start <= read.end && read.start <= loss.end;
        self.losses.iter().filter(overlaps).map(|loss| loss.start).max().unwrap_or(0)
    }
}

fn sources(
    collected: &Collected,
    writes: &HashMap<WriteId, Write>,
) -> HashMap<(u64, u64), Vec<Source>> {
    let mut sources: HashMap<(u64, u64), Vec<Source>> = HashMap::new();
    for load in &collected.loads {
        let (there_from, born_by, tags) = (load.at.end, load.at.start, load.tags.clone());
        let source = Source { there_from, born_by, tags, what: "loaded", process: load.process };
        sources.entry((load.key, load.version)).or_default().push(source);
    }
    if collected.loads.is_empty() {
        for (key, versions) in &collected.origins {
            unrecorded_loads(*key, versions.clone(), &mut sources);
        }
    }
    for write in writes.values() {
        let (Target::Key(key), Some(version)) = (write.target, write.version) else { continue };
        let born_by = match write.outcome {
            Outcome::Ok | Outcome::Queued => write.end,
            Outcome::Unknown | Outcome::Dropped => write.effect_until,
        };
        let (there_from, tags) = (write.start, write.tags.clone());
        let source = Source { there_from, born_by, tags, what: "put", process: write.process };
        sources.entry((key, version)).or_default().push(source);
    }
    for all in sources.values_mut() {
        all.sort_by_key(|source| source.there_from);
    }
    sources
}

/// Loads that nobody recorded: of each version, one that had begun before the next was there.
fn unrecorded_loads(
    key: u64,
    mut versions: Vec<(u64, u64)>,
    to: &mut HashMap<(u64, u64), Vec<Source>>,
) {
    versions.sort_unstable();
    let mut born_by = u64::MAX;
    for (version, there_by) in versions.into_iter().rev() {
        let (there_from, tags, what, process) = (0, Vec::new(), "loaded", 0);
        let source = Source { there_from, born_by, tags, what, process };
        to.entry((key, version)).or_default().push(source);
        born_by = born_by.min(there_by);
    }
}

impl Barriers {
    fn sort(&mut self) {
        self.by_end.sort_unstable_by_key(|barrier| barrier.end);
        let mut latest: Option<Barrier> = None;
        for barrier in &self.by_end {
            let next = latest.filter(|latest| latest.start >= barrier.start).unwrap_or(*barrier);
            self.latest.push(next);
            latest = Some(next);
        }
        self.by_start = self.by_end.iter().map(|barrier| (barrier.start, barrier.end)).collect();
        self.by_start.sort_unstable();
        let mut earliest = u64::MAX;
        for (_, end) in self.by_start.iter_mut().rev() {
            earliest = earliest.min(*end);
            *end = earliest;
        }
    }

    /// Of those that count strictly before `moment`, the one that began last.
    pub(super) fn latest_before(&self, moment: u64) -> Option<Barrier> {
        let count = self.by_end.partition_point(|barrier| barrier.end < moment);
        self.latest[..count].last().copied()
    }

    /// The earliest moment at which one counts that began after `born_by`.
    pub(super) fn first_to_void(&self, born_by: u64) -> Option<u64> {
        let from = self.by_start.partition_point(|(start, _)| *start <= born_by);
        self.by_start.get(from).map(|(_, end)| *end)
    }
}
