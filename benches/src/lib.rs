//! What the benches share: pairing in time, and the caches they compare.
//!
//! Each bench answers one question with ratios to its *floor*, the least that could do the same
//! work:
//!
//! 1. It puts the floor, ours and the peers together in one process, over the same data
//!    ([`User`]) and, where one is needed, one [`Server`].
//! 2. [`Contest`] runs a side and the floor in turns, floor, side, side, floor, so that a machine
//!    that slows down slows both. Each round gives one ratio.
//! 3. [`Answer`] writes the median and the spread of the rounds as the JSON of which
//!    `cargo xtask bench` makes `docs/benchmarks.md`.
//!
//! A time is never a result: it says more about the machine than about the code.

mod answer;
mod bare_script;
pub mod cold;
mod contest;
pub mod counted;
mod crowd;
pub mod fleet;
mod node;
mod origin;
pub mod peers;
pub mod prose;
mod record;
mod server;
pub mod trace;
pub mod traffic;
pub mod warm;

pub use answer::{Answer, Row};
pub use bare_script::BareScript;
pub use contest::{Contest, Effort, Measure, Side, Spread};
pub use crowd::{Turns, Work, on_tasks, on_threads, runtime, work};
pub use node::{Node, NodeOptions};
pub use origin::Origin;
pub use record::{User, keys};
pub use server::Server;
