//! The cells of one shard, by key and by place.

use std::any::Any;
use std::collections::HashMap;

use fleetwide_core_traits::{Key, ServerTime};
use foldhash::fast::RandomState;

/// The state of a cell, whatever its op keeps.
pub(super) type State = Box<dyn Any + Send + Sync>;

pub(super) struct Cell {
    pub(super) key: Key,
    pub(super) state: State,
    pub(super) expires_at: ServerTime,
}

impl Cell {
    pub(super) fn is_expired(&self, now: ServerTime) -> bool {
        self.expires_at <= now
    }
}

/// Cells stand in slots and keep their place until they are removed, so that a step looks each key
/// up once, and a sweep can go on where the last one stopped.
#[derive(Default)]
pub(super) struct Table {
    places: HashMap<Key, u32, RandomState>,
    slots: Vec<Option<Cell>>,
    free: Vec<u32>,
    /// Where [`sweep_some`](Self::sweep_some) goes on.
    swept_to: usize,
}

impl Table {
    pub(super) fn find(&self, key: &Key) -> Option<u32> {
        self.places.get(key).copied()
    }

    pub(super) fn cell(&self, place: u32) -> Option<&Cell> {
        self.slots.get(place as usize)?.as_ref()
    }

    pub(super) fn cell_mut(&mut self, place: u32) -> Option<&mut Cell> {
        self.slots.get_mut(place as usize)?.as_mut()
    }

    /// Adds a cell whose key has none.
    pub(super) fn insert(&mut self, cell: Cell) -> u32 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            // The table's limit is checked against `u32::MAX` when it is built.
            (self.slots.len() - 1) as u32
        });
        self.places.insert(cell.key.clone(), place);
        self.slots[place as usize] = Some(cell);
        place
    }

    pub(super) fn remove(&mut self, place: u32) -> Option<Cell> {
        let cell = self.slots.get_mut(place as usize)?.take()?;
        self.places.remove(&cell.key);
        self.free.push(place);
        Some(cell)
    }

    /// Removes the expired among the next `count` slots. Returns how many it removed.
    pub(super) fn sweep_some(&mut self, now: ServerTime, count: usize) -> usize {
        let count = count.min(self.slots.len());
        let before = self.places.len();
        for _ in 0..count {
            if self.swept_to >= self.slots.len() {
                self.swept_to = 0;
            }
            let place = self.swept_to as u32;
            self.swept_to += 1;
            if self.cell(place).is_some_and(|cell| cell.is_expired(now)) {
                self.remove(place);
            }
        }
        before - self.places.len()
    }

    /// Removes all that has expired. Returns how many that was.
    pub(super) fn sweep(&mut self, now: ServerTime) -> usize {
        self.sweep_some(now, self.slots.len())
    }

    pub(super) fn cells(&self) -> impl Iterator<Item = &Cell> {
        self.slots.iter().flatten()
    }
}
