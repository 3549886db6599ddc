//! Steps on states that an executor in memory keeps as a part of others. On a server there is no
//! difference: under such a key are the bytes of the part.

use std::marker::PhantomData;

use fleetwide_core_traits::{
    ArgSink, AtomicOp, BackendError, Effects, Executor, ExecutorExt, Key, Malformed, Script,
    ServerTime, Told, Wire, Write,
};

use crate::Held;
use crate::algorithm::Algorithm;
use crate::concurrency::ConcurrencyState;
use crate::multi::LevelState;
use crate::multi::rule::Rated;

/// What is kept as a part of something else.
pub(crate) trait Part: 'static {
    /// The part, which steps are made on.
    type Own: Clone + Send + Sync + 'static;
    /// What is kept under the key.
    type Whole: Send + Sync + 'static;

    /// The part of it; `None` if it is something else.
    fn own(whole: &Self::Whole) -> Option<&Self::Own>;

    fn whole(own: Self::Own) -> Self::Whole;
}

/// What has been spent of one level by algorithm `A`.
pub(crate) struct Rate<A>(PhantomData<A>);

/// Who holds permits of one level.
pub(crate) struct Permits;

/// What would have been spent by a candidate `B` that stands beside algorithm `A`.
pub(crate) struct Candidate<A, B>(PhantomData<(A, B)>);

impl<A: Rated> Part for Rate<A> {
    type Own = Held<A::State>;
    type Whole = LevelState;

    fn own(whole: &LevelState) -> Option<&Held<A::State>> {
        A::held(whole)
    }

    fn whole(own: Held<A::State>) -> LevelState {
        A::level(own)
    }
}

impl Part for Permits {
    type Own = ConcurrencyState;
    type Whole = LevelState;

    fn own(whole: &LevelState) -> Option<&ConcurrencyState> {
        whole.leases()
    }

    fn whole(own: ConcurrencyState) -> LevelState {
        LevelState::AtOnce(own)
    }
}

impl<A: Algorithm, B: Rated> Part for Candidate<A, B> {
    type Own = Held<B::State>;
    type Whole = Held<A::State>;

    fn own(whole: &Held<A::State>) -> Option<&Held<B::State>> {
        whole.candidate().and_then(B::held)
    }

    fn whole(own: Held<B::State>) -> Held<A::State> {
        Held::of_candidate(B::level(own))
    }
}

/// A step on the part `P` of what an executor in memory keeps of its keys.
#[derive(Clone, Debug)]
pub(crate) struct Within<P, O> {
    step: O,
    part: PhantomData<fn() -> P>,
}

impl<P, O> Within<P, O> {
    pub(crate) const fn new(step: O) -> Self {
        Self { step, part: PhantomData }
    }
}

impl<P: Part, O: AtomicOp<State = P::Own>> AtomicOp for Within<P, O> {
    type State = P::Whole;
    type Reply = O::Reply;

    fn script(&self) -> &'static Script {
        self.step.script()
    }

    fn keys(&self) -> &[Key] {
        self.step.keys()
    }

    fn args(&self, to: &mut dyn ArgSink) {
        self.step.args(to);
    }

    fn apply(
        &self,
        cells: &[Option<&P::Whole>],
        now: ServerTime,
        out: &mut Effects<P::Whole>,
    ) -> O::Reply {
        let own: Vec<_> = cells.iter().map(|cell| cell.and_then(P::own)).collect();
        let mut effects = Effects::new();
        let reply = self.step.apply(&own, now, &mut effects);
        for (place, write) in effects.writes() {
            match write {
                Write::Put(own, ttl) => out.put(*place, P::whole(own.clone()), *ttl),
                // The steps on such keys put states as a whole.
                Write::Delete | Write::Update { .. } => out.delete(*place),
            }
        }
        reply
    }

    fn decode(&self, reply: Wire) -> Result<O::Reply, Malformed> {
        self.step.decode(reply)
    }
}

/// As what an executor in memory keeps the state of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// By itself.
    Plain,
    /// As one of several levels.
    Level,
}

impl Form {
    /// Makes some steps on keys of this form, of which `P` is the part that they are made on if they
    /// are levels.
    pub(crate) async fn run<P, E, O>(
        self,
        executor: &E,
        steps: Vec<O>,
    ) -> Vec<Result<Told<O::Reply>, BackendError>>
    where
        P: Part<Whole = LevelState>,
        E: Executor,
        O: AtomicOp<State = P::Own>,
    {
        match self {
            Self::Plain => executor.run_many_told(&steps).await,
            Self::Level => {
                let steps: Vec<_> = steps.into_iter().map(Within::<P, O>::new).collect();
                executor.run_many_told(&steps).await
            }
        }
    }
}
