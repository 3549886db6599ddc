//! A fleet of processes on a real Redis, broken at random, and every read of it checked.
//!
//! 1. [`run`] starts Redis, a bad network for each node, and the nodes: processes that run
//!    [`node::run`], with what an application would use, and nothing else.
//! 2. The nodes read and write a cache at random. The database is outside Redis
//!    ([`origin`]): its versions say exactly which writes a value reflects. Each node writes
//!    its history down ([`record`]).
//! 3. [`faults`] come from a seed, until enough was read.
//! 4. The faults end, and all nodes must come back, write, and read the last versions.
//! 5. The [`check`] judges each read against all writes: C1, with it that a process reads its own
//!    writes, C2 and C3.
//!
//! The programs are `chaos`, which `cargo xtask chaos` builds and starts, and `chaos-node`, which it
//! starts. No process outlives a run, however it ends.

pub mod check;
mod clock;
pub mod faults;
mod fleet;
pub mod keys;
pub mod node;
pub mod origin;
pub mod record;
mod report;
mod run;
mod settings;
mod signs;

pub use fleet::RunError;
pub use report::{Recovery, Report};
pub use run::{Plan, run};
