//! A failover in memory: two histories, and who asks which of them.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fleetwide_core_traits::{BackendError, Clock, Epoch, Epochs, ErasedOp, Executor, Script};
use fleetwide_mem_backend::{MemExecutor, Memory};
use futures_util::stream;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::sleep;

/// A primary and the replica that is promoted, by one clock. Not the same way for all: one instance
/// can go on at the old primary while another is at the new one.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) histories: [MemExecutor; 2],
    serving: Arc<AtomicUsize>,
    told: Arc<watch::Sender<usize>>,
    /// Whether the news comes by itself, or only with the first answer.
    is_told: bool,
    scripts: Arc<Mutex<Vec<&'static str>>>,
    /// How long each step takes to be carried out.
    trip: Duration,
}

impl Server {
    pub(crate) fn new(clock: &(impl Clock + Clone), is_told: bool) -> Self {
        Self::by([clock, clock], is_told)
    }

    /// Each by its own clock.
    pub(crate) fn by(clocks: [&(impl Clock + Clone); 2], is_told: bool) -> Self {
        let memory = |clock: Arc<dyn Clock>| Memory::builder().clock(clock).build();
        Self {
            histories: clocks.map(|clock| memory(Arc::new(clock.clone())).executor().clone()),
            serving: Arc::default(),
            told: Arc::new(watch::Sender::new(0)),
            is_told,
            scripts: Arc::default(),
            trip: Duration::ZERO,
        }
    }

    pub(crate) fn slow(self, trip: Duration) -> Self {
        Self { trip, ..self }
    }

    /// The same two servers, before another instance.
    pub(crate) fn to_another(&self) -> Self {
        let own = Self { serving: Arc::default(), scripts: Arc::default(), ..self.clone() };
        Self { told: Arc::new(watch::Sender::new(0)), ..own }
    }

    pub(crate) fn fail_over(&self) {
        self.serving.store(1, Ordering::SeqCst);
        self.told.send_replace(1);
    }

    /// Names of the scripts that ran since the last time.
    pub(crate) fn scripts(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.scripts.lock())
    }
}

impl Executor for Server {
    async fn execute(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        let serving = self.serving.load(Ordering::SeqCst);
        self.scripts.lock().push(op.script().name());
        if !self.trip.is_zero() {
            sleep(self.trip).await;
        }
        op.answered_in(Epoch::new(1 + serving as u64));
        self.histories[serving].execute(op).await
    }

    fn prepare(&self, _scripts: &[&'static Script]) {}

    fn epoch(&self) -> Epoch {
        Epoch::new(1 + self.serving.load(Ordering::SeqCst) as u64)
    }

    fn epochs(&self) -> Epochs {
        if !self.is_told {
            return Epochs::new(stream::pending());
        }
        Epochs::new(stream::unfold(self.told.subscribe(), |mut told| async move {
            told.changed().await.ok()?;
            let serving = *told.borrow_and_update();
            Some((Epoch::new(1 + serving as u64), told))
        }))
    }
}
