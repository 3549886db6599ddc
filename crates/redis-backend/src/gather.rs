//! Calls that come at the same time: they go to the server together, in waves.
//!
//! A request of its own costs the client library a place in its queue, a turn of the connection's
//! task and a wake-up. Where few calls are under way that is no matter, and each goes out at once.
//! Where many are, those that come in one turn of the runtime share all of it.
//!
//! A wave is small. The server answers what it has read in one go; so if all went out as one, it
//! would have nothing to do while the callers work with its answers, and they nothing while it works.
//! The first wave is on its way before the last caller of the turn has said what it wants.
//!
//! Those of one wave share its fate: if the connection ends before the last of its answers has come,
//! none of them is told.

use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{BackendError, Epoch, Outage};
use parking_lot::Mutex;
use redis::{Arg, Cmd, Pipeline, RedisResult, Value};
use tokio::select;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

use crate::executor::miscounted;
use crate::reply;
use crate::shared::{Place, Shared};

/// So many calls go out each for itself: they keep a connection busy without being many for it.
pub(crate) const ALONE_MAX: usize = 8;
/// Calls of one wave; measured with 64 and 256 tasks.
const WAVE: usize = 16;
/// Bytes of a command that goes with others. A larger one would have them wait for it.
const SMALL: usize = 4 * 1024;

/// What the server says to one command, and in which history of its data.
pub(crate) type Said = Result<(Value, Epoch), BackendError>;

/// Calls that nobody has sent yet: fewer than a wave.
#[derive(Default)]
pub(crate) struct Gather(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    calls: Vec<Call>,
    /// Whether a task will send them after this turn.
    is_attended: bool,
}

/// A command, and who waits for what the server says to it.
pub(crate) struct Call {
    command: Cmd,
    by: Instant,
    within: Duration,
    answer: oneshot::Sender<Said>,
    /// Taken as long as the server may have it, also when its caller has left.
    _place: Place,
}

/// Whether others can go with `command` without waiting for its bytes.
pub(crate) fn is_small(command: &Cmd) -> bool {
    let bytes = command.args_iter().map(|arg| match arg {
        Arg::Simple(bytes) => bytes.len(),
        _ => 0,
    });
    bytes.sum::<usize>() <= SMALL
}

impl Call {
    /// A call that must be answered at a time, and within so much.
    pub(crate) fn new(
        command: Cmd,
        (by, within): (Instant, Duration),
        place: Place,
    ) -> (Self, oneshot::Receiver<Said>) {
        let (answer, answered) = oneshot::channel();
        (Self { command, by, within, answer, _place: place }, answered)
    }

    fn tell(self, said: Said) {
        // Whoever asked may have left.
        let _told = self.answer.send(said);
    }
}

impl Gather {
    /// Sends `call` with others. It goes out after this was called; if its caller leaves before, it
    /// does not.
    pub(crate) fn send(shared: &Arc<Shared>, call: Call) {
        let (wave, is_first) = {
            let mut waiting = shared.gather.0.lock();
            if waiting.calls.is_empty() {
                waiting.calls.reserve(WAVE);
            }
            waiting.calls.push(call);
            let is_full = waiting.calls.len() >= WAVE;
            let wave = is_full.then(|| mem::take(&mut waiting.calls));
            let is_first = wave.is_none() && !waiting.is_attended;
            waiting.is_attended |= is_first;
            (wave, is_first)
        };
        // On the runtime of the connections: while that is not driven, nothing is sent anyway.
        if let Some(wave) = wave {
            shared.tasks.spawn_on(go(Arc::clone(shared), wave), &shared.runtime);
        } else if is_first {
            let errand = Errand(Some(Arc::clone(shared)));
            shared.tasks.spawn_on(errand.run(), &shared.runtime);
        }
    }

    fn take(&self) -> Vec<Call> {
        let mut waiting = self.0.lock();
        waiting.is_attended = false;
        mem::take(&mut waiting.calls)
    }
}

/// The duty to send what waits at the end of the turn. Its runtime may end before it is done; then
/// those who wait must not do so for ever, and the next who comes must not take it to be under way.
struct Errand(Option<Arc<Shared>>);

impl Errand {
    async fn run(mut self) {
        // Whoever can run now may have something to say too.
        yield_now().await;
        let Some(shared) = self.0.take() else { return };
        let wave = shared.gather.take();
        go(shared, wave).await;
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            let unsent = shared.gather.take();
            drop(unsent);
        }
    }
}

/// Sends `wave` in one trip, and tells each caller what the server says to it.
async fn go(shared: Arc<Shared>, mut wave: Vec<Call>) {
    wave.retain(|call| !call.answer.is_closed());
    let times = || wave.iter().map(|call| call.by);
    let (Some(first), Some(last)) = (times().min(), times().max()) else { return };
    let Some(mut ride) = shared.standing_ride() else {
        for call in wave {
            call.tell(Err(shared.down()));
        }
        return;
    };
    let mut commands = Pipeline::with_capacity(wave.len());
    for call in &mut wave {
        commands.add_command(mem::take(&mut call.command));
    }
    let count = wave.len();
    let trip = async {
        let mut trip = pin!(ride.connection.send_packed_commands(&commands, 0, count));
        match timeout_at(first, &mut trip).await {
            Err(_) => {
                ride.lane.doubt_link(ride.number);
                timeout_at(last, trip).await.ok()
            }
            sent => sent.ok(),
        }
    };
    let sent = select! {
        biased;
        sent = trip => sent,
        // What is not written yet need not be.
        () = all_gone(&mut wave) => {
            if Instant::now() >= first {
                ride.lane.doubt_link(ride.number);
            }
            return;
        }
    };
    tell_all(wave, sent, ride.epoch);
}

/// Waits until nobody waits for `wave`.
async fn all_gone(wave: &mut [Call]) {
    for call in wave {
        call.answer.closed().await;
    }
}

/// Tells each caller of `wave` what came of it; nothing if its time is over.
fn tell_all(wave: Vec<Call>, sent: Option<RedisResult<Vec<Value>>>, epoch: Epoch) {
    let error = match sent {
        Some(Ok(values)) if values.len() == wave.len() => {
            for (call, value) in wave.into_iter().zip(values) {
                call.tell(Ok((value, epoch)));
            }
            return;
        }
        Some(Ok(_)) => Some(miscounted()),
        Some(Err(error)) => Some(reply::failure(&error)),
        None => None,
    };
    for call in wave {
        let late = || BackendError::Unknown(Outage::Deadline(call.within));
        let error = error.clone().unwrap_or_else(late);
        call.tell(Err(error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_is_small_up_to_what_others_can_wait_for() {
        let set = |bytes: usize| {
            let mut set = redis::cmd("SET");
            set.arg(b"k").arg(vec![b'x'; bytes - 4]);
            set
        };
        assert!(is_small(&set(SMALL)));
        assert!(!is_small(&set(SMALL + 1)));
    }
}
