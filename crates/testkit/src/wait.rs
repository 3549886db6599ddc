//! Waiting for an event under a deadline, which is not the same as sleeping to be right.

use std::panic::Location;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// The first look comes at once, the next ones at growing distances between these two.
const LOOK_FIRST: Duration = Duration::from_millis(1);
const LOOK_LAST: Duration = Duration::from_millis(20);

/// Asks `condition` again and again until it holds.
///
/// `what` completes the sentence "waited in vain for ...".
///
/// # Panics
/// If the condition does not hold within `deadline`, also when one call of it hangs that long. The
/// message names `what` and the caller's line.
///
/// # Examples
/// ```
/// # use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let started = std::time::Instant::now();
/// let is_later = async || started.elapsed() > Duration::from_millis(5);
/// fleetwide_testkit::eventually(Duration::from_secs(1), "time to pass", is_later).await;
/// # }
/// ```
#[track_caller]
pub fn eventually(
    deadline: Duration,
    what: &str,
    condition: impl AsyncFnMut() -> bool,
) -> impl Future<Output = ()> {
    // An `async fn` would name this file instead of the test's.
    let caller = Location::caller();
    async move {
        let in_time = timeout_at(Instant::now() + deadline, holds(condition)).await.is_ok();
        assert!(in_time, "waited in vain for {what}, {deadline:?} long, at {caller}");
    }
}

async fn holds(mut condition: impl AsyncFnMut() -> bool) {
    let mut pause = LOOK_FIRST;
    while !condition().await {
        sleep(pause).await;
        pause = (pause * 2).min(LOOK_LAST);
    }
}

/// Returns a namespace that no other test uses, of lower-case letters, digits and `-`, which lets
/// tests share one server.
pub fn unique_namespace() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // The random part keeps apart what several processes, or a killed earlier run, left behind.
    format!("t{number}-{:08x}", rand::random::<u32>())
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures_util::FutureExt;

    use super::*;

    /// Returns the message of the panic that `future` ends with.
    async fn panic_of(future: impl Future<Output = ()>) -> String {
        let panic = std::panic::AssertUnwindSafe(future).catch_unwind().await.unwrap_err();
        *panic.downcast::<String>().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn condition_is_asked_until_it_holds() {
        let mut left = 100;
        eventually(Duration::from_secs(10), "zero", async || {
            left -= 1;
            left == 0
        })
        .await;
        assert_eq!(left, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn failure_names_the_event_and_the_line_of_the_test() {
        let message = panic_of(eventually(Duration::from_secs(1), "rain", async || false)).await;
        assert!(message.starts_with("waited in vain for rain, 1s long, at "), "{message}");
        assert!(message.contains("wait.rs"), "{message}");
    }

    #[tokio::test(start_paused = true)]
    async fn condition_that_hangs_is_a_failure_too() {
        panic_of(eventually(Duration::from_secs(1), "an answer", pending)).await;
    }

    #[test]
    fn namespaces_differ() {
        assert_ne!(unique_namespace(), unique_namespace());
    }
}
