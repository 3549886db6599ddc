//! Rate limits that hold for a whole fleet: GCRA and a sliding window, exact by the server's clock.
mod algorithm;
mod builder;
mod decision;
mod error;
mod fallback;
mod gcra;
mod limiter;
pub mod op;
mod policy;
mod quota;
mod telemetry;
mod window;

pub use algorithm::Algorithm;
pub use builder::LimiterBuilder;
pub use decision::{Decision, Source, Verdict};
pub use error::{CheckError, ConfigError, ResetError};
pub use fallback::Unavailable;
pub use fallback::gate::RungChange;
pub use gcra::GcraState;
pub use limiter::Limiter;
pub use policy::{PolicyName, PolicyNameError};
pub use quota::{GcraQuota, Quota, QuotaError, WindowQuota};
pub use window::WindowState;
