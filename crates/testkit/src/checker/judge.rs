//! The rules.

use std::collections::HashMap;
use std::hash::Hash;

use super::index::{Barrier, Barriers, Index, Load, Source, Write};
use super::{Checker, Report, Rule, Violation};
use crate::history::{FoundIn, Mark, Outcome, Read, Seen, Target, WriteId};

impl Checker {
    /// Judges one read.
    pub(super) fn judge_read(&self, index: &Index, read: &Read, report: &mut Report) {
        report.reads += 1;
        let Some(seen) = read.seen else { return };
        let sources = index.sources(read.key, seen.version, read.at.end);
        if sources.is_empty() {
            if index.loads_are_recorded {
                let what = format!("{}, which nobody had loaded or put", line(read, seen));
                report.broken(Violation { rule: Rule::Invented, at: read.at.start, what });
            }
            return;
        }
        report.judged += 1;
        count_staleness(index, read, seen, sources, report);
        let forgotten = index.forgotten_before(read.at);
        for (rule, void) in self.duties(index, read, seen) {
            let voids = |source: &Source| void(source).filter(|by| by.start >= forgotten);
            // The last one first: it is the one that usually counts, and then the others need no look.
            if !sources.iter().rev().all(|source| voids(source).is_some()) {
                continue;
            }
            let newest = sources.iter().max_by_key(|source| source.born_by);
            let Some((source, by)) = newest.and_then(|source| Some((source, voids(source)?)))
            else {
                continue;
            };
            let what = explain(index, read, seen, source, by);
            report.broken(Violation { rule, at: read.at.start, what });
            return;
        }
    }

    /// What a read had to reflect: each as a rule, and as what voids a source by that rule.
    fn duties<'a>(&self, index: &'a Index, read: &'a Read, seen: Seen) -> Vec<(Rule, Void<'a>)> {
        let mut duties: Vec<(Rule, Void<'a>)> = Vec::new();
        let (key, process, start) = (read.key, read.process, read.at.start);
        duties.push((
            Rule::Fenced,
            Box::new(move |source| {
                let own = |target| (process, target);
                newest(&index.of_own, key, source, own, |list| list.latest_before(start))
            }),
        ));
        let of_all = match (seen.tier, seen.mark) {
            (_, Mark::Unverified | Mark::Stale) => None,
            (FoundIn::L2, Mark::Verified) => Some((Rule::Fenced, self.join_bound)),
            (FoundIn::L1 | FoundIn::Load, Mark::Verified) => {
                Some((Rule::Bounded, self.staleness_bound))
            }
        };
        if let Some((rule, bound)) = of_all {
            let by = start.saturating_sub(bound);
            let void = move |source: &Source| {
                newest(&index.of_all, key, source, |target| target, |list| list.latest_before(by))
            };
            duties.push((rule, Box::new(void)));
        }
        // During a loss a token names a place in a history that is about to be given up.
        let token = read.at_least.filter(|_| index.forgotten_before(read.at) == 0);
        let token = token.and_then(|token| index.writes.get(&token));
        if let Some(write) = token
            .filter(|write| write.outcome == Outcome::Ok && write.end < start && !write.may_be_gone)
        {
            let barrier = Barrier { start: write.start, end: write.end, write: write.id };
            let target = write.target;
            let void = move |source: &Source| {
                let voids = covers(target, key, source) && source.born_by < barrier.start;
                voids.then_some(barrier)
            };
            duties.push((Rule::ReadYourWrites, Box::new(void)));
        }
        duties
    }

    /// Judges which loads overlapped.
    pub(super) fn judge_loads(&self, index: &Index, report: &mut Report) {
        let mut by_key: HashMap<u64, Vec<&Load>> = HashMap::new();
        for load in index.loads.iter().filter(|load| !load.alone) {
            by_key.entry(load.key).or_default().push(load);
        }
        for loads in by_key.values_mut() {
            loads.sort_unstable_by_key(|load| load.at.start);
            for (at, first) in loads.iter().enumerate() {
                let overlaps = |second: &&&Load| second.at.start < first.at.end;
                for second in loads[at + 1..].iter().take_while(overlaps) {
                    if !self.is_excused(index, first, second) {
                        let at = second.at.start;
                        report.broken(Violation {
                            rule: Rule::OneLoad,
                            at,
                            what: overlap(first, second),
                        });
                    }
                }
            }
        }
    }

    fn is_excused(&self, index: &Index, first: &Load, second: &Load) -> bool {
        let (from, to) = (first.at.start.saturating_sub(self.join_bound), second.at.start);
        let meets = |start: u64, end: u64| start <= to && from <= end;
        let concerns = |process: Option<u32>| {
            process.is_none_or(|process| [first.process, second.process].contains(&process))
        };
        index.could_be_written(first.key, from, to)
            || index.losses.iter().any(|loss| meets(loss.start, loss.end))
            || index
                .outages
                .iter()
                .any(|(at, process)| concerns(*process) && meets(at.start, at.end))
    }
}

/// Says which write voids a source, if one does.
type Void<'a> = Box<dyn Fn(&Source) -> Option<Barrier> + 'a>;

/// The write that voids a source, of those that `pick` chooses from each list.
fn newest<L: Eq + Hash>(
    lists: &HashMap<L, Barriers>,
    key: u64,
    source: &Source,
    name: impl Fn(Target) -> L,
    pick: impl Fn(&Barriers) -> Option<Barrier>,
) -> Option<Barrier> {
    let barriers = targets(key, source).filter_map(|target| pick(lists.get(&name(target))?));
    barriers.max_by_key(|barrier| barrier.start).filter(|barrier| barrier.start > source.born_by)
}

/// All that covers a source.
fn targets(key: u64, source: &Source) -> impl Iterator<Item = Target> {
    let tags = source.tags.iter().map(|tag| Target::Tag(*tag));
    [Target::Key(key), Target::Everything].into_iter().chain(tags)
}

fn covers(target: Target, key: u64, source: &Source) -> bool {
    targets(key, source).any(|covering| covering == target)
}

/// For how long every source of what was read had been void.
fn count_staleness(index: &Index, read: &Read, seen: Seen, sources: &[Source], to: &mut Report) {
    if seen.tier == FoundIn::Load || index.forgotten_before(read.at) > 0 {
        return;
    }
    let void_since = |source: &Source| {
        let lists = targets(read.key, source).filter_map(|target| index.of_all.get(&target));
        lists.filter_map(|list| list.first_to_void(source.born_by)).min().unwrap_or(u64::MAX)
    };
    let mut since = 0;
    for source in sources.iter().rev() {
        since = void_since(source).max(since);
        if since >= read.at.start {
            break;
        }
    }
    let staleness = read.at.start.saturating_sub(since);
    to.stale += u64::from(staleness > 0);
    to.staleness.add(staleness);
}

fn line(read: &Read, Seen { version, tier, mark }: Seen) -> String {
    let Read { at, process, session, key, .. } = read;
    format!(
        "session {session} of process {process} read version {version} of key {key} from {tier:?} \
         ({mark:?}) at {}..{} ns",
        at.start, at.end
    )
}

fn explain(index: &Index, read: &Read, seen: Seen, source: &Source, by: Barrier) -> String {
    let Source { what, process: from, born_by, .. } = source;
    let write = index.writes.get(&by.write).map_or_else(String::new, |write| {
        let Write { id: WriteId(id), target, outcome, process, .. } = write;
        format!("write {id:#x} ({target:?}, {outcome:?}) of process {process}")
    });
    let late = std::time::Duration::from_nanos(read.at.start.saturating_sub(by.end));
    format!(
        "{}: it was {what} by process {from}, born by {born_by} ns, and voided by {write} at \
         {}..{} ns, {late:?} before the read",
        line(read, seen),
        by.start,
        by.end
    )
}

fn overlap(first: &Load, second: &Load) -> String {
    let show = |load: &Load| {
        let Load { at, process, version, .. } = load;
        format!("version {version} by process {process} at {}..{} ns", at.start, at.end)
    };
    format!("two loads of key {} at a time: {} and {}", first.key, show(first), show(second))
}
