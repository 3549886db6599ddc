//! One follower's place in a history: is what comes in the next entry, an old one, or a lie?
//!
//! Pure. Every entry has an id drawn at random and names the id before it, so two histories that
//! have the same id at the same number are the same up to there, as in Raft's log matching.
//! Nothing here trusts the number alone.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use fleetwide_core_traits::log::{Entry, EntryId, Meta, Stamp};

use crate::pending::Pending;

/// How many of the last applied ids are kept, to find an older entry that contradicts them.
const IDS_MAX: usize = 1024;

/// Where a follower is in a history, and what it has applied last.
#[derive(Clone, Debug)]
pub(crate) struct Sequence {
    at: Stamp,
    /// The ids of the entries up to `at.seq`, the newest last. Never empty: where the history
    /// began for this follower, the id came with the meta.
    ids: VecDeque<EntryId>,
    /// An entry beyond `at` that the log is known to have had.
    ahead: Option<(u64, EntryId)>,
    pending: Pending,
}

/// What an entry that came by message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the next one. It was applied, and with it those that had been waiting for it.
    Apply,
    /// It was applied before, or is older than what can be remembered.
    Duplicate,
    /// Entries before it are missing: replay from this number on, the last that was applied.
    Gap {
        /// The last entry that was applied.
        from: u64,
    },
    /// It belongs to another history. A message alone proves nothing, because it can be old: ask
    /// the server.
    Diverged(Divergence),
}

/// How two histories differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Divergence {
    /// They have different names.
    OtherEpoch,
    /// The server has lost entries that were applied here.
    WentBack,
    /// One number has two entries.
    OtherEntry,
}

impl Divergence {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::OtherEpoch => "other epoch",
            Self::WentBack => "the server has lost entries",
            Self::OtherEntry => "one number has two entries",
        }
    }
}

/// What the log's meta, read through the command path, says about a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// Everything in the log has been applied.
    Current,
    /// The log has more, up to this number.
    Behind {
        /// The last entry of the log.
        to: u64,
    },
    /// The log is another history.
    Diverged(Divergence),
}

/// What came of merging a page of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Merged {
    /// Everything in the log has been applied.
    Complete,
    /// The log has more than the page had.
    More,
    /// The log is another history. Entries before the first difference may have been applied.
    Diverged(Divergence),
}

/// What a merge tells a follower, in order.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// The next entry.
    Apply(&'a Entry),
    /// The entries after number `after` up to `at` can no longer be read.
    Gap { after: u64, at: Stamp },
}

impl Sequence {
    /// Begins at a place whose last entry is `last`.
    pub(crate) fn new(at: Stamp, last: EntryId) -> Self {
        Self { at, ids: VecDeque::from([last]), ahead: None, pending: Pending::default() }
    }

    pub(crate) const fn at(&self) -> Stamp {
        self.at
    }

    /// The log is known to have had an entry: what it shows must reach it, and have it there. Returns
    /// `false` if another entry was applied in its place.
    pub(crate) fn expect(&mut self, known: &Meta) -> bool {
        let Meta { at: Stamp { epoch, seq }, last, .. } = *known;
        if epoch != self.at.epoch {
            return true;
        }
        if seq > self.at.seq && self.ahead.is_none_or(|(ahead, _)| ahead < seq) {
            self.ahead = Some((seq, last));
        }
        self.named(seq).is_none_or(|id| id == last)
    }

    /// How far the log is known to reach: a question that is sent now must be answered with no less.
    pub(crate) fn reaches(&self) -> Stamp {
        let ahead = self.ahead.map_or(0, |(ahead, _)| ahead);
        Stamp { seq: self.at.seq.max(ahead), ..self.at }
    }

    /// A follower that has applied everything up to `at`, for tests.
    #[cfg(test)]
    pub(crate) fn having(at: Stamp, id: impl Fn(u64) -> EntryId) -> Self {
        let ids = (0..=at.seq).map(id).collect();
        Self { at, ids, ahead: None, pending: Pending::default() }
    }

    /// Takes an entry that came by message. What can be applied now is handed to `apply`.
    pub(crate) fn offer(&mut self, entry: Entry, apply: &mut dyn FnMut(&Entry)) -> Verdict {
        if entry.stamp.epoch != self.at.epoch {
            return Verdict::Diverged(Divergence::OtherEpoch);
        }
        let seq = entry.stamp.seq;
        if seq <= self.at.seq {
            return match self.id_of(seq) {
                Some(id) if id != entry.id => Verdict::Diverged(Divergence::OtherEntry),
                _ => Verdict::Duplicate,
            };
        }
        if seq > self.next() {
            self.pending.keep(entry);
            return Verdict::Gap { from: self.at.seq };
        }
        if !self.follows(&entry) || self.contradicts(&entry) {
            return Verdict::Diverged(Divergence::OtherEntry);
        }
        self.take(&entry);
        apply(&entry);
        self.drain_pending(apply)
    }

    /// Judges the log's meta, which was read after everything up to `since` had been applied, or was
    /// known to be there.
    ///
    /// More may have been applied while the answer was on its way, so a meta that is behind this
    /// follower is a loss only if it is behind `since`.
    pub(crate) fn judge(&self, meta: &Meta, since: Stamp) -> Judgement {
        if meta.at.epoch != self.at.epoch {
            return Judgement::Diverged(Divergence::OtherEpoch);
        }
        if since.epoch == self.at.epoch && meta.at.seq < since.seq {
            return Judgement::Diverged(Divergence::WentBack);
        }
        match self.named(meta.at.seq) {
            Some(id) if id != meta.last => Judgement::Diverged(Divergence::OtherEntry),
            _ if meta.at.seq > self.at.seq => Judgement::Behind { to: meta.at.seq },
            _ => Judgement::Current,
        }
    }

    /// Merges a page that starts at the entry which was the last applied one when it was asked
    /// for, `since`; `meta` is from the same moment as the page.
    pub(crate) fn merge(
        &mut self,
        meta: &Meta,
        since: Stamp,
        page: &[Entry],
        tell: &mut dyn FnMut(Step<'_>),
    ) -> Merged {
        let goal = match self.judge(meta, since) {
            Judgement::Diverged(why) => return Merged::Diverged(why),
            Judgement::Current => self.at.seq,
            Judgement::Behind { to } => to,
        };
        let of_this_log =
            |entry: &&Entry| entry.stamp.epoch == meta.at.epoch && entry.stamp.seq <= meta.at.seq;
        let page = || page.iter().filter(of_this_log);
        // All of the page is compared before any of it is applied.
        if page().any(|entry| self.contradicts(entry)) {
            return Merged::Diverged(Divergence::OtherEntry);
        }
        let before = self.at;
        for entry in page().filter(|entry| entry.stamp.seq > before.seq) {
            if entry.stamp.seq <= self.at.seq {
                return Merged::Diverged(Divergence::OtherEntry);
            }
            if entry.stamp.seq > self.next() {
                self.skip_to(entry.stamp.seq - 1, entry.previous, tell);
            } else if !self.follows(entry) {
                return Merged::Diverged(Divergence::OtherEntry);
            }
            self.take(entry);
            tell(Step::Apply(entry));
        }
        if self.at.seq < goal && page().all(|entry| entry.stamp.seq <= since.seq) {
            // The log had more than was asked for, and the stream had nothing of it: it was trimmed
            // or deleted. Whether the page brings anything new is not the question: messages may
            // have overtaken it.
            self.skip_to(meta.at.seq, meta.last, tell);
        }
        match self.drain_pending(&mut |entry| tell(Step::Apply(entry))) {
            Verdict::Diverged(why) => Merged::Diverged(why),
            _ if self.at.seq < goal => Merged::More,
            _ => Merged::Complete,
        }
    }

    fn skip_to(&mut self, seq: u64, last: EntryId, tell: &mut dyn FnMut(Step<'_>)) {
        let after = self.at.seq;
        self.at.seq = seq;
        self.ids = VecDeque::from([last]);
        self.pass_ahead();
        tell(Step::Gap { after, at: self.at });
    }

    /// Applies what waited for the entry that was just applied.
    fn drain_pending(&mut self, apply: &mut dyn FnMut(&Entry)) -> Verdict {
        self.pending.forget_up_to(self.at.seq);
        while let Some(entry) = self.pending.take(self.next()) {
            if !self.follows(&entry) || self.contradicts(&entry) {
                return Verdict::Diverged(Divergence::OtherEntry);
            }
            self.take(&entry);
            apply(&entry);
        }
        if self.pending.is_empty() { Verdict::Apply } else { Verdict::Gap { from: self.at.seq } }
    }

    /// The number that follows. It saturates, because what a server says may be any number.
    fn next(&self) -> u64 {
        self.at.seq.saturating_add(1)
    }

    fn take(&mut self, entry: &Entry) {
        self.at.seq = entry.stamp.seq;
        if self.ids.len() == IDS_MAX {
            self.ids.pop_front();
        }
        self.ids.push_back(entry.id);
        self.pass_ahead();
    }

    fn pass_ahead(&mut self) {
        self.ahead = self.ahead.filter(|(ahead, _)| *ahead > self.at.seq);
    }

    fn follows(&self, entry: &Entry) -> bool {
        self.ids.back() == Some(&entry.previous)
    }

    fn contradicts(&self, entry: &Entry) -> bool {
        self.named(entry.stamp.seq).is_some_and(|id| id != entry.id)
    }

    /// The id of an entry that was applied, or is known to be there.
    fn named(&self, seq: u64) -> Option<EntryId> {
        let ahead = self.ahead.filter(|(ahead, _)| *ahead == seq).map(|(_, id)| id);
        ahead.or_else(|| self.id_of(seq))
    }

    /// The id of an applied entry, if it is remembered.
    pub(crate) fn id_of(&self, seq: u64) -> Option<EntryId> {
        let back = self.at.seq.checked_sub(seq)?;
        let index = (self.ids.len() as u64).checked_sub(1)?.checked_sub(back)?;
        self.ids.get(index as usize).copied()
    }
}
