//! Writes that ask for replicas return Ok only if they have them, one by one and many at a time.

mod common;

use std::time::Duration;

use common::{Node, PATIENCE, alone, namespace, read};
use fleetwide_session_cache::{SessionError, Stored};
use fleetwide_testkit::RedisServer;
use fleetwide_two_tier_cache::{PutOptions, WriteError};

fn entries() -> Vec<(String, String)> {
    ["a", "b"].map(|key| (key.to_owned(), format!("value of {key}"))).to_vec()
}

/// How many replicas acknowledged each, where they were too few.
fn few(outcomes: Vec<Result<Stored, SessionError>>) -> Vec<(usize, u32)> {
    let few = |outcome| match outcome {
        Err(SessionError::Write(WriteError::TooFewReplicas { acknowledged, wanted, .. })) => {
            (acknowledged, wanted)
        }
        other => panic!("{other:?}"),
    };
    outcomes.into_iter().map(few).collect()
}

/// `put_many` dropped the wish once, and returned Ok. Red without the branch that stores one by one.
#[tokio::test]
async fn in_memory_there_is_no_replica_to_wait_for() {
    let session = alone().await.session("s").unwrap();
    let options = PutOptions::default().replicas(1, PATIENCE);
    assert_eq!(few(session.put_many(entries(), &options).await), [(0, 1), (0, 1)]);
    assert_eq!(read(&session, "b").await.as_deref(), Some("value of b"), "it is written");
}

/// Red without the branch that stores one by one.
#[tokio::test]
async fn many_at_once_wait_for_the_replicas_too() {
    let primary = RedisServer::start().await.unwrap();
    let replica = RedisServer::builder().replica_of(&primary).start().await.unwrap();
    let session = Node::start(&primary.url(), &namespace()).await.session("s");
    let options = |count, within| PutOptions::default().replicas(count, within);
    for stored in session.put_many(entries(), &options(1, PATIENCE)).await {
        assert!(stored.unwrap().id.is_some());
    }
    replica.stop();
    let soon = Duration::from_millis(100);
    assert_eq!(few(session.put_many(entries(), &options(1, soon)).await), [(0, 1), (0, 1)]);
    replica.cont();
    let again = vec![("a".to_owned(), "one".to_owned()), ("a".to_owned(), "two".to_owned())];
    let outcomes = session.put_many(again, &options(1, PATIENCE)).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(read(&session, "a").await.as_deref(), Some("two"), "the last counts");
}
