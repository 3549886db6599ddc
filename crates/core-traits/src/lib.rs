//! Traits, values, clock and errors that every Fleetwide crate speaks; no I/O, no runtime.
//!
//! Capabilities (cache, log, limiter) and backends (memory, Redis) know this crate and nothing else
//! of ours. What they say to each other, in the order in which one call meets it:
//!
//! 1. A capability names its state with a [`Key`], parsed once from untrusted input, under a
//!    [`Tag`] that keeps all keys of one step in one Redis Cluster slot.
//! 2. It describes one atomic step as an [`AtomicOp`]: a [`Script`] for a server and a pure
//!    [`apply`](AtomicOp::apply) for this process, which are twins.
//! 3. It hands the step to an [`Executor`]. In memory that runs `apply` under the key's lock; over
//!    Redis it sends the script and decodes the [`Wire`] reply.
//! 4. The answer is data. An outage is a [`BackendError`], which says whether the step may have
//!    been carried out. A mistake of the caller is an error when the parts are built.
//! 5. What other instances must hear travels on a [`Bus`], in the order of a [`log`].
//!
//! Both choices of a backend are free of boxes: generic code takes any `Executor`, and
//! [`Either`] picks one of two at run time.

mod bus;
mod clock;
mod codec;
mod either;
mod envelope;
mod epoch;
mod error;
mod fingerprint;
#[cfg(any(feature = "bincode", feature = "json", feature = "msgpack", feature = "postcard"))]
mod format;
mod health;
mod key;
mod local;
pub mod log;
mod membership;
mod op;
mod replicas;
mod script;
mod seal;
mod store;
mod ttl;
mod wire;

pub use bus::{Bus, Signal};
pub use clock::{Clock, MonoTime, ServerTime, SystemClock};
pub use codec::{Codec, CodecError, DEPTH_MAX, FormatId, Raw, VALUE_BYTES_MAX};
pub use either::{Either, EitherStream};
pub use envelope::{Envelope, EnvelopeError, EnvelopeHead};
pub use epoch::{Epoch, Epochs, Told};
pub use error::{BackendError, Malformed, Outage, Rejection, RejectionKind};
pub use fingerprint::fingerprint;
#[cfg(any(feature = "bincode", feature = "json", feature = "msgpack", feature = "postcard"))]
pub use format::{Format, Serde};
pub use health::Health;
pub use key::{Channel, Key, KeyError, Namespace, NamespaceError, Tag};
pub use local::Local;
pub use membership::Membership;
pub use op::{
    ApplyError, AtomicOp, Cells, Effects, ErasedOp, Executor, ExecutorExt, Message, Write,
};
pub use replicas::{Replicas, Replicated};
pub use script::{Script, ScriptClock};
pub use seal::{Seal, SealError};
pub use store::Store;
pub use ttl::{Ttl, TtlError};
pub use wire::{ArgSink, Wire};
