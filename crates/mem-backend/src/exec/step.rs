//! The cells of one step, while their shard is locked.

use std::any::Any;
use std::time::Duration;

use fleetwide_core_traits::{BackendError, Cells, Key, ServerTime};
use smallvec::SmallVec;

use super::room::Room;
use super::table::{Cell, State, Table};

/// Slots that each new cell sweeps. Dead cells stay under a third of the living ones: until a sweep
/// has been around, a table of n slots gets n / 4 new cells.
const SWEEP_PER_CELL: usize = 4;

/// Where a cell of the step is.
enum Place {
    /// In this slot of the table.
    Held(u32),
    /// Nowhere. The key is for the case that the step puts it.
    Empty(Key),
    /// The key is that of an earlier cell of the step.
    Same(usize),
}

pub(super) struct Step<'a> {
    table: &'a mut Table,
    room: &'a Room,
    now: ServerTime,
    places: SmallVec<[Place; 2]>,
    /// Cells for which room is taken and which are not in the table.
    taken: usize,
}

impl<'a> Step<'a> {
    /// Looks each key up, once. What has expired is removed here, so that nothing after it needs
    /// to think of expiry.
    pub(super) fn new(table: &'a mut Table, room: &'a Room, keys: &[Key], now: ServerTime) -> Self {
        let mut step = Self { table, room, now, places: SmallVec::new(), taken: 0 };
        for key in keys {
            let place = step.look_up(key, keys);
            step.places.push(place);
        }
        step
    }

    fn look_up(&mut self, key: &Key, keys: &[Key]) -> Place {
        let earlier = &keys[..self.places.len()];
        if let Some(first) = earlier.iter().position(|other| other == key) {
            return Place::Same(first);
        }
        let Some(place) = self.table.find(key) else { return Place::Empty(key.clone()) };
        if self.table.cell(place).is_some_and(|cell| cell.is_expired(self.now)) {
            self.table.remove(place);
            self.room.give_back(1);
            return Place::Empty(key.clone());
        }
        Place::Held(place)
    }

    /// The index of the first cell that has the same key.
    fn first(&self, index: usize) -> usize {
        match self.places.get(index) {
            Some(&Place::Same(first)) => first,
            _ => index,
        }
    }

    fn slot(&self, index: usize) -> Option<u32> {
        match self.places.get(self.first(index)) {
            Some(&Place::Held(place)) => Some(place),
            _ => None,
        }
    }
}

impl Cells for Step<'_> {
    fn get(&self, index: usize) -> Option<&(dyn Any + Send + Sync)> {
        Some(&*self.table.cell(self.slot(index)?)?.state)
    }

    fn get_mut(&mut self, index: usize) -> Option<&mut (dyn Any + Send + Sync)> {
        let slot = self.slot(index)?;
        Some(&mut *self.table.cell_mut(slot)?.state)
    }

    fn admit(&mut self, new: usize) -> Result<(), BackendError> {
        if new == 0 {
            return Ok(());
        }
        self.room.give_back(self.table.sweep_some(self.now, SWEEP_PER_CELL * new));
        self.room.take(new)?;
        self.taken += new;
        Ok(())
    }

    fn put(&mut self, index: usize, state: State) {
        let first = self.first(index);
        match self.places.get_mut(first) {
            Some(Place::Held(place)) => {
                if let Some(cell) = self.table.cell_mut(*place) {
                    cell.state = state;
                }
            }
            Some(place @ Place::Empty(_)) => {
                let slot = |key| Cell { key, state, expires_at: self.now };
                if let Place::Empty(key) = std::mem::replace(place, Place::Same(first)) {
                    // Without a `keep` the cell has expired already: nothing lives for ever.
                    *place = Place::Held(self.table.insert(slot(key)));
                }
                debug_assert!(self.taken > 0, "a cell is put that was not admitted");
                self.taken = self.taken.saturating_sub(1);
            }
            Some(Place::Same(_)) | None => {}
        }
    }

    fn keep(&mut self, index: usize, ttl: Duration) {
        let expires_at = self.now.plus(ttl);
        if let Some(cell) = self.slot(index).and_then(|slot| self.table.cell_mut(slot)) {
            cell.expires_at = expires_at;
        }
    }

    fn delete(&mut self, index: usize) {
        let first = self.first(index);
        let Some(cell) = self.slot(first).and_then(|slot| self.table.remove(slot)) else { return };
        self.places[first] = Place::Empty(cell.key);
        // Its room stays taken, in case the step puts the cell again.
        self.taken += 1;
    }
}

/// Gives back what was taken in vain, also when the op panics.
impl Drop for Step<'_> {
    fn drop(&mut self) {
        // The count is shared by all cores: most steps leave it alone.
        if self.taken > 0 {
            self.room.give_back(self.taken);
        }
    }
}
