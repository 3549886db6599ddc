//! A table at its limit: nothing that is needed leaves it, and nothing that is dead stays.

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{BackendError, Clock, ExecutorExt, ServerTime};
use fleetwide_mem_backend::{MemExecutor, Memory};
use fleetwide_testkit::SimClock;
use fleetwide_testkit::suite::ops::{Count, Counted, Transfer};
use proptest::prelude::*;
use support::{key, pure, tag};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn table(cells_max: usize) -> (SimClock, MemExecutor) {
    let clock = SimClock::new();
    let memory = Memory::builder().cells_max(cells_max).clock(Arc::new(clock.clone())).build();
    (clock, memory.executor().clone())
}

async fn count(executor: &MemExecutor, number: usize, ttl: Duration) -> Result<u64, BackendError> {
    let step = Count { ttl, ..Count::one(&key(number)) };
    executor.run(&step).await.map(|Counted { count, .. }| count)
}

#[tokio::test]
async fn full_table_refuses_new_cells_and_keeps_the_old() {
    let (_clock, executor) = table(3);
    for number in 0..3 {
        assert_eq!(count(&executor, number, HOUR).await, Ok(1));
    }
    assert_eq!(count(&executor, 3, HOUR).await, Err(BackendError::Full { limit: 3 }));
    for number in 0..3 {
        assert_eq!(count(&executor, number, HOUR).await, Ok(2));
    }
    assert_eq!(executor.len(), 3);
}

#[tokio::test]
async fn expired_cells_make_room_wherever_they_lie() {
    let (clock, executor) = table(64);
    for number in 0..64 {
        let ttl = if number == 17 { SECOND } else { HOUR };
        count(&executor, number, ttl).await.unwrap();
    }
    assert!(count(&executor, 100, HOUR).await.is_err());
    clock.advance(SECOND);
    assert_eq!(count(&executor, 100, HOUR).await, Ok(1));
    assert!(count(&executor, 101, HOUR).await.is_err());
}

#[tokio::test]
async fn step_that_needs_more_cells_than_there_is_room_for_writes_none() {
    let (_clock, executor) = table(2);
    let [from, to] = ["from", "to"].map(|part| tag(0).part(part));
    executor.run(&Count { by: 5, ..Count::one(&from) }).await.unwrap();
    count(&executor, 1, HOUR).await.unwrap();
    let transfer = Transfer { keys: [from.clone(), to.clone()], amount: 2, ttl: HOUR };
    assert_eq!(executor.run(&transfer).await, Err(BackendError::Full { limit: 2 }));
    assert_eq!(executor.peek_state::<u64>(&from), Some(5));
    assert_eq!(executor.peek_state::<u64>(&to), None);
}

#[tokio::test]
async fn dead_cells_do_not_pile_up_while_the_table_is_far_from_full() {
    let (clock, executor) = table(1_000_000);
    // A thousand live at any time, each for a second; in the end twenty times as many have lived.
    for number in 0..20_000 {
        count(&executor, number, SECOND).await.unwrap();
        clock.advance(Duration::from_millis(1));
    }
    let (alive, held) = (executor.keys_with_ttl().len(), executor.len());
    assert_eq!(alive, 999);
    assert!(held < 2 * alive, "{held} cells are held for {alive} that live");
}

#[tokio::test]
async fn flood_of_new_keys_on_a_full_table_is_refused_again_and_again() {
    let (clock, executor) = table(10);
    for number in 0..10 {
        count(&executor, number, HOUR).await.unwrap();
    }
    for number in 10..1_000 {
        clock.advance(Duration::from_micros(1));
        assert!(count(&executor, number, HOUR).await.is_err());
    }
    assert_eq!(executor.len(), 10);
}

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Count { number: usize, ttl: Duration },
    Empty { number: usize },
    Pass(Duration),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let number = || 0..12_usize;
    let micros = |most: u64| (1..most).prop_map(Duration::from_micros);
    let step = prop_oneof![
        4 => (number(), micros(50)).prop_map(|(number, ttl)| Step::Count { number, ttl }),
        1 => number().prop_map(|number| Step::Empty { number }),
        1 => micros(30).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    /// The model is a plain map: what is in it, until when.
    #[test]
    fn table_holds_exactly_what_lives_and_room_is_never_lost(steps in steps()) {
        const CELLS_MAX: usize = 6;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (clock, executor) = table(CELLS_MAX);
        let mut model: HashMap<usize, (u64, ServerTime)> = HashMap::new();
        for step in steps {
            let now = clock.server_time();
            model.retain(|_, (_, until)| *until > now);
            match step {
                Step::Pass(time) => clock.advance(time),
                Step::Empty { number } => {
                    let held = model.remove(&number).map(|(count, _)| count);
                    let empty = pure(&[&key(number)], |cells, _, out| {
                        out.delete(0);
                        cells[0].copied()
                    });
                    prop_assert_eq!(runtime.block_on(executor.run(&empty)), Ok(held));
                }
                Step::Count { number, ttl } => {
                    let answer = runtime.block_on(count(&executor, number, ttl));
                    let is_full = model.len() == CELLS_MAX && !model.contains_key(&number);
                    if is_full {
                        prop_assert_eq!(answer, Err(BackendError::Full { limit: CELLS_MAX }));
                    } else {
                        let cell = model.entry(number).or_default();
                        *cell = (cell.0 + 1, now.plus(ttl));
                        prop_assert_eq!(answer, Ok(cell.0));
                    }
                }
            }
            prop_assert!(executor.len() <= CELLS_MAX);
        }
    }
}
