//! Dropping a future at every point where its caller could have dropped it.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use std::{env, fmt};

use futures_util::FutureExt;
use futures_util::task::AtomicWaker;
use tokio::time::timeout;

/// The variable that replays one drop point alone, as the failure printed it.
const REPLAY: &str = "FLEETWIDE_DROP_AT";

/// A future that needs more is taken for one that polls itself for ever.
const POLLS_MAX_DEFAULT: u32 = 500;
/// Longer than any wait of an honest test; a future that is never woken is found out by it.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(20);

/// Where a future is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropPoint {
    /// How often it was polled before. At 0 it was only created.
    pub polls: u32,
    /// Whether the last poll's wake-up had arrived. What it waited for is its own by then, and only
    /// its drop can give it back: the place where permits and messages get lost.
    pub woken: bool,
}

/// How one run of the future ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was dropped here.
    Dropped(DropPoint),
    /// It completed after this many polls, and its output was dropped.
    Completed(u32),
}

/// A harness that drops a future at every await point.
#[derive(Debug, Clone)]
#[must_use = "nothing is dropped until `run`"]
pub struct Drops {
    polls_max: u32,
    deadline: Duration,
    only: Option<DropPoint>,
}

impl Drops {
    /// Returns a harness that tries every drop point, or the one that `FLEETWIDE_DROP_AT` names.
    ///
    /// # Panics
    /// If the variable holds no drop point.
    pub fn new() -> Self {
        let only = env::var(REPLAY).ok().map(|text| {
            DropPoint::parse(&text).unwrap_or_else(|| panic!("{REPLAY}={text}: use 5 or 5w"))
        });
        Self { polls_max: POLLS_MAX_DEFAULT, deadline: DEADLINE_DEFAULT, only }
    }

    /// Sets how many polls a future may need. Default: 500.
    pub fn polls_max(self, polls_max: u32) -> Self {
        Self { polls_max, ..self }
    }

    /// Sets how long one run, and one check after it, may take. Default: 20 s.
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Tries this drop point alone.
    pub fn only(self, point: DropPoint) -> Self {
        Self { only: Some(point), ..self }
    }

    /// Makes the future again and again, and drops it at the next point each time, until a run
    /// completes. Returns how many polls that run took.
    ///
    /// Each point is met twice: right after the poll, and when the wake-up after it has arrived.
    /// Between polls the runtime's own wake-ups are waited for, so timers and sockets work.
    /// `check` is called after every run, the completed one included, and panics if the drop broke
    /// something.
    ///
    /// # Panics
    /// If a run or a check panics or exceeds the deadline, or if the future needs more polls than
    /// allowed. The message names the drop point and how to replay it.
    ///
    /// # Examples
    /// ```
    /// use std::sync::Arc;
    /// use tokio::sync::Semaphore;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let permits = Arc::new(Semaphore::new(1));
    /// let take_one = || async {
    ///     let permit = permits.acquire().await;
    ///     tokio::task::yield_now().await;
    ///     drop(permit);
    /// };
    /// let all_are_back = async |_| assert_eq!(permits.available_permits(), 1);
    /// fleetwide_testkit::Drops::new().run(take_one, all_are_back).await;
    /// # }
    /// ```
    pub async fn run<F: Future>(
        self,
        mut make: impl FnMut() -> F,
        mut check: impl AsyncFnMut(Ended),
    ) -> u32 {
        let mut point = self.only.unwrap_or(DropPoint { polls: 0, woken: false });
        loop {
            let ended = self.guard(point, "run", run_until(point, make())).await;
            self.guard(point, "check", check(ended)).await;
            match ended {
                Ended::Completed(polls) => return polls,
                Ended::Dropped(_) if self.only.is_some() => return point.polls,
                Ended::Dropped(_) => point = point.next(),
            }
            let polls_max = self.polls_max;
            assert!(point.polls <= polls_max, "the future is not done after {polls_max} polls");
        }
    }

    /// Gives a panic or a hang of `work` the name of the drop point.
    async fn guard<T>(&self, point: DropPoint, name: &str, work: impl Future<Output = T>) -> T {
        let reason = match timeout(self.deadline, AssertUnwindSafe(work).catch_unwind()).await {
            Ok(Ok(output)) => return output,
            Ok(Err(panic)) => format!("panicked: {}", message(&*panic)),
            Err(_) => format!("hung for {:?}", self.deadline),
        };
        panic!("{name} with a drop at {point} {reason}\nreplay with {REPLAY}={}", point.code());
    }
}

impl Default for Drops {
    fn default() -> Self {
        Self::new()
    }
}

impl DropPoint {
    fn next(self) -> Self {
        // A future that was never polled cannot be woken.
        if self.woken || self.polls == 0 {
            Self { polls: self.polls + 1, woken: false }
        } else {
            Self { woken: true, ..self }
        }
    }

    fn code(self) -> String {
        format!("{}{}", self.polls, if self.woken { "w" } else { "" })
    }

    fn parse(code: &str) -> Option<Self> {
        let digits = code.strip_suffix('w').unwrap_or(code);
        Some(Self { polls: digits.parse().ok()?, woken: digits.len() < code.len() })
    }
}

impl fmt::Display for DropPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wake_up = if self.woken { "the wake-up after " } else { "" };
        write!(f, "{wake_up}poll {}", self.polls)
    }
}

async fn run_until<F: Future>(point: DropPoint, future: F) -> Ended {
    // Dropped at the end of this function, after the wrapper has said that it is time.
    let future = pin!(future);
    let wake_up = Arc::new(WakeUp { has_come: AtomicBool::new(true), task: AtomicWaker::new() });
    UntilDrop { future, wake_up, point, polls: 0 }.await
}

/// Resolves when the future completes, or at the drop point.
struct UntilDrop<'a, F> {
    future: Pin<&'a mut F>,
    wake_up: Arc<WakeUp>,
    point: DropPoint,
    polls: u32,
}

impl<F: Future> Future for UntilDrop<'_, F> {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended> {
        self.wake_up.task.register(context.waker());
        if !self.wake_up.has_come.swap(false, Ordering::AcqRel) {
            // The task was woken for another reason, as the deadline's: that is no poll.
            return Poll::Pending;
        }
        let dropped = Poll::Ready(Ended::Dropped(self.point));
        if self.polls == self.point.polls {
            return dropped;
        }
        self.polls += 1;
        let waker = Waker::from(self.wake_up.clone());
        if self.future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            let is_time = self.polls == self.point.polls && !self.point.woken;
            return if is_time { dropped } else { Poll::Pending };
        }
        Poll::Ready(Ended::Completed(self.polls))
    }
}

/// Tells the wake-ups of the future under test from all others of its task.
struct WakeUp {
    has_come: AtomicBool,
    task: AtomicWaker,
}

impl Wake for WakeUp {
    fn wake(self: Arc<Self>) {
        self.has_come.store(true, Ordering::Release);
        self.task.wake();
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("(no message)")
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::pending;

    use tokio::sync::oneshot;
    use tokio::task::yield_now;
    use tokio::time::sleep;

    use super::*;

    async fn panic_of<T>(future: impl Future<Output = T>) -> String {
        match AssertUnwindSafe(future).catch_unwind().await {
            Ok(_) => panic!("it did not panic"),
            Err(panic) => message(&*panic).to_owned(),
        }
    }

    #[tokio::test]
    async fn every_point_is_met_once_and_the_last_run_completes() {
        let mut seen = vec![];
        let two_awaits = || async {
            sleep(Duration::from_millis(1)).await;
            sleep(Duration::from_millis(1)).await;
        };
        let polls = Drops::new().run(two_awaits, async |ended| {
            seen.push(match ended {
                Ended::Dropped(point) => point.code(),
                Ended::Completed(polls) => format!("done {polls}"),
            });
        });
        assert_eq!(polls.await, 3);
        assert_eq!(seen.join(" "), "0 1 1w 2 2w done 3");
    }

    #[tokio::test]
    async fn message_lost_between_wake_up_and_poll_is_found() {
        // A receiver that takes a message over to a list only when it is polled again loses it
        // when it is dropped after the wake-up: the very bug that `woken` is there for.
        let received = RefCell::new(0);
        let sent = RefCell::new(0);
        let receive = || async {
            let (sender, inbox) = oneshot::channel();
            *sent.borrow_mut() += 1;
            tokio::spawn(async move { sender.send(()) });
            inbox.await.unwrap();
            *received.borrow_mut() += 1;
        };
        let message = panic_of(Drops::new().run(receive, async |ended| {
            if matches!(ended, Ended::Dropped(DropPoint { woken: true, .. })) {
                assert_eq!(received, sent, "a message is lost");
            }
        }));
        let message = message.await;
        assert!(message.contains("a message is lost"), "{message}");
        assert!(message.contains("the wake-up after poll 1"), "{message}");
        assert!(message.ends_with("FLEETWIDE_DROP_AT=1w"), "{message}");
    }

    #[tokio::test]
    async fn panic_of_the_future_names_the_point() {
        let fragile = || async {
            yield_now().await;
            panic!("broken");
        };
        let message = panic_of(Drops::new().run(fragile, async |_| {})).await;
        assert!(message.contains("run with a drop at poll 2 panicked: broken"), "{message}");
    }

    #[tokio::test(start_paused = true)]
    async fn future_that_is_never_woken_is_reported() {
        let message = panic_of(Drops::new().run(pending::<()>, async |_| {})).await;
        assert!(message.contains("the wake-up after poll 1 hung for 20s"), "{message}");
    }

    #[tokio::test]
    async fn future_that_is_never_done_is_reported() {
        let restless = || async {
            loop {
                yield_now().await;
            }
        };
        let message = panic_of(Drops::new().polls_max(9).run(restless, async |_: Ended| {})).await;
        assert_eq!(message, "the future is not done after 9 polls");
    }

    #[tokio::test]
    async fn one_point_can_be_replayed_alone() {
        let point = DropPoint::parse("2w").unwrap();
        assert_eq!(point, DropPoint { polls: 2, woken: true });
        let mut runs = 0;
        let restless = || async {
            for _ in 0..9 {
                yield_now().await;
            }
        };
        Drops::new()
            .only(point)
            .run(restless, async |ended| {
                runs += 1;
                assert_eq!(ended, Ended::Dropped(point));
            })
            .await;
        assert_eq!((runs, DropPoint::parse("x"), DropPoint::parse("")), (1, None, None));
    }
}
