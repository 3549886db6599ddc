//! The reference service: every capability of Fleetwide behind HTTP.
//!
//! One binary, run alone or as a fleet, and the answer to 'how do I use this?': each route is a few
//! lines over the facade. What happens between the start and the end of a node:
//!
//! 1. [`Config`] parses the variables; a wrong one ends the start with its name.
//! 2. [`Node::start`] makes the fleet, in memory or over Redis, and opens the port. A Redis that is
//!    away is no reason to wait: the node starts degraded and joins by itself.
//! 3. A connection gets a place among a bounded number, and its request a deadline.
//! 4. The route parses what came in, asks one capability, and says what came of it. What goes wrong
//!    is a problem document (RFC 9457).
//! 5. [`Node::stop`] closes the port, lets requests finish for 10 s, ends event streams, and then
//!    the connections to Redis.
//!
//! The routes are listed in the README.
//!
//! # Examples
//! ```
//! use fleetwide_node::{Config, Node};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), fleetwide_node::StartError> {
//! let node = Node::start(Config::default()).await?; // in memory, on a free port
//! println!("listening on http://{}", node.address());
//! node.stop().await;
//! # Ok(()) }
//! ```

mod app;
mod config;
mod input;
mod node;
mod problem;
mod recorder;
mod routes;
mod server;
mod state;

pub use config::{Config, LogFormat};
pub use node::{Node, StartError};
