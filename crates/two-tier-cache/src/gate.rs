//! The way to the shared tier: closed while instances with another layout share the cache.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use fleetwide_core_traits::{
    BackendError, Clock, Epoch, Epochs, ErasedOp, Executor, ExecutorExt, Health, Outage, Replicas,
    Script, Tag,
};
use metrics::{Gauge, gauge};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::layout::{Change, Layout, LayoutError, Standing};
use crate::ops::Agree;

/// As long as a write waits for its answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// An executor that first makes sure that all who share the cache agree on its layout. While they
/// do not, every request fails as in an outage, unsent.
pub(crate) struct Gate<E> {
    executor: E,
    agreement: Option<Arc<Agreement>>,
}

/// What is held by the process on the ground of the agreement.
pub(crate) trait Holdings: Send + Sync {
    /// It is void from here on.
    fn void(&self);

    /// What was heard of the log so far was understood.
    fn confirm(&self);
}

/// Tells whether others use a cache in another layout. It does not keep the cache alive.
#[derive(Clone)]
pub struct LayoutWatch(Weak<Agreement>);

impl LayoutWatch {
    pub(crate) fn new<E>(gate: &Gate<E>) -> Self {
        Self(gate.agreement.as_ref().map_or_else(Weak::new, Arc::downgrade))
    }

    /// Why the cache does not use the shared tier, if that is the reason; `None` also when the cache
    /// is gone.
    pub fn refused(&self) -> Option<LayoutError> {
        self.0.upgrade()?.refused()
    }

    /// The same as a state of health: degraded since the layouts differ.
    pub fn health(&self) -> Health {
        let agreement = self.0.upgrade();
        let refused = agreement.and_then(|ours| ours.standing.lock().refused().cloned());
        refused.map_or(Health::Up, |(error, since)| Health::Degraded {
            reason: error.to_string(),
            since,
        })
    }

    /// Whether the cache is gone, or shares nothing.
    pub fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }
}

impl fmt::Debug for LayoutWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayoutWatch").field("refused", &self.refused()).finish()
    }
}

struct Agreement {
    cache: String,
    layout: Layout,
    op: Agree,
    clock: Arc<dyn Clock>,
    /// Until when requests may pass, µs. Read without a lock by each.
    holds_until: AtomicU64,
    standing: Mutex<Standing>,
    /// Held by whoever asks.
    asking: tokio::sync::Mutex<()>,
    /// Whether a task of ours asks.
    signing: AtomicBool,
    holdings: OnceLock<Weak<dyn Holdings>>,
    differs: Gauge,
}

impl<E> Gate<E> {
    /// A gate that is open for good: nobody shares the cache.
    pub(crate) const fn open(executor: E) -> Self {
        Self { executor, agreement: None }
    }

    pub(crate) fn new(
        executor: E,
        tag: &Tag,
        cache: &str,
        layout: Layout,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let agreement = Agreement {
            cache: cache.to_owned(),
            layout,
            op: Agree::new(tag, layout.to_wire()),
            clock,
            holds_until: AtomicU64::new(0),
            standing: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            signing: AtomicBool::new(false),
            holdings: OnceLock::new(),
            differs: gauge!("fleetwide_cache_layout_differs", "cache" => cache.to_owned()),
        };
        Self { executor, agreement: Some(Arc::new(agreement)) }
    }

    /// Says what is void when the verdict changes.
    pub(crate) fn watch(&self, holdings: Weak<dyn Holdings>) {
        if let Some(agreement) = &self.agreement {
            let _first = agreement.holdings.set(holdings);
        }
    }

    /// Whether others have another layout.
    pub(crate) fn is_refused(&self) -> bool {
        self.agreement.as_ref().is_some_and(|ours| ours.standing.lock().refused().is_some())
    }

    /// Whether it was asked, and nothing has cast a doubt on the answer since.
    pub(crate) fn has_agreed(&self) -> bool {
        self.agreement.as_ref().is_none_or(|ours| ours.holds_until.load(Ordering::Acquire) > 0)
    }

    /// The server may have lost the record: the next request asks first.
    pub(crate) fn doubt(&self) {
        let Some(agreement) = &self.agreement else { return };
        let mut standing = agreement.standing.lock();
        standing.doubt();
        agreement.publish(&standing);
    }
}

impl<E: Executor + Clone> Gate<E> {
    /// Time passes: signs again, in a task of its own, if it is due.
    pub(crate) fn tick(&self) {
        let Some(agreement) = &self.agreement else { return };
        let is_due = agreement.standing.lock().is_due(agreement.clock.now());
        if !is_due || agreement.signing.swap(true, Ordering::AcqRel) {
            return;
        }
        let signing = Signing(Arc::clone(agreement));
        // Without a runtime the next request asks.
        if let Ok(runtime) = Handle::try_current() {
            let executor = self.executor.clone();
            runtime.spawn(async move {
                // What came of it is written down.
                let _ = timeout(ASK_TIMEOUT, signing.0.ask(&executor, true)).await;
            });
        }
    }

    /// Asks the server now.
    ///
    /// A server that does not answer is no refusal.
    pub(crate) async fn check(&self) -> Result<(), LayoutError> {
        if let Some(agreement) = &self.agreement {
            let _ = timeout(ASK_TIMEOUT, agreement.ask(&self.executor, true)).await;
        }
        self.agreement.as_ref().and_then(|ours| ours.refused()).map_or(Ok(()), Err)
    }

    async fn pass(&self) -> Result<(), BackendError> {
        match &self.agreement {
            Some(agreement) if !agreement.holds() => {
                Box::pin(agreement.ask(&self.executor, false)).await
            }
            _ => Ok(()),
        }
    }
}

impl Agreement {
    /// Whether requests may pass.
    fn holds(&self) -> bool {
        self.clock.now().as_micros() < self.holds_until.load(Ordering::Acquire)
    }

    fn refused(&self) -> Option<LayoutError> {
        self.standing.lock().refused().map(|(error, _)| error.clone())
    }

    /// Signs the record; one at a time, because all who wait are answered by the first.
    async fn ask<E: Executor>(&self, executor: &E, anew: bool) -> Result<(), BackendError> {
        let came = self.clock.now();
        let _alone = self.asking.lock().await;
        let sent = self.clock.now();
        if self.holds() && !(anew && self.standing.lock().is_due(came)) {
            return Ok(());
        }
        let refused = self.refused();
        if let Some(error) = refused.filter(|_| !self.standing.lock().is_due(sent)) {
            return Err(closed(&error));
        }
        match executor.run(&self.op).await {
            Ok(None) => {
                self.settle(|standing| standing.agreed(sent));
                if let Some(holdings) = self.holdings() {
                    holdings.confirm();
                }
                Ok(())
            }
            Ok(Some(theirs)) => {
                let error = LayoutError::new(&self.cache, &theirs, self.layout);
                let told = error.clone();
                self.settle(|standing| standing.refuse(self.clock.now(), told));
                Err(closed(&error))
            }
            Err(error) => {
                self.standing.lock().unanswered(self.clock.now());
                Err(error)
            }
        }
    }

    fn settle(&self, step: impl FnOnce(&mut Standing) -> Change) {
        let mut standing = self.standing.lock();
        let change = step(&mut standing);
        match change {
            Change::None => {}
            Change::Refused => {
                // Nothing passes any more before anything is void.
                self.publish(&standing);
                if let Some((error, _)) = standing.refused() {
                    let (cache, key) = (&self.cache, self.op.key());
                    tracing::error!(%cache, ?key, %error, "the shared tier is not used");
                }
            }
            Change::Agreed => {
                tracing::info!(cache = %self.cache, "all agree on the layout now");
            }
        }
        if change != Change::None {
            self.differs.set(f64::from(u8::from(change == Change::Refused)));
            if let Some(holdings) = self.holdings() {
                holdings.void();
            }
        }
        self.publish(&standing);
    }

    fn holdings(&self) -> Option<Arc<dyn Holdings>> {
        self.holdings.get()?.upgrade()
    }

    /// Under the lock of the standing.
    fn publish(&self, standing: &Standing) {
        self.holds_until.store(standing.holds_until().as_micros(), Ordering::Release);
    }
}

/// Not sent: nothing has happened, and it may be possible later.
fn closed(error: &LayoutError) -> BackendError {
    BackendError::NotSent(Outage::Down(error.to_string()))
}

/// The duty of the task that signs. Dropping it, also with its runtime, lets the next tick start one.
struct Signing(Arc<Agreement>);

impl Drop for Signing {
    fn drop(&mut self) {
        self.0.signing.store(false, Ordering::Release);
    }
}

impl<E: Clone> Clone for Gate<E> {
    fn clone(&self) -> Self {
        Self { executor: self.executor.clone(), agreement: self.agreement.clone() }
    }
}

impl<E: Executor + Clone> Executor for Gate<E> {
    async fn execute(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        self.pass().await?;
        self.executor.execute(op).await
    }

    async fn execute_many(&self, ops: &mut [&mut dyn ErasedOp]) -> Vec<Result<(), BackendError>> {
        match self.pass().await {
            Ok(()) => self.executor.execute_many(ops).await,
            Err(error) => ops.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    async fn execute_replicated(
        &self,
        op: &mut dyn ErasedOp,
        replicas: Replicas,
    ) -> Result<usize, BackendError> {
        self.pass().await?;
        self.executor.execute_replicated(op, replicas).await
    }

    fn prepare(&self, scripts: &[&'static Script]) {
        self.executor.prepare(scripts);
    }

    fn epoch(&self) -> Epoch {
        self.executor.epoch()
    }

    fn epochs(&self) -> Epochs {
        self.executor.epochs()
    }
}
