//! Runs the pure half of an op under the lock of its tag.

mod room;
mod step;
mod table;

use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{
    ApplyError, BackendError, Clock, ErasedOp, Executor, Key, Message, Rejection, Script,
};
use foldhash::fast::RandomState;
use parking_lot::Mutex;

use crate::MemBus;
use room::Room;
use step::Step;
use table::Table;

/// An [`Executor`] over cells in this process. Cheap to clone: all clones share the cells.
///
/// Made by [`Memory`](crate::Memory). An op runs under the lock of its tag, so it is atomic, and it
/// never waits for anything else: a call is complete when it is first polled. Time, also that of
/// ttls, is the `server_time` of the clock, read under the lock: time and decisions have one order.
///
/// # Errors
/// - [`BackendError::Full`] if a step needs a new cell and there are `cells_max`, none of them
///   expired. A cell is never evicted.
/// - [`BackendError::Rejected`] with `WRONGTYPE` if a cell holds the state of another kind of op,
///   and with `CROSSSLOT` if the keys of an op have different tags.
///
/// # Panics
/// If the op does. It has changed nothing then, and the next op finds everything in order. (Only a
/// closure given to [`Effects::update`](fleetwide_core_traits::Effects::update) that panics leaves
/// its cell as it was at that moment.)
#[derive(Clone)]
pub struct MemExecutor {
    shared: Arc<Shared>,
}

struct Shared {
    shards: Box<[Shard]>,
    /// Not the seed of the tables: keys of one shard have equal bits in this hash, which would
    /// crowd them into a part of their table.
    hasher: RandomState,
    room: Room,
    clock: Arc<dyn Clock>,
    bus: MemBus,
}

/// Aligned so that two shards never share a cache line.
#[repr(align(128))]
#[derive(Default)]
struct Shard {
    cells: Mutex<Decided>,
    /// Held while messages are delivered: who has it takes all that is queued, so messages of a
    /// shard leave in the order in which they were decided.
    delivery: Mutex<()>,
}

/// What is changed under the lock of a shard.
#[derive(Default)]
struct Decided {
    table: Table,
    outbox: Vec<Message>,
}

impl MemExecutor {
    pub(crate) fn new(cells_max: usize, shards: usize, clock: Arc<dyn Clock>, bus: MemBus) -> Self {
        let shards = shards.next_power_of_two();
        let cells_max = cells_max.min(u32::MAX as usize);
        Self {
            shared: Arc::new(Shared {
                shards: (0..shards).map(|_| Shard::default()).collect(),
                hasher: RandomState::default(),
                room: Room::new(cells_max),
                clock,
                bus,
            }),
        }
    }

    /// How many cells there are, the expired that no sweep has met yet included.
    pub fn len(&self) -> usize {
        self.shared.room.cells()
    }

    /// Whether there is no cell.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many cells there may be.
    pub fn cells_max(&self) -> usize {
        self.shared.room.cells_max()
    }

    /// A copy of what the cell `key` holds. For tests: a step is the way to read state.
    ///
    /// `None` if it is empty, expired, or holds something other than an `S`.
    pub fn peek_state<S: Clone + 'static>(&self, key: &Key) -> Option<S> {
        let decided = self.shared.shard(key.tag()).cells.lock();
        let now = self.shared.clock.server_time();
        let cell = decided.table.cell(decided.table.find(key)?)?;
        if cell.is_expired(now) { None } else { cell.state.downcast_ref().cloned() }
    }

    /// All keys that hold something, each with how long it will. In no order. For tests.
    pub fn keys_with_ttl(&self) -> Vec<(Key, Duration)> {
        let mut keys = Vec::new();
        for shard in &self.shared.shards {
            let decided = shard.cells.lock();
            let now = self.shared.clock.server_time();
            let living = decided.table.cells().filter(|cell| !cell.is_expired(now));
            keys.extend(living.map(|cell| (cell.key.clone(), cell.expires_at.since(now))));
        }
        keys
    }
}

impl Executor for MemExecutor {
    async fn execute(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        self.shared.run(op)
    }

    /// Nothing to load: the pure half of each op is compiled in.
    fn prepare(&self, _scripts: &[&'static Script]) {}
}

impl Shared {
    fn run(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        let keys = op.keys();
        let tag = keys.first().map_or(&[][..], Key::tag);
        if keys.iter().any(|key| key.tag() != tag) {
            let text = "the keys of one op do not have the same tag";
            return Err(BackendError::Rejected(Rejection::new("CROSSSLOT", text)));
        }
        let shard = self.shard(tag);
        match self.step(shard, op) {
            Err(ApplyError::Backend(BackendError::Full { .. })) => {
                self.make_room();
                self.step(shard, op).inspect_err(|_| self.room.note_full())
            }
            done => done,
        }
        .map_err(refusal)
    }

    fn step(&self, shard: &Shard, op: &mut dyn ErasedOp) -> Result<(), ApplyError> {
        let mut messages = Vec::new();
        {
            let decided = &mut *shard.cells.lock();
            let now = self.clock.server_time();
            let cells = op.cells().min(op.keys().len());
            let mut step = Step::new(&mut decided.table, &self.room, &op.keys()[..cells], now);
            op.apply(&mut step, now, &mut messages)?;
            if messages.is_empty() {
                return Ok(());
            }
            drop(step);
            decided.outbox.append(&mut messages);
        }
        // Whoever comes first delivers for the others too. So when this returns, the messages of
        // this step are in their subscribers' queues.
        let _turn = shard.delivery.lock();
        let decided = std::mem::take(&mut shard.cells.lock().outbox);
        for Message { channel, payload } in decided {
            self.bus.deliver(&channel, &payload);
        }
        Ok(())
    }

    /// Sweeps all shards, one after the other, unless that was done a moment ago.
    fn make_room(&self) {
        let now = self.clock.server_time();
        if self.room.may_sweep(now) {
            for shard in &self.shards {
                let swept = shard.cells.lock().table.sweep(now);
                self.room.give_back(swept);
            }
        }
    }

    fn shard(&self, tag: &[u8]) -> &Shard {
        // The number of shards is a power of two.
        &self.shards[self.hasher.hash_one(tag) as usize & (self.shards.len() - 1)]
    }
}

fn refusal(error: ApplyError) -> BackendError {
    match error {
        ApplyError::Backend(error) => error,
        other => BackendError::Rejected(Rejection::new("WRONGTYPE", &other.to_string())),
    }
}

impl fmt::Debug for MemExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemExecutor")
            .field("cells", &self.len())
            .field("cells_max", &self.cells_max())
            .finish_non_exhaustive()
    }
}
