//! Word among the instances that what they remember of a key is void.
//!
//! It saves waiting, and nothing rests on it: what is remembered ends by itself, so a message that
//! is lost, or that finds the queue full, costs as much as if it had not been sent.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use fleetwide_core_traits::{Bus, Channel, Key, Namespace, Signal};
use futures_core::Stream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::PolicyName;

/// What waits to be told while the bus is slow. Beyond it, nothing is told.
const QUEUE_MAX: usize = 1_024;
/// Words of one message.
const WORDS_MAX: usize = 64;
/// A bus that takes longer is not waited for: what it should tell is nearly out of date.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(1);
/// The form of a message: this byte, then for each word a byte that says what is void, the length of
/// the key, big-endian, and the key.
const FORM: u8 = 1;

/// Is told each word of others, and answers whether anybody is there.
pub(crate) type Hear = Box<dyn Fn(Word) -> bool + Send>;

/// What is void.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// Refusals of a key: some of it was given back.
    Refusals(Bytes),
    /// All that is held of a key: it was reset, or blocked.
    Key(Bytes),
    /// Refusals of all keys: the quota is another one, or messages were missed.
    AllRefusals,
}

/// Tells the others.
#[derive(Clone)]
pub(crate) struct Voids {
    queue: mpsc::Sender<Word>,
}

impl Voids {
    /// A way to tell others, and what must be [started](start) for it.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Word>) {
        let (queue, told) = mpsc::channel(QUEUE_MAX);
        (Self { queue }, told)
    }

    /// Tells the others, soon; waits for nothing.
    pub(crate) fn tell(&self, word: Word) {
        // A full queue: nothing rests on it.
        let _ = self.queue.try_send(word);
    }
}

impl Word {
    pub(crate) fn refusals(key: &Key) -> Self {
        Self::Refusals(Bytes::copy_from_slice(key.as_bytes()))
    }

    pub(crate) fn key(key: &Key) -> Self {
        Self::Key(Bytes::copy_from_slice(key.as_bytes()))
    }
}

/// Tells the other limiters of the same name over `bus`, and tells `hear` what they say, until it
/// answers that nobody is there any more.
///
/// # Panics
/// Outside a Tokio runtime.
pub(crate) fn start<B: Bus>(
    bus: B,
    namespace: &Namespace,
    policy: &PolicyName,
    told: mpsc::Receiver<Word>,
    hear: Hear,
) {
    // A policy's name is a name, so the tag is one; no key's tag is the same, as those have a '/'.
    if let Ok(tag) = namespace.tag("limiter", policy.as_str().as_bytes()) {
        Handle::current().spawn(talk(bus, tag.channel("voids"), told, hear));
    }
}

/// Tells what it is told to, and hears what others tell, its own words included.
async fn talk<B: Bus>(bus: B, channel: Channel, mut told: mpsc::Receiver<Word>, hear: Hear) {
    let mut heard = bus.subscribe(&channel);
    let mut words = Vec::new();
    loop {
        tokio::select! {
            count = told.recv_many(&mut words, WORDS_MAX) => {
                if count == 0 {
                    return;
                }
                let publish = bus.publish(&channel, write(&words));
                if !matches!(timeout(PUBLISH_TIMEOUT, publish).await, Ok(Ok(()))) {
                    tracing::debug!("limiter: others were not told that refusals are void");
                }
                words.clear();
            }
            signal = next(&mut heard) => {
                let is_heard = match signal {
                    None => return,
                    Some(Signal::Message(message)) => read(message).into_iter().all(&hear),
                    Some(Signal::Ready | Signal::Lagged(_)) => hear(Word::AllRefusals),
                    Some(_) => true,
                };
                if !is_heard {
                    return;
                }
            }
        }
    }
}

async fn next<S: Stream<Item = Signal> + Unpin>(heard: &mut S) -> Option<Signal> {
    poll_fn(|cx| Pin::new(&mut *heard).poll_next(cx)).await
}

fn write(words: &[Word]) -> Bytes {
    let mut message = vec![FORM];
    for word in words {
        let (what, key) = match word {
            Word::Refusals(key) => (b'r', &key[..]),
            Word::Key(key) => (b'k', &key[..]),
            Word::AllRefusals => (b'a', &[][..]),
        };
        message.put_u8(what);
        message.put_u16(key.len() as u16);
        message.put_slice(key);
    }
    message.into()
}

/// Reads as much as it understands: others may speak a later form.
fn read(mut message: Bytes) -> Vec<Word> {
    let mut words = Vec::new();
    if message.is_empty() || message.get_u8() != FORM {
        return words;
    }
    while message.len() >= 3 {
        let (what, length) = (message.get_u8(), usize::from(message.get_u16()));
        if length > message.len() {
            break;
        }
        let key = message.split_to(length);
        match what {
            b'r' => words.push(Word::Refusals(key)),
            b'k' => words.push(Word::Key(key)),
            b'a' => words.push(Word::AllRefusals),
            _ => {}
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_are_read_as_they_were_written() {
        let key = |name: &'static [u8]| Bytes::from_static(name);
        let words = [Word::Refusals(key(b"a")), Word::AllRefusals, Word::Key(key(b"{b}:gcra"))];
        assert_eq!(read(write(&words)), words);
    }

    proptest! {
        #[test]
        fn any_message_is_read_without_a_panic(bytes: Vec<u8>) {
            let _ = read(bytes.clone().into());
            let _ = read([vec![FORM], bytes].concat().into());
        }
    }
}
