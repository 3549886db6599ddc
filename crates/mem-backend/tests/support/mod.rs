//! What the tests of this crate share.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fmt;
use std::marker::PhantomData;

use fleetwide_core_traits::{
    ArgSink, AtomicOp, Effects, Key, Malformed, Namespace, Script, ServerTime, Tag, Wire,
};

/// An op that has a pure half only.
pub(crate) struct Pure<S, R, F> {
    keys: Vec<Key>,
    decide: F,
    types: PhantomData<fn(S) -> R>,
}

/// A step on `keys`, decided by `decide`.
pub(crate) fn pure<S, R, F>(keys: &[&Key], decide: F) -> Pure<S, R, F>
where
    F: Fn(&[Option<&S>], ServerTime, &mut Effects<S>) -> R + Send + Sync,
{
    let keys = keys.iter().copied().cloned().collect();
    Pure { keys, decide, types: PhantomData }
}

static NOWHERE: Script = Script::command("NONE");

impl<S, R, F> AtomicOp for Pure<S, R, F>
where
    S: Send + Sync + 'static,
    R: Send,
    F: Fn(&[Option<&S>], ServerTime, &mut Effects<S>) -> R + Send + Sync,
{
    type State = S;
    type Reply = R;

    fn script(&self) -> &'static Script {
        &NOWHERE
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn args(&self, _: &mut dyn ArgSink) {}

    fn apply(&self, cells: &[Option<&S>], now: ServerTime, out: &mut Effects<S>) -> R {
        (self.decide)(cells, now, out)
    }

    fn decode(&self, _: Wire) -> Result<R, Malformed> {
        Err(Malformed::new("nothing", "a reply"))
    }
}

impl<S, R, F> fmt::Debug for Pure<S, R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pure").field(&self.keys).finish()
    }
}

/// The tag number `number`.
pub(crate) fn tag(number: usize) -> Tag {
    Namespace::new("t").unwrap().tag("test", number.to_string().as_bytes()).unwrap()
}

/// A key with a tag of its own, so that many lie in all shards.
pub(crate) fn key(number: usize) -> Key {
    tag(number).key()
}
