//! A cache whose entries belong to sessions.
//!
//! A session is a name under which entries live and end together: a conversation, a visit, a job. It
//! stands on the two-tier cache, so all of its promises hold; what is added, in the order in which an
//! entry meets it:
//!
//! 1. **Place**: an entry's key is its session and its key in it ([`Place`]), so sessions cannot get
//!    into each other's way. It carries a tag of its session.
//! 2. **Short id**: the server gives the place an id of 8 digits ([`ShortId`]), in one atomic step,
//!    once. It is the start of a hash of the place; if another place has it, the id gets longer. It
//!    is the same on every instance, and stays when the entry is written again.
//! 3. **Reference**: an entry can show another one, of any session, as it is at that moment. What is
//!    invalidated there is not shown here.
//! 4. **L1**: 50 entries of each session stay in this process, those used last. The others are in the
//!    shared tier.
//! 5. **Changes**: any instance can watch a session ([`Session::changes`]). What is told is what the
//!    cache's log says, so it is in order, and what may be missing is told as a [`Gap`].
//! 6. **End**: one bump of the tag, and all entries are gone everywhere. Ids no longer resolve.
//!
//! How well a session is served is counted for each ([`Session::stats`]), in a table of the sessions
//! used last.
//!
//! # Examples
//! ```
//! use fleetwide_core_traits::Namespace;
//! use fleetwide_mem_backend::{Memory, MokaLocal};
//! use fleetwide_session_cache::SessionCache;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let memory = Memory::new();
//! let local = MokaLocal::builder().bytes_max(64 << 20).build();
//! let executor = memory.executor().clone();
//! let chats = SessionCache::<String, _>::builder(executor, &Namespace::new("chat")?, "nodes", local);
//! let chats = chats.alone(true).build()?;
//!
//! let session = chats.session("alice-7")?;
//! let stored = session.put("plan", "buy milk".to_owned()).await?;
//! let id = stored.id.expect("a server in memory always answers");
//! assert_eq!(**chats.resolve(&id).await?.found().expect("stored").value(), "buy milk");
//!
//! let other = chats.session("bob-2")?;
//! other.put_reference("from-alice", &id).await?;
//! assert!(other.get("from-alice").await.is_found());
//! session.end().await?;
//! assert!(!other.get("from-alice").await.is_found());
//! # Ok(()) }
//! ```

mod builder;
mod bulk;
mod cache;
mod changes;
mod directory;
mod error;
mod follow;
mod found;
mod id;
mod ops;
mod place;
mod record;
mod roster;
mod session;
mod telemetry;
mod tier;

pub use builder::SessionCacheBuilder;
pub use bulk::Warmed;
pub use cache::{SessionCache, Stored};
pub use changes::{Changed, Changes, Gap, SessionChange};
pub use directory::IdError;
pub use error::{ConfigError, ReferenceError, SessionError, SessionLoadError, ShortIdFailed};
pub use found::{Answer, Found};
pub use id::{ShortId, ShortIdError};
pub use place::{NameError, Place, SessionId};
pub use record::{Record, Target};
pub use roster::SessionStats;
pub use session::Session;
pub use telemetry::SessionsStats;
