//! A log that keeps everything, so that tests know the truth.

use std::rc::Rc;

use bytes::Bytes;
use fleetwide_core_traits::ServerTime;
use fleetwide_core_traits::log::{Entry, EntryId, Epoch, Meta, Stamp};

use crate::ops::{Page, Pulse, Raised};
use crate::pursuit::{Answer, Command};

/// Small, so that catching up takes several pages.
const PAGE: usize = 3;

#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) epoch: Option<Epoch>,
    /// All entries of the history, also those that were trimmed. Shared with the snapshots.
    pub(super) entries: Rc<Vec<Entry>>,
    /// How many of them the stream no longer has.
    trimmed: usize,
    /// Names that were given away; never taken back, not even by a restore.
    names: u64,
    epochs: u64,
}

impl Server {
    pub(super) fn new() -> Self {
        Self { epoch: None, entries: Rc::default(), trimmed: 0, names: 0, epochs: 0 }
    }

    pub(super) fn append(&mut self) -> Entry {
        self.open();
        let meta = self.meta();
        let entry = Entry {
            stamp: Stamp { seq: meta.at.seq + 1, ..meta.at },
            id: self.name(),
            previous: meta.last,
            source: [7; 8],
            number: self.names,
            body: Bytes::from_static(b"body"),
        };
        Rc::make_mut(&mut self.entries).push(entry.clone());
        entry
    }

    /// The stream keeps only its last entry, or nothing if it has only one.
    pub(super) fn trim(&mut self) {
        let kept = self.entries.len() - self.trimmed;
        self.trimmed = self.entries.len() - usize::from(kept > 1);
    }

    pub(super) fn flush(&mut self) {
        self.epoch = None;
        self.entries = Rc::default();
        self.trimmed = 0;
    }

    /// Without a meta the stream means nothing, and the next write drops it.
    pub(super) fn forget_meta(&mut self) {
        self.flush();
    }

    pub(super) fn restore(&mut self, snapshot: Self) {
        let (names, epochs) = (self.names, self.epochs);
        *self = Self { names, epochs, ..snapshot };
    }

    pub(super) fn epochs_begun(&self) -> u64 {
        self.epochs
    }

    pub(super) fn execute(&mut self, command: Command) -> Answer {
        match command {
            Command::Beat => {
                self.open();
                Answer::Beat(Pulse { meta: self.meta(), now: ServerTime::default() })
            }
            Command::Replay { from } => {
                let meta = self.epoch.map(|_| self.meta());
                let kept = self.entries[self.trimmed..].iter();
                let wanted = kept.filter(|entry| entry.stamp.seq >= from).take(PAGE);
                Answer::Replay(Page { meta, entries: wanted.map(Entry::to_wire).collect() })
            }
            Command::Raise { diverged } => {
                let raised = self.epoch == Some(diverged);
                if raised {
                    self.flush();
                }
                self.open();
                Answer::Raise(Raised { raised, meta: self.meta() })
            }
        }
    }

    pub(super) fn meta(&self) -> Meta {
        let epoch = self.epoch.unwrap_or_default();
        let last = self.entries.last().map(|entry| entry.id).unwrap_or_default();
        let at = Stamp { epoch, seq: self.entries.len() as u64 };
        Meta { at, last, clear_seq: 0 }
    }

    fn open(&mut self) {
        if self.epoch.is_none() {
            self.epochs += 1;
            self.epoch = Some(Epoch(self.name()));
        }
    }

    fn name(&mut self) -> EntryId {
        self.names += 1;
        self.names.to_be_bytes()
    }
}
