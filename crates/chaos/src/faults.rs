//! What is done to the fleet.

use std::time::Duration;

use rand::Rng;

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// SIGKILL of a node, which is started again.
    NodeKill,
    /// SIGSTOP of a node, up to several leases and staleness bounds long.
    NodeFreeze,
    /// SIGSTOP of Redis.
    ServerFreeze,
    /// `CLIENT KILL TYPE pubsub`.
    KillPubsub,
    /// `CLIENT KILL TYPE normal`.
    KillNormal,
    /// `SCRIPT FLUSH`.
    ScriptFlush,
    /// A slow way from one node to Redis and back.
    Delay,
    /// All that one node sends is lost.
    LoseRequests,
    /// All that Redis answers one node is lost.
    LoseAnswers,
    /// Both, and no side sees that the connection is gone.
    HalfOpen,
    /// Nothing arrives for a while, and then all of it.
    Stall,
    /// A thin line.
    Throttle,
    /// The connections of one node are reset.
    Cut,
    /// They are reset, and new ones are refused.
    Refuse,
    /// Redis is killed, and started again with all its data.
    Restart,
    /// Redis is killed, and started again with nothing.
    RestartEmpty,
    /// Redis is killed, and started again with older data.
    Rewind,
    /// `FLUSHALL`.
    FlushAll,
    /// Redis is away for 25 s.
    Outage,
}

impl Fault {
    /// All kinds that come at random; the outage comes once, at its time.
    pub const RANDOM: [Self; 18] = [
        Self::NodeKill,
        Self::NodeFreeze,
        Self::ServerFreeze,
        Self::KillPubsub,
        Self::KillNormal,
        Self::ScriptFlush,
        Self::Delay,
        Self::LoseRequests,
        Self::LoseAnswers,
        Self::HalfOpen,
        Self::Stall,
        Self::Throttle,
        Self::Cut,
        Self::Refuse,
        Self::Restart,
        Self::RestartEmpty,
        Self::Rewind,
        Self::FlushAll,
    ];

    /// The random kind of this word, as `node-kill`.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::RANDOM.into_iter().find(|fault| fault.word() == word)
    }

    /// What it is called on a command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::NodeKill => "node-kill",
            Self::NodeFreeze => "node-freeze",
            Self::ServerFreeze => "server-freeze",
            Self::KillPubsub => "kill-pubsub",
            Self::KillNormal => "kill-normal",
            Self::ScriptFlush => "script-flush",
            Self::Delay => "delay",
            Self::LoseRequests => "lose-requests",
            Self::LoseAnswers => "lose-answers",
            Self::HalfOpen => "half-open",
            Self::Stall => "stall",
            Self::Throttle => "throttle",
            Self::Cut => "cut",
            Self::Refuse => "refuse",
            Self::Restart => "restart",
            Self::RestartEmpty => "restart-empty",
            Self::Rewind => "rewind",
            Self::FlushAll => "flush-all",
            Self::Outage => "outage",
        }
    }

    /// What it is called where people read it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NodeKill => "node killed (SIGKILL)",
            Self::NodeFreeze => "node frozen (SIGSTOP)",
            Self::ServerFreeze => "Redis frozen (SIGSTOP)",
            Self::KillPubsub => "CLIENT KILL TYPE pubsub",
            Self::KillNormal => "CLIENT KILL TYPE normal",
            Self::ScriptFlush => "SCRIPT FLUSH",
            Self::Delay => "network: delay",
            Self::LoseRequests => "network: requests lost",
            Self::LoseAnswers => "network: answers lost",
            Self::HalfOpen => "network: half open",
            Self::Stall => "network: stalled, then delivered",
            Self::Throttle => "network: throttled",
            Self::Cut => "network: connections reset",
            Self::Refuse => "network: connections refused",
            Self::Restart => "Redis restarted, data kept",
            Self::RestartEmpty => "Redis restarted, data lost",
            Self::Rewind => "Redis restarted from older data",
            Self::FlushAll => "FLUSHALL",
            Self::Outage => "Redis away for 25 s",
        }
    }

    /// Whether it hits one node and leaves the others alone.
    pub const fn is_of_one_node(self) -> bool {
        matches!(
            self,
            Self::NodeKill
                | Self::NodeFreeze
                | Self::Delay
                | Self::LoseRequests
                | Self::LoseAnswers
                | Self::HalfOpen
                | Self::Stall
                | Self::Throttle
                | Self::Cut
                | Self::Refuse
        )
    }

    /// How long it lasts, before `scale`.
    pub fn lasts(self, rng: &mut impl Rng, scale: f64) -> Duration {
        let (least, most) = match self {
            Self::NodeFreeze => (100, 7000),
            Self::NodeKill | Self::Restart | Self::RestartEmpty | Self::Rewind => (0, 2000),
            Self::ServerFreeze => (50, 3500),
            Self::Delay | Self::Throttle => (500, 4000),
            Self::LoseRequests | Self::LoseAnswers | Self::HalfOpen => (200, 8000),
            Self::Stall => (200, 5000),
            Self::Refuse => (200, 4000),
            Self::Outage => return Duration::from_secs(25),
            Self::KillPubsub
            | Self::KillNormal
            | Self::ScriptFlush
            | Self::Cut
            | Self::FlushAll => return Duration::ZERO,
        };
        Duration::from_millis(rng.random_range(least..=most)).mul_f64(scale)
    }
}

/// A fault, and when it was there.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// What.
    pub fault: Fault,
    /// Whom it hit; `None` = everybody.
    pub node: Option<u32>,
    /// When it began, µs since boot.
    pub from: u64,
    /// When it was over.
    pub to: u64,
}

/// How long after its end a fault is still felt: connections come back with back-off, and what
/// waited for them needs its time, µs.
const AFTER_US: u64 = 3_000_000;

impl Window {
    /// Whether the fault, or what follows it, is there at some time between these.
    pub fn is_open_between(&self, from: u64, to: u64) -> bool {
        self.from <= to && from <= self.to + AFTER_US
    }
}
