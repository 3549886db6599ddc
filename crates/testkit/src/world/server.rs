//! The server, and copies that can take its place.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use fleetwide_core_traits::{BackendError, Bus, ErasedOp, Executor};
use parking_lot::RwLock;

pub(super) struct Servers<E, B> {
    state: RwLock<State<E, B>>,
    /// Counts the servers that have served: a connection is to one of them.
    term: AtomicU64,
}

struct State<E, B> {
    all: Vec<Server<E, B>>,
    serving: usize,
}

struct Server<E, B> {
    executor: E,
    bus: B,
    /// Whether it is told what the serving one does.
    follows: bool,
}

impl<E, B> Servers<E, B>
where
    E: Executor + Clone,
    B: Bus + Clone,
{
    pub(super) fn new(servers: Vec<(E, B)>) -> Self {
        let server = |(executor, bus)| Server { executor, bus, follows: true };
        let all = servers.into_iter().map(server).collect();
        Self { state: RwLock::new(State { all, serving: 0 }), term: AtomicU64::new(0) }
    }

    /// Which server serves: another number after each change.
    pub(super) fn term(&self) -> u64 {
        self.term.load(Relaxed)
    }

    pub(super) fn bus(&self) -> B {
        let state = self.state.read();
        state.all[state.serving].bus.clone()
    }

    /// Carries a step out, on the copies first: the reply that stays is the server's.
    pub(super) async fn execute(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        let (serving, copies) = {
            let State { all, serving } = &*self.state.read();
            let follows = |(at, server): &(usize, &Server<E, B>)| at != serving && server.follows;
            let copies = all.iter().enumerate().filter(follows);
            let copies: Vec<E> = copies.map(|(_, server)| server.executor.clone()).collect();
            (all[*serving].executor.clone(), copies)
        };
        for copy in copies {
            copy.execute(op).await?;
        }
        serving.execute(op).await
    }

    pub(super) fn freeze(&self, copy: usize) {
        self.state.write().all[copy].follows = false;
    }

    pub(super) fn fail_over(&self, copy: usize) {
        let mut state = self.state.write();
        // The others have seen what this one has lost: they are no copies of it.
        for server in &mut state.all {
            server.follows = false;
        }
        state.serving = copy;
        self.term.fetch_add(1, Relaxed);
    }

    pub(super) fn replace(&self, (executor, bus): (E, B)) {
        let mut state = self.state.write();
        state.all.push(Server { executor, bus, follows: false });
        let newest = state.all.len() - 1;
        drop(state);
        self.fail_over(newest);
    }
}
