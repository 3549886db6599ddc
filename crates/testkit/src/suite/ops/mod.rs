//! Small ops with real scripts, on which executors are judged.
//!
//! Each does one thing that the ops of capabilities do too: [`Count`] refuses, [`Transfer`] touches
//! two cells, [`Claim`] keeps a deadline in its state, [`Say`] publishes, [`Read`] is a native
//! command, [`Record`] appends to a log, [`Now`] tells the time, and [`Jot`] has a state of another
//! type than the rest.

mod claim;
mod count;
mod jot;
mod record;
mod say;
mod transfer;

pub use claim::{Claim, Claimed, Now};
pub use count::{Count, Counted, Read};
pub use jot::Jot;
pub use record::Record;
pub use say::Say;
pub use transfer::Transfer;
