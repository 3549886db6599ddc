//! One follower in the world, the messages on their way to it, and the record of what it was told.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use fleetwide_core_traits::log::{Begin, Entry, EntryId, Follower, Stamp};
use fleetwide_core_traits::{MonoTime, Namespace};
use parking_lot::Mutex;

use super::server::Server;
use crate::pursuit::{Answer, Command, Pursuit};
use crate::telemetry::Telemetry;

pub(super) struct Node {
    pub(super) pursuit: Pursuit,
    told: Arc<Mutex<Told>>,
    connected: bool,
    messages: VecDeque<Bytes>,
    asked: Option<Command>,
    answer: Option<Answer>,
}

/// What a follower was told, checked as it is told.
#[derive(Default)]
struct Told {
    at: Option<Stamp>,
    /// Everything up to this number was there before it began to follow.
    base: u64,
    /// What it knows about each later number of this history: applied with this id, or in a gap.
    known: BTreeMap<u64, Option<EntryId>>,
    /// The last entry before the last gap: whether the server was restored before it is hidden.
    hidden_up_to: u64,
    ever_applied: HashSet<EntryId>,
    proofs: Vec<(Stamp, MonoTime)>,
    resets: usize,
    gaps: usize,
}

struct Recorder(Arc<Mutex<Told>>);

impl Follower for Recorder {
    fn begin(&self, at: Stamp, why: Begin) {
        let mut told = self.0.lock();
        match (told.at, why) {
            (None, Begin::First) | (Some(_), Begin::Reset) => {
                assert_ne!(told.at.map(|at| at.epoch), Some(at.epoch), "a reset ends a history");
                told.resets += usize::from(why == Begin::Reset);
                told.known.clear();
                told.base = at.seq;
                told.hidden_up_to = 0;
            }
            (Some(before), Begin::Gap { after }) => {
                assert_eq!(before, Stamp { seq: after, ..at }, "a gap starts where it stopped");
                assert!(at.seq > after, "a gap has at least one entry");
                told.gaps += 1;
                told.known.extend((after + 1..=at.seq).map(|seq| (seq, None)));
                told.hidden_up_to = after;
            }
            other => panic!("begins wrongly: {other:?}"),
        }
        told.at = Some(at);
    }

    fn apply(&self, entry: &Entry) {
        let mut told = self.0.lock();
        let at = told.at.expect("nothing is applied before a history begins");
        assert_eq!(entry.stamp, Stamp { seq: at.seq + 1, ..at }, "out of order");
        assert!(told.ever_applied.insert(entry.id), "{:?} is applied twice", entry.stamp);
        told.known.insert(entry.stamp.seq, Some(entry.id));
        told.at = Some(entry.stamp);
    }

    fn verified(&self, at: Stamp, as_of: MonoTime) {
        let mut told = self.0.lock();
        let reached = told.at.is_some_and(|told| told.epoch == at.epoch && told.seq >= at.seq);
        assert!(reached, "verified at {at:?} before it was reached");
        told.proofs.push((at, as_of));
    }

    fn tick(&self) {}
}

impl Told {
    /// Whether `server` has an entry, of the history that is followed, that this follower neither
    /// applied nor was told to have missed.
    fn differs(&self, server: &Server, may_hide: bool) -> Option<String> {
        let at = self.at?;
        if server.epoch != Some(at.epoch) {
            return None;
        }
        let later = server.entries.iter().filter(|entry| entry.stamp.seq > self.base);
        let mut wrong = later.filter(|entry| match self.known.get(&entry.stamp.seq) {
            Some(Some(id)) => {
                *id != entry.id && !(may_hide && entry.stamp.seq <= self.hidden_up_to)
            }
            Some(None) => false,
            None => true,
        });
        wrong.next().map(|entry| format!("{:?} is not accounted for", entry.stamp))
    }
}

impl Node {
    pub(super) fn new() -> Self {
        let told = Arc::new(Mutex::new(Told::default()));
        let tag = Namespace::new("test").unwrap().tag("log", b"world").unwrap();
        let pursuit = Pursuit::new(Arc::new(Recorder(told.clone())), Telemetry::new(&tag));
        let messages = VecDeque::new();
        Self { pursuit, told, connected: false, messages, asked: None, answer: None }
    }

    pub(super) fn send(&mut self, entry: &Entry) {
        if self.connected {
            self.messages.push_back(entry.to_wire());
        }
    }

    pub(super) fn has_messages(&self) -> bool {
        !self.messages.is_empty()
    }

    pub(super) fn deliver(&mut self) {
        if let Some(message) = self.messages.pop_front() {
            self.pursuit.message(&message);
        }
    }

    pub(super) fn lose(&mut self) {
        self.messages.pop_front();
    }

    pub(super) fn double(&mut self) {
        self.messages.extend(self.messages.front().cloned());
    }

    pub(super) fn swap(&mut self) {
        if self.messages.len() > 1 {
            self.messages.swap(0, 1);
        }
    }

    pub(super) fn ready(&mut self) {
        self.connected = true;
        self.pursuit.ready();
    }

    pub(super) fn disconnect(&mut self) {
        self.connected = false;
        self.messages.clear();
        self.pursuit.lost();
    }

    pub(super) fn lag(&mut self) {
        self.messages.clear();
        self.pursuit.lagged();
    }

    pub(super) fn ask(&mut self, now: usize) {
        let now = MonoTime::from_micros(now as u64);
        self.asked = self.asked.or_else(|| self.pursuit.next_command(now));
    }

    pub(super) fn execute(&mut self, server: &mut Server) {
        if let (Some(command), None) = (self.asked, &self.answer) {
            self.answer = Some(server.execute(command));
        }
    }

    pub(super) fn answer(&mut self) {
        if let Some(answer) = self.answer.take() {
            self.asked = None;
            self.pursuit.answer(answer);
        }
    }

    /// No answer comes, whether or not the command was executed.
    pub(super) fn fail(&mut self) {
        if self.asked.take().is_some() {
            self.answer = None;
            self.pursuit.failed();
        }
    }

    pub(super) fn settle(&mut self, server: &mut Server, now: usize) {
        for _ in 0..1000 {
            self.ask(now);
            self.execute(server);
            if self.answer.is_none() {
                return;
            }
            self.answer();
        }
        panic!("never settles");
    }

    /// Whatever the server had when a proof says so must be known, unless the server lost it.
    pub(super) fn check_proofs(
        &mut self,
        truth: &[Server],
        lost_at: Option<usize>,
        may_hide: bool,
    ) {
        let mut told = self.told.lock();
        for (_, as_of) in std::mem::take(&mut told.proofs) {
            let as_of = as_of.as_micros() as usize;
            if lost_at.is_some_and(|lost_at| lost_at >= as_of) {
                continue;
            }
            let wrong = told.differs(&truth[as_of - 1], may_hide);
            assert_eq!(wrong, None, "verified as of {as_of}");
        }
    }

    pub(super) fn check_rest(&self, server: &Server, may_hide: bool) {
        let told = self.told.lock();
        let at = told.at.expect("it follows");
        assert_eq!(at, server.meta().at, "everything was applied");
        assert_eq!(self.pursuit.position(), Some(at));
        assert_eq!(told.differs(server, may_hide), None);
    }

    /// Lost messages alone are never a reason for a gap or a reset.
    pub(super) fn check_no_false_alarm(&self, lost: bool, trimmed: bool) {
        let told = self.told.lock();
        assert!(lost || told.resets == 0, "a reset, and the server had lost nothing");
        assert!(trimmed || told.gaps == 0, "a gap, and the server had trimmed nothing");
    }
}
