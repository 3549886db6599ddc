//! Which history of the data a connection belongs to.
//!
//! Each new connection asks its server for two names: that of its process, and that of the
//! replication history which it writes. The first is new after every restart and on every other
//! server, the second after every promotion. A connection leads to one process for as long as it
//! lives, so what was asked on it holds for all its replies; where the process has begun another
//! history meanwhile, its replies count as those of the one before, until the next question.
//!
//! A server that does not say who it is counts as another one on each connection.

use std::sync::atomic::{AtomicU64, Ordering};

use fleetwide_core_traits::{Epoch, Epochs};
use futures_util::stream;
use parking_lot::Mutex;
use redis::{Cmd, Value};
use tokio::sync::watch;

use crate::info::field;

/// Numbers the histories that the connections of one handle meet.
pub(crate) struct Histories {
    latest: AtomicU64,
    /// Whose number the latest is.
    named: Mutex<Option<History>>,
    told: watch::Sender<Epoch>,
}

/// A server as it is between two promotions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct History {
    process: String,
    replication: String,
}

impl Histories {
    pub(crate) fn new() -> Self {
        let told = watch::Sender::new(Epoch::default());
        Self { latest: AtomicU64::new(0), named: Mutex::new(None), told }
    }

    /// The number of `history`, which a connection has just met: the latest if it is that one, else
    /// the next. One that comes back gets another number.
    pub(crate) fn number(&self, history: Option<History>) -> Epoch {
        let mut named = self.named.lock();
        if history.is_some() && *named == history {
            return self.latest();
        }
        *named = history;
        Epoch::new(self.latest.fetch_add(1, Ordering::AcqRel) + 1)
    }

    /// Tells who waits for it that the latest history can be asked now.
    pub(crate) fn announce(&self) {
        let latest = self.latest();
        self.told.send_if_modified(|told| {
            let is_news = *told < latest;
            *told = latest.max(*told);
            is_news
        });
    }

    pub(crate) fn latest(&self) -> Epoch {
        Epoch::new(self.latest.load(Ordering::Acquire))
    }

    pub(crate) fn watch(&self) -> Epochs {
        Epochs::new(stream::unfold(self.told.subscribe(), |mut told| async move {
            told.changed().await.ok()?;
            let epoch = *told.borrow_and_update();
            Some((epoch, told))
        }))
    }
}

impl History {
    /// What asks for it. Servers before 7.0 answer one section at a time.
    pub(crate) fn questions() -> [Cmd; 2] {
        ["server", "replication"].map(|section| {
            let mut info = redis::cmd("INFO");
            info.arg(section);
            info
        })
    }

    /// Reads the two answers; `None` if the server does not tell this user.
    pub(crate) fn read(answers: &[Value]) -> Option<Self> {
        let [server, replication] = answers else { return None };
        Some(Self {
            process: named(server, "run_id")?,
            replication: named(replication, "master_replid")?,
        })
    }
}

fn named(answer: &Value, name: &str) -> Option<String> {
    let text = match answer {
        Value::BulkString(text) => &text[..],
        Value::VerbatimString { text, .. } => text.as_bytes(),
        _ => return None,
    };
    Some(field(text, name)?.trim_end().to_owned()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(process: &str, replication: &str) -> Option<History> {
        let text = |name: &str, value: &str| {
            Value::BulkString(format!("# Section\r\n{name}:{value}\r\nother:1\r\n").into())
        };
        History::read(&[text("run_id", process), text("master_replid", replication)])
    }

    // Seen red: with the process alone, and with the replication history alone.
    #[test]
    fn restart_promotion_and_another_server_are_other_histories_and_a_reconnect_is_not() {
        let histories = Histories::new();
        let number = |process, replication| histories.number(history(process, replication));
        let first = number("a", "x");
        assert!(first > Epoch::default());
        assert_eq!(number("a", "x"), first, "another connection to the same");
        let restarted = number("b", "x");
        let promoted = number("b", "y");
        assert!(first < restarted && restarted < promoted);
        assert!(number("a", "x") > promoted, "what comes back may lack what was written meanwhile");
        assert_eq!(histories.latest(), number("a", "x"));
    }

    #[test]
    fn server_that_does_not_say_who_it_is_is_another_one_each_time() {
        let histories = Histories::new();
        let refused = [Value::Nil, Value::Nil];
        assert_eq!(History::read(&refused), None);
        assert_eq!(history("", "x"), None);
        assert!(histories.number(None) < histories.number(None));
    }
}
