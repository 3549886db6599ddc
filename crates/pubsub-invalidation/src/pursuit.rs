//! What a follower does next: pure, and driven by the listener.
//!
//! Messages are taken as they come, and trusted for nothing but speed: whatever they say that does
//! not fit leads to a question over the command path, and only its answer ends a history. One
//! question is under way at a time, so no answer overtakes another.

mod command;
#[cfg(test)]
mod world;

use std::sync::Arc;

use bytes::Bytes;
use fleetwide_core_traits::MonoTime;
use fleetwide_core_traits::log::{Begin, Entry, EntryId, Epoch, Follower, Incoming, Meta, Stamp};
use smallvec::SmallVec;

pub(crate) use command::{Answer, Command};

use command::Asked;

use crate::ops::Page;
use crate::sequence::{Divergence, Judgement, Merged, Sequence, Step, Verdict};
use crate::telemetry::Telemetry;
use crate::verify::Verify;

/// Beats in a row that showed entries which no message had brought, after which the subscription
/// is taken for dead. At the default heartbeat that is a second.
const DEAF_BEATS_MAX: u32 = 5;

/// Histories that were left and are remembered. A server that tells one of them again was restored
/// from an old snapshot.
const LEFT_MAX: usize = 16;

/// A follower's course through the histories of one log.
pub(crate) struct Pursuit {
    follower: Arc<dyn Follower>,
    telemetry: Telemetry,
    /// `None` until the first baseline.
    sequence: Option<Sequence>,
    verify: Verify,
    left: SmallVec<[Epoch; LEFT_MAX]>,
    subscribed: bool,
    messages: Messages,
    /// An entry came before there was a baseline to compare it with.
    early: bool,
    /// The furthest place of the log that an answer has named.
    seen: Stamp,
    /// The log is known to have entries up to this number, and messages should bring them.
    expected: Option<u64>,
    deaf_beats: u32,
    /// Somebody waits for a beat.
    nudged: bool,
    want: Want,
    asked: Option<Asked>,
}

/// Whether entries can be expected to come by message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Messages {
    /// Some may have been missed: what a beat shows is replayed at once.
    Doubtful,
    /// They come: a beat may overtake them, so what it shows gets a moment to arrive.
    Flowing,
}

/// What is to be asked, the most urgent first.
#[derive(Default)]
struct Want {
    raise: Option<Epoch>,
    replay: bool,
    beat: bool,
}

/// Inputs: what happens to the subscription, and time.
impl Pursuit {
    pub(crate) fn new(follower: Arc<dyn Follower>, telemetry: Telemetry) -> Self {
        Self {
            follower,
            telemetry,
            sequence: None,
            verify: Verify::default(),
            left: SmallVec::new(),
            subscribed: false,
            messages: Messages::Doubtful,
            early: false,
            seen: Stamp::default(),
            expected: None,
            deaf_beats: 0,
            nudged: false,
            // Also without a subscription: commands may work where messages do not.
            want: Want { beat: true, ..Want::default() },
            asked: None,
        }
    }

    /// The subscription stands: what the log has now is read after it, so that nothing falls
    /// between the two.
    pub(crate) fn ready(&mut self) {
        self.subscribed = true;
        self.deaf_beats = 0;
        self.want.beat = true;
    }

    /// The subscription is gone.
    pub(crate) fn lost(&mut self) {
        self.subscribed = false;
        self.messages = Messages::Doubtful;
    }

    /// Messages were dropped on this side.
    pub(crate) fn lagged(&mut self) {
        self.messages = Messages::Doubtful;
        self.want.replay = true;
    }

    /// A message came.
    pub(crate) fn message(&mut self, payload: &Bytes) {
        match Incoming::read(payload) {
            Ok(Incoming::Entry(entry)) => self.entry(entry),
            Ok(Incoming::Signal(body)) => self.follower.signal(&body),
            Ok(Incoming::Nudge) => self.nudged = true,
            // If it was an entry, the next one shows the hole.
            Err(_) => self.telemetry.unreadable(),
        }
    }

    /// It is time for a beat.
    pub(crate) fn beat_is_due(&mut self) {
        self.want.beat = true;
    }

    /// Time has passed.
    pub(crate) fn tick(&self) {
        self.follower.tick();
    }

    /// What a beat showed has had its moment to arrive by message.
    pub(crate) fn patience_is_over(&mut self) {
        if self.awaits_messages() {
            self.expected = None;
            self.messages = Messages::Doubtful;
            self.deaf_beats += 1;
            self.want.replay = true;
        }
    }

    fn entry(&mut self, entry: Entry) {
        let Some(sequence) = &mut self.sequence else {
            self.early = true;
            return;
        };
        if entry.stamp.epoch == sequence.at().epoch {
            self.deaf_beats = 0;
        }
        let (follower, telemetry) = (&self.follower, &self.telemetry);
        let verdict = sequence.offer(entry, &mut |entry| {
            follower.apply(entry);
            telemetry.applied_by_message();
        });
        match verdict {
            Verdict::Apply => self.verify_reached(),
            Verdict::Duplicate => self.telemetry.duplicate(),
            Verdict::Gap { .. } => {
                self.verify_reached();
                self.want.replay = true;
            }
            Verdict::Diverged(_) => {
                self.messages = Messages::Doubtful;
                self.want.beat = true;
            }
        }
    }
}

/// Questions and answers.
impl Pursuit {
    /// What to ask now, if anything; `now` is read before it is sent. Each question is answered by
    /// [`answer`](Self::answer) or [`failed`](Self::failed) before the next.
    pub(crate) fn next_command(&mut self, now: MonoTime) -> Option<Command> {
        if self.asked.is_some() {
            return None;
        }
        self.expect_own();
        let command = match (self.want.raise, &self.sequence) {
            (Some(diverged), _) => Command::Raise { diverged },
            (None, Some(sequence)) if self.want.replay => {
                Command::Replay { from: sequence.at().seq }
            }
            _ if self.want.beat || self.want.replay => Command::Beat,
            _ => return None,
        };
        match command {
            Command::Raise { .. } => self.want.raise = None,
            Command::Replay { .. } => self.want.replay = false,
            Command::Beat => self.want.beat = false,
        }
        let since = self.position().unwrap_or_default();
        let reaches = self.sequence.as_ref().map_or(since, Sequence::reaches);
        self.asked = Some(Asked { command, since, reaches, at: now, subscribed: self.subscribed });
        Some(command)
    }

    /// What this process has written itself must be in the log, whether it was applied or not. A
    /// server that has given its place to another entry is found out here, if nowhere else.
    fn expect_own(&mut self) {
        let (Some(sequence), Some(known)) = (&mut self.sequence, self.follower.known()) else {
            return;
        };
        if !sequence.expect(&known) && self.want.raise.is_none() {
            let at = sequence.at();
            self.telemetry.diverged(Divergence::OtherEntry, Some(at), known.at);
            self.want.raise = Some(at.epoch);
        }
    }

    /// The question that is under way got no answer; it is asked again.
    pub(crate) fn failed(&mut self) {
        match self.asked.take().map(|asked| asked.command) {
            Some(Command::Raise { diverged }) => self.want.raise = Some(diverged),
            Some(Command::Replay { .. }) => self.want.replay = true,
            Some(Command::Beat) => self.want.beat = true,
            None => {}
        }
    }

    /// The question that is under way got this answer.
    pub(crate) fn answer(&mut self, answer: Answer) {
        let Some(asked) = self.asked.take() else { return };
        self.seen = answer.place().unwrap_or(self.seen);
        match answer {
            Answer::Beat(pulse) => {
                self.follower.server_clock(asked.at, pulse.now);
                self.beat(&pulse.meta, &asked);
            }
            Answer::Replay(page) => self.replay(&page, &asked),
            Answer::Raise(raised) => {
                if raised.raised {
                    self.telemetry.epoch_raised(raised.meta.at.epoch);
                }
                self.other_history(&raised.meta);
                self.prove(&raised.meta, &asked);
            }
        }
    }

    fn beat(&mut self, meta: &Meta, asked: &Asked) {
        let Some(sequence) = &self.sequence else {
            self.begin(meta.at, meta.last, Begin::First);
            self.want.replay |= std::mem::take(&mut self.early);
            self.settled(asked);
            return self.prove(meta, asked);
        };
        match sequence.judge(meta, asked.reaches) {
            Judgement::Current => {
                self.settled(asked);
                self.prove(meta, asked);
            }
            Judgement::Behind { to } => {
                if self.messages == Messages::Flowing {
                    self.expected = self.expected.or(Some(to));
                } else {
                    self.deaf_beats += u32::from(self.deaf_beats > 0);
                    self.want.replay = true;
                }
                self.prove(meta, asked);
            }
            Judgement::Diverged(why) => {
                self.diverged(meta, why);
                self.prove(meta, asked);
            }
        }
    }

    fn replay(&mut self, page: &Page, asked: &Asked) {
        let Some(sequence) = &mut self.sequence else { return };
        let Some(meta) = page.meta else {
            // The log is gone. A beat begins the next history.
            self.want.beat = true;
            return;
        };
        // An entry that cannot be read is a hole like one that was trimmed.
        let entries: Vec<Entry> = page.entries.iter().filter_map(read_entry).collect();
        let (follower, telemetry) = (&self.follower, &self.telemetry);
        telemetry.replayed();
        let merged = sequence.merge(&meta, asked.since, &entries, &mut |step| match step {
            Step::Apply(entry) => {
                follower.apply(entry);
                telemetry.applied_by_replay();
            }
            Step::Gap { after, at } => {
                telemetry.gap(after, at);
                follower.begin(at, Begin::Gap { after });
            }
        });
        self.verify_reached();
        match merged {
            Merged::Complete => self.settled(asked),
            Merged::More => self.want.replay = true,
            Merged::Diverged(why) => self.diverged(&meta, why),
        }
    }

    /// The server tells another history than the one that was followed.
    fn diverged(&mut self, meta: &Meta, why: Divergence) {
        self.telemetry.diverged(why, self.position(), meta.at);
        self.other_history(meta);
    }

    /// Either the history that `meta` names is a new one, which is followed from its beginning, or
    /// it is one that was followed before, which the server now tells differently. That one has to
    /// end: what carries its name in L2 may be older than what was applied here.
    fn other_history(&mut self, meta: &Meta) {
        let followed = self.position().map(|at| at.epoch);
        if followed == Some(meta.at.epoch) || self.left.contains(&meta.at.epoch) {
            self.want.raise = Some(meta.at.epoch);
            return;
        }
        self.begin(Stamp { seq: 0, ..meta.at }, EntryId::default(), Begin::Reset);
        self.want.replay = meta.at.seq > 0;
    }

    fn begin(&mut self, at: Stamp, last: EntryId, why: Begin) {
        if let Some(left) = self.position().filter(|left| left.epoch != at.epoch) {
            if self.left.len() == LEFT_MAX {
                self.left.remove(0);
            }
            self.left.push(left.epoch);
        }
        self.sequence = Some(Sequence::new(at, last));
        self.expected = None;
        self.messages = Messages::Doubtful;
        self.verify.begin(at.epoch);
        self.telemetry.begun(at, why);
        self.follower.begin(at, why);
    }

    /// A write that was sent after `asked.at` has found the log at `meta`.
    fn prove(&mut self, meta: &Meta, asked: &Asked) {
        if self.position().is_some_and(|at| at.epoch == meta.at.epoch) && self.want.raise.is_none()
        {
            self.verify.beat(*meta, asked.at);
            self.verify_reached();
        }
    }

    /// Everything that the log had when `asked` was answered has been applied: if the subscription
    /// stood already when it was sent, nothing was missed between the two.
    fn settled(&mut self, asked: &Asked) {
        if asked.subscribed && self.subscribed && self.deaf_beats == 0 {
            self.messages = Messages::Flowing;
        }
    }

    fn verify_reached(&mut self) {
        let Some(sequence) = &self.sequence else { return };
        if self.expected.is_some_and(|expected| expected <= sequence.at().seq) {
            self.expected = None;
        }
        if let Some(proof) = self.verify.reached(sequence) {
            self.follower.verified(proof.at, proof.as_of);
        }
    }
}

/// What the listener wants to know.
impl Pursuit {
    /// What has been applied; `None` before the first baseline.
    pub(crate) fn position(&self) -> Option<Stamp> {
        self.sequence.as_ref().map(Sequence::at)
    }

    /// The same with the name of the last entry, as a beat signs it.
    pub(crate) fn applied(&self) -> Option<(Stamp, EntryId)> {
        let sequence = self.sequence.as_ref()?;
        // After a gap the name is not known: then the sign says that nothing was applied.
        let id = sequence.id_of(sequence.at().seq).unwrap_or_default();
        Some((sequence.at(), id))
    }

    /// Whether somebody has asked for a beat since the last call.
    pub(crate) fn take_nudge(&mut self) -> bool {
        std::mem::take(&mut self.nudged)
    }

    /// The histories that were left, the last one last.
    pub(crate) fn left(&self) -> &[Epoch] {
        &self.left
    }

    /// Whether a beat has shown entries that messages should bring.
    pub(crate) fn awaits_messages(&self) -> bool {
        self.expected.is_some()
    }

    /// Whether the subscription says that it stands and yet brings nothing.
    pub(crate) fn is_deaf(&self) -> bool {
        self.subscribed && self.deaf_beats >= DEAF_BEATS_MAX
    }

    pub(crate) fn is_subscribed(&self) -> bool {
        self.subscribed
    }

    /// How many entries are known to exist and have not been applied.
    pub(crate) fn lag(&self) -> u64 {
        let at = self.position().unwrap_or_default();
        if at.epoch == self.seen.epoch { self.seen.seq.saturating_sub(at.seq) } else { 0 }
    }

    /// As of when the follower is verified.
    pub(crate) fn verified_as_of(&self) -> Option<MonoTime> {
        self.verify.as_of()
    }
}

fn read_entry(bytes: &Bytes) -> Option<Entry> {
    match Incoming::read(bytes) {
        Ok(Incoming::Entry(entry)) => Some(entry),
        _ => None,
    }
}
