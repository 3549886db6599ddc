//! A read with a loader: who loads, who waits and for how long, and what is served meanwhile.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::{Executor, ServerTime};
use tokio::time::{Instant, timeout_at};

use crate::ask::{Ask, Recalled, is_early};
use crate::builder::OnAbandon;
use crate::cache::{Inner, checked_wire};
use crate::context::{BoxError, LoadContext, Loaded, erased};
use crate::entry::{Answer, Hit};
use crate::error::LoadError;
use crate::flight::{Follower, Role};
use crate::key::CacheKey;
use crate::l2::Looked;
use crate::origin::Job;

/// What becomes of a flight.
pub(crate) type Landed<V> = Result<Answer<V>, LoadError>;

/// How often a read that must see a certain write joins a load that may be too old for it, before
/// it loads by itself.
pub(crate) const JOINS_MAX: usize = 2;

/// What is known before somebody has to load.
struct Known<V> {
    /// What may be served if the load is slow or fails.
    spare: Option<Hit<V>>,
    /// What L2 has, and is of no use.
    seen: Option<ServerTime>,
    /// Whether L2 can be asked who loads.
    l2: bool,
}

impl<V> Known<V> {
    /// What an entry that is to be renewed says.
    fn of(hit: Hit<V>, l2: bool) -> Self {
        Self { seen: hit.entry.head.stored_at, spare: Some(hit), l2 }
    }
}

/// What the tiers said.
enum Tiers<V> {
    /// The answer.
    Answer(Answer<V>),
    /// The answer, which somebody should renew.
    Early(Hit<V>),
    /// No answer.
    Open(Known<V>),
}

impl<K, V, E> Inner<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    /// A read with a loader, after the short way has missed. `negative` says whether the caller
    /// takes it for an answer that the origin has no value.
    pub(crate) async fn find_or_load<L, F, T, R>(
        self: Arc<Self>,
        key: &K,
        ask: Ask,
        negative: bool,
        loader: L,
    ) -> Landed<V>
    where
        L: FnOnce(LoadContext<K, V>) -> F + Send + 'static,
        F: Future<Output = Result<T, R>> + Send + 'static,
        T: Into<Loaded<V>>,
        R: Into<BoxError>,
    {
        let wire = checked_wire(key)?;
        let asked = self.clock.now();
        match self.ask_tiers(key, &wire, &ask, negative).await {
            Tiers::Answer(answer) => Ok(answer),
            Tiers::Early(hit) => {
                // In the background: the caller has its answer. Nobody waits for it, so only if there is
                // room.
                if let Role::Leader(flight) = self.loads.join(&wire)
                    && flight.has_place()
                {
                    self.telemetry.refreshes_early.add();
                    flight.let_finish();
                    let known = Known::of(hit.clone(), ask.l2);
                    let job = Job::new(key.clone(), wire, known.seen, known.spare, flight);
                    let job = job.via_l2(known.l2).taking_absent(negative);
                    tokio::spawn(self.load(job, erased(loader)));
                }
                Ok(Answer::Value(hit))
            }
            Tiers::Open(known) => {
                let spent = self.clock.now().since(asked);
                self.join_or_load(key, wire, ask, negative, known, spent, loader).await
            }
        }
    }

    /// Steps 1 and 2.
    async fn ask_tiers(&self, key: &K, wire: &Bytes, ask: &Ask, negative: bool) -> Tiers<V> {
        let mut spare = match self.recall(key, ask) {
            Recalled::Fresh(hit) => {
                self.telemetry.hit_in_l1(hit.freshness);
                return Tiers::Answer(Answer::Value(hit));
            }
            Recalled::Early(hit) => {
                self.telemetry.hit_in_l1(hit.freshness);
                return Tiers::Early(hit);
            }
            Recalled::Absent if negative => {
                self.telemetry.hits_absent.add();
                return Tiers::Answer(Answer::Absent);
            }
            // Its time is over in L2 too, unless somebody has renewed it: who asks for the lease
            // will learn of that.
            Recalled::Expired(hit) => return Tiers::Open(Known::of(hit, ask.l2)),
            Recalled::Lapsed(hit) => Some(hit),
            Recalled::Absent | Recalled::Nothing => None,
        };
        if !ask.l2 {
            return Tiers::Open(Known { spare, seen: None, l2: false });
        }
        let (seen, l2) = match self.look(key, wire, ask).await {
            Looked::Fresh(hit) if is_early(&hit, ask) => return Tiers::Early(hit),
            Looked::Fresh(hit) => return Tiers::Answer(Answer::Value(hit)),
            Looked::Absent(_) if negative => return Tiers::Answer(Answer::Absent),
            Looked::Absent(at) | Looked::Unusable(at) => (Some(at), true),
            Looked::Stale(hit) => {
                let at = hit.entry.head.stored_at;
                spare = Some(hit);
                (at, true)
            }
            Looked::Miss => (None, true),
            Looked::Unavailable => (None, false),
        };
        Tiers::Open(Known { spare, seen, l2 })
    }

    /// Joins the load that is under way, or begins one.
    #[allow(clippy::too_many_arguments, reason = "one call, whose parts are apart before it")]
    async fn join_or_load<L, F, T, R>(
        self: Arc<Self>,
        key: &K,
        wire: Bytes,
        ask: Ask,
        negative: bool,
        known: Known<V>,
        spent: Duration,
        loader: L,
    ) -> Landed<V>
    where
        L: FnOnce(LoadContext<K, V>) -> F + Send + 'static,
        F: Future<Output = Result<T, R>> + Send + 'static,
        T: Into<Loaded<V>>,
        R: Into<BoxError>,
    {
        let Known { spare, seen, l2 } = known;
        let began = Instant::now();
        let mut joins = 0;
        let flight = loop {
            let follower = match self.loads.join(&wire) {
                Role::Leader(flight) => break flight,
                Role::Follower(_) if joins == JOINS_MAX || !self.may_join(&ask) => {
                    break self.loads.alone(&wire);
                }
                Role::Follower(follower) => follower,
            };
            joins += 1;
            self.telemetry.misses.add();
            let landed = self.wait(follower, spare.as_ref(), &ask, began).await;
            if self.suits(&landed, &ask) {
                return landed;
            }
            // It began before the write that this read has to see.
            self.loads.detach(&wire);
        };
        // The flight before this one may have landed since we looked.
        if let Recalled::Fresh(hit) = self.recall(key, &ask) {
            flight.land(Ok(Answer::Value(hit.clone())));
            return Ok(Answer::Value(hit));
        }
        self.telemetry.misses.add();
        let follower = flight.follow();
        if self.settings.on_abandon == OnAbandon::Finish {
            flight.let_finish();
        }
        let job = Job::new(key.clone(), wire, seen, spare.clone(), flight)
            .via_l2(l2)
            .taking_absent(negative)
            .reflecting(ask.at_least)
            .asked(ask)
            .spent(spent);
        tokio::spawn(Arc::clone(&self).load(job, erased(loader)));
        self.wait(follower, spare.as_ref(), &ask, began).await
    }

    /// Whether a load that is under way may be new enough. A read with a bound below that of the cache
    /// may not wait for one from before it: whether that still counts, the server says, which has
    /// voided its lease if not.
    fn may_join(&self, ask: &Ask) -> bool {
        ask.bound_us >= self.settings.ask.bound_us
    }

    /// Whether what others loaded shows the write that this read has to see.
    pub(crate) fn suits(&self, landed: &Landed<V>, ask: &Ask) -> bool {
        match (landed, ask.at_least) {
            (Ok(Answer::Value(hit)), at_least @ Some(_)) => {
                self.has_seen(Some(hit.entry.head.pass.stamp), at_least)
            }
            (Ok(Answer::Absent), Some(_)) => false,
            _ => true,
        }
    }

    /// Waits for a load as long as this read wants to, and serves what is stale where it may.
    pub(crate) async fn wait(
        &self,
        follower: Follower<Landed<V>>,
        spare: Option<&Hit<V>>,
        ask: &Ask,
        began: Instant,
    ) -> Landed<V> {
        let landing = follower.wait();
        tokio::pin!(landing);
        if let Some(patience) = self.patience(spare, ask) {
            let early = timeout_at(began + patience, landing.as_mut()).await;
            match (early, spare.and_then(|hit| self.spare(hit, ask, ask.grace()))) {
                (Err(_), Some(stale)) => {
                    follower.let_finish();
                    self.telemetry.stale_while_loading.add();
                    return Ok(Answer::Value(stale));
                }
                (Ok(landed), _) => return self.or_spare(landed, spare, ask),
                // It was invalidated while we waited: now only the load can answer.
                (Err(_), None) => {}
            }
        }
        let landed = match ask.hard_timeout {
            Some(hard) => timeout_at(began + hard, landing.as_mut()).await.unwrap_or_else(|_| {
                follower.let_finish();
                self.telemetry.loads_timed_out.add();
                Some(Err(LoadError::TimedOut(hard)))
            }),
            None => landing.await,
        };
        self.or_spare(landed, spare, ask)
    }

    /// How long a read waits that could be answered with what is stale; `None` = it could not.
    fn patience(&self, spare: Option<&Hit<V>>, ask: &Ask) -> Option<Duration> {
        let (now, term) = (self.clock.now(), &spare?.entry.head.term);
        if now >= term.fresh_until && term.lasts(now, ask.revalidate) {
            Some(ask.soft_timeout.unwrap_or_default())
        } else {
            ask.soft_timeout.filter(|_| term.lasts(now, ask.on_error))
        }
    }

    /// What a load came to; or, if it failed, what is stale.
    fn or_spare(&self, landed: Option<Landed<V>>, spare: Option<&Hit<V>>, ask: &Ask) -> Landed<V> {
        let landed = landed.unwrap_or(Err(LoadError::Abandoned));
        let Err(error) = &landed else { return landed };
        if !error.is_trouble() || ask.on_error.is_zero() {
            return landed;
        }
        let Some(stale) = spare.and_then(|hit| self.spare(hit, ask, ask.on_error)) else {
            return landed;
        };
        tracing::debug!(cache = %self.name, %error, "a stale value is served instead");
        self.telemetry.stale_on_error.add();
        Ok(Answer::Value(stale))
    }
}

/// The answer to a read that takes nothing but a value.
pub(crate) fn value<V>(landed: Landed<V>) -> Result<Hit<V>, LoadError> {
    match landed? {
        Answer::Value(hit) => Ok(hit),
        Answer::Absent => Err(LoadError::Absent),
    }
}

/// The answer to a read that takes the absence of a value as well.
pub(crate) fn option<V>(landed: Landed<V>) -> Result<Option<Hit<V>>, LoadError> {
    Ok(match landed? {
        Answer::Value(hit) => Some(hit),
        Answer::Absent => None,
    })
}
