//! Until when a follower is verified: pure.
//!
//! A beat that was sent at `t` and read the log at `m` proves that nothing older than `t` is beyond
//! `m`. So when everything up to `m` has been applied, whatever the follower holds is as fresh as it
//! was at `t`. The time is taken before the beat is sent: what happens while it travels is not
//! covered by it.

use std::collections::VecDeque;

use fleetwide_core_traits::MonoTime;
use fleetwide_core_traits::log::{Epoch, Meta, Stamp};

use crate::sequence::Sequence;

/// Beats that may wait at a time. A follower that is further behind has enough old goals.
const WAITING_MAX: usize = 16;

/// The beats whose place has not been reached, and the best one that has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verify {
    waiting: VecDeque<Beaten>,
    as_of: Option<MonoTime>,
}

#[derive(Clone, Copy, Debug)]
struct Beaten {
    meta: Meta,
    sent: MonoTime,
}

/// What a beat proves about a follower that has reached its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    /// Where the log was.
    pub(crate) at: Stamp,
    /// When the beat was sent.
    pub(crate) as_of: MonoTime,
}

impl Verify {
    /// A beat that was sent at `sent` has found the log at `meta`.
    pub(crate) fn beat(&mut self, meta: Meta, sent: MonoTime) {
        if self.waiting.len() == WAITING_MAX {
            // The oldest is reached first, and the newest is worth most; those between least.
            self.waiting.remove(WAITING_MAX / 2);
        }
        self.waiting.push_back(Beaten { meta, sent });
    }

    /// Returns what is proved now that `followed` has been applied, if it is more than before.
    ///
    /// The number alone is no proof. A message of a history that the server has lost can still be
    /// on its way, and fill the very place that the beat has seen: the entry must be the same.
    pub(crate) fn reached(&mut self, followed: &Sequence) -> Option<Proof> {
        let mut proof = None;
        while let Some(Beaten { meta, sent }) = self.waiting.front().copied() {
            let same_history = meta.at.epoch == followed.at().epoch;
            if same_history && meta.at.seq > followed.at().seq {
                break;
            }
            self.waiting.pop_front();
            if same_history && followed.id_of(meta.at.seq) == Some(meta.last) {
                proof = Some(Proof { at: meta.at, as_of: sent });
            }
        }
        let proof = proof.filter(|proof| self.as_of.is_none_or(|as_of| as_of < proof.as_of))?;
        self.as_of = Some(proof.as_of);
        Some(proof)
    }

    /// The follower has left its history for `epoch`: beats that found another one are void.
    pub(crate) fn begin(&mut self, epoch: Epoch) {
        self.waiting.retain(|beaten| beaten.meta.at.epoch == epoch);
    }

    /// As of when the follower is verified.
    pub(crate) fn as_of(&self) -> Option<MonoTime> {
        self.as_of
    }
}

#[cfg(test)]
mod tests {
    use fleetwide_core_traits::log::EntryId;

    use super::*;

    /// The entry that every honest server has at `seq`.
    fn id(seq: u64) -> EntryId {
        seq.to_be_bytes()
    }

    fn meta(epoch: u8, seq: u64) -> Meta {
        let at = Stamp { epoch: Epoch([epoch; 8]), seq };
        Meta { at, last: id(seq), clear_seq: 0 }
    }

    fn at(micros: u64) -> MonoTime {
        MonoTime::from_micros(micros)
    }

    /// As of when a follower that has applied everything up to `place` is newly verified.
    fn reached(verify: &mut Verify, place: Meta) -> Option<u64> {
        let followed = Sequence::having(place.at, id);
        verify.reached(&followed).map(|proof| proof.as_of.as_micros())
    }

    #[test]
    fn a_beat_proves_nothing_before_its_place_is_reached() {
        let mut verify = Verify::default();
        verify.beat(meta(1, 5), at(100));
        verify.beat(meta(1, 7), at(200));
        assert_eq!(reached(&mut verify, meta(1, 4)), None);
        assert_eq!(reached(&mut verify, meta(1, 6)), Some(100));
        assert_eq!(reached(&mut verify, meta(1, 6)), None);
        assert_eq!(reached(&mut verify, meta(1, 9)), Some(200));
    }

    #[test]
    fn a_beat_of_another_history_proves_nothing() {
        let mut verify = Verify::default();
        verify.beat(meta(1, 1), at(100));
        assert_eq!(reached(&mut verify, meta(2, 9)), None);
        verify.beat(meta(2, 9), at(200));
        verify.begin(Epoch([3; 8]));
        assert_eq!(reached(&mut verify, meta(2, 9)), None);
    }

    /// A server was restored to entry 4 and appended another entry 5, which the beat has seen. The
    /// lost entry 5 was still on its way by message and was applied first.
    #[test]
    fn a_place_that_was_reached_with_another_entry_proves_nothing() {
        let mut verify = Verify::default();
        verify.beat(Meta { last: *b"other 5.", ..meta(1, 5) }, at(100));
        assert_eq!(reached(&mut verify, meta(1, 5)), None);
        assert_eq!(reached(&mut verify, meta(1, 6)), None);
    }

    #[test]
    fn the_proof_never_gets_older() {
        let mut verify = Verify::default();
        verify.beat(meta(1, 1), at(200));
        assert_eq!(reached(&mut verify, meta(1, 1)), Some(200));
        verify.beat(meta(1, 1), at(150));
        assert_eq!(reached(&mut verify, meta(1, 1)), None);
        assert_eq!(verify.as_of(), Some(at(200)));
    }

    #[test]
    fn a_follower_that_is_far_behind_keeps_its_nearest_and_its_newest_goal() {
        let mut verify = Verify::default();
        for beat in 1..=100 {
            verify.beat(meta(1, beat), at(beat));
        }
        assert_eq!(verify.waiting.len(), WAITING_MAX);
        assert_eq!(reached(&mut verify, meta(1, 1)), Some(1));
        assert_eq!(reached(&mut verify, meta(1, 100)), Some(100));
    }
}
