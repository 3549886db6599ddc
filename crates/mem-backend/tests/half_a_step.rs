//! A step happens as a whole or not at all, whatever its op does.

mod support;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::{
    ApplyError, ArgSink, BackendError, Cells, Effects, ErasedOp, Executor, ExecutorExt, Key,
    Malformed, Message, RejectionKind, Script, ServerTime, Wire,
};
use fleetwide_mem_backend::{MemExecutor, Memory};
use fleetwide_testkit::SimClock;
use futures_util::FutureExt;
use support::{key, pure, tag};

const HOUR: Duration = Duration::from_secs(3600);

async fn put(executor: &MemExecutor, key: &Key, state: u64) {
    let put = pure(&[key], |_, _, out| out.put(0, state, HOUR));
    executor.run(&put).await.unwrap();
}

fn peek(executor: &MemExecutor, key: &Key) -> Option<u64> {
    executor.peek_state(key)
}

#[tokio::test]
async fn op_that_panics_has_changed_nothing_and_stops_nobody() {
    let memory = Memory::builder().cells_max(2).build();
    let executor = memory.executor();
    put(executor, &key(0), 1).await;
    let panics = pure(&[&key(0)], |_, _, out: &mut Effects<u64>| {
        out.put(0, 2, HOUR);
        out.publish(tag(0).channel("said"), Bytes::new());
        panic!("a bug of the op");
    });
    for _ in 0..10 {
        let panicked = AssertUnwindSafe(executor.run(&panics)).catch_unwind().await;
        assert!(panicked.is_err());
    }
    assert_eq!(peek(executor, &key(0)), Some(1));
    put(executor, &key(0), 3).await;
    // No room was lost either.
    put(executor, &key(1), 1).await;
    assert_eq!((peek(executor, &key(0)), peek(executor, &key(1))), (Some(3), Some(1)));
}

#[tokio::test]
async fn change_that_panics_on_a_new_cell_takes_no_room() {
    let memory = Memory::builder().cells_max(1).build();
    let executor = memory.executor();
    let panics = pure(&[&key(0)], |_, _, out: &mut Effects<u64>| {
        out.update(0, HOUR, || 0, |_| panic!("a bug of the op"));
    });
    for _ in 0..10 {
        assert!(AssertUnwindSafe(executor.run(&panics)).catch_unwind().await.is_err());
    }
    assert!(executor.is_empty());
    put(executor, &key(1), 1).await;
}

#[tokio::test]
async fn state_of_another_type_is_refused_before_anything_is_written() {
    let memory = Memory::new();
    let executor = memory.executor();
    let (mine, theirs) = (tag(0).part("mine"), tag(0).part("theirs"));
    put(executor, &mine, 1).await;
    let text = pure(&[&theirs], |_, _, out| out.put(0, "text", HOUR));
    executor.run(&text).await.unwrap();
    let both = pure(&[&mine, &theirs], |_, _, out| {
        out.put(0, 2_u64, HOUR);
        out.put(1, 2_u64, HOUR);
    });
    match executor.run(&both).await {
        Err(BackendError::Rejected(rejection)) => {
            assert_eq!(rejection.kind, RejectionKind::WrongType);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(peek(executor, &mine), Some(1));
    assert_eq!(executor.peek_state(&theirs), Some("text"));
}

#[tokio::test]
async fn one_cell_under_two_names_is_one_cell() {
    let memory = Memory::builder().cells_max(1).build();
    let executor = memory.executor();
    let twice = |keep_second| {
        pure(&[&key(0), &key(0)], move |cells: &[Option<&u64>], _, out| {
            let seen = cells.iter().map(|cell| cell.copied()).collect::<Vec<_>>();
            out.put(0, 1, HOUR);
            if keep_second {
                out.delete(0);
                out.put(1, 2, HOUR);
            } else {
                out.delete(1);
            }
            seen
        })
    };
    // Room for two is asked for, because nothing says before that the two are one.
    assert_eq!(executor.run(&twice(false)).await, Ok(vec![None, None]));
    assert!(executor.is_empty());
    put(executor, &key(0), 7).await;
    assert_eq!(executor.run(&twice(true)).await, Ok(vec![Some(7), Some(7)]));
    assert_eq!((executor.len(), peek(executor, &key(0))), (1, Some(2)));
    put(executor, &key(0), 8).await;
    assert_eq!(executor.len(), 1);
}

#[tokio::test]
async fn cell_lives_to_its_microsecond_and_not_into_it() {
    let clock = SimClock::new();
    let memory = Memory::builder().clock(Arc::new(clock.clone())).build();
    let executor = memory.executor();
    let put = pure(&[&key(0)], |cells: &[Option<&u64>], _, out| {
        out.put(0, 1, Duration::from_micros(3));
        cells[0].is_some()
    });
    assert_eq!(executor.run(&put).await, Ok(false));
    clock.advance(Duration::from_micros(2));
    // A put has a ttl of its own, from its own time on.
    assert_eq!(executor.run(&put).await, Ok(true));
    clock.advance(Duration::from_micros(2));
    assert_eq!(executor.keys_with_ttl(), [(key(0), Duration::from_micros(1))]);
    clock.advance(Duration::from_micros(1));
    assert_eq!((peek(executor, &key(0)), executor.keys_with_ttl()), (None, vec![]));
    assert_eq!(executor.run(&put).await, Ok(false));
}

#[tokio::test]
async fn step_over_two_tags_is_refused_as_on_a_cluster() {
    let memory = Memory::new();
    let mut op = TwoTags([key(0), key(1)]);
    match memory.executor().execute(&mut op).await {
        Err(BackendError::Rejected(rejection)) => {
            assert_eq!(rejection.message, "the keys of one op do not have the same tag");
        }
        other => panic!("{other:?}"),
    }
}

/// Made by hand, because the way from a typed op checks its tags too.
struct TwoTags([Key; 2]);

impl ErasedOp for TwoTags {
    fn script(&self) -> &'static Script {
        static NOWHERE: Script = Script::command("NONE");
        &NOWHERE
    }

    fn keys(&self) -> &[Key] {
        &self.0
    }

    fn cells(&self) -> usize {
        2
    }

    fn args(&self, _: &mut dyn ArgSink) {}

    fn apply(
        &mut self,
        _: &mut dyn Cells,
        _: ServerTime,
        _: &mut Vec<Message>,
    ) -> Result<(), ApplyError> {
        panic!("a step over two tags is not atomic")
    }

    fn decode(&mut self, _: Wire) -> Result<(), Malformed> {
        Ok(())
    }
}
