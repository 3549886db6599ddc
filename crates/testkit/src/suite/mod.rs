//! Conformance suites: what every backend must do, in tests that run over any of them.
//!
//! A backend's own test file instantiates them in a few lines. For the store, whole:
//!
//! ```no_run
//! # async fn check(store: &impl fleetwide_core_traits::Store) {
//! fleetwide_testkit::suite::store::all(store).await;
//! # }
//! ```
//!
//! Each `all` runs its cases one after the other and prints the name of each before it, so that a
//! failure shows which one it is; each case is public, so that it can be run alone. A case takes
//! names that no other uses, so many suites can share one server. What has to expire is given a
//! short ttl and waited for under a deadline: a real server's time cannot be moved.
//!
//! [`differential`] compares two executors step by step on a clock that the test moves.

pub mod bus;
pub mod differential;
pub mod executor;
pub mod ops;
pub mod store;

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::{Bus, Channel, Namespace, Signal, Tag};
use futures_util::StreamExt;
use tokio::time::timeout;

use crate::unique_namespace;

/// Keeps the code on the page for authors of backends compiling, and its store conforming.
#[cfg(doctest)]
#[doc = include_str!("../../../../docs/custom-backend.md")]
mod page {}

/// Longer than any healthy backend takes for anything that the suites wait for.
const DEADLINE: Duration = Duration::from_secs(10);

/// What a backend must be able to do to itself so that its bus can be judged.
pub trait Interrupt: Sync {
    /// Breaks what carries messages to the subscribers of `channel`. It may break more than that.
    fn interrupt(&self, channel: &Channel) -> impl Future<Output = ()> + Send;

    /// Mends it. Requests and subscriptions may still be on their way back when it returns.
    fn resume(&self, channel: &Channel) -> impl Future<Output = ()> + Send;
}

/// Runs the named cases of a suite with the same arguments.
macro_rules! run {
    ($arguments:tt: $($case:ident),+ $(,)?) => {
        $(
            $crate::suite::announce(stringify!($case));
            $case $arguments .await;
        )+
    };
}
use run;

#[expect(clippy::print_stdout, reason = "a test runner shows it exactly when the test fails")]
fn announce(case: &str) {
    println!("case {case}");
}

/// A tag that no other case uses.
fn fresh_tag() -> Tag {
    fresh_namespace().tag("suite", b"case").expect("a plain name fits")
}

fn fresh_namespace() -> Namespace {
    Namespace::new(&unique_namespace()).expect("test namespaces are plain")
}

/// A subscription with the checks that all cases need.
struct Listener<S> {
    signals: S,
}

impl<S: futures_core::Stream<Item = Signal> + Unpin> Listener<S> {
    /// Subscribes, and returns when the subscription stands.
    async fn ready<B: Bus<Subscription = S>>(bus: &B, channel: &Channel) -> Self {
        let mut listener = Self { signals: bus.subscribe(channel) };
        listener.expect(Signal::Ready).await;
        listener
    }

    #[track_caller]
    fn expect(&mut self, wanted: Signal) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let signal = self.next().await;
            assert!(signal == wanted, "read {signal:?} instead of {wanted:?} at {caller}");
        }
    }

    #[track_caller]
    fn message(&mut self) -> impl Future<Output = Bytes> {
        let caller = std::panic::Location::caller();
        async move {
            match self.next().await {
                Signal::Message(payload) => payload,
                other => panic!("read {other:?} instead of a message at {caller}"),
            }
        }
    }

    async fn next(&mut self) -> Signal {
        let next = pin!(self.signals.next());
        let signal = timeout(DEADLINE, next).await.expect("a signal comes before the deadline");
        signal.expect("a subscription goes on while its bus is there")
    }
}
